//! Pods and containers in the messages of the interface.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use bosun_nri::wire as nri;
use oci_spec::runtime as oci;
use serde_json::Value;

use super::{limits, pod_of};
use crate::container::{Draft, FromImage, Handle, Phase, Record, network_path};
use crate::cri::{Cri, convert, kept, wire};
use crate::spec::{ContainerOptions, NetworkMode};

/// Annotations of a spec that are bosun's own.
const OWN: &str = "io.bosun.";

impl Cri {
    /// A pod; only its id, when its record can't be read.
    pub(super) async fn told_pod(&self, pod: &Handle) -> nri::PodSandbox {
        let id = pod.key().id.to_string();
        let Ok(record) = pod.record() else {
            return nri::PodSandbox { id, ..nri::PodSandbox::default() };
        };
        let request = kept::pod(&record);
        let config = request.config.unwrap_or_default();
        let metadata = config.metadata.unwrap_or_default();
        let linux = config.linux.unwrap_or_default();
        let figures = kept::figures(&record);
        let running = pod.running().ok();
        let addresses = self.addresses(pod, &record).await;
        nri::PodSandbox {
            id,
            name: metadata.name,
            uid: metadata.uid,
            namespace: metadata.namespace,
            labels: config.labels.into_iter().collect(),
            annotations: config.annotations.into_iter().collect(),
            runtime_handler: request.runtime_handler,
            linux: Some(nri::LinuxPodSandbox {
                pod_overhead: figures.overhead.as_ref().map(limits::of_kubelet),
                pod_resources: figures.resources.as_ref().map(limits::of_kubelet),
                cgroup_parent: linux.cgroup_parent,
                namespaces: namespaces_of_pod(pod, &record, running.is_some()),
                ..nri::LinuxPodSandbox::default()
            }),
            pid: running.map(|running| running.pid).unwrap_or_default(),
            ips: addresses.iter().map(ToString::to_string).collect(),
        }
    }

    /// A container and its pod, as they are.
    pub(super) async fn told_container(
        &self,
        container: &Handle,
    ) -> (nri::PodSandbox, nri::Container) {
        let id = container.key().id.to_string();
        let Ok(record) = container.record() else {
            let container = nri::Container { id, ..nri::Container::default() };
            return (nri::PodSandbox::default(), container);
        };
        let pod = match pod_of(self, &record) {
            Some(pod) => self.told_pod(&pod).await,
            None => nri::PodSandbox {
                id: convert::pod_of(&record).to_owned(),
                ..nri::PodSandbox::default()
            },
        };
        let spec = self.spec_of(&id).await;
        let told = described(&record.id, &record.options, record.image.as_ref(), &spec);
        (pod, with_status(told, container, &record))
    }

    async fn spec_of(&self, id: &str) -> oci::Spec {
        let (namespace, id) = (self.namespace.to_string(), id.to_owned());
        let stored =
            self.supervisor.store().read(move |tx| tx.container_spec(&namespace, &id)).await;
        let text: Option<String> = stored.ok().flatten();
        text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
    }
}

/// A container that is not there yet.
pub(super) fn draft(draft: &Draft<'_>) -> nri::Container {
    described(draft.key.id.as_str(), draft.options, draft.image, draft.spec)
}

fn namespaces_of_pod(pod: &Handle, record: &Record, runs: bool) -> Vec<nri::LinuxNamespace> {
    let namespace = |kind: &str, path: &Path| nri::LinuxNamespace {
        r#type: kind.to_owned(),
        path: path.to_string_lossy().into_owned(),
    };
    let mut all = vec![namespace("uts", Path::new(""))];
    if !record.options.host_ipc {
        all.push(namespace("ipc", Path::new("")));
    }
    if record.options.users().is_some() {
        all.push(namespace("user", Path::new("")));
    }
    // It is bound at a path for as long as the pod runs.
    if record.options.network != NetworkMode::Host && runs {
        all.push(namespace("network", &network_path(pod.key())));
    }
    all
}

fn described(
    id: &str,
    options: &ContainerOptions,
    image: Option<&FromImage>,
    spec: &oci::Spec,
) -> nri::Container {
    let request = kept::container_of(options);
    let config = request.config.unwrap_or_default();
    let mut annotations: BTreeMap<String, String> = config.annotations.into_iter().collect();
    let own = |(key, _): &(&String, &String)| !key.starts_with(OWN);
    let of_spec = spec.annotations().iter().flatten().filter(own);
    annotations.extend(of_spec.map(|(key, value)| (key.clone(), value.clone())));
    let process = spec.process().clone().unwrap_or_default();
    let profile = config.linux.and_then(|linux| linux.security_context?.seccomp);
    let user = process.user();
    nri::Container {
        id: id.to_owned(),
        pod_sandbox_id: request.pod_sandbox_id,
        name: config.metadata.map(|metadata| metadata.name).unwrap_or_default(),
        state: nri::ContainerState::ContainerCreated.into(),
        labels: config.labels.into_iter().collect(),
        annotations,
        args: process.args().clone().unwrap_or_default(),
        env: process.env().clone().unwrap_or_default(),
        mounts: spec.mounts().iter().flatten().map(mount).collect(),
        hooks: spec.hooks().as_ref().map(hooks),
        linux: Some(linux(spec, &process, profile.as_ref())),
        rlimits: process.rlimits().iter().flatten().map(rlimit).collect(),
        user: Some(nri::User {
            uid: user.uid(),
            gid: user.gid(),
            additional_gids: user.additional_gids().clone().unwrap_or_default(),
        }),
        image: image.map(|image| nri::Image {
            name: options.image.clone().unwrap_or_default(),
            digest: image.target.clone(),
            config_digest: image.id.clone(),
        }),
        ..nri::Container::default()
    }
}

fn with_status(mut told: nri::Container, container: &Handle, record: &Record) -> nri::Container {
    use wire::ContainerState as Kubelet;
    let status = convert::container_status(container, record);
    let paused = matches!(container.view().phase, Phase::Paused(_));
    let state = match status.state() {
        Kubelet::ContainerCreated => nri::ContainerState::ContainerCreated,
        Kubelet::ContainerRunning if paused => nri::ContainerState::ContainerPaused,
        Kubelet::ContainerRunning => nri::ContainerState::ContainerRunning,
        Kubelet::ContainerExited => nri::ContainerState::ContainerStopped,
        Kubelet::ContainerUnknown => nri::ContainerState::ContainerUnknown,
    };
    told.state = state.into();
    told.pid = container.running().map(|running| running.pid).unwrap_or_default();
    (told.created_at, told.started_at) = (status.created_at, status.started_at);
    (told.finished_at, told.exit_code) = (status.finished_at, status.exit_code);
    (told.status_reason, told.status_message) = (status.reason, status.message);
    told
}

fn linux(
    spec: &oci::Spec,
    process: &oci::Process,
    profile: Option<&wire::SecurityProfile>,
) -> nri::LinuxContainer {
    let of_spec = spec.linux().clone().unwrap_or_default();
    nri::LinuxContainer {
        namespaces: of_spec.namespaces().iter().flatten().map(namespace).collect(),
        devices: of_spec.devices().iter().flatten().map(device).collect(),
        resources: of_spec.resources().as_ref().map(limits::of_spec),
        oom_score_adj: process
            .oom_score_adj()
            .map(|score| nri::OptionalInt { value: score.into() }),
        cgroups_path: path(of_spec.cgroups_path().as_deref()),
        io_priority: process.io_priority().as_ref().map(|priority| nri::LinuxIoPriority {
            class: number::<nri::IoPrioClass>(&priority.class()),
            priority: i32::try_from(priority.priority()).unwrap_or_default(),
        }),
        seccomp_profile: profile.map(|profile| nri::SecurityProfile {
            // The numbers of both are the same.
            profile_type: profile.profile_type,
            localhost_ref: profile.localhost_ref.clone(),
        }),
        seccomp_policy: of_spec.seccomp().as_ref().map(seccomp),
        sysctl: of_spec.sysctl().clone().unwrap_or_default().into_iter().collect(),
        scheduler: process.scheduler().as_ref().map(scheduler),
        ..nri::LinuxContainer::default()
    }
}

fn path(path: Option<&Path>) -> String {
    path.map(|path| path.to_string_lossy().into_owned()).unwrap_or_default()
}

fn mount(mount: &oci::Mount) -> nri::Mount {
    nri::Mount {
        destination: path(Some(mount.destination())),
        r#type: mount.typ().clone().unwrap_or_default(),
        source: path(mount.source().as_deref()),
        options: mount.options().clone().unwrap_or_default(),
    }
}

fn hooks(hooks: &oci::Hooks) -> nri::Hooks {
    let all = |list: &Option<Vec<oci::Hook>>| list.iter().flatten().map(hook).collect();
    nri::Hooks {
        prestart: all(hooks.prestart()),
        create_runtime: all(hooks.create_runtime()),
        create_container: all(hooks.create_container()),
        start_container: all(hooks.start_container()),
        poststart: all(hooks.poststart()),
        poststop: all(hooks.poststop()),
    }
}

fn hook(hook: &oci::Hook) -> nri::Hook {
    nri::Hook {
        path: path(Some(hook.path())),
        args: hook.args().clone().unwrap_or_default(),
        env: hook.env().clone().unwrap_or_default(),
        timeout: hook.timeout().map(|value| nri::OptionalInt { value }),
    }
}

fn rlimit(limit: &oci::PosixRlimit) -> nri::PosixRlimit {
    nri::PosixRlimit { r#type: limit.typ().to_string(), hard: limit.hard(), soft: limit.soft() }
}

fn namespace(namespace: &oci::LinuxNamespace) -> nri::LinuxNamespace {
    nri::LinuxNamespace { r#type: word(&namespace.typ()), path: path(namespace.path().as_deref()) }
}

fn device(device: &oci::LinuxDevice) -> nri::LinuxDevice {
    nri::LinuxDevice {
        path: path(Some(device.path())),
        r#type: device.typ().as_str().to_owned(),
        major: device.major(),
        minor: device.minor(),
        file_mode: device.file_mode().map(|value| nri::OptionalFileMode { value }),
        uid: device.uid().map(|value| nri::OptionalUInt32 { value }),
        gid: device.gid().map(|value| nri::OptionalUInt32 { value }),
    }
}

fn seccomp(policy: &oci::LinuxSeccomp) -> nri::LinuxSeccomp {
    nri::LinuxSeccomp {
        default_action: word(&policy.default_action()),
        default_errno: policy.default_errno_ret().map(|value| nri::OptionalUInt32 { value }),
        architectures: policy.architectures().iter().flatten().map(word).collect(),
        flags: policy.flags().iter().flatten().map(word).collect(),
        listener_path: path(policy.listener_path().as_deref()),
        listener_metadata: policy.listener_metadata().clone().unwrap_or_default(),
        syscalls: policy.syscalls().iter().flatten().map(syscall).collect(),
    }
}

fn syscall(call: &oci::LinuxSyscall) -> nri::LinuxSyscall {
    let argument = |argument: &oci::LinuxSeccompArg| nri::LinuxSeccompArg {
        index: u32::try_from(argument.index()).unwrap_or_default(),
        value: argument.value(),
        value_two: argument.value_two().unwrap_or_default(),
        op: word(&argument.op()),
    };
    nri::LinuxSyscall {
        names: call.names().clone(),
        action: word(&call.action()),
        errno_ret: call.errno_ret().map(|value| nri::OptionalUInt32 { value }),
        args: call.args().iter().flatten().map(argument).collect(),
    }
}

fn scheduler(scheduler: &oci::Scheduler) -> nri::LinuxScheduler {
    nri::LinuxScheduler {
        policy: number::<nri::LinuxSchedulerPolicy>(scheduler.policy()),
        nice: scheduler.nice().unwrap_or_default(),
        priority: scheduler.priority().unwrap_or_default(),
        flags: scheduler.flags().iter().flatten().map(number::<nri::LinuxSchedulerFlag>).collect(),
        runtime: scheduler.runtime().unwrap_or_default(),
        deadline: scheduler.deadline().unwrap_or_default(),
        period: scheduler.period().unwrap_or_default(),
    }
}

/// The word that the OCI specification has for something.
fn word(of: &impl serde::Serialize) -> String {
    match serde_json::to_value(of) {
        Ok(Value::String(word)) => word,
        Ok(_) | Err(_) => String::new(),
    }
}

/// The names of the interface's numbers.
pub(super) trait Named: Into<i32> + Copy + 'static {
    /// By the OCI specification's words.
    fn all() -> HashMap<&'static str, Self>;
}

macro_rules! named {
    ($($kind:ident { $($variant:ident),* })*) => {$(
        impl Named for nri::$kind {
            fn all() -> HashMap<&'static str, Self> {
                [$(Self::$variant),*].into_iter().map(|one| (one.as_str_name(), one)).collect()
            }
        }
    )*};
}

named! {
    IoPrioClass { IoprioClassNone, IoprioClassRt, IoprioClassBe, IoprioClassIdle }
    LinuxSchedulerPolicy {
        SchedNone, SchedOther, SchedFifo, SchedRr, SchedBatch, SchedIso, SchedIdle, SchedDeadline
    }
    LinuxSchedulerFlag {
        SchedFlagResetOnFork, SchedFlagReclaim, SchedFlagDlOverrun, SchedFlagKeepPolicy,
        SchedFlagKeepParams, SchedFlagUtilClampMin, SchedFlagUtilClampMax
    }
}

fn number<N: Named>(of: &impl serde::Serialize) -> i32 {
    // As the typed specification calls two of them.
    let word = word(of);
    let word = match word.as_str() {
        "SCHED_RESET_ON_FORK" => "SCHED_FLAG_RESET_ON_FORK",
        "SCHED_FLAG_D_L_OVERRUN" => "SCHED_FLAG_DL_OVERRUN",
        word => word,
    };
    N::all().get(word).copied().map(Into::into).unwrap_or_default()
}
