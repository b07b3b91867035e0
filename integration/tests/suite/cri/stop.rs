//! How containers are stopped.

use std::time::{Duration, Instant};

use bosun_proto::cri;
use integration::image::Recipe;
use integration::kubelet::{load, node};
use integration::wait;
use serde_json::json;

use super::prepared;

/// An image that is stopped by SIGQUIT.
const QUIT: &str = "registry.example.org/quit:1";

#[test]
fn the_signal_is_the_request_s_or_the_image_s_or_term() {
    let daemon = node();
    let (kubelet, config, pod) = prepared(&daemon);
    let image = Recipe::busybox().config(json!({"StopSignal": "SIGQUIT"}));
    load(&daemon, &[(QUIT, &image.image())]);
    let script = "trap 'exit 7' USR1; trap 'exit 8' QUIT; trap 'exit 9' TERM; \
        echo ready; while :; do sleep 0.05; done";
    let stopped = |name: &str, image: Option<&str>, signal: cri::Signal| {
        let mut container = kubelet.container_config(name, script);
        if let Some(image) = image {
            container.image.as_mut().unwrap().image = image.to_owned();
        }
        container.stop_signal = signal.into();
        let id = kubelet.run(&pod, &container, &config);
        wait::until_true("the traps", || kubelet.said(&id) == "ready\n");
        kubelet.stop(&id, 30).unwrap();
        let status = kubelet.status(&id);
        (status.exit_code, status.stop_signal())
    };
    let (default, usr1) = (cri::Signal::RuntimeDefault, cri::Signal::Sigusr1);
    assert_eq!(stopped("plain", None, default), (9, cri::Signal::Sigterm));
    assert_eq!(stopped("request", None, usr1), (7, usr1));
    assert_eq!(stopped("image", Some(QUIT), default), (8, cri::Signal::Sigquit));
    assert_eq!(stopped("both", Some(QUIT), usr1), (7, usr1));
}

#[test]
fn who_waits_for_an_end_has_it_as_soon_as_another_one_is_less_patient() {
    /// Below the time limit of a call here.
    const PATIENT: i64 = 50;
    let daemon = node();
    let (kubelet, config, pod) = prepared(&daemon);
    let script = "trap 'echo told' TERM; echo ready; while :; do sleep 0.05; done";
    let id = kubelet.run(&pod, &kubelet.container_config("deaf", script), &config);
    wait::until_true("the trap", || kubelet.said(&id) == "ready\n");
    let begin = Instant::now();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| kubelet.stop(&id, PATIENT));
        wait::until_true("the signal", || kubelet.said(&id).contains("told\n"));
        assert_eq!(kubelet.status(&id).state(), cri::ContainerState::ContainerRunning);
        kubelet.stop(&id, 1).unwrap();
        assert_eq!(kubelet.status(&id).exit_code, 137);
        first.join().unwrap().unwrap();
    });
    assert!(begin.elapsed() < Duration::from_secs(PATIENT.unsigned_abs()), "{:?}", begin.elapsed());
}
