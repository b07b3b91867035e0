//! The client against Debian's docker-registry, where it is installed: plain, and with TLS of its
//! own authority and a password.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bosun_image::{Descriptor, Manifest, media_type};
use bosun_registry::{Error, Options, Pushed, Registry, Repository};
use bytes::Bytes;
use futures::stream;

use super::{options, password, read};

const PROGRAM: &str = "/usr/bin/docker-registry";

struct Server {
    child: Child,
    address: SocketAddr,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Nothing, where the program is missing.
fn start(root: &Path, more: &str) -> Option<Server> {
    if !Path::new(PROGRAM).exists() {
        eprintln!("skipped: {PROGRAM} is not installed");
        return None;
    }
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = format!(
        "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {:?}}}}}\n\
         http:\n  addr: {address}\n{more}",
        root.join("data")
    );
    std::fs::write(root.join("config.yml"), config).unwrap();
    let mut command = Command::new(PROGRAM);
    command.arg("serve").arg(root.join("config.yml"));
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let server = Server { child, address };
    for _ in 0..200 {
        if TcpStream::connect(address).is_ok() {
            return Some(server);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("{PROGRAM} does not listen");
}

/// Real work is not held to a test's impatience.
fn patient(certs: &Path) -> Registry {
    let timeout = Duration::from_secs(20);
    let (response_timeout, idle_timeout) = (timeout, timeout);
    let certs_dirs = vec![certs.to_owned()];
    Registry::new(Options { response_timeout, idle_timeout, certs_dirs, ..options() })
}

/// Pushes an image and pulls it again.
async fn there_and_back(repository: &Repository, other: &Repository) {
    let (bytes, layer) = super::fake::blob(3_000_000);
    let config = Descriptor::of(media_type::OCI_CONFIG, b"{}");
    let open = || {
        let pieces: Vec<_> =
            bytes.chunks(100_000).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        stream::iter(pieces)
    };
    assert_eq!(repository.push_blob(&layer, open, &[]).await.unwrap(), Pushed::Uploaded);
    assert_eq!(repository.push_blob(&layer, open, &[]).await.unwrap(), Pushed::Exists);
    let small = || stream::iter([Ok(Bytes::from_static(b"{}"))]);
    repository.push_blob(&config, small, &[]).await.unwrap();
    let from = [repository.reference().path().to_owned()];
    assert_eq!(other.push_blob(&layer, open, &from).await.unwrap(), Pushed::Mounted);

    let document = Manifest {
        media_type: media_type::OCI_MANIFEST.to_owned(),
        config: config.clone(),
        layers: vec![layer.clone()],
        annotations: Default::default(),
    }
    .to_bytes();
    let descriptor = Descriptor::of(media_type::OCI_MANIFEST, &document);
    let missing = repository.resolve().await.unwrap_err();
    assert!(matches!(missing, Error::NotFound { .. }), "{missing}");
    let document = Bytes::from(document);
    repository.push_manifest(&descriptor, document.clone(), Some("tag")).await.unwrap();

    let resolved = repository.resolve().await.unwrap();
    assert_eq!((&resolved.descriptor, &resolved.body), (&descriptor, &document));
    assert_eq!(repository.manifest(&descriptor).await.unwrap(), document);
    assert_eq!(&repository.small_blob(&config).await.unwrap()[..], b"{}");
    for offset in [0, 1_234_567] {
        let mut blob = repository.blob(&layer, offset as u64).await.unwrap();
        assert!(read(&mut blob).await.unwrap() == bytes[offset..]);
    }
}

#[tokio::test]
async fn a_plain_registry_takes_and_gives_an_image() {
    let root = tempfile::tempdir().unwrap();
    let Some(server) = start(root.path(), "") else { return };
    let registry = patient(root.path());
    let repository = super::repository_of(&registry, &server.address.to_string(), None).await;
    let other = format!("{}/c/d:tag", server.address).parse().unwrap();
    let other = registry.repository(&other, None).await.unwrap();
    there_and_back(&repository, &other).await;
}

#[tokio::test]
async fn a_registry_with_its_own_authority_and_a_password_does_too() {
    let root = tempfile::tempdir().unwrap();
    let path = |name: &str| root.path().join(name).to_str().unwrap().to_owned();
    let (key, certificate, users) = (path("key.pem"), path("ca.crt"), path("htpasswd"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])
        .args([
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=test",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
        ])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .args(["-keyout", &key, "-out", &certificate])
        .output();
    let listed = Command::new("htpasswd").args(["-nbB", "user", "hunter2"]).output();
    let (Ok(_), Ok(listed)) = (made, listed) else {
        eprintln!("skipped: openssl or htpasswd is not installed");
        return;
    };
    std::fs::write(&users, listed.stdout).unwrap();
    let more = format!(
        "  tls: {{certificate: {certificate:?}, key: {key:?}}}\n\
         auth: {{htpasswd: {{realm: test, path: {users:?}}}}}\n"
    );
    let Some(server) = start(root.path(), &more) else { return };
    let host = server.address.to_string();

    // Not trusted: an error, and no word of the password without TLS.
    let who = || Some(password(&host, "hunter2"));
    let untrusting = patient(&root.path().join("nowhere"));
    let error = super::repository_of(&untrusting, &host, who()).await.resolve().await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    assert!(error.to_string().contains("certificate"), "{error}");

    let certs = root.path().join("certs.d");
    let mut trusting = Vec::new();
    // As docker has it, and as containerd has it.
    for file in ["ca.crt", "hosts.toml"] {
        let directory = certs.join(file).join(&host);
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::copy(&certificate, directory.join(if file == "ca.crt" { file } else { "ca" }))
            .unwrap();
        if file == "hosts.toml" {
            std::fs::write(directory.join(file), "ca = \"ca\"").unwrap();
        }
        trusting.push(patient(&certs.join(file)));
    }
    let [docker, containerd] = &trusting[..] else { unreachable!() };
    assert_eq!(docker.login(password(&host, "hunter2")).await.unwrap(), None);
    let wrong = docker.login(password(&host, "hunter3")).await.unwrap_err();
    assert!(matches!(wrong, Error::Unauthorized { .. }), "{wrong}");
    let nobody = super::repository_of(docker, &host, None).await.resolve().await.unwrap_err();
    assert!(matches!(nobody, Error::Unauthorized { .. }), "{nobody}");
    let repository = super::repository_of(containerd, &host, who()).await;
    let other = format!("{host}/c/d:tag").parse().unwrap();
    let other = containerd.repository(&other, who()).await.unwrap();
    there_and_back(&repository, &other).await;
}
