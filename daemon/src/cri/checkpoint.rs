//! Pods that are written down, and made again of that: what the calls about it mean. Of one container the
//! calls are in `containers`.
//!
//! A caller that does not wait to the end gets nothing: neither a checkpoint nor a pod.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::pods::Same;
use super::{Cri, convert, invalid, kept, required, wire};
use crate::checkpoint::pod::{self, Manifest};
use crate::checkpoint::restore::Taken;
use crate::checkpoint::{Decision, What};
use crate::container::Handle;
use crate::error::{Error, Result};
use crate::runtimes::HandlerKind;

/// What a kubelet's checkpoint is of: it has no flags.
pub(super) const ALL: What = What { tcp_established: true, file_locks: true, without_files: false };

/// The caller, as long as it waits.
struct Waiting(Decision);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.take();
    }
}

/// What a call's options say.
///
/// # Errors
/// Names the one that is not known, or has no such value.
fn known(options: &HashMap<String, String>) -> Result<What> {
    let mut what = ALL;
    for (key, value) in options.iter().collect::<BTreeMap<_, _>>() {
        let place = match key.as_str() {
            "tcp-established" => &mut what.tcp_established,
            "file-locks" => &mut what.file_locks,
            _ => {
                let problem =
                    format!("{key:?} is not known: file-locks and tcp-established are there");
                return Err(invalid("options", problem));
            }
        };
        let wrong = |_| invalid("options", format!("{key}: {value:?} is neither true nor false"));
        *place = value.parse().map_err(wrong)?;
    }
    Ok(what)
}

impl Cri {
    /// Writes containers of a pod down, all at one moment; they go on.
    pub(super) async fn checkpoint_pod(
        self: &Arc<Self>,
        request: wire::CheckpointPodRequest,
    ) -> Result<()> {
        let what = known(&request.options)?;
        let (pod, record) = self.ready_pod(&request.pod_sandbox_id).await?;
        let containers = self.chosen(&pod, &request.container_ids)?;
        let manifest = Manifest::of(&record, kept::text(&kept::pod(&record)));
        let decision = Decision::default();
        let _waiting = Waiting(decision.clone());
        let (this, directory) = (Arc::clone(self), PathBuf::from(request.output_path));
        let task = tokio::spawn(async move {
            pod::checkpoint(this.core(), manifest, &containers, &directory, what, &decision)
                .await?;
            for (_, container) in &containers {
                this.supervisor.note_checkpoint(container);
            }
            Ok(())
        });
        task.await.unwrap_or(Err(Error::Stopping))
    }

    /// The containers of a pod that are named, with the names that the pod has for them.
    fn chosen(&self, pod: &Handle, ids: &[String]) -> Result<Vec<(String, Handle)>> {
        let refused = |problem: String| Err(invalid("container_ids", problem));
        if ids.is_empty() {
            return refused("it is empty: name the containers of the checkpoint".to_owned());
        }
        let mut chosen: Vec<(String, Handle)> = Vec::with_capacity(ids.len());
        for id in ids {
            let container = self.container(id)?;
            let record = container.record()?;
            if convert::pod_of(&record) != pod.key().id.as_str() {
                return refused(format!("{id} is no container of pod {}", pod.label()));
            }
            container.running()?;
            let config = kept::container(&record).config.unwrap_or_default();
            let name = config.metadata.map_or_else(|| record.name.clone(), |it| it.name);
            if chosen.iter().any(|(known, _)| *known == name) {
                return refused(format!("{id}: container {name} is named twice"));
            }
            chosen.push((name, container));
        }
        Ok(chosen)
    }

    /// Makes a pod of a checkpoint, its containers created: each goes on with its start.
    pub(super) async fn restore_pod(
        self: &Arc<Self>,
        request: wire::RestorePodRequest,
    ) -> Result<wire::RestorePodResponse> {
        let decision = Decision::default();
        let _waiting = Waiting(decision.clone());
        let this = Arc::clone(self);
        let task = tokio::spawn(async move {
            let made = this.make_restored_pod(request).await?;
            if !decision.take() {
                // Nobody would know of it.
                this.undo(&made.pod_sandbox_id).await;
                return Err(Error::Stopping);
            }
            Ok(made)
        });
        task.await.unwrap_or(Err(Error::Stopping))
    }

    async fn make_restored_pod(
        self: &Arc<Self>,
        request: wire::RestorePodRequest,
    ) -> Result<wire::RestorePodResponse> {
        let what = known(&request.options)?;
        let handler = self.core().config.runtimes.handler(&request.runtime_handler)?;
        if handler.kind != HandlerKind::Own {
            let problem = format!("{:?} restores nothing: only bosun's own does", handler.name);
            return Err(invalid("runtime_handler", problem));
        }
        let config = required(request.config, "config")?;
        let directory = PathBuf::from(request.checkpoint_path);
        let manifest = Manifest::read(&directory).await?;
        let members = self.take_members(&directory, &manifest, request.container_configs).await?;
        let pod = wire::RunPodSandboxRequest {
            config: Some(config.clone()),
            runtime_handler: request.runtime_handler,
        };
        let id = self.make_pod(pod, Same::IsRefused).await?;
        match self.make_members(&id, &config, members, what).await {
            Ok(restored_containers) => {
                Ok(wire::RestorePodResponse { pod_sandbox_id: id, restored_containers })
            }
            Err(error) => {
                self.undo(&id).await;
                Err(error)
            }
        }
    }

    /// The containers of a checkpoint with what each is to be: exactly those that there are.
    async fn take_members(
        &self,
        directory: &Path,
        manifest: &Manifest,
        configs: Vec<wire::ContainerConfig>,
    ) -> Result<Vec<(wire::ContainerConfig, Taken)>> {
        let mut named = BTreeMap::new();
        for config in configs {
            let metadata = required(config.metadata.as_ref(), "container_configs.metadata")?;
            let name = metadata.name.clone();
            if named.insert(name.clone(), config).is_some() {
                return Err(invalid("container_configs", format!("{name} is named twice")));
            }
        }
        let there: BTreeSet<&str> =
            manifest.containers.iter().map(|member| member.name.as_str()).collect();
        let asked: BTreeSet<&str> = named.keys().map(String::as_str).collect();
        if there != asked || there.len() != manifest.containers.len() {
            let list =
                |names: &BTreeSet<&str>| names.iter().copied().collect::<Vec<_>>().join(", ");
            let problem = format!("the checkpoint is of {}, not of {}", list(&there), list(&asked));
            return Err(invalid("container_configs", problem));
        }
        let mut members = Vec::with_capacity(named.len());
        for member in &manifest.containers {
            let taken = Taken::read(self.core(), &directory.join(&member.archive)).await?;
            if let Some(config) = named.remove(&member.name) {
                members.push((config, taken.expected()));
            }
        }
        Ok(members)
    }

    async fn make_members(
        self: &Arc<Self>,
        pod: &str,
        sandbox: &wire::PodSandboxConfig,
        members: Vec<(wire::ContainerConfig, Taken)>,
        what: What,
    ) -> Result<Vec<wire::RestoredContainer>> {
        let mut made = Vec::with_capacity(members.len());
        for (config, taken) in members {
            let name = config.metadata.as_ref().map(|it| it.name.clone()).unwrap_or_default();
            let request = wire::CreateContainerRequest {
                pod_sandbox_id: pod.to_owned(),
                config: Some(config),
                sandbox_config: Some(sandbox.clone()),
            };
            let container_id =
                self.make_container(request, Some((taken, what))).await?.container_id;
            made.push(wire::RestoredContainer { name, container_id });
        }
        Ok(made)
    }

    /// Takes a pod away that was only half made.
    async fn undo(&self, pod: &str) {
        if let Err(error) = self.remove_pod(pod).await {
            tracing::warn!(pod, %error, "not undone");
        }
    }
}
