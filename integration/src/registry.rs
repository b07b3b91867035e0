//! Debian's docker-registry, a process of its own inside a network namespace.
//!
//! Beside the one that a test asks for runs another over the same storage, open and plain: the back
//! door through which fixtures come in and pushes are looked at.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::fake_registry::basic;
use crate::http::{self, Reply};
use crate::http_server::{Out, Request, Server};
use crate::image::{DOCKER_LIST, DOCKER_MANIFEST, Image, OCI_INDEX, OCI_MANIFEST};
use crate::netns::{self, NetNs};
use crate::wait;

pub const USER: &str = "tester";
pub const PASSWORD: &str = "pass:word?&%";
/// bcrypt of [`PASSWORD`], as `htpasswd -nbB -C 4` writes it.
const HTPASSWD: &str = "$2y$04$U8Fw0cFqbdMlZKm.CIq.wOvoBXWdj4R4.g/vaYDCkl/xxpgQyXLWy";

/// A real registry. See the module.
#[derive(Debug)]
pub struct Registry {
    namespace: PathBuf,
    directory: TempDir,
    front: Process,
    back: Option<Process>,
    /// Gives the tokens, where there are any.
    _tokens: Option<Server>,
}

#[derive(Debug)]
struct Process {
    child: Child,
    address: SocketAddr,
}

impl Registry {
    /// Plain HTTP, open to all.
    #[must_use]
    pub fn start(netns: &NetNs) -> Self {
        Self::with(netns, |_, _| (String::new(), None))
    }

    /// HTTPS with a certificate of [`authority`](Self::authority)'s.
    #[must_use]
    pub fn with_tls(netns: &NetNs) -> Self {
        Self::with(netns, |_, directory| {
            make_certificates(directory);
            let text = format!(
                "  tls:\n    certificate: {0}/server.pem\n    key: {0}/server.key\n",
                directory.display()
            );
            (text, None)
        })
    }

    /// Lets [`USER`] with [`PASSWORD`] in.
    #[must_use]
    pub fn with_basic_auth(netns: &NetNs) -> Self {
        Self::with(netns, |_, directory| {
            let file = directory.join("htpasswd");
            fs::write(&file, format!("{USER}:{HTPASSWD}\n")).expect("a file");
            let text =
                format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", file.display());
            (text, None)
        })
    }

    /// Wants tokens, which a server beside it signs for [`USER`] with [`PASSWORD`].
    #[must_use]
    pub fn with_token_auth(netns: &NetNs) -> Self {
        Self::with(netns, |netns, directory| {
            make_certificates(directory);
            let place = directory.to_owned();
            let handler =
                move |request: &Request, out: &mut Out<'_>| give_token(&place, request, out);
            let server = Server::start(netns, Ipv4Addr::LOCALHOST, Arc::new(handler));
            let text = format!(
                "auth:\n  token:\n    realm: http://{}/token\n    service: test\n    issuer: tester\n    rootcertbundle: {}/authority.pem\n",
                server.address(),
                directory.display()
            );
            (text, Some(server))
        })
    }

    fn with(netns: &NetNs, front: impl FnOnce(&NetNs, &Path) -> (String, Option<Server>)) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("bosun-registry-")
            .tempdir_in("/tmp")
            .expect("a directory in /tmp");
        let (more, tokens) = front(netns, directory.path());
        let (back, front) = if more.is_empty() {
            (None, Process::start(netns, directory.path(), "front", ""))
        } else {
            let back = Process::start(netns, directory.path(), "back", "");
            (Some(back), Process::start(netns, directory.path(), "front", &more))
        };
        Self { namespace: netns.path(), directory, front, back, _tokens: tokens }
    }

    /// As in an image's name: `127.0.0.1:PORT`.
    #[must_use]
    pub fn host(&self) -> String {
        self.front.address.to_string()
    }

    /// The same registry under another name of the machine.
    #[must_use]
    pub fn localhost(&self) -> String {
        format!("localhost:{}", self.front.address.port())
    }

    /// The certificate that its own is signed by.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.directory.path().join("authority.pem")
    }

    /// Puts an image there and gives its name.
    ///
    /// # Panics
    /// When the registry doesn't take it.
    pub fn push(&self, repository: &str, tag: &str, image: &Image) -> String {
        for blob in image.parts.iter().filter(|blob| !blob.is_manifest()) {
            let path = format!("/v2/{repository}/blobs/uploads/");
            let reply = self.ask("POST", &path, &[], &[]);
            let location = reply.header("location").expect("where to upload").to_owned();
            let path = location.split_once("//").map_or(location.as_str(), |(_, rest)| {
                &rest[rest.find('/').unwrap_or(rest.len())..]
            });
            let mark = if path.contains('?') { '&' } else { '?' };
            let path = format!("{path}{mark}digest={}", blob.digest);
            let headers = [("Content-Type", "application/octet-stream")];
            let reply = self.ask("PUT", &path, &headers, &blob.bytes);
            assert_eq!(reply.status, 201, "{}", String::from_utf8_lossy(&reply.body));
        }
        let children = image.parts.iter().filter(|blob| blob.is_manifest());
        let named = children.map(|blob| (blob.digest.as_str(), blob)).chain([(tag, &image.target)]);
        for (reference, blob) in named {
            let path = format!("/v2/{repository}/manifests/{reference}");
            let headers = [("Content-Type", blob.media_type.as_str())];
            let reply = self.ask("PUT", &path, &headers, &blob.bytes);
            assert_eq!(reply.status, 201, "{}", String::from_utf8_lossy(&reply.body));
        }
        format!("{}/{repository}:{tag}", self.host())
    }

    /// The manifest or index behind a tag or a digest, when it is there.
    #[must_use]
    pub fn manifest(&self, repository: &str, reference: &str) -> Option<Value> {
        let accept = [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST].join(", ");
        let path = format!("/v2/{repository}/manifests/{reference}");
        let reply = self.ask("GET", &path, &[("Accept", &accept)], &[]);
        (reply.status == 200).then(|| serde_json::from_slice(&reply.body).expect("JSON"))
    }

    /// A blob, when it is there.
    #[must_use]
    pub fn blob(&self, repository: &str, digest: &str) -> Option<Vec<u8>> {
        let reply = self.ask("GET", &format!("/v2/{repository}/blobs/{digest}"), &[], &[]);
        (reply.status == 200).then_some(reply.body)
    }

    /// What it logged about its requests.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("front.log")).unwrap_or_default()
    }

    fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        let door = self.back.as_ref().unwrap_or(&self.front);
        http::send(&self.namespace, door.address, method, path, headers, body)
            .unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }
}

impl Process {
    fn start(netns: &NetNs, directory: &Path, name: &str, more: &str) -> Self {
        // Free in a namespace where nobody else listens on loopback.
        let address = netns
            .run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr())
            .expect("a free port in the namespace");
        let config = directory.join(format!("{name}.yml"));
        let (http_more, top) = if more.starts_with(' ') { (more, "") } else { ("", more) };
        let text = format!(
            "version: 0.1\nlog:\n  accesslog:\n    disabled: false\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n{http_more}{top}",
            directory.join("storage").display()
        );
        fs::write(&config, text).expect("a file");
        let log = fs::File::create(directory.join(format!("{name}.log"))).expect("a file");
        let mut command = netns.command("docker-registry");
        command.arg("serve").arg(&config).env("OTEL_TRACES_EXPORTER", "none");
        command.stdin(Stdio::null()).stderr(log.try_clone().expect("a descriptor")).stdout(log);
        let child = command.spawn().expect("docker-registry is installed");
        let this = Self { child, address };
        wait::until_true("docker-registry to listen", || {
            netns.run(|| std::net::TcpStream::connect(address).is_ok())
        });
        this
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `authority.pem`, and `server.pem` with `server.key` for 127.0.0.1 and localhost, signed by it.
fn make_certificates(directory: &Path) {
    let openssl = |words: &str| {
        let mut command = Command::new("openssl");
        netns::run(command.args(crate::ctl::split(words)).current_dir(directory));
    };
    openssl(
        "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=bosun-test-authority -keyout authority.key -out authority.pem",
    );
    openssl("req -newkey rsa:2048 -nodes -subj /CN=127.0.0.1 -keyout server.key -out server.csr");
    fs::write(directory.join("names"), "subjectAltName=IP:127.0.0.1,DNS:localhost\n")
        .expect("a file");
    openssl(
        "x509 -req -in server.csr -CA authority.pem -CAkey authority.key -CAcreateserial -days 2 -extfile names -out server.pem",
    );
}

/// Answers `/token`: what was asked for, to who knows the password; nothing, signed, to anybody else.
fn give_token(directory: &Path, request: &Request, out: &mut Out<'_>) -> std::io::Result<()> {
    let known = match request.header("authorization") {
        Some(sent) if sent == basic(USER, PASSWORD) => true,
        Some(_) => {
            return out.answer(401, &[], b"{\"details\":\"incorrect username or password\"}");
        }
        None => String::from_utf8_lossy(&request.body).contains("refresh_token="),
    };
    let scopes = request.parameters("scope");
    let access: Vec<Value> = scopes
        .iter()
        .flat_map(|scopes| scopes.split(' '))
        .filter(|_| known)
        .filter_map(|scope| {
            let (kind, rest) = scope.split_once(':')?;
            let (name, actions) = rest.rsplit_once(':')?;
            let actions: Vec<&str> = actions.split(',').collect();
            Some(json!({"type": kind, "name": name, "actions": actions}))
        })
        .collect();
    let token = sign(
        directory,
        &json!({
            "iss": "tester", "aud": "test", "sub": USER, "jti": "1", "access": access,
            "nbf": 0, "iat": 0, "exp": 4_000_000_000_u64,
        }),
    );
    let body = json!({"token": token, "expires_in": 300}).to_string();
    out.answer(200, &[("Content-Type", "application/json")], body.as_bytes())
}

/// A JSON web token, signed with the authority's key (RS256).
fn sign(directory: &Path, claims: &Value) -> String {
    let pem = fs::read_to_string(directory.join("authority.pem")).expect("the certificate");
    let certificate: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    debug_assert!(STANDARD.decode(&certificate).is_ok());
    let header = json!({"typ": "JWT", "alg": "RS256", "x5c": [certificate]});
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let text = format!("{}.{}", part(&header), part(claims));
    let file = tempfile::NamedTempFile::new_in(directory).expect("a file");
    fs::write(file.path(), &text).expect("a file");
    let mut command = Command::new("openssl");
    command.args(["dgst", "-sha256", "-sign", "authority.key"]).arg(file.path());
    let output = command.current_dir(directory).output().expect("openssl runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(output.stdout))
}

#[cfg(test)]
mod tests {
    use super::{PASSWORD, Registry, USER};
    use crate::image::Recipe;
    use crate::netns::NetNs;

    fn skopeo(netns: &NetNs, flags: &[&str], from: &str) -> std::process::Output {
        let directory = tempfile::tempdir().unwrap();
        let mut command = netns.command("skopeo");
        command.args(["--insecure-policy", "copy", "--quiet"]).args(flags);
        command.arg(format!("docker://{from}"));
        command.arg(format!("dir:{}", directory.path().display())).output().unwrap()
    }

    #[test]
    fn skopeo_pulls_from_each_kind() {
        let netns = NetNs::new(&format!("bosun-h-{}", std::process::id()));
        let credentials = format!("{USER}:{PASSWORD}");
        let plain = ["--src-tls-verify=false"];
        let login = ["--src-tls-verify=false", "--src-creds", &credentials];
        let image = Recipe::new().files(&[crate::tar::Entry::file("hello", "hello\n")]).image();
        for (registry, flags) in [
            (Registry::start(&netns), &plain[..]),
            (Registry::with_tls(&netns), &plain[..]),
            (Registry::with_basic_auth(&netns), &login[..]),
            (Registry::with_token_auth(&netns), &login[..]),
        ] {
            let name = registry.push("test/hello", "1", &image);
            let output = skopeo(&netns, flags, &name);
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{said}\n{}", registry.log());
            assert!(registry.manifest("test/hello", image.digest()).is_some());
            if flags.len() > 1 {
                assert!(!skopeo(&netns, &plain, &name).status.success(), "it let anybody in");
            }
        }
    }
}
