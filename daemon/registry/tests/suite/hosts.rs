//! Which host is asked, and how it is spoken to.

use std::path::Path;
use std::process::Command;

use bosun_registry::{Error, Options, Registry, Repository};

use super::fake::{Fake, Reply};
use super::{manifest, options};

/// A repository of `host`, whose directory has this file.
async fn with_file(root: &Path, host: &str, text: &str) -> Result<Repository, Error> {
    let directory = root.join(host);
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("hosts.toml"), text).unwrap();
    let registry = Registry::new(Options { certs_dirs: vec![root.to_owned()], ..options() });
    registry.repository(&format!("{host}/a/b:tag").parse().unwrap(), None).await
}

#[tokio::test]
async fn mirrors_are_asked_and_then_the_server_without_a_pause() {
    let first = Fake::start(|_| Reply::new(404, "")).await;
    let second = Fake::start(|_| Reply::ok("<html>")).await;
    let server = Fake::start(|_| Reply::ok(manifest())).await;
    let root = tempfile::tempdir().unwrap();
    for pair in [[&first, &second], [&second, &first]] {
        let text = format!(
            "server = {:?}\n[host.{:?}]\n[host.{:?}]\ncapabilities = [\"pull\", \"resolve\"]",
            server.url(""),
            pair[0].url(""),
            pair[1].url("")
        );
        let told = std::sync::Arc::new(std::sync::Mutex::new(0));
        let tell = std::sync::Arc::clone(&told);
        let repository = with_file(root.path(), "registry.test", &text).await.unwrap();
        let repository = repository.on_retry(move |_| *tell.lock().unwrap() += 1);
        repository.resolve().await.unwrap();
        assert_eq!(*told.lock().unwrap(), 0);
    }
    for fake in [&first, &second, &server] {
        let path = "GET /v2/a/b/manifests/tag?ns=registry.test";
        assert_eq!(fake.paths(), [path, path]);
    }
}

#[tokio::test]
async fn an_error_says_what_each_mirror_answered() {
    let first = Fake::start(|_| Reply::new(404, "")).await;
    let second = Fake::start(|_| Reply::new(503, "")).await;
    let server = Fake::start(|_| Reply::new(404, "")).await;
    let root = tempfile::tempdir().unwrap();
    // Both orders, so that neither is that of the names.
    for [(one, answer), (two, other)] in
        [[(&first, 404), (&second, 503)], [(&second, 503), (&first, 404)]]
    {
        let (server, urls) = (server.url(""), [one.url(""), two.url("")]);
        let text = format!("server = {server:?}\n[host.{:?}]\n[host.{:?}]\n", urls[0], urls[1]);
        let repository = with_file(root.path(), "docker.io", &text).await.unwrap();
        let text = repository.resolve().await.unwrap_err().to_string();
        let wanted = format!(
            "image \"a/b:tag\": not found in registry docker.io \
             (tried mirror {}: {answer}, mirror {}: {other})",
            one.host(),
            two.host()
        );
        assert!(text.starts_with(&wanted), "{text}");
    }
}

#[tokio::test]
async fn a_mirror_is_asked_only_for_what_it_can() {
    let mirror = Fake::start(|_| Reply::ok(manifest())).await;
    let server = Fake::start(|_| Reply::ok(manifest())).await;
    let root = tempfile::tempdir().unwrap();
    let text = format!(
        "server = {:?}\n[host.\"{}/base/path\"]\ncapabilities = [\"pull\"]\noverride_path = true\n\
         [host.\"{}/base/path\".header]\nx-key = [\"one\", \"two\"]",
        server.url(""),
        mirror.url(""),
        mirror.url("")
    );
    let repository = with_file(root.path(), "registry.test", &text).await.unwrap();
    let resolved = repository.resolve().await.unwrap();
    assert!(mirror.seen().is_empty());
    repository.manifest(&resolved.descriptor).await.unwrap();
    let seen = mirror.seen();
    let digest = &resolved.descriptor.digest;
    let path = format!("/base/path/a/b/manifests/{digest}?ns=registry.test");
    assert_eq!((seen.len(), &seen[0].path), (1, &path));
    assert_eq!(seen[0].header("x-key"), Some("one"));
}

#[tokio::test]
async fn a_hosts_own_headers_stay_at_home() {
    let storage = Fake::start(|_| Reply::ok(manifest())).await;
    let to = storage.url("/x");
    let server = Fake::start(move |_| Reply::redirect(&to)).await;
    let root = tempfile::tempdir().unwrap();
    let text = format!("server = {:?}\n[header]\nx-api-key = \"secret\"\n", server.url(""));
    let repository = with_file(root.path(), "registry.test", &text).await.unwrap();
    repository.resolve().await.unwrap();
    assert_eq!(server.seen()[0].header("x-api-key"), Some("secret"));
    assert_eq!(storage.seen()[0].header("x-api-key"), None);
}

#[tokio::test]
async fn a_file_that_makes_no_sense_is_named() {
    let root = tempfile::tempdir().unwrap();
    let bad = [
        "server = 7",
        "server = \"ftp://x\"",
        "server = \"https://user:secret@x\"",
        "ca = \"missing.crt\"",
        "ca = \"hosts.toml\"",
        "client = [[\"hosts.toml\", \"hosts.toml\"]]",
        "client = [[]]",
        "capabilities = [\"fly\"]",
        "dial_timeout = \"soon\"",
        "[header]\n\"b a d\" = \"x\"",
    ];
    for text in bad {
        let error = with_file(root.path(), "registry.test", text).await.unwrap_err();
        assert!(matches!(error, Error::Hosts { .. }), "{text}: {error:?}");
        let text = error.to_string();
        assert!(text.contains("registry.test/") && !text.contains("secret"), "{text}");
    }
}

#[tokio::test]
async fn the_directory_of_a_host_has_containerds_names() {
    let mirror = Fake::start(|_| Reply::ok(manifest())).await;
    let text = format!("server = {:?}", mirror.url(""));
    for name in ["registry.test:5000", "registry.test_5000_", "_default"] {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join(name)).unwrap();
        std::fs::write(root.path().join(name).join("hosts.toml"), &text).unwrap();
        let certs_dirs = vec![root.path().join("nowhere"), root.path().to_owned()];
        let registry = Registry::new(Options { certs_dirs, ..options() });
        let reference = "registry.test:5000/a/b:tag".parse().unwrap();
        registry.repository(&reference, None).await.unwrap().resolve().await.unwrap();
    }
    assert_eq!(mirror.seen().len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_loopback_is_spoken_to_without_tls() {
    let fake = Fake::start(|_| Reply::ok(manifest())).await;
    super::repository(&fake.host()).await.resolve().await.unwrap();
    let localhost = fake.host().replace("127.0.0.1", "localhost");
    super::repository(&localhost).await.resolve().await.unwrap();
    assert_eq!(fake.seen().len(), 2);
    // The same server under a name that is not known to be loopback, over a proxy that would let
    // plain HTTP through: only CONNECT is ever tried.
    run_alone("child_without_tls", &fake.url(""));
    let methods: Vec<_> = fake.seen()[2..].iter().map(|request| request.method.clone()).collect();
    assert!(!methods.is_empty() && methods.iter().all(|method| method == "CONNECT"), "{methods:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_of_the_environment_is_used_but_not_for_loopback() {
    let proxy = Fake::start(|_| Reply::ok(manifest())).await;
    run_alone("child_behind_a_proxy", &proxy.url(""));
    let paths = proxy.paths();
    assert_eq!(paths, ["GET http://registry.test/v2/a/b/manifests/tag?ns=registry.example"]);
    run_alone("child_beside_a_proxy", &proxy.url(""));
    assert_eq!(proxy.seen().len(), 1);
}

/// Runs one of the tests below in a process of its own, with a proxy in its environment.
fn run_alone(test: &str, proxy: &str) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", &format!("hosts::{test}")])
        .envs([("HTTP_PROXY", proxy), ("https_proxy", proxy)])
        .env_remove("NO_PROXY")
        .env_remove("no_proxy")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[tokio::test]
#[ignore = "run by another test, with a proxy in its environment"]
async fn child_without_tls() {
    let error = super::repository("registry.test").await.resolve().await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
}

#[tokio::test]
#[ignore = "run by another test, with a proxy in its environment"]
async fn child_behind_a_proxy() {
    let root = tempfile::tempdir().unwrap();
    let text = "server = \"http://registry.test\"";
    let repository = with_file(root.path(), "registry.example", text).await.unwrap();
    repository.resolve().await.unwrap();
}

#[tokio::test]
#[ignore = "run by another test, with a proxy in its environment"]
async fn child_beside_a_proxy() {
    let fake = Fake::start(|_| Reply::ok(manifest())).await;
    super::repository(&fake.host()).await.resolve().await.unwrap();
    assert_eq!(fake.seen().len(), 1);
}
