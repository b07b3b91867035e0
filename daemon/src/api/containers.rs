//! `bosun.v1.Containers`.

use std::sync::Arc;
use std::time::Duration;

use bosun_proto::v1;
use bosun_proto::v1::containers_server::Containers;
use shim_wire::id::Id;
use tonic::{Request, Response, Status};

use super::convert;
use super::filter::ContainerFilter;
use crate::checkpoint::{CheckpointRequest, What};
use crate::container::{Created, Supervisor};
use crate::error::Error;
use crate::spec::{Restore, Signal};

/// The service over the core.
#[derive(Debug)]
pub(super) struct Service {
    supervisor: Arc<Supervisor>,
}

impl Service {
    pub(super) fn new(supervisor: Arc<Supervisor>) -> Self {
        Self { supervisor }
    }

    fn created(&self, namespace: &Id, created: Created) -> Response<v1::CreateResponse> {
        let warnings = self.supervisor.warnings(namespace, &created.id);
        Response::new(v1::CreateResponse { id: created.id, warnings })
    }
}

#[tonic::async_trait]
impl Containers for Service {
    async fn create(
        &self,
        call: Request<v1::CreateRequest>,
    ) -> Result<Response<v1::CreateResponse>, Status> {
        let message = call.get_ref();
        let request = convert::request(call.metadata(), "Create", &message.request_id, message)?;
        let options = convert::options(call.into_inner().options.unwrap_or_default())?;
        let namespace = request.namespace.clone();
        Ok(self.created(&namespace, self.supervisor.create(request, options).await?))
    }

    async fn run(
        &self,
        call: Request<v1::CreateRequest>,
    ) -> Result<Response<v1::CreateResponse>, Status> {
        let message = call.get_ref();
        let request = convert::request(call.metadata(), "Run", &message.request_id, message)?;
        let options = convert::options(call.into_inner().options.unwrap_or_default())?;
        let namespace = request.namespace.clone();
        Ok(self.created(&namespace, self.supervisor.run(request, options).await?))
    }

    async fn start(
        &self,
        call: Request<v1::StartRequest>,
    ) -> Result<Response<v1::StartResponse>, Status> {
        let message = call.get_ref();
        let request = convert::request(call.metadata(), "Start", &message.request_id, message)?;
        let start = async {
            let started =
                self.supervisor.start(&request.namespace, &message.container, None).await?;
            Ok(started.1.to_string())
        };
        let pid = self.supervisor.once(&request, start).await?;
        Ok(Response::new(v1::StartResponse { pid: pid.parse().unwrap_or(0) }))
    }

    async fn stop(
        &self,
        call: Request<v1::StopRequest>,
    ) -> Result<Response<v1::StopResponse>, Status> {
        let message = call.get_ref();
        let request = convert::request(call.metadata(), "Stop", &message.request_id, message)?;
        let timeout = message.timeout_seconds.map(|seconds| Duration::from_secs(seconds.into()));
        let stop = async {
            self.supervisor.stop(&request.namespace, &message.container, timeout).await?;
            Ok(String::new())
        };
        self.supervisor.once(&request, stop).await?;
        Ok(Response::new(v1::StopResponse {}))
    }

    async fn restart(
        &self,
        call: Request<v1::StopRequest>,
    ) -> Result<Response<v1::StartResponse>, Status> {
        let message = call.get_ref();
        let request = convert::request(call.metadata(), "Restart", &message.request_id, message)?;
        let timeout = message.timeout_seconds.map(|seconds| Duration::from_secs(seconds.into()));
        let restart = async {
            let handle =
                self.supervisor.stop(&request.namespace, &message.container, timeout).await?;
            let id = handle.key().id.to_string();
            let started = self.supervisor.start(&request.namespace, &id, None).await?;
            self.supervisor.note_restart(&handle);
            Ok(started.1.to_string())
        };
        let pid = self.supervisor.once(&request, restart).await?;
        Ok(Response::new(v1::StartResponse { pid: pid.parse().unwrap_or(0) }))
    }

    async fn kill(
        &self,
        call: Request<v1::KillRequest>,
    ) -> Result<Response<v1::KillResponse>, Status> {
        let message = call.get_ref();
        let request = convert::request(call.metadata(), "Kill", &message.request_id, message)?;
        let signal = convert::signal(&message.signal, Signal::KILL)?;
        let kill = async {
            self.supervisor.kill(&request.namespace, &message.container, signal).await?;
            Ok(String::new())
        };
        self.supervisor.once(&request, kill).await?;
        Ok(Response::new(v1::KillResponse {}))
    }

    async fn pause(
        &self,
        call: Request<v1::PauseRequest>,
    ) -> Result<Response<v1::PauseResponse>, Status> {
        let message = call.get_ref();
        let request = convert::request(call.metadata(), "Pause", &message.request_id, message)?;
        let pause = async {
            self.supervisor.pause(&request.namespace, &message.container).await?;
            Ok(String::new())
        };
        self.supervisor.once(&request, pause).await?;
        Ok(Response::new(v1::PauseResponse {}))
    }

    async fn checkpoint(
        &self,
        call: Request<v1::CheckpointRequest>,
    ) -> Result<Response<v1::CheckpointResponse>, Status> {
        let message = call.get_ref();
        let request =
            convert::request(call.metadata(), "Checkpoint", &message.request_id, message)?;
        let asked = CheckpointRequest {
            location: message.location.clone().into(),
            leave_running: message.leave_running,
            what: What {
                tcp_established: message.tcp_established,
                file_locks: message.file_locks,
                without_files: message.without_files,
            },
            timeout: None,
        };
        let checkpoint = async {
            self.supervisor.checkpoint(&request.namespace, &message.container, asked).await?;
            Ok(String::new())
        };
        self.supervisor.once(&request, checkpoint).await?;
        Ok(Response::new(v1::CheckpointResponse {}))
    }

    async fn restore(
        &self,
        call: Request<v1::RestoreRequest>,
    ) -> Result<Response<v1::CreateResponse>, Status> {
        let message = call.get_ref();
        let request = convert::request(call.metadata(), "Restore", &message.request_id, message)?;
        let namespace = request.namespace.clone();
        let how = Restore {
            archive: message.location.clone().into(),
            tcp_established: message.tcp_established,
            file_locks: message.file_locks,
        };
        let created = self.supervisor.restore(request, message.name.clone(), how).await?;
        let warnings = self.supervisor.warnings(&namespace, &created.id);
        Ok(Response::new(v1::CreateResponse { id: created.id, warnings }))
    }

    async fn unpause(
        &self,
        call: Request<v1::UnpauseRequest>,
    ) -> Result<Response<v1::UnpauseResponse>, Status> {
        let message = call.get_ref();
        let request = convert::request(call.metadata(), "Unpause", &message.request_id, message)?;
        let unpause = async {
            self.supervisor.unpause(&request.namespace, &message.container).await?;
            Ok(String::new())
        };
        self.supervisor.once(&request, unpause).await?;
        Ok(Response::new(v1::UnpauseResponse {}))
    }

    async fn update(
        &self,
        call: Request<v1::UpdateRequest>,
    ) -> Result<Response<v1::UpdateResponse>, Status> {
        let message = call.get_ref();
        let request = convert::request(call.metadata(), "Update", &message.request_id, message)?;
        let limits = convert::limits(message.limits.clone().unwrap_or_default())?;
        let update = async {
            self.supervisor.update(&request.namespace, &message.container, limits).await?;
            Ok(String::new())
        };
        self.supervisor.once(&request, update).await?;
        Ok(Response::new(v1::UpdateResponse {}))
    }

    async fn stats(
        &self,
        call: Request<v1::StatsRequest>,
    ) -> Result<Response<v1::StatsResponse>, Status> {
        let namespace = convert::namespace(call.metadata())?;
        let usage = self.supervisor.usage(&namespace, &call.get_ref().container).await?;
        Ok(Response::new(convert::usage(self.supervisor.core(), &usage)))
    }

    async fn top(
        &self,
        call: Request<v1::TopRequest>,
    ) -> Result<Response<v1::TopResponse>, Status> {
        let namespace = convert::namespace(call.metadata())?;
        let v1::TopRequest { container, ps_options } = call.get_ref();
        let found = self.supervisor.processes(&namespace, container, ps_options).await?;
        let processes = found.rows.into_iter().map(|values| v1::TopProcess { values }).collect();
        Ok(Response::new(v1::TopResponse { titles: found.titles, processes }))
    }

    async fn remove(
        &self,
        call: Request<v1::RemoveRequest>,
    ) -> Result<Response<v1::RemoveResponse>, Status> {
        let message = call.get_ref();
        let request = convert::request(call.metadata(), "Remove", &message.request_id, message)?;
        let remove = async {
            self.supervisor.remove(&request.namespace, &message.container, message.force).await
        };
        let id = self.supervisor.once(&request, remove).await?;
        Ok(Response::new(v1::RemoveResponse { id }))
    }

    async fn wait(
        &self,
        call: Request<v1::WaitRequest>,
    ) -> Result<Response<v1::WaitResponse>, Status> {
        let namespace = convert::namespace(call.metadata())?;
        let reference = call.into_inner().container;
        let exit = self.supervisor.wait(&namespace, &reference).await?;
        let exit = exit.ok_or(Error::NotRunning { id: reference })?;
        Ok(Response::new(v1::WaitResponse { exit: Some(convert::exit(&exit)) }))
    }

    async fn get(&self, call: Request<v1::GetRequest>) -> Result<Response<v1::Container>, Status> {
        let namespace = convert::namespace(call.metadata())?;
        let handle = self.supervisor.find(&namespace, &call.get_ref().container)?;
        Ok(Response::new(convert::container(self.supervisor.core(), &handle)))
    }

    async fn list(
        &self,
        call: Request<v1::ListRequest>,
    ) -> Result<Response<v1::ListResponse>, Status> {
        let namespace = convert::namespace(call.metadata())?;
        let message = call.get_ref();
        let filter = ContainerFilter::parse(&message.filters, message.all)?;
        let containers: Vec<v1::Container> = self
            .supervisor
            .list(&namespace)
            .iter()
            .map(|handle| convert::container(self.supervisor.core(), handle))
            .collect();
        Ok(Response::new(v1::ListResponse { containers: filter.apply(containers) }))
    }
}
