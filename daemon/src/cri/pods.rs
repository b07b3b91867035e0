//! Pods: what the calls about them mean. Stop and Remove of what is done, or was never there, are
//! done.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::{Cri, convert, invalid, kept, wire};
use crate::container::{Handle, Record};
use crate::error::{Error, Result};
use crate::requests::Request;
use crate::spec::Role;
use crate::turns::Turn;

/// How long what still runs in a pod has when the pod is stopped: the kubelet has stopped the rest.
const AT_ONCE: Duration = Duration::ZERO;

/// Marks a pod while it is on its way, by its name: nobody knows its id then.
struct OnItsWay<'a> {
    all: &'a watch::Sender<HashSet<String>>,
    /// Absent when there is one already.
    name: Option<&'a str>,
}

impl<'a> OnItsWay<'a> {
    fn mark(cri: &'a Cri, name: &'a str) -> Self {
        let is_new = cri.on_their_way.send_if_modified(|all| {
            // Whoever makes it takes the mark away only when it is there.
            let is_there = cri.supervisor.sandbox(&cri.namespace, name).is_ok();
            !is_there && all.insert(name.to_owned())
        });
        Self { all: &cri.on_their_way, name: is_new.then_some(name) }
    }
}

impl Drop for OnItsWay<'_> {
    fn drop(&mut self) {
        if let Some(name) = self.name {
            self.all.send_modify(|all| {
                all.remove(name);
            });
        }
    }
}

/// What becomes of a pod that is asked for word for word as one that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Same {
    /// It is that one.
    Answers,
    /// Its name is in use.
    IsRefused,
}

impl Cri {
    /// Makes a pod, to its end, whoever waits for it. One that is asked for again word for word,
    /// because the answer was lost, is the same.
    pub(super) async fn run_pod(
        self: &Arc<Self>,
        request: wire::RunPodSandboxRequest,
    ) -> Result<wire::RunPodSandboxResponse> {
        let this = Arc::clone(self);
        let task = tokio::spawn(async move { this.make_pod(request, Same::Answers).await });
        let id = task.await.unwrap_or(Err(Error::Stopping))?;
        Ok(wire::RunPodSandboxResponse { pod_sandbox_id: id })
    }

    /// Makes a pod, with its network and its plugins' consent; what fails leaves nothing.
    pub(super) async fn make_pod(
        &self,
        request: wire::RunPodSandboxRequest,
        same: Same,
    ) -> Result<String> {
        self.check_handler(&request)?;
        let hostname = &self.core().machine.hostname;
        let options = convert::pod_options(&request, self.settings(), hostname)?;
        let config = request.config.as_ref();
        // What plugins can't be told is known before anything is made.
        convert::plugin_arguments("", config.unwrap_or(&wire::PodSandboxConfig::default()))?;
        let name = options.name.clone();
        let _turn = self.makings.wait(name.clone()).await;
        self.give_up(&name).await?;
        // Nobody is to see it before it has its network, and the plugins' consent.
        let mut mark = Some(OnItsWay::mark(self, &name));
        shim_failpoints::step!("daemon.pod.before_sandbox", error);
        let id = match self.supervisor.run_sandbox(self.alone(), options).await {
            Ok(created) => created.id,
            Err(in_use @ Error::NameInUse { .. }) if same == Same::Answers => {
                return self.made_before(&name, &request).await.ok_or(in_use);
            }
            Err(error) => return Err(error),
        };
        let pod = self.pod(&id)?;
        let ready = match self.attach(&pod).await {
            Ok(()) => {
                let shown = self.show_pod(&pod, &mut mark).await;
                if shown.is_err()
                    && let Err(error) = self.detach(&pod).await
                {
                    tracing::warn!(pod = id, %error, "not detached");
                }
                shown
            }
            Err(error) => Err(error),
        };
        if let Err(error) = ready {
            let removed = self.supervisor.remove_sandbox(&self.namespace, &id, true).await;
            if let Err(error) = removed {
                tracing::warn!(pod = id, %error, "not undone");
            }
            self.forget_network(&id);
            return Err(error);
        }
        shim_failpoints::step!("daemon.pod.after_consent");
        Ok(id)
    }

    /// Removes the pod of that name, if it never became ready and nobody is making it any more: a daemon
    /// was killed over it, or could not undo it. No kubelet was told its id, and one that asks for the same
    /// has seen it in no list, or it would ask for another attempt.
    async fn give_up(&self, name: &str) -> Result<()> {
        let Ok(pod) = self.supervisor.sandbox(&self.namespace, name) else { return Ok(()) };
        // A pod is also found by what its id begins with.
        if pod.name() != name || !pod.record().is_ok_and(|record| is_half_made(&record)) {
            return Ok(());
        }
        tracing::info!(pod = %pod.label(), "half made by a daemon that ended: removed");
        self.remove_pod(pod.key().id.as_str()).await
    }

    /// Lets everybody see a pod that has its network, once its plugins agree and it is durable that it
    /// is ready: what happens to it is told from then on.
    async fn show_pod(&self, pod: &Handle, mark: &mut Option<OnItsWay<'_>>) -> Result<()> {
        shim_failpoints::step!("daemon.pod.after_attach", error);
        let settling = self.ask_of_pod(pod).await?;
        self.supervisor.ready(pod).await?;
        drop(mark.take());
        drop(settling);
        Ok(())
    }

    /// The pod of that name, if it is what is asked for.
    async fn made_before(
        &self,
        name: &str,
        request: &wire::RunPodSandboxRequest,
    ) -> Option<String> {
        let pod = self.supervisor.sandbox(&self.namespace, name).ok()?;
        let record = pod.record().ok()?;
        let same = kept::pod(&record) == *request && self.is_ready(&pod, &record).await;
        same.then(|| record.id.clone())
    }

    pub(super) async fn stop_pod(&self, id: &str) -> Result<()> {
        match self.turn_of_pod(id).await? {
            Some((pod, _turn)) => unless_gone(self.end_pod(&pod).await),
            None => Ok(()),
        }
    }

    /// Stops its containers, takes its network back, then lets go of what they shared.
    async fn end_pod(&self, pod: &Handle) -> Result<()> {
        let id = pod.key().id.as_str();
        shim_failpoints::step!("daemon.pod.before_stop", error);
        self.supervisor.stop_members(pod, Some(AT_ONCE)).await?;
        self.tell_pod_stop(pod).await;
        self.detach(pod).await?;
        self.supervisor.stop_sandbox(&self.namespace, id, Some(AT_ONCE)).await?;
        shim_failpoints::step!("daemon.pod.after_stop", error);
        Ok(())
    }

    pub(super) async fn remove_pod(&self, id: &str) -> Result<()> {
        let Some((pod, _turn)) = self.turn_of_pod(id).await? else { return Ok(()) };
        unless_gone(self.end_pod(&pod).await)?;
        for member in self.supervisor.members(&pod) {
            self.users.forget(member.key().id.as_str());
        }
        let last_words = self.last_words_of_pod(&pod).await;
        let id = pod.key().id.as_str();
        shim_failpoints::step!("daemon.pod.before_removal", error);
        let removed = self.supervisor.remove_sandbox(&self.namespace, id, true).await;
        unless_gone(removed.map(drop))?;
        shim_failpoints::step!("daemon.pod.after_removal", error);
        self.forget_network(id);
        self.tell_removal(last_words).await;
        Ok(())
    }

    /// A pod, for who is to stop or remove it. Who comes second waits, and finds that done.
    async fn turn_of_pod(&self, id: &str) -> Result<Option<(Handle, Turn)>> {
        let Some(pod) = self.pod_if_any(id)? else { return Ok(None) };
        let turn = self.endings.wait(pod.key().clone()).await;
        let still = self.pod_if_any(pod.key().id.as_str())?;
        Ok(still.map(|pod| (pod, turn)))
    }

    pub(super) fn pod(&self, id: &str) -> Result<Handle> {
        if id.is_empty() {
            return Err(invalid("pod_sandbox_id", "it is empty"));
        }
        self.supervisor.sandbox(&self.namespace, id)
    }

    fn pod_if_any(&self, id: &str) -> Result<Option<Handle>> {
        match self.pod(id) {
            Ok(pod) => Ok(Some(pod)),
            Err(Error::NoSuchSandbox { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn pod_status(
        &self,
        id: &str,
        verbose: bool,
    ) -> Result<wire::PodSandboxStatusResponse> {
        let pod = self.pod(id)?;
        let record = pod.record()?;
        let members = self.supervisor.members(&pod);
        let mut containers_statuses = Vec::with_capacity(members.len());
        for member in &members {
            if let Ok(record) = member.record() {
                containers_statuses.push(self.status_of(member, &record).await);
            }
        }
        Ok(wire::PodSandboxStatusResponse {
            status: Some(convert::pod_status(
                &record,
                self.is_ready(&pod, &record).await,
                &self.addresses(&pod, &record).await,
            )),
            info: if verbose { info(&pod, &record) } else { HashMap::new() },
            containers_statuses,
            timestamp: convert::now(),
        })
    }

    pub(super) async fn pods(
        &self,
        filter: Option<wire::PodSandboxFilter>,
    ) -> Vec<wire::PodSandbox> {
        let filter = filter.unwrap_or_default();
        let mut found = Vec::new();
        for pod in self.supervisor.sandboxes(&self.namespace) {
            let Ok(record) = pod.record() else { continue };
            if !record.id.starts_with(&filter.id) || self.is_on_its_way(&record) {
                continue;
            }
            let listed = convert::listed_pod(&record, self.is_ready(&pod, &record).await);
            if filter.state.is_none_or(|state| state.state == listed.state)
                && convert::selects(&filter.label_selector, &listed.labels)
            {
                found.push(listed);
            }
        }
        found
    }

    /// The kubelet has changed the pod's own control group, and says so: what holds now is kept. The
    /// limits of containers come in calls of their own.
    pub(super) async fn update_pod(
        &self,
        request: wire::UpdatePodSandboxResourcesRequest,
    ) -> Result<()> {
        let pod = self.pod(&request.pod_sandbox_id)?;
        self.ask_of_pod_update(&pod, &request).await?;
        // Beside what was asked for at first: that one asked for again is the same pod.
        let mut now = kept::figures(&*pod.record()?);
        for (new, old) in
            [(request.overhead, &mut now.overhead), (request.resources, &mut now.resources)]
        {
            if let Some(new) = new {
                // What can't be a limit is not kept as one.
                convert::limits(&new, self.core().machine.counts_swap)?;
                *old = Some(new);
            }
        }
        self.supervisor.keep(&pod, kept::FIGURES, kept::text(&now)).await?;
        self.tell_pod_update(&pod).await;
        Ok(())
    }

    /// Whether a pod is not yet what was asked for: nobody is to judge it by then.
    pub(super) fn is_on_its_way(&self, record: &Record) -> bool {
        self.on_their_way.borrow().contains(&record.name)
    }

    /// Waits until the pod of this name, if one is on its way, is there or not to be.
    pub(super) async fn until_it_is_there(&self, name: &str) {
        let mut all = self.on_their_way.subscribe();
        let _ = all.wait_for(|all| !all.contains(name)).await;
    }

    /// A request that no other is the same as: kubelets have no ids for them.
    pub(super) fn alone(&self) -> Request {
        Request { namespace: self.namespace.clone(), id: String::new(), body: String::new() }
    }

    /// A pod in which containers can be made.
    pub(super) async fn ready_pod(&self, id: &str) -> Result<(Handle, Arc<Record>)> {
        let pod = self.pod(id)?;
        let record = pod.record()?;
        match self.is_ready(&pod, &record).await {
            true => Ok((pod, record)),
            false => Err(Error::NotRunning { id: pod.label() }),
        }
    }
}

/// Whether a pod has not become what was asked for: its network, or its plugins' consent, is missing.
pub(super) fn is_half_made(record: &Record) -> bool {
    matches!(&record.options.role, Role::Sandbox(sandbox) if sandbox.unready)
}

/// What somebody else has removed meanwhile, by another face, is stopped and removed.
fn unless_gone(done: Result<()>) -> Result<()> {
    match done {
        Err(
            Error::NoSuchSandbox { .. } | Error::NoSuchContainer { .. } | Error::Removing { .. },
        ) => Ok(()),
        other => other,
    }
}

fn info(pod: &Handle, record: &Record) -> HashMap<String, String> {
    let running = pod.running().ok();
    let figures = kept::figures(record);
    let resources = |resources: &wire::LinuxContainerResources| {
        serde_json::json!({
            "cpuPeriod": resources.cpu_period,
            "cpuQuota": resources.cpu_quota,
            "cpuShares": resources.cpu_shares,
            "memoryLimit": resources.memory_limit_in_bytes,
        })
    };
    let info = serde_json::json!({
        "shimPid": running.as_ref().map(|running| running.shim.process.pid()),
        "pid": running.as_ref().map(|running| running.pid),
        "networkNamespace": crate::container::network_path(pod.key()),
        "hostname": record.options.hostname,
        "cgroupParent": record.options.cgroup_parent,
        "resources": resources(&figures.resources.unwrap_or_default()),
        "overhead": resources(&figures.overhead.unwrap_or_default()),
    });
    HashMap::from([("info".to_owned(), info.to_string())])
}
