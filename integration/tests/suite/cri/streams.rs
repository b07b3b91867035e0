//! Streams, through the URLs that a kubelet gets, with the clients of the server's own tests. What is
//! odd about clients is tested there.

#[path = "../../../../daemon/streaming/tests/suite/http.rs"]
mod http;
#[path = "../../../../daemon/streaming/tests/suite/socket.rs"]
mod socket;
#[expect(dead_code, reason = "the server's tests need more of it")]
#[path = "../../../../daemon/streaming/tests/suite/spdy.rs"]
mod spdy;

use bosun_proto::cri;
use bosun_streaming::spdy::Headers;
use integration::daemon::Daemon;
use integration::kubelet::{Kubelet, node};
use tonic::Code;

const V4: &str = "v4.channel.k8s.io";
const V5: Option<&str> = Some("v5.channel.k8s.io");

/// A running container of a new pod.
fn container(
    kubelet: &Kubelet,
    change: impl FnOnce(&mut cri::ContainerConfig),
) -> (String, String) {
    let config = kubelet.pod_config("web");
    let pod = kubelet.run_pod(&config);
    let mut container = kubelet.container_config("one", "sleep 600");
    change(&mut container);
    let id = kubelet.run(&pod, &container, &config);
    (pod, id)
}

/// What a client does, from where the daemon is.
fn talk<T: Send>(daemon: &Daemon, kubelet: &Kubelet, client: impl Future<Output = T> + Send) -> T {
    daemon.netns().run(|| kubelet.api().wait(client))
}

fn exec_url(kubelet: &Kubelet, id: &str, script: &str, tty: bool) -> String {
    let request = cri::ExecRequest {
        container_id: id.to_owned(),
        cmd: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        tty,
        stdin: true,
        stdout: true,
        stderr: !tty,
    };
    kubelet.call(|mut client| async move { client.exec(request).await }).unwrap().url
}

fn attach_url(kubelet: &Kubelet, id: &str) -> String {
    let request = cri::AttachRequest {
        container_id: id.to_owned(),
        stdin: true,
        stdout: true,
        stderr: true,
        ..cri::AttachRequest::default()
    };
    kubelet.call(|mut client| async move { client.attach(request).await }).unwrap().url
}

/// Types a line over SPDY, and hangs up once it is answered.
async fn converse(url: &str, typed: &[u8], answer: &str) {
    let (mut sender, mut receiver) = spdy::open(url, V4).await;
    sender.stream("error").await;
    let stdin = sender.stream("stdin").await;
    let stdout = sender.stream("stdout").await;
    sender.stream("stderr").await;
    sender.data(stdin, typed, false).await;
    receiver.until(|receiver| receiver.has(stdout, answer)).await;
    sender.shutdown().await;
}

#[test]
fn a_command_has_its_streams_and_tells_its_code() {
    let daemon = node();
    let kubelet = Kubelet::of(&daemon);
    let (_, id) = container(&kubelet, |_| {});
    let script = "cat; echo err >&2; exit 7";
    let sent = vec![b'x'; 3_000_000];
    let url = exec_url(&kubelet, &id, script, false);
    talk(&daemon, &kubelet, async {
        let (mut sender, mut receiver) = spdy::open(&url, V4).await;
        let error = sender.stream("error").await;
        let stdin = sender.stream("stdin").await;
        let stdout = sender.stream("stdout").await;
        let stderr = sender.stream("stderr").await;
        let bytes = sent.clone();
        let sending = tokio::spawn(async move {
            for piece in bytes.chunks(32 << 10) {
                sender.data(stdin, piece, false).await;
            }
            sender.data(stdin, b"", true).await;
            sender
        });
        receiver.all().await;
        drop(sending.await.unwrap());
        assert!(receiver.streams[&stdout].bytes == sent);
        assert_eq!(receiver.text(stderr), "err\n");
        let end = receiver.text(error);
        assert!(end.contains(r#""reason":"ExitCode","message":"7""#), "{end}");
    });
    let url = exec_url(&kubelet, &id, script, false);
    talk(&daemon, &kubelet, async {
        let mut socket = socket::open(&url, V5).await;
        for piece in sent.chunks(32 << 10).take(2) {
            socket::send(&mut socket, false, 0, piece).await;
        }
        socket::send(&mut socket, false, 255, &[0]).await;
        let ([_, stdout, stderr, error], _) = socket::all(&mut socket, false).await;
        assert!(stdout == sent[..64 << 10] && stderr == b"err\n");
        let end = String::from_utf8(error).unwrap();
        assert!(end.contains(r#""reason":"ExitCode","message":"7""#), "{end}");
    });
    // A URL is for one use.
    let head = talk(&daemon, &kubelet, async {
        let mut io = http::connect(&url).await;
        let version = ("X-Stream-Protocol-Version", V4);
        http::ask(&mut io, "POST", &url, &[http::SPDY[0], http::SPDY[1], version]).await
    });
    assert_eq!(head.status, 404, "{head:?}");
}

#[test]
fn a_terminal_has_the_size_that_its_client_has() {
    let daemon = node();
    let kubelet = Kubelet::of(&daemon);
    let (_, id) = container(&kubelet, |_| {});
    let script = "until stty size | grep -q '40 100'; do sleep 0.02; done; read word; \
        tty; echo was $word";
    let size = br#"{"Width":100,"Height":40}"#;
    let check = |said: &str| {
        assert!(said.contains("/dev/pts/") && said.contains("was there\r\n"), "{said}");
    };
    let url = exec_url(&kubelet, &id, script, true);
    talk(&daemon, &kubelet, async {
        let (mut sender, mut receiver) = spdy::open(&url, V4).await;
        let error = sender.stream("error").await;
        let stdin = sender.stream("stdin").await;
        let stdout = sender.stream("stdout").await;
        let resize = sender.stream("resize").await;
        sender.data(stdin, b"there\n", false).await;
        sender.data(resize, size, false).await;
        receiver.all().await;
        check(receiver.text(stdout));
        assert!(receiver.text(error).contains("Success"));
    });
    let url = exec_url(&kubelet, &id, script, true);
    talk(&daemon, &kubelet, async {
        let mut socket = socket::open(&url, V5).await;
        socket::send(&mut socket, false, 0, b"there\n").await;
        socket::send(&mut socket, false, 4, size).await;
        let ([_, stdout, _, error], _) = socket::all(&mut socket, false).await;
        check(&String::from_utf8(stdout).unwrap());
        assert!(String::from_utf8(error).unwrap().contains("Success"));
    });
}

#[test]
fn a_command_has_a_terminal_that_its_client_does_not_type_at() {
    let daemon = node();
    let kubelet = Kubelet::of(&daemon);
    let (_, id) = container(&kubelet, |_| {});
    let request = cri::ExecRequest {
        container_id: id,
        cmd: ["/bin/sh", "-c", "tty; timeout 1 cat; echo ended"].map(str::to_owned).to_vec(),
        tty: true,
        stdin: false,
        stdout: true,
        stderr: false,
    };
    let url = kubelet.call(|mut client| async move { client.exec(request).await }).unwrap().url;
    let began = std::time::Instant::now();
    talk(&daemon, &kubelet, async {
        let (mut sender, mut receiver) = spdy::open(&url, V4).await;
        sender.stream("error").await;
        let stdout = sender.stream("stdout").await;
        sender.stream("resize").await;
        receiver.all().await;
        let said = receiver.text(stdout);
        assert!(said.starts_with("/dev/pts/") && said.contains("ended\r\n"), "{said}");
    });
    assert!(began.elapsed() >= std::time::Duration::from_secs(1), "it waits for what is typed");
}

#[test]
fn clients_attach_one_after_the_other_until_the_container_ends() {
    let daemon = node();
    let kubelet = Kubelet::of(&daemon);
    let (_, id) = container(&kubelet, |container| {
        let script = "while read word; do test $word != end || exit 3; echo got $word; done";
        container.command = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        container.stdin = true;
    });
    let url = || attach_url(&kubelet, &id);
    talk(&daemon, &kubelet, converse(&url(), b"one\n", "got one\n"));
    let second = url();
    talk(&daemon, &kubelet, async {
        let mut socket = socket::open(&second, V5).await;
        socket::send(&mut socket, false, 0, b"two\n").await;
        let mut said = Vec::new();
        while said != b"got two\n" {
            let (channel, bytes) = socket::receive(&mut socket, false).await.unwrap();
            assert!(channel == 1, "{channel}: {bytes:?}");
            said.extend(bytes);
        }
        socket::send(&mut socket, false, 0, b"end\n").await;
        let (_, code) = socket::all(&mut socket, false).await;
        assert_eq!(code, 1000);
    });
    assert_eq!(kubelet.ended(&id).exit_code, 3);
    assert!(kubelet.said(&id).starts_with("got one\ngot two\n"));
}

/// Asks a web server for a file, over a pair of streams for its port.
async fn get<Io: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send>(
    sender: &mut spdy::Sender<Io>,
    receiver: &mut spdy::Receiver<Io>,
) -> String {
    let headers = |kind: &str| {
        let headers = Headers::default().with("streamType", kind);
        headers.with("port", "8080").with("requestID", "0")
    };
    let error = sender.syn(headers("error")).await;
    sender.data(error, b"", true).await;
    let data = sender.syn(headers("data")).await;
    sender.data(data, b"GET /file HTTP/1.0\r\n\r\n", true).await;
    let ended = |receiver: &spdy::Receiver<Io>, stream| {
        receiver.streams.get(&stream).is_some_and(|came: &spdy::Came| came.ended)
    };
    receiver.until(|receiver| ended(receiver, data) && ended(receiver, error)).await;
    assert_eq!(receiver.text(error), "");
    receiver.text(data).to_owned()
}

#[test]
fn a_port_of_a_pod_is_reached_in_both_ways() {
    let daemon = node();
    let kubelet = Kubelet::of(&daemon);
    let (pod, id) = container(&kubelet, |container| {
        let script = "mkdir /www; echo of the pod > /www/file; \
            exec busybox httpd -f -p 127.0.0.1:8080 -h /www";
        container.command = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    });
    let serves = "wget -q -O - http://127.0.0.1:8080/file";
    integration::wait::until_true("the server", || {
        kubelet.exec(&id, serves, 0).is_ok_and(|answer| answer.exit_code == 0)
    });
    let url = || {
        let request = cri::PortForwardRequest { pod_sandbox_id: pod.clone(), port: vec![8080] };
        kubelet.call(|mut client| async move { client.port_forward(request).await }).unwrap().url
    };
    let first = url();
    talk(&daemon, &kubelet, async {
        let (mut sender, mut receiver) = spdy::open(&first, "portforward.k8s.io").await;
        let answer = get(&mut sender, &mut receiver).await;
        assert!(answer.contains("200 OK") && answer.ends_with("of the pod\n"), "{answer}");
    });
    let second = url();
    talk(&daemon, &kubelet, async {
        let socket = socket::open(&second, Some("SPDY/3.1+portforward.k8s.io")).await;
        let (client, carried) = tokio::io::duplex(64 << 10);
        let carrying = tokio::spawn(socket::tunnel(socket, carried));
        let (mut sender, mut receiver) = spdy::over(client);
        let answer = get(&mut sender, &mut receiver).await;
        assert!(answer.contains("200 OK") && answer.ends_with("of the pod\n"), "{answer}");
        sender.shutdown().await;
        carrying.await.unwrap();
    });
}

#[test]
fn streams_have_urls_that_work_for_what_runs_alone() {
    let daemon = node();
    let kubelet = Kubelet::of(&daemon);
    let config = kubelet.pod_config("web");
    let pod = kubelet.run_pod(&config);
    let id = kubelet.run(&pod, &kubelet.container_config("one", "sleep 600"), &config);
    let exec = |container: &str, tty, stderr| {
        let request = cri::ExecRequest {
            container_id: container.to_owned(),
            cmd: vec!["true".to_owned()],
            stdout: true,
            tty,
            stderr,
            ..cri::ExecRequest::default()
        };
        let answer = kubelet.call(|mut client| async move { client.exec(request).await });
        answer.map(|answer| answer.url)
    };
    let url = exec(&id, false, true).unwrap();
    assert!(url.starts_with("http://127.0.0.1:") && url.contains("/exec/"), "{url}");
    assert_ne!(exec(&id, false, true).unwrap(), url);
    assert_eq!(exec(&id, true, true).unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(exec("0123456789ab", false, true).unwrap_err().code(), Code::NotFound);
    let request =
        cri::AttachRequest { container_id: id.clone(), stdout: true, ..Default::default() };
    let answer = kubelet.call(|mut client| async move { client.attach(request).await });
    assert!(answer.unwrap().url.contains("/attach/"));
    let forward = |port| {
        let request = cri::PortForwardRequest { pod_sandbox_id: pod.clone(), port: vec![port] };
        kubelet.call(|mut client| async move { client.port_forward(request).await })
    };
    assert!(forward(80).unwrap().url.contains("/portforward/"));
    assert_eq!(forward(70_000).unwrap_err().code(), Code::InvalidArgument);
    kubelet.stop(&id, 0).unwrap();
    assert_eq!(exec(&id, false, true).unwrap_err().code(), Code::FailedPrecondition);
}

#[test]
fn standard_input_that_is_for_one_client_ends_with_it() {
    let daemon = node();
    let kubelet = Kubelet::of(&daemon);
    let (_, id) = container(&kubelet, |container| {
        container.command = ["/bin/sh", "-c", "cat; exit 4"].map(str::to_owned).to_vec();
        (container.stdin, container.stdin_once) = (true, true);
    });
    talk(&daemon, &kubelet, converse(&attach_url(&kubelet, &id), b"one\n", "one\n"));
    assert_eq!(kubelet.ended(&id).exit_code, 4);
}

#[test]
fn a_port_of_the_host_is_reached_by_a_pod_on_its_network() {
    let daemon = node();
    let kubelet = Kubelet::of(&daemon);
    let mut config = kubelet.pod_config("web");
    let linux = config.linux.as_mut().unwrap();
    let context = linux.security_context.as_mut().unwrap();
    context.namespace_options.as_mut().unwrap().set_network(cri::NamespaceMode::Node);
    let pod = kubelet.run_pod(&config);
    let script =
        "mkdir /www; echo of the host > /www/file; exec httpd -f -p 127.0.0.1:8080 -h /www";
    let mut server = kubelet.container_config("one", script);
    let context = server.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    context.namespace_options.as_mut().unwrap().set_network(cri::NamespaceMode::Node);
    let id = kubelet.run(&pod, &server, &config);
    let serves = "wget -q -O - http://127.0.0.1:8080/file";
    integration::wait::until_true("the server", || {
        kubelet.exec(&id, serves, 0).is_ok_and(|answer| answer.exit_code == 0)
    });
    let request = cri::PortForwardRequest { pod_sandbox_id: pod, port: vec![8080] };
    let answer = kubelet.call(|mut client| async move { client.port_forward(request).await });
    let url = answer.unwrap().url;
    talk(&daemon, &kubelet, async {
        let (mut sender, mut receiver) = spdy::open(&url, "portforward.k8s.io").await;
        let answer = get(&mut sender, &mut receiver).await;
        assert!(answer.ends_with("of the host\n"), "{answer}");
    });
}
