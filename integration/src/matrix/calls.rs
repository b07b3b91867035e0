//! Calls of every method in random order, with random contents, well-formed and not: each is answered,
//! the daemon lives, and what was made can be taken away.
//!
//! `SEED=n` draws others.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bosun_proto::v1;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use super::{Case, Round};
use crate::api::Api;
use crate::daemon::Daemon;
use crate::messages::{Method, Random, Schema, Texts, damage, seed};
use crate::wait;

/// Clients that call at once.
const CLIENTS: usize = 3;
/// How long a call that works may take before it counts as hanging: longer than any wait of the
/// daemon's own.
const ANSWERED: Duration = Duration::from_secs(150);
/// How long a call that ends when something happens is waited for.
const WATCHED: Duration = Duration::from_millis(150);
/// Answers of a stream that are read.
const READ: usize = 5;
const NAMESPACES: [&str; 3] = ["default", "other", "k8s.io"];

/// Calls that end when something happens, or take as long as their work, beside those of streams.
const WAITING: [&str; 9] = [
    "Containers/Wait",
    "Containers/Stop",
    "Containers/Restart",
    "Sandboxes/Stop",
    "RuntimeService/ExecSync",
    "RuntimeService/StopContainer",
    "RuntimeService/CheckpointContainer",
    "RuntimeService/CheckpointPod",
    "RuntimeService/RestorePod",
];

/// Calls that make containers and pods.
const MAKING: [&str; 5] = [
    "Containers/Create",
    "Containers/Run",
    "Sandboxes/Create",
    "RuntimeService/RunPodSandbox",
    "RuntimeService/CreateContainer",
];

pub(super) fn cases() -> Vec<Case> {
    vec![Case::measured("all methods", all_methods)]
}

fn all_methods(round: &Round) {
    let daemon = Daemon::start();
    let tree = tree(&daemon);
    let (schema, texts) = (Schema::of(bosun_proto::FILE_DESCRIPTORS), texts(&tree));
    let seed = seed();
    let count = round.count(2_000, 100_000);
    let makes = |method: &Method| MAKING.iter().any(|name| method.path.ends_with(name));
    let all: Vec<&Method> = schema.methods.iter().collect();
    let making: Vec<&Method> = all.iter().copied().filter(|method| makes(method)).collect();
    let (made, fruits) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let codes = std::sync::Mutex::new(std::collections::BTreeMap::<String, usize>::new());
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (daemon, schema, texts, codes) = (&daemon, &schema, &texts, &codes);
            let (made, fruits, all, making) = (&made, &fruits, &all, &making);
            scope.spawn(move || {
                let number = (round.number * CLIENTS + client) as u64;
                let mut random = Random(seed.wrapping_mul(1_000_003).wrapping_add(number));
                let api = daemon.api();
                while made.fetch_add(1, Ordering::Relaxed) < count {
                    let some = if random.one_in(5) { making } else { all };
                    let method = *random.pick(some);
                    let answer = one_call(&api, schema, method, texts, &mut random);
                    let is_made = makes(method) && answer.is_ok();
                    fruits.fetch_add(usize::from(is_made), Ordering::Relaxed);
                    let said = answer
                        .as_ref()
                        .err()
                        .map_or("OK".to_owned(), |s| format!("{:?}", s.code()));
                    if let Ok(mut codes) = codes.lock() {
                        *codes.entry(said).or_default() += 1;
                    }
                    expect_sound(daemon, &method.path, answer);
                }
            });
        }
    });
    assert!(!daemon.log().contains("panicked"), "the daemon panicked:\n{}", daemon.log());
    let codes = codes.into_inner().unwrap_or_default();
    let fruits = fruits.into_inner();
    assert!(fruits > count / 1_000, "hardly anything was made: {fruits}");
    round.measured(format!(
        "{count} calls of {} methods made {fruits} containers and pods: {codes:?}",
        schema.methods.len()
    ));
    let api = daemon.api();
    for namespace in NAMESPACES {
        clear(&api, namespace);
    }
    daemon.expect_nothing_left();
    daemon.ctl("run --rm --net none --rootfs / /bin/true").ok();
}

/// Makes one call. `Err` is the daemon's answer as well.
fn one_call(
    api: &Api,
    schema: &Schema,
    method: &Method,
    texts: &Texts,
    random: &mut Random,
) -> Result<(), Status> {
    let several = if method.takes_several { 1 + random.below(4) } else { 1 };
    let mut messages: Vec<Vec<u8>> =
        (0..several).map(|_| schema.input(method, random, texts)).collect();
    if random.one_in(6) {
        let at = random.below(messages.len());
        damage(&mut messages[at], random);
    }
    let mut request = Request::new(tokio_stream::iter(messages));
    set_metadata(request.metadata_mut(), random);
    let path: PathAndQuery = method.path.parse().expect("a path");
    let streams = method.takes_several || method.gives_several;
    let waits = streams || WAITING.iter().any(|name| method.path.ends_with(name));
    let call = async {
        let mut client: Grpc<Channel> = Grpc::new(api.channel());
        let _ = client.ready().await;
        let mut answers = client.streaming(request, path, Bytes).await?.into_inner();
        for _ in 0..READ {
            if answers.message().await?.is_none() {
                break;
            }
        }
        Ok(())
    };
    let limit = if waits { WATCHED } else { ANSWERED };
    match api.wait(async { tokio::time::timeout(limit, call).await }) {
        Ok(answer) => answer,
        Err(_) if waits => Ok(()),
        Err(_) => panic!("{} is not answered", method.path),
    }
}

/// What an answer may be, whatever was asked: not that somebody forgot a case.
pub(super) fn expect_sound(daemon: &Daemon, asked: &str, answer: Result<(), Status>) {
    let Err(status) = answer else { return };
    // What can't be read at all is answered so by gRPC itself.
    let unread = status.message().starts_with("failed to decode Protobuf message");
    let ours = [Code::Unknown, Code::Internal, Code::DataLoss].contains(&status.code()) && !unread;
    assert!(!ours, "{asked}: {status:?}\n{}", crate::daemon::tail(&daemon.log(), 20));
}

fn set_metadata(metadata: &mut MetadataMap, random: &mut Random) {
    let namespace = match random.below(12) {
        0..8 => NAMESPACES[0],
        8..10 => NAMESPACES[1],
        10 => "no/namespace",
        _ => "",
    };
    if !namespace.is_empty() {
        metadata.insert(bosun_proto::NAMESPACE_KEY, MetadataValue::from_static(namespace));
    }
    if random.one_in(8) {
        metadata.insert(bosun_proto::LEASE_KEY, MetadataValue::from_static("one"));
    }
    if random.one_in(8) {
        let timeout = *random.pick(&["0n", "1m", "200m", "5S", "99999999H", "x"]);
        metadata.insert("grpc-timeout", MetadataValue::from_static(timeout));
    }
}

/// A root file system of one program.
fn tree(daemon: &Daemon) -> std::path::PathBuf {
    let tree = daemon.scratch().join("tree");
    std::fs::create_dir_all(tree.join("bin")).expect("a directory");
    crate::executable::copy("/bin/busybox", tree.join("bin/busybox"));
    for name in ["sh", "true", "sleep"] {
        std::os::unix::fs::symlink("busybox", tree.join("bin").join(name)).expect("a link");
    }
    tree
}

/// What may stand in the fields: names that come up again and again, and what nobody expects. No host
/// file but the tree can be named.
fn texts(tree: &Path) -> Texts {
    let logs = tree.with_file_name("logs").display().to_string();
    let tree = tree.display().to_string();
    let own = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
    let names = own(&["one", "two", "three", "", "a/b", "..", "one"]);
    let mut odd =
        own(&["", "x", "..", "../../..", "/", "-1", "ü\u{202e}", "a\0b", "%s%n", "*", "=", ":"]);
    odd.push("y".repeat(5_000));
    let mut texts = Texts::from([
        ("", odd.clone()),
        ("request_id", own(&["", "", "", "again"])),
        ("rootfs", vec![tree.clone(), tree.clone(), tree.clone(), "/nonexistent".to_owned()]),
        ("directory", vec![tree.clone()]),
        ("host_path", vec![tree.clone(), "/nonexistent".to_owned()]),
        ("log_directory", vec![logs, String::new()]),
        ("log_path", own(&["a.log", "a/b.log"])),
        ("cgroup_parent", own(&[""])),
        ("runtime_handler", own(&["", "runc", "none"])),
        ("source", vec![tree, "/nonexistent".to_owned(), "relative".to_owned()]),
        ("command", own(&["/bin/sleep", "/bin/true", "1", "0.2", "60"])),
        ("values", own(&["/bin/sleep", "/bin/true", "1"])),
        ("signal", own(&["TERM", "KILL", "9", "0", "SIGRTMIN+3", "no"])),
        ("user", own(&["", "0", "1000:1000", "nobody"])),
        ("reference", own(&["127.0.0.1:1/one:two", "one", "one@sha256:0", "UPPER"])),
        ("digest", vec![format!("sha256:{}", "0".repeat(64)), "sha256:0".to_owned()]),
        ("server", own(&["127.0.0.1:1"])),
        ("platform", own(&["", "linux/amd64", "windows/arm"])),
        ("driver", own(&["", "json-file", "none", "syslog"])),
        ("runtime", own(&["", "", "", "runc", "none"])),
        ("restart_policy", own(&["", "", "no", "always"])),
        ("host_ip", own(&["", "127.0.0.1", "::1", "999.0.0.1"])),
        ("propagation", own(&["", "rslave", "shared"])),
        ("path", own(&["/bin", "/tmp/x", "/dev/null", "bin/../.."])),
        ("working_dir", own(&["", "/", "/bin", "relative"])),
    ]);
    for field in ["name", "container", "sandbox", "id", "key", "parent", "lease", "image"] {
        texts.insert(field, names.clone());
    }
    // What names something of the machine does so for the tree alone.
    let of_the_machine = [
        "",
        "rootfs",
        "directory",
        "source",
        "host_path",
        "log_directory",
        "log_path",
        "cgroup_parent",
    ];
    for (field, own) in &mut texts {
        if !of_the_machine.contains(field) {
            own.extend(odd.iter().filter(|text| text.len() % 3 == 1).cloned());
        }
    }
    texts
}

/// Takes away all that there is in a namespace, as a user does it.
fn clear(api: &Api, namespace: &'static str) {
    fn of<T>(namespace: &'static str, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let value = MetadataValue::from_static(namespace);
        request.metadata_mut().insert(bosun_proto::NAMESPACE_KEY, value);
        request
    }
    let request_id = String::new;
    api.wait(async {
        let (channel, ns) = (api.channel(), namespace);
        let mut pods = v1::sandboxes_client::SandboxesClient::new(channel.clone());
        let list = pods.list(of(ns, v1::ListSandboxesRequest {})).await.expect("a list");
        for pod in list.into_inner().sandboxes {
            let request =
                v1::RemoveSandboxRequest { request_id: request_id(), sandbox: pod.id, force: true };
            pods.remove(of(ns, request)).await.expect("removed");
        }
        let mut containers = api.containers();
        let request = v1::ListRequest { all: true, filters: Vec::new() };
        for one in containers.list(of(ns, request)).await.expect("a list").into_inner().containers {
            let request =
                v1::RemoveRequest { request_id: request_id(), container: one.id, force: true };
            match containers.remove(of(ns, request)).await {
                // It removes itself when it ends.
                Err(status) if status.code() == Code::NotFound => {}
                removed => drop(removed.expect("removed")),
            }
        }
        let mut leases = v1::leases_client::LeasesClient::new(channel.clone());
        let list = leases.list(of(ns, v1::ListLeasesRequest {})).await.expect("a list");
        for lease in list.into_inner().leases {
            let request = v1::DeleteLeaseRequest { request_id: request_id(), id: lease.id };
            match leases.delete(of(ns, request)).await {
                // That of a call goes with it.
                Err(status) if status.code() == Code::NotFound => {}
                deleted => drop(deleted.expect("removed")),
            }
        }
    });
    let all_gone = wait::within(wait::LIMIT, || {
        api.wait(async {
            let mut snapshots = api.snapshots();
            let list = snapshots.list(of(namespace, v1::ListSnapshotsRequest {})).await;
            let left = list.expect("a list").into_inner().snapshots;
            for one in &left {
                let request =
                    v1::RemoveSnapshotRequest { request_id: request_id(), key: one.key.clone() };
                // One with children goes after them.
                let _ = snapshots.remove(of(namespace, request)).await;
            }
            left.is_empty().then_some(())
        })
    });
    assert!(all_gone.is_some(), "snapshots of {namespace} can't be removed");
    api.wait(async {
        let mut content = api.content();
        let list = content.list_ingests(of(namespace, v1::ListIngestsRequest {})).await;
        for ingest in list.expect("a list").into_inner().ingests {
            let request =
                v1::AbortRequest { request_id: request_id(), reference: ingest.reference };
            let _ = content.abort(of(namespace, request)).await;
        }
    });
}

/// Messages as bytes.
#[derive(Clone, Copy)]
struct Bytes;

impl Codec for Bytes {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        bytes::BufMut::put_slice(buffer, &item);
        Ok(())
    }
}

impl Decoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut item = vec![0; bytes::Buf::remaining(buffer)];
        bytes::Buf::copy_to_slice(buffer, &mut item);
        Ok(Some(item))
    }
}
