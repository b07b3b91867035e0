//! Containers: what the calls about them mean. Stop and Remove of what is done, or was never there,
//! are done.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{Cri, convert, invalid, kept, propagation, wire};
use crate::checkpoint::restore::Taken;
use crate::checkpoint::{CheckpointRequest, What};
use crate::container::{Handle, Record, Run};
use crate::directories;
use crate::error::{Error, Result};
use crate::spec::{ContainerOptions, LogOptions, Restore};

impl Cri {
    /// Makes a container. One that is asked for again word for word, because the answer was lost, is
    /// the same.
    pub(super) async fn create_container(
        self: &Arc<Self>,
        request: wire::CreateContainerRequest,
    ) -> Result<wire::CreateContainerResponse> {
        let image = request.config.as_ref().and_then(|config| config.image.as_ref());
        let archive = image.map(|image| image.image.as_str()).filter(|image| is_archive(image));
        let Some(archive) = archive.map(PathBuf::from) else {
            return self.make_container(request, None).await;
        };
        self.ready_pod(&request.pod_sandbox_id).await?;
        let taken = Taken::read(self.core(), &archive).await?;
        self.make_container(request, Some((taken, super::checkpoint::ALL))).await
    }

    /// As [`create_container`](Self::create_container); with a checkpoint, of one that goes on from there.
    pub(super) async fn make_container(
        self: &Arc<Self>,
        request: wire::CreateContainerRequest,
        from: Option<(Taken, What)>,
    ) -> Result<wire::CreateContainerResponse> {
        let (pod, record) = self.ready_pod(&request.pod_sandbox_id).await?;
        let mut options = convert::container_options(&request, &record, &self.core().machine)?;
        let taken = match from {
            None => None,
            Some((taken, what)) => {
                if options.image.as_deref().is_some_and(is_archive) {
                    options.image = Some(taken.image()?);
                }
                options.restore = Some(Restore {
                    archive: taken.archive().to_owned(),
                    tcp_established: what.tcp_established,
                    file_locks: what.file_locks,
                });
                Some(taken)
            }
        };
        if let Some(config) = &request.config {
            self.check_mounts(&options.runtime, config).await?;
        }
        make_directories(&options)?;
        propagation::check(&options.mounts)?;
        let (name, kept) = (options.name.clone(), options.extensions.clone());
        // Who asks for the same while it is being made waits for it.
        let _turn = self.makings.wait(name.clone()).await;
        let id = match self.make(&pod, options, taken).await {
            Ok(id) => id,
            Err(Error::NameInUse { name: in_use, holder }) => {
                let found = self.supervisor.find(&self.namespace, &name).ok();
                let again = found.filter(|handle| {
                    handle.record().is_ok_and(|record| {
                        let is_new = matches!(record.run, Run::Created { error: None, .. });
                        is_new && record.options.extensions == kept
                    })
                });
                let handle = again.ok_or(Error::NameInUse { name: in_use, holder })?;
                handle.key().id.to_string()
            }
            Err(error) => return Err(error),
        };
        self.look_up(&id);
        Ok(wire::CreateContainerResponse { container_id: id })
    }

    /// Makes a container as its plugins want it, to its end, whoever waits for it.
    async fn make(
        self: &Arc<Self>,
        pod: &Handle,
        options: ContainerOptions,
        taken: Option<Taken>,
    ) -> Result<String> {
        let Some(asking) = self.adjuster(pod) else {
            let made = match taken {
                None => self.supervisor.create(self.alone(), options).await?,
                Some(taken) => {
                    self.supervisor.create_restored(self.alone(), options, taken, None).await?
                }
            };
            return Ok(made.id);
        };
        let this = Arc::clone(self);
        let task = tokio::spawn(async move {
            let adjuster = Arc::clone(&asking);
            let made = match taken {
                None => this.supervisor.create_with(this.alone(), options, adjuster).await,
                Some(taken) => {
                    let (request, adjuster) = (this.alone(), Some(adjuster as _));
                    this.supervisor.create_restored(request, options, taken, adjuster).await
                }
            };
            let handle = made.as_ref().ok().and_then(|made| this.container(&made.id).ok());
            this.tell_creation(&asking, handle.as_ref()).await;
            made
        });
        Ok(task.await.unwrap_or(Err(Error::Stopping))?.id)
    }

    /// Starts one that was never started.
    pub(super) async fn start_container(self: &Arc<Self>, id: &str) -> Result<()> {
        let container = self.container(id)?;
        let record = container.record()?;
        match record.run {
            Run::Created { attempts: 0, .. } => {}
            Run::Created { .. } | Run::Intent { .. } | Run::Ended { .. } => {
                let problem = "it was started before: make another container".to_owned();
                return Err(Error::Started { id: container.label(), problem });
            }
        }
        let this = Arc::clone(self);
        let task = tokio::spawn(async move {
            let settling = this.ask_of_start(&container).await?;
            let id = container.key().id.as_str();
            let started = this.supervisor.start(&this.namespace, id, None).await.map(drop);
            drop(settling);
            match started {
                Ok(()) => this.tell_start(&container).await,
                Err(_) => this.tell_end(&container).await,
            }
            started
        });
        task.await.unwrap_or(Err(Error::Stopping))
    }

    /// `timeout` is in seconds; what is below 0 is 0.
    pub(super) async fn stop_container(&self, id: &str, timeout: i64) -> Result<()> {
        let Some(container) = self.container_if_any(id)? else { return Ok(()) };
        let timeout = Duration::from_secs(u64::try_from(timeout).unwrap_or(0));
        let id = container.key().id.as_str();
        match self.supervisor.stop(&self.namespace, id, Some(timeout)).await {
            Ok(_) => {
                self.tell_end(&container).await;
                Ok(())
            }
            Err(Error::NoSuchContainer { .. } | Error::Removing { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn remove_container(&self, id: &str) -> Result<()> {
        let Some(container) = self.container_if_any(id)? else { return Ok(()) };
        let last_words = self.last_words_of(&container).await;
        match self.supervisor.remove(&self.namespace, container.key().id.as_str(), true).await {
            Ok(_) | Err(Error::NoSuchContainer { .. }) => {
                self.users.forget(container.key().id.as_str());
                self.tell_removal(last_words).await;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    pub(super) fn container(&self, id: &str) -> Result<Handle> {
        if id.is_empty() {
            return Err(invalid("container_id", "it is empty"));
        }
        match self.supervisor.find(&self.namespace, id) {
            Ok(handle) if handle.is_sandbox() => {
                Err(Error::NoSuchContainer { reference: id.to_owned() })
            }
            found => found,
        }
    }

    fn container_if_any(&self, id: &str) -> Result<Option<Handle>> {
        match self.container(id) {
            Ok(container) => Ok(Some(container)),
            Err(Error::NoSuchContainer { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn container_status(
        &self,
        id: &str,
        verbose: bool,
    ) -> Result<wire::ContainerStatusResponse> {
        let container = self.container(id)?;
        let record = container.record()?;
        Ok(wire::ContainerStatusResponse {
            status: Some(self.status_of(&container, &record).await),
            info: if verbose { info(&container, &record) } else { HashMap::new() },
        })
    }

    pub(super) fn containers(&self, filter: Option<wire::ContainerFilter>) -> Vec<wire::Container> {
        let filter = filter.unwrap_or_default();
        let containers = self.supervisor.list(&self.namespace);
        containers
            .iter()
            .filter(|container| container.key().id.as_str().starts_with(&filter.id))
            .filter_map(|one| Some(convert::listed_container(one, &*one.record().ok()?)))
            .filter(|one| one.pod_sandbox_id.starts_with(&filter.pod_sandbox_id))
            .filter(|one| filter.state.is_none_or(|state| state.state == one.state))
            .filter(|one| convert::selects(&filter.label_selector, &one.labels))
            .collect()
    }

    /// Writes a container down; it goes on. A time-out of 0 is ours.
    pub(super) async fn checkpoint_container(
        &self,
        request: &wire::CheckpointContainerRequest,
    ) -> Result<()> {
        let container = self.container(&request.container_id)?;
        let seconds = u64::try_from(request.timeout).ok().filter(|seconds| *seconds > 0);
        let asked = CheckpointRequest {
            location: request.location.clone().into(),
            leave_running: true,
            what: super::checkpoint::ALL,
            timeout: seconds.map(Duration::from_secs),
        };
        let id = container.key().id.as_str();
        self.supervisor.checkpoint(&self.namespace, id, asked).await
    }

    pub(super) async fn reopen_log(&self, id: &str) -> Result<()> {
        let container = self.container(id)?;
        self.supervisor.reopen_log(&self.namespace, container.key().id.as_str()).await
    }

    pub(super) async fn update_container(
        &self,
        request: &wire::UpdateContainerResourcesRequest,
    ) -> Result<()> {
        let container = self.container(&request.container_id)?;
        let Some(resources) = &request.linux else { return Ok(()) };
        let change = convert::change(resources, &self.core().machine)?;
        let change = self.ask_of_update(&container, resources, change).await?;
        self.supervisor.update(&self.namespace, container.key().id.as_str(), change).await?;
        self.tell_update(&container).await;
        Ok(())
    }
}

/// Whether the archive of a checkpoint is named, in the place of an image: no image's name begins as a path.
fn is_archive(image: &str) -> bool {
    image.starts_with('/')
}

/// What a container needs of the host, as the kubelet expects it to be made: the directory of its log,
/// and the sources of its mounts, which are directories when they are not there.
fn make_directories(options: &ContainerOptions) -> Result<()> {
    if let LogOptions::Cri { path } = &options.log
        && let Some(directory) = path.parent()
    {
        directories::make(directory).map_err(Error::file("make directory", directory))?;
    }
    for mount in &options.mounts {
        // A link that leads nowhere is no directory to be.
        if mount.source.symlink_metadata().is_err() {
            let made = directories::make(&mount.source);
            made.map_err(Error::file("make directory", &mount.source))?;
        }
    }
    Ok(())
}

fn info(container: &Handle, record: &Record) -> HashMap<String, String> {
    let running = container.running().ok();
    let request = kept::container(record);
    let info = serde_json::json!({
        "sandboxID": request.pod_sandbox_id,
        "pid": running.as_ref().map_or(0, |running| running.pid),
        "shimPid": running.as_ref().map(|running| running.shim.process.pid()),
        "args": record.args,
        "snapshot": record.snapshot,
        "image": record.image,
        "warnings": record.warnings,
    });
    HashMap::from([("info".to_owned(), info.to_string())])
}
