//! The daemon as a process: locks, health, configuration, its end.

use std::process::Stdio;
use std::time::Duration;

use bosun_proto::v1;
use integration::daemon::{Daemon, Settings};
use integration::process::Process;
use integration::wait;
use tokio_stream::StreamExt;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

/// Runs a daemon that is expected to give up, and what it said.
pub(crate) fn refused(command: &mut std::process::Command) -> String {
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let ended = wait::within(Duration::from_secs(10), || child.try_wait().unwrap());
    if ended.is_none() {
        child.kill().unwrap();
    }
    let output = child.wait_with_output().unwrap();
    assert!(ended.is_some_and(|status| !status.success()), "{ended:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_second_daemon_on_the_same_root_is_refused_and_told_who_has_it() {
    let daemon = Daemon::start();
    let said = refused(&mut daemon.command());
    let pid = daemon.pid().unwrap().to_string();
    assert!(
        said.contains(&pid) && said.contains(&*daemon.place().root.to_string_lossy()),
        "{said}"
    );
    daemon.ctl("ps").ok();
}

#[test]
fn a_state_path_too_long_for_sockets_is_refused() {
    let daemon = Settings::new().prepare();
    let long = format!("/tmp/{}", "x".repeat(60));
    let mut command = std::process::Command::new(integration::daemon::program("bosund"));
    command.args(["--root", &daemon.place().root.to_string_lossy(), "--state", &long]);
    let said = refused(&mut command);
    assert!(said.contains(&long) && said.contains("--state"), "{said}");
    assert!(!std::path::Path::new(&long).exists());
}

#[test]
fn a_missing_shim_is_named() {
    let daemon = Settings::new().prepare();
    let mut command = std::process::Command::new(integration::daemon::program("bosund"));
    command.arg("--root").arg(&daemon.place().root).args(["--shim", "/no/such/shim"]);
    assert!(refused(&mut command).contains("/no/such/shim"));
}

#[test]
fn flags_beat_the_configuration_file() {
    let mut daemon = Settings::new().prepare();
    let file = daemon.scratch().join("config.toml");
    std::fs::write(&file, "log-level = \"warn\"\nsubnet = \"10.1.2.0/24\"\ncall-timeout = 7\n")
        .unwrap();
    daemon.add_arguments(&format!("--config {}", file.display()));
    daemon.start_again();
    let api = daemon.api();
    let info =
        api.wait(async { api.system().info(v1::InfoRequest {}).await }).unwrap().into_inner();
    assert_eq!(info.subnet, daemon.place().subnet);
}

#[test]
fn a_mistake_in_the_configuration_file_is_named() {
    let daemon = Settings::new().prepare();
    let file = daemon.scratch().join("config.toml");
    for (text, words) in [
        ("no-such-key = 1\n", ["no-such-key", "config.toml"]),
        ("[cri]\nstream-certificate = \"/c.pem\"\n", ["stream-certificate", "stream-key"]),
    ] {
        std::fs::write(&file, text).unwrap();
        let mut command = daemon.command();
        command.arg("--config").arg(&file);
        let said = refused(&mut command);
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
    }
}

#[test]
fn health_and_reflection_are_served() {
    let daemon = Daemon::start();
    let api = daemon.api();
    assert!(api.is_serving());
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let services = api.wait(async {
        let stream = tokio_stream::once(request);
        let mut answers = ServerReflectionClient::new(api.channel())
            .server_reflection_info(stream)
            .await
            .unwrap()
            .into_inner();
        match answers.next().await.unwrap().unwrap().message_response {
            Some(MessageResponse::ListServicesResponse(list)) => {
                list.service.into_iter().map(|service| service.name).collect::<Vec<_>>()
            }
            other => panic!("{other:?}"),
        }
    });
    for wanted in [
        "bosun.v1.Containers",
        "bosun.v1.Io",
        "bosun.v1.Snapshots",
        "bosun.v1.Events",
        "bosun.v1.System",
        "grpc.health.v1.Health",
    ] {
        assert!(services.iter().any(|service| service == wanted), "{wanted} in {services:?}");
    }
}

#[test]
fn two_daemons_do_not_meet() {
    let first = Daemon::start();
    let second = Settings::new().beside(&first).start();
    for daemon in [&first, &second] {
        daemon.ctl("run -d --name web --rootfs / /bin/sleep 600").ok();
        assert_eq!(daemon.ctl("ps -q").text().lines().count(), 1);
    }
    assert_ne!(first.inspect("web", "{{.Id}}"), second.inspect("web", "{{.Id}}"));
    second.ctl("rm -f web").ok();
    assert_eq!(first.inspect("web", "{{.State.Running}}"), "true");
}

#[test]
fn a_bridge_of_another_daemon_is_refused() {
    let first = Daemon::start();
    first.ctl("run -d --name web --rootfs / /bin/sleep 600").ok();
    let second = Settings::new().beside(&first).prepare();
    let mut command = first.netns().command(integration::daemon::program("bosund"));
    command.arg("--root").arg(&second.place().root).arg("--state").arg(&second.place().state);
    command.args([
        "--cgroup-prefix",
        &second.place().prefix,
        "--bridge",
        &first.place().bridge,
        "--subnet",
        &second.place().subnet,
    ]);
    let said = refused(&mut command);
    assert!(said.contains(&first.place().bridge), "{said}");
}

#[test]
fn sigterm_ends_the_daemon_and_no_container() {
    let mut daemon = Daemon::start();
    daemon.ctl("run -d --name one --net none --rootfs / /bin/sleep 600").ok();
    let process = daemon.process("one");
    assert!(daemon.terminate().success());
    assert!(process.lives());
    daemon.start_again();
    assert_eq!(daemon.process("one"), process);
}

#[test]
fn sigterm_answers_what_was_asked_before() {
    let mut daemon = Daemon::start();
    daemon.ctl("run -d --name one --net none --rootfs / /bin/sh -c 'trap \"sleep 0.5; exit 0\" TERM; echo ready; while :; do sleep 0.05; done'").ok();
    daemon.until_logged("one", "ready");
    let stopping = daemon.ctl_start("stop one");
    wait::until("the stop to have begun", || daemon.log().contains("top").then_some(()));
    assert!(daemon.terminate().success());
    let _ = stopping.finish();
    daemon.start_again();
    daemon.until_status("one", "exited");
}

#[test]
fn it_keeps_no_descriptor_of_containers_that_are_gone() {
    let daemon = Daemon::start();
    daemon.ctl("run --rm -p 5000:5000 --rootfs / /bin/true").ok();
    let bosund = Process(daemon.pid().unwrap());
    let count =
        |what: &str| bosund.descriptors().values().filter(|path| path.contains(what)).count();
    let before = wait::until("quiet", || (count("pidfd") == 0).then(|| bosund.descriptors().len()));
    for _ in 0..10 {
        daemon.ctl("run --rm -p 5000:5000 --rootfs / /bin/true").ok();
    }
    wait::until(&format!("{before} descriptors again"), || {
        (bosund.descriptors().len() <= before + 2).then_some(())
    });
}

#[test]
fn namespaces_are_apart() {
    let daemon = Daemon::start();
    daemon.ctl("create --name web --net none --rootfs / /bin/true").ok();
    let api = daemon.api();
    let mut request = tonic::Request::new(v1::ListRequest { all: true, filters: Vec::new() });
    request.metadata_mut().insert(bosun_proto::NAMESPACE_KEY, "other".parse().unwrap());
    let other = api.wait(async { api.containers().list(request).await }).unwrap().into_inner();
    assert!(other.containers.is_empty());
}
