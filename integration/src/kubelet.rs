//! A kubelet's side of a daemon: the CRI over its socket, and pods and containers as a kubelet asks for
//! them. Going out of scope removes them the way a kubelet does, before the daemon looks for leftovers.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bosun_proto::cri;
use bosun_proto::cri::image_service_client::ImageServiceClient;
use bosun_proto::cri::runtime_service_client::RuntimeServiceClient;
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::api::Api;
use crate::archive;
use crate::daemon::{Daemon, Settings};
use crate::image::{Image, Recipe};
use crate::wait;

/// The image that is there from the start: busybox.
pub const IMAGE: &str = "registry.example.org/test/busybox:1";

/// Where a kubelet's things lie.
pub const NAMESPACE: &str = "k8s.io";

/// Tells pods apart.
static COUNT: AtomicU32 = AtomicU32::new(0);

/// A daemon whose pods are on its own bridge, so that no plugin is needed.
///
/// # Panics
/// When it doesn't start.
#[must_use]
pub fn node() -> Daemon {
    node_with(Settings::new())
}

/// As [`node`], with other settings beside.
///
/// # Panics
/// When it doesn't start.
#[must_use]
pub fn node_with(settings: Settings) -> Daemon {
    node_of(settings, "")
}

/// As [`node_with`], with other keys of `[cri]`, and other sections, beside.
///
/// # Panics
/// When it doesn't start.
#[must_use]
pub fn node_of(settings: Settings, keys: &str) -> Daemon {
    let daemon = settings.configured(&format!("[cri]\nnetwork = \"bridge\"\n{keys}")).start();
    load(&daemon, &[(IMAGE, &Recipe::busybox().image())]);
    daemon
}

/// Has a daemon load images where kubelets see them.
///
/// # Panics
/// When it doesn't.
#[track_caller]
pub fn load(daemon: &Daemon, images: &[(&str, &Image)]) {
    let file = daemon.scratch().join("images.tar");
    std::fs::write(&file, archive::oci(images)).expect("a file");
    daemon.ctl(&format!("--namespace {NAMESPACE} load -i {}", file.display())).ok();
    std::fs::remove_file(file).expect("a file");
}

/// A connection of a kubelet's.
#[derive(Debug)]
pub struct Kubelet {
    api: Api,
    logs: PathBuf,
    leaves: bool,
    patience: Option<Duration>,
}

type Outcome<T> = Result<T, Status>;

/// What a call of an impatient kubelet ends with.
const LATE: &str = "the kubelet went before it was told";

/// Whether nobody waited for the answer.
#[must_use]
pub fn is_late(status: &Status) -> bool {
    status.message() == LATE
}

impl Kubelet {
    /// # Panics
    /// When the daemon does not answer.
    #[must_use]
    pub fn of(daemon: &Daemon) -> Self {
        Self::with(daemon.api(), &daemon.scratch().join("logs"))
    }

    /// Of any runtime that serves the CRI there.
    ///
    /// # Panics
    /// When nobody answers.
    #[must_use]
    pub fn at(socket: &Path, logs: &Path) -> Self {
        Self::connect(socket, logs).expect("a runtime that answers")
    }

    /// As [`Kubelet::at`].
    ///
    /// # Errors
    /// When nobody answers.
    pub fn connect(socket: &Path, logs: &Path) -> Result<Self, tonic::transport::Error> {
        Api::connect(socket).map(|api| Self::with(api, logs))
    }

    fn with(api: Api, logs: &Path) -> Self {
        std::fs::create_dir_all(logs).expect("a directory");
        Self { api, logs: logs.to_owned(), leaves: false, patience: None }
    }

    /// Pods stay when this one goes.
    #[must_use]
    pub fn left_alone(mut self) -> Self {
        self.leaves = true;
        self
    }

    /// Waits only so long for each answer, and goes ([`is_late`]).
    #[must_use]
    pub fn with_patience(mut self, patience: Option<Duration>) -> Self {
        self.patience = patience;
        self
    }

    /// # Errors
    /// The daemon's.
    pub fn try_version(&self) -> Outcome<cri::VersionResponse> {
        let request = cri::VersionRequest::default();
        self.call(|mut client| async move { client.version(request).await })
    }

    #[must_use]
    pub fn runtime(&self) -> RuntimeServiceClient<Channel> {
        RuntimeServiceClient::new(self.api.channel()).max_decoding_message_size(16 << 20)
    }

    #[must_use]
    pub fn images(&self) -> ImageServiceClient<Channel> {
        ImageServiceClient::new(self.api.channel())
    }

    /// A call of the one service, to its end.
    ///
    /// # Errors
    /// The daemon's answer.
    pub fn call<T, F>(&self, call: impl FnOnce(RuntimeServiceClient<Channel>) -> F) -> Outcome<T>
    where
        F: Future<Output = Outcome<Response<T>>>,
    {
        let answer = call(self.runtime());
        let answer = self.api.wait(async move {
            match self.patience {
                None => answer.await,
                Some(patience) => match tokio::time::timeout(patience, answer).await {
                    Ok(answer) => answer,
                    Err(_) => Err(Status::cancelled(LATE)),
                },
            }
        });
        answer.map(Response::into_inner)
    }

    /// A call of the other.
    ///
    /// # Errors
    /// The daemon's answer.
    pub fn image_call<T, F>(
        &self,
        call: impl FnOnce(ImageServiceClient<Channel>) -> F,
    ) -> Outcome<T>
    where
        F: Future<Output = Outcome<Response<T>>>,
    {
        self.api.wait(call(self.images())).map(Response::into_inner)
    }

    #[must_use]
    pub fn api(&self) -> &Api {
        &self.api
    }

    /// What a pod without wishes is asked to be; each has another uid.
    #[must_use]
    pub fn pod_config(&self, name: &str) -> cri::PodSandboxConfig {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let labels = [("app".to_owned(), name.to_owned())];
        cri::PodSandboxConfig {
            metadata: Some(cri::PodSandboxMetadata {
                name: name.to_owned(),
                uid: format!("uid-{}-{number}", std::process::id()),
                namespace: "default".to_owned(),
                attempt: 0,
            }),
            log_directory: self.logs.join(format!("{name}-{number}")).display().to_string(),
            labels: labels.into(),
            annotations: HashMap::from([("note/one".to_owned(), "two words".to_owned())]),
            linux: Some(cri::LinuxPodSandboxConfig {
                security_context: Some(cri::LinuxSandboxSecurityContext {
                    namespace_options: Some(cri::NamespaceOption {
                        pid: cri::NamespaceMode::Container.into(),
                        ..cri::NamespaceOption::default()
                    }),
                    ..cri::LinuxSandboxSecurityContext::default()
                }),
                ..cri::LinuxPodSandboxConfig::default()
            }),
            ..cri::PodSandboxConfig::default()
        }
    }

    /// # Errors
    /// The daemon's.
    pub fn try_run_pod(&self, config: &cri::PodSandboxConfig) -> Outcome<String> {
        self.try_run_pod_by("", config)
    }

    /// As [`Kubelet::try_run_pod`], by a runtime handler.
    ///
    /// # Errors
    /// The daemon's.
    pub fn try_run_pod_by(&self, handler: &str, config: &cri::PodSandboxConfig) -> Outcome<String> {
        let request = cri::RunPodSandboxRequest {
            config: Some(config.clone()),
            runtime_handler: handler.to_owned(),
        };
        let answer = self.call(|mut client| async move { client.run_pod_sandbox(request).await });
        answer.map(|answer| answer.pod_sandbox_id)
    }

    /// # Panics
    /// When it does not run.
    #[track_caller]
    #[must_use]
    pub fn run_pod(&self, config: &cri::PodSandboxConfig) -> String {
        self.try_run_pod(config).unwrap_or_else(|status| panic!("RunPodSandbox: {status}"))
    }

    /// What a container of busybox is asked to be that runs a script.
    #[must_use]
    pub fn container_config(&self, name: &str, script: &str) -> cri::ContainerConfig {
        cri::ContainerConfig {
            metadata: Some(cri::ContainerMetadata { name: name.to_owned(), attempt: 0 }),
            image: Some(cri::ImageSpec { image: IMAGE.to_owned(), ..Default::default() }),
            command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            log_path: format!("{name}/0.log"),
            labels: [("container".to_owned(), name.to_owned())].into(),
            linux: Some(cri::LinuxContainerConfig {
                security_context: Some(cri::LinuxContainerSecurityContext {
                    namespace_options: Some(cri::NamespaceOption {
                        pid: cri::NamespaceMode::Container.into(),
                        ..cri::NamespaceOption::default()
                    }),
                    ..cri::LinuxContainerSecurityContext::default()
                }),
                ..cri::LinuxContainerConfig::default()
            }),
            ..cri::ContainerConfig::default()
        }
    }

    /// # Errors
    /// The daemon's.
    pub fn try_create(
        &self,
        pod: &str,
        config: &cri::ContainerConfig,
        sandbox: &cri::PodSandboxConfig,
    ) -> Outcome<String> {
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: pod.to_owned(),
            config: Some(config.clone()),
            sandbox_config: Some(sandbox.clone()),
        };
        let answer = self.call(|mut client| async move { client.create_container(request).await });
        answer.map(|answer| answer.container_id)
    }

    /// Makes a container and starts it.
    ///
    /// # Panics
    /// When that fails.
    #[track_caller]
    #[must_use]
    pub fn run(
        &self,
        pod: &str,
        config: &cri::ContainerConfig,
        sandbox: &cri::PodSandboxConfig,
    ) -> String {
        let id = self.try_create(pod, config, sandbox);
        let id = id.unwrap_or_else(|status| panic!("CreateContainer: {status}"));
        self.start(&id).unwrap_or_else(|status| panic!("StartContainer: {status}"));
        id
    }

    /// # Errors
    /// The daemon's.
    pub fn start(&self, id: &str) -> Outcome<()> {
        let request = cri::StartContainerRequest { container_id: id.to_owned() };
        self.call(|mut client| async move { client.start_container(request).await }).map(drop)
    }

    /// # Errors
    /// The daemon's.
    pub fn stop(&self, id: &str, timeout: i64) -> Outcome<()> {
        let request = cri::StopContainerRequest { container_id: id.to_owned(), timeout };
        self.call(|mut client| async move { client.stop_container(request).await }).map(drop)
    }

    /// # Errors
    /// The daemon's.
    pub fn remove(&self, id: &str) -> Outcome<()> {
        let request = cri::RemoveContainerRequest { container_id: id.to_owned() };
        self.call(|mut client| async move { client.remove_container(request).await }).map(drop)
    }

    /// # Errors
    /// The daemon's.
    pub fn stop_pod(&self, id: &str) -> Outcome<()> {
        let request = cri::StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
        self.call(|mut client| async move { client.stop_pod_sandbox(request).await }).map(drop)
    }

    /// # Errors
    /// The daemon's.
    pub fn remove_pod(&self, id: &str) -> Outcome<()> {
        let request = cri::RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
        self.call(|mut client| async move { client.remove_pod_sandbox(request).await }).map(drop)
    }

    /// # Errors
    /// The daemon's.
    pub fn try_status(&self, id: &str) -> Outcome<cri::ContainerStatus> {
        let request = cri::ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
        let answer = self.call(|mut client| async move { client.container_status(request).await });
        answer.map(|answer| answer.status.expect("a status"))
    }

    /// # Panics
    /// When there is no such container.
    #[track_caller]
    #[must_use]
    pub fn status(&self, id: &str) -> cri::ContainerStatus {
        self.try_status(id).unwrap_or_else(|status| panic!("ContainerStatus: {status}"))
    }

    /// # Panics
    /// When there is no such pod.
    #[track_caller]
    #[must_use]
    pub fn pod_status(&self, id: &str) -> cri::PodSandboxStatus {
        let request =
            cri::PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: false };
        let answer =
            self.call(|mut client| async move { client.pod_sandbox_status(request).await });
        let answer = answer.unwrap_or_else(|status| panic!("PodSandboxStatus: {status}"));
        answer.status.expect("a status")
    }

    /// Waits until a container has ended.
    ///
    /// # Panics
    /// After the time limit.
    #[track_caller]
    #[must_use]
    pub fn ended(&self, id: &str) -> cri::ContainerStatus {
        wait::until(&format!("the end of {id}"), || {
            let status = self.status(id);
            (status.state() == cri::ContainerState::ContainerExited).then_some(status)
        })
    }

    /// The log of a container, as it is now.
    #[must_use]
    pub fn log(&self, id: &str) -> String {
        let path = self.status(id).log_path;
        std::fs::read_to_string(path).unwrap_or_default()
    }

    /// Only what it wrote, line by line, without times and tags.
    ///
    /// # Panics
    /// When a line is not as the CRI has it.
    #[must_use]
    pub fn said(&self, id: &str) -> String {
        let text = |line: &str| -> String {
            let mut words = line.splitn(4, ' ');
            let (time, stream, tag) = (words.next(), words.next(), words.next());
            assert!(time.is_some_and(|time| time.ends_with('Z')), "{line:?}");
            assert!(matches!(stream, Some("stdout" | "stderr")), "{line:?}");
            let end = if tag == Some("F") { "\n" } else { "" };
            words.next().unwrap_or_default().to_owned() + end
        };
        self.log(id).lines().map(text).collect()
    }

    /// Runs a script in a pod of its own container, to its end; what it wrote.
    #[track_caller]
    #[must_use]
    pub fn output(
        &self,
        pod: &str,
        config: &cri::ContainerConfig,
        sandbox: &cri::PodSandboxConfig,
    ) -> String {
        let id = self.run(pod, config, sandbox);
        let _ = self.ended(&id);
        self.said(&id)
    }

    /// A command in a container, to its end.
    ///
    /// # Errors
    /// The daemon's.
    pub fn exec(&self, id: &str, script: &str, timeout: i64) -> Outcome<cri::ExecSyncResponse> {
        let request = cri::ExecSyncRequest {
            container_id: id.to_owned(),
            cmd: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            timeout,
        };
        self.call(|mut client| async move { client.exec_sync(request).await })
    }

    /// What a command in a container writes.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    #[must_use]
    pub fn exec_text(&self, id: &str, script: &str) -> String {
        let answer = self.exec(id, script, 0);
        let answer = answer.unwrap_or_else(|status| panic!("ExecSync: {status}"));
        let stderr = String::from_utf8_lossy(&answer.stderr);
        assert_eq!(answer.exit_code, 0, "{script}: {stderr}");
        String::from_utf8_lossy(&answer.stdout).trim_end().to_owned()
    }

    /// # Errors
    /// The daemon's.
    pub fn try_pods(&self, filter: cri::PodSandboxFilter) -> Outcome<Vec<cri::PodSandbox>> {
        let request = cri::ListPodSandboxRequest { filter: Some(filter) };
        let answer = self.call(|mut client| async move { client.list_pod_sandbox(request).await });
        answer.map(|answer| answer.items)
    }

    /// # Panics
    /// When the daemon can't say.
    #[must_use]
    pub fn pods(&self, filter: cri::PodSandboxFilter) -> Vec<cri::PodSandbox> {
        self.try_pods(filter).expect("a list")
    }

    /// # Errors
    /// The daemon's.
    pub fn try_containers(&self, filter: cri::ContainerFilter) -> Outcome<Vec<cri::Container>> {
        let request = cri::ListContainersRequest { filter: Some(filter) };
        let answer = self.call(|mut client| async move { client.list_containers(request).await });
        answer.map(|answer| answer.containers)
    }

    /// # Panics
    /// When the daemon can't say.
    #[must_use]
    pub fn containers(&self, filter: cri::ContainerFilter) -> Vec<cri::Container> {
        self.try_containers(filter).expect("a list")
    }

    /// # Panics
    /// When the daemon can't say.
    #[must_use]
    pub fn image_list(&self) -> Vec<cri::Image> {
        let request = cri::ListImagesRequest::default();
        let answer = self.image_call(|mut client| async move { client.list_images(request).await });
        answer.expect("a list").images
    }

    /// # Panics
    /// When the daemon can't say.
    #[must_use]
    pub fn image(&self, name: &str) -> Option<cri::Image> {
        let image = cri::ImageSpec { image: name.to_owned(), ..Default::default() };
        let request = cri::ImageStatusRequest { image: Some(image), verbose: false };
        let answer =
            self.image_call(|mut client| async move { client.image_status(request).await });
        answer.expect("a status").image
    }

    /// # Errors
    /// The daemon's.
    pub fn remove_image(&self, name: &str) -> Outcome<()> {
        let image = cri::ImageSpec { image: name.to_owned(), ..Default::default() };
        let request = cri::RemoveImageRequest { image: Some(image) };
        self.image_call(|mut client| async move { client.remove_image(request).await }).map(drop)
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        if std::thread::panicking() || self.leaves {
            return;
        }
        for pod in self.pods(cri::PodSandboxFilter::default()) {
            self.stop_pod(&pod.id).expect("a pod that stops");
            self.remove_pod(&pod.id).expect("a pod that goes");
        }
        for image in self.image_list() {
            self.remove_image(&image.id).expect("an image that goes");
        }
        assert!(self.containers(cri::ContainerFilter::default()).is_empty());
        assert!(self.image_list().is_empty());
    }
}
