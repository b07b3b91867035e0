//! `bosun.v1.System`.

use std::sync::Arc;

use bosun_proto::v1;
use bosun_proto::v1::system_server::System;
use tonic::{Request, Response, Status};

use super::{convert, disk};
use crate::container::{Phase, Supervisor, machine_memory};
use crate::time::Time;

/// What the daemon knows of itself and can't find out later.
#[derive(Clone, Debug)]
pub struct About {
    pub started_at: Time,
    /// What the user should know and mend.
    pub warnings: Vec<String>,
}

/// The service over the core.
#[derive(Debug)]
pub(super) struct Service {
    supervisor: Arc<Supervisor>,
    about: About,
}

impl Service {
    pub(super) fn new(supervisor: Arc<Supervisor>, about: About) -> Self {
        Self { supervisor, about }
    }
}

#[tonic::async_trait]
impl System for Service {
    async fn version(
        &self,
        _: Request<v1::VersionRequest>,
    ) -> Result<Response<v1::VersionResponse>, Status> {
        Ok(Response::new(v1::VersionResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            api_version: "1".to_owned(),
            revision: option_env!("BOSUN_REVISION").unwrap_or_default().to_owned(),
            os: std::env::consts::OS.to_owned(),
            arch: std::env::consts::ARCH.to_owned(),
            kernel: kernel(),
        }))
    }

    async fn info(
        &self,
        _: Request<v1::InfoRequest>,
    ) -> Result<Response<v1::InfoResponse>, Status> {
        let core = self.supervisor.core();
        let containers = self.supervisor.all();
        let count = |wanted: fn(&Phase) -> bool| {
            let number = containers.iter().filter(|one| wanted(&one.view().phase)).count();
            u32::try_from(number).unwrap_or(u32::MAX)
        };
        let (namespaces, snapshots) =
            core.store.read(|tx| tx.counts()).await.map_err(crate::Error::from)?;
        let last_event =
            core.store.read(|tx| tx.newest_event()).await.map_err(crate::Error::from)?;
        Ok(Response::new(v1::InfoResponse {
            pid: std::process::id(),
            started_at: Some(convert::time(self.about.started_at)),
            root: core.config.root.display().to_string(),
            state: core.config.state.display().to_string(),
            address: format!("unix://{}", core.config.address.display()),
            shim: core.config.shim.display().to_string(),
            snapshotter: "overlayfs".to_owned(),
            cgroup_version: cgroup_version(&core.cgroups).to_owned(),
            cgroup_prefix: core.config.cgroup_prefix.clone(),
            bridge: core.config.bridge.clone(),
            subnet: core.config.subnet.to_string(),
            containers: count(|_| true),
            running: count(|phase| matches!(phase, Phase::Running(_))),
            paused: count(|phase| matches!(phase, Phase::Paused(_))),
            exited: count(|phase| matches!(phase, Phase::Exited(_))),
            snapshots,
            namespaces,
            kernel: kernel(),
            operating_system: operating_system(),
            cpus: std::thread::available_parallelism()
                .map_or(0, |cpus| u32::try_from(cpus.get()).unwrap_or(u32::MAX)),
            memory_total: machine_memory(),
            hostname: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            warnings: self.about.warnings.clone(),
            last_event,
        }))
    }

    async fn disk_usage(
        &self,
        call: Request<v1::DiskUsageRequest>,
    ) -> Result<Response<v1::DiskUsageResponse>, Status> {
        let namespace = convert::namespace(call.metadata())?;
        let usage = disk::usage(&self.supervisor, &namespace).await?;
        Ok(Response::new(usage))
    }

    async fn prune(
        &self,
        call: Request<v1::PruneSystemRequest>,
    ) -> Result<Response<v1::PruneReport>, Status> {
        let namespace = convert::namespace(call.metadata())?;
        let message = call.get_ref();
        let report =
            disk::prune(&self.supervisor, &namespace, message.all, message.dry_run).await?;
        Ok(Response::new(report))
    }
}

fn kernel() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

fn cgroup_version(layout: &shim_cgroup::Layout) -> &'static str {
    if layout.is_v2() {
        "2"
    } else if layout.unified().is_some() {
        "hybrid"
    } else {
        "1"
    }
}

/// `PRETTY_NAME` of os-release(5).
fn operating_system() -> String {
    std::fs::read_to_string("/etc/os-release")
        .ok()
        .and_then(|text| {
            let line = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
            Some(line.trim_matches('"').to_owned())
        })
        .unwrap_or_else(|| "Linux".to_owned())
}
