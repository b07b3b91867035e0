//! `bosun.v1.Sandboxes`.

use std::sync::Arc;
use std::time::Duration;

use bosun_proto::v1;
use bosun_proto::v1::sandboxes_server::Sandboxes;
use tonic::{Request, Response, Status};

use super::convert;
use crate::container::{Handle, Supervisor};

/// The service over the core.
#[derive(Debug)]
pub(super) struct Service {
    supervisor: Arc<Supervisor>,
}

impl Service {
    pub(super) fn new(supervisor: Arc<Supervisor>) -> Self {
        Self { supervisor }
    }

    fn message(&self, sandbox: &Handle) -> v1::Sandbox {
        let members = self.supervisor.members(sandbox);
        convert::sandbox(self.supervisor.core(), sandbox, &members)
    }
}

#[tonic::async_trait]
impl Sandboxes for Service {
    async fn create(
        &self,
        call: Request<v1::CreateSandboxRequest>,
    ) -> Result<Response<v1::CreateResponse>, Status> {
        let message = call.get_ref();
        let request =
            convert::request(call.metadata(), "CreateSandbox", &message.request_id, message)?;
        let options = convert::sandbox_options(call.into_inner().options.unwrap_or_default())?;
        let namespace = request.namespace.clone();
        let created = self.supervisor.run_sandbox(request, options).await?;
        let warnings = self.supervisor.warnings(&namespace, &created.id);
        Ok(Response::new(v1::CreateResponse { id: created.id, warnings }))
    }

    async fn start(
        &self,
        call: Request<v1::SandboxRequest>,
    ) -> Result<Response<v1::StartSandboxResponse>, Status> {
        let message = call.get_ref();
        let request =
            convert::request(call.metadata(), "StartSandbox", &message.request_id, message)?;
        let start = async {
            let sandbox = self.supervisor.sandbox(&request.namespace, &message.sandbox)?;
            let id = sandbox.key().id.as_str();
            self.supervisor.start(&request.namespace, id, None).await?;
            Ok(String::new())
        };
        self.supervisor.once(&request, start).await?;
        Ok(Response::new(v1::StartSandboxResponse {}))
    }

    async fn stop(
        &self,
        call: Request<v1::StopSandboxRequest>,
    ) -> Result<Response<v1::StopSandboxResponse>, Status> {
        let message = call.get_ref();
        let request =
            convert::request(call.metadata(), "StopSandbox", &message.request_id, message)?;
        let timeout = message.timeout_seconds.map(|seconds| Duration::from_secs(seconds.into()));
        let stop = async {
            let namespace = &request.namespace;
            self.supervisor.stop_sandbox(namespace, &message.sandbox, timeout).await?;
            Ok(String::new())
        };
        self.supervisor.once(&request, stop).await?;
        Ok(Response::new(v1::StopSandboxResponse {}))
    }

    async fn remove(
        &self,
        call: Request<v1::RemoveSandboxRequest>,
    ) -> Result<Response<v1::RemoveResponse>, Status> {
        let message = call.get_ref();
        let request =
            convert::request(call.metadata(), "RemoveSandbox", &message.request_id, message)?;
        let namespace = &request.namespace;
        let remove = self.supervisor.remove_sandbox(namespace, &message.sandbox, message.force);
        let id = self.supervisor.once(&request, remove).await?;
        Ok(Response::new(v1::RemoveResponse { id }))
    }

    async fn get(
        &self,
        call: Request<v1::GetSandboxRequest>,
    ) -> Result<Response<v1::Sandbox>, Status> {
        let namespace = convert::namespace(call.metadata())?;
        let sandbox = self.supervisor.sandbox(&namespace, &call.get_ref().sandbox)?;
        Ok(Response::new(self.message(&sandbox)))
    }

    async fn list(
        &self,
        call: Request<v1::ListSandboxesRequest>,
    ) -> Result<Response<v1::ListSandboxesResponse>, Status> {
        let namespace = convert::namespace(call.metadata())?;
        let sandboxes = self.supervisor.sandboxes(&namespace);
        let sandboxes = sandboxes.iter().map(|sandbox| self.message(sandbox)).collect();
        Ok(Response::new(v1::ListSandboxesResponse { sandboxes }))
    }
}
