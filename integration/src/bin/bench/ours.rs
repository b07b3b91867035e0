//! Our side.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bosun_proto::v1;
use bosun_proto::v1::containers_client::ContainersClient;
use integration::daemon::{Daemon, Settings};
use integration::netns::NetNs;
use integration::process::Process;
use integration::wait;
use tonic::transport::Channel;

use crate::measure::{Sample, footprint, time};

/// A daemon of our own, in a network namespace of its own.
#[derive(Debug)]
pub(crate) struct Ours {
    daemon: Daemon,
    rootfs: PathBuf,
    /// Kilobytes of the daemon before any container.
    idle: f64,
}

impl Ours {
    pub(crate) fn start(rootfs: &Path) -> Self {
        let daemon = Settings::new().log_level("info").start();
        let process = Process(daemon.pid().expect("the daemon runs"));
        Self { idle: footprint(&[process])["Rss"], daemon, rootfs: rootfs.to_owned() }
    }

    pub(crate) fn idle(&self) -> f64 {
        self.idle
    }

    pub(crate) fn rootfs(&self) -> &Path {
        &self.rootfs
    }

    pub(crate) fn run_true(&self, flags: &str) -> Duration {
        let network = if flags.is_empty() { "--net none" } else { flags };
        time(
            &mut self.daemon.client().command(&format!(
                "run --rm {network} --rootfs {} /bin/true",
                self.rootfs.display()
            )),
        )
    }

    pub(crate) fn exec_true(&self, container: &str) -> Duration {
        time(&mut self.daemon.client().command(&format!("exec {container} /bin/true")))
    }

    /// Seconds for so many detached containers, one after the other.
    pub(crate) fn detach(&self, count: usize) -> f64 {
        let begin = Instant::now();
        for number in 0..count {
            time(&mut self.daemon.client().command(&format!(
                "run -d --name c{number} --net none --rootfs {} /bin/sleep 1000000",
                self.rootfs.display()
            )));
        }
        begin.elapsed().as_secs_f64()
    }

    /// One more, that has no seccomp profile.
    pub(crate) fn detach_privileged(&self) {
        time(&mut self.daemon.client().command(&format!(
            "run -d --name privileged --privileged --net none --rootfs {} /bin/sleep 1000000",
            self.rootfs.display()
        )));
    }

    pub(crate) fn remove_all(&self) {
        let ids = self.daemon.ctl("ps -a -q").text().replace('\n', " ");
        if !ids.is_empty() {
            self.daemon.ctl(&format!("rm -f {ids}")).ok();
        }
    }

    fn options(&self) -> v1::ContainerOptions {
        let mut options = integration::api::options("", &["/bin/true"]);
        options.base = Some(v1::container_options::Base::Rootfs(self.rootfs.display().to_string()));
        options
    }

    /// Lives a second, and the time of each.
    pub(crate) fn lives_by_clients(&self, clients: usize, count: usize) -> (f64, Sample) {
        let api = self.daemon.api();
        let begin = Instant::now();
        let times: Vec<Duration> = api.wait(async {
            let tasks: Vec<_> = (0..clients)
                .map(|_| {
                    tokio::spawn(lives(api.containers(), self.options(), count.div_ceil(clients)))
                })
                .collect();
            let mut times = Vec::new();
            for task in tasks {
                times.extend(task.await.expect("a client ends"));
            }
            times
        });
        let rate =
            u32::try_from(times.len()).map_or(0.0, f64::from) / begin.elapsed().as_secs_f64();
        (rate, Sample::new(times))
    }

    /// Seconds from the start of a container that writes `/lines` to its end, and the most that its
    /// shim had in memory, in kilobytes.
    pub(crate) fn log_lines(&self, lines: u64) -> (f64, f64) {
        let begin = Instant::now();
        self.daemon
            .ctl(&format!(
                "run -d --name log --net none --rootfs {} /bin/cat /lines",
                self.rootfs.display()
            ))
            .ok();
        let shim = self.daemon.shim("log");
        let mut most = 0;
        let process =
            self.daemon.inspect("log", "{{.State.Pid}}").parse().map(Process).unwrap_or(Process(0));
        while process.lives() {
            most = most.max(shim.memory("Rss").unwrap_or(0));
            std::thread::sleep(Duration::from_millis(5));
        }
        self.daemon.until_status("log", "exited");
        let seconds = begin.elapsed().as_secs_f64();
        let id = self.daemon.inspect("log", "{{.Id}}");
        let written =
            std::fs::read(self.daemon.container_dir(&id).json_log(&id)).expect("the log file");
        let written = written.iter().filter(|&&byte| byte == b'\n').count();
        assert_eq!(u64::try_from(written).ok(), Some(lines), "lines in the log file");
        self.daemon.ctl("rm -f log").ok();
        (seconds, u32::try_from(most).map_or(f64::MAX, f64::from))
    }

    pub(crate) fn netns(&self) -> &NetNs {
        self.daemon.netns()
    }

    pub(crate) fn pull(&self, name: &str) -> Duration {
        time(&mut self.daemon.client().command(&format!("pull -q {name}")))
    }

    pub(crate) fn import(&self, file: &Path) -> Duration {
        time(&mut self.daemon.client().command(&format!("load -q -i {}", file.display())))
    }

    /// Images and all that they had.
    pub(crate) fn remove_images(&self) {
        for name in self.daemon.api().image_names() {
            self.daemon.ctl(&format!("rmi {name}")).ok();
        }
    }

    pub(crate) fn daemon_process(&self) -> Process {
        Process(self.daemon.pid().expect("the daemon runs"))
    }

    pub(crate) fn shims(&self) -> Vec<Process> {
        self.daemon
            .api()
            .list()
            .into_iter()
            .filter_map(|container| container.state)
            .map(|state| Process(state.shim_pid))
            .collect()
    }

    /// From the start of a new daemon to the answer that all run.
    pub(crate) fn restart(&mut self, count: usize) -> Duration {
        self.daemon.kill();
        let begin = Instant::now();
        self.daemon.launch();
        wait::until("all containers to be listed", || {
            let api = integration::api::Api::connect(&self.daemon.socket()).ok()?;
            let request = v1::ListRequest { all: false, filters: Vec::new() };
            let answer =
                api.wait(async { api.containers().list(request).await }).ok()?.into_inner();
            (answer.containers.len() == count).then_some(())
        });
        begin.elapsed()
    }
}

async fn lives(
    mut client: ContainersClient<Channel>,
    options: v1::ContainerOptions,
    count: usize,
) -> Vec<Duration> {
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let begin = Instant::now();
        let create =
            v1::CreateRequest { request_id: String::new(), options: Some(options.clone()) };
        let container = client.create(create).await.expect("create").into_inner().id;
        let start = v1::StartRequest { request_id: String::new(), container: container.clone() };
        client.start(start).await.expect("start");
        client.wait(v1::WaitRequest { container: container.clone() }).await.expect("wait");
        client
            .remove(v1::RemoveRequest { request_id: String::new(), container, force: false })
            .await
            .expect("remove");
        times.push(begin.elapsed());
    }
    times
}
