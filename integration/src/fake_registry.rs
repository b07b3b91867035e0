//! A registry that does what a test tells it to: also wrong, slow, and never.
//!
//! Plain HTTP inside a network namespace, everything in memory, every request recorded. Rules come
//! before the honest answer; the first that matches and is not used up decides.

mod honest;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use honest::Honest;

use crate::http_server::{Out, Request, Server};
use crate::image::{Blob, Image};
use crate::netns::NetNs;

/// In place of the honest answer.
#[derive(Clone, Debug)]
pub enum Answer {
    /// With the error document of the distribution specification.
    Status(u16),
    /// As it is.
    Whole { status: u16, headers: Vec<(String, String)>, body: Vec<u8> },
    /// The honest bytes after a head that promises another number of them; then the end.
    Promise(u64),
    /// The honest head and so many bytes of what it promises; then the end.
    Cut(usize),
    /// The honest head and so many bytes; the rest after [`FakeRegistry::release`].
    Hold(usize),
    /// All of a blob, whatever range was asked for.
    IgnoreRange,
    /// The honest answer, a byte a second.
    Slow,
    /// Nothing at all, for as long as the client waits.
    Silent,
    /// Not HTTP.
    Garbage,
    /// Goes on to write zeros until the client hangs up or so many bytes are out.
    Endless(u64),
}

impl Answer {
    #[must_use]
    pub fn redirect(to: &str) -> Self {
        let headers = vec![("Location".to_owned(), to.to_owned())];
        Self::Whole { status: 307, headers, body: Vec::new() }
    }

    #[must_use]
    pub fn too_many(retry_after: u32) -> Self {
        let headers = vec![("Retry-After".to_owned(), retry_after.to_string())];
        Self::Whole { status: 429, headers, body: Vec::new() }
    }

    #[must_use]
    pub fn bytes(body: &[u8]) -> Self {
        let media_type = "application/octet-stream".to_owned();
        let headers = vec![("Content-Type".to_owned(), media_type)];
        Self::Whole { status: 200, headers, body: body.to_owned() }
    }

    /// A document with a media type.
    #[must_use]
    pub fn document(media_type: &str, body: &[u8]) -> Self {
        let headers = vec![("Content-Type".to_owned(), media_type.to_owned())];
        Self::Whole { status: 200, headers, body: body.to_owned() }
    }
}

/// Whom it lets in.
#[derive(Clone, Debug, Default)]
pub enum Auth {
    #[default]
    Everybody,
    Basic {
        user: String,
        password: String,
    },
    /// Tokens from `/token` of the realm: this registry's own address when that is empty. Anonymous
    /// clients get tokens to pull.
    Bearer {
        user: String,
        password: String,
        realm: String,
    },
}

#[derive(Debug, Default)]
struct State {
    auth: Auth,
    blobs: BTreeMap<String, Vec<u8>>,
    /// Repositories of each blob.
    places: BTreeSet<(String, String)>,
    /// Media type and bytes by repository and digest.
    manifests: BTreeMap<(String, String), Blob>,
    tags: BTreeMap<(String, String), String>,
    uploads: BTreeMap<String, Vec<u8>>,
    tokens: BTreeMap<String, Vec<String>>,
    rules: Vec<Rule>,
    requests: Vec<Request>,
    released: bool,
}

#[derive(Debug)]
struct Rule {
    part: String,
    left: Option<usize>,
    answer: Answer,
}

/// See the module.
#[derive(Debug)]
pub struct FakeRegistry {
    state: Arc<Mutex<State>>,
    server: Server,
}

impl FakeRegistry {
    /// On a free port of 127.0.0.1 there.
    #[must_use]
    pub fn start(netns: &NetNs) -> Self {
        Self::start_at(netns, Ipv4Addr::LOCALHOST)
    }

    /// On another loopback address, which is another host.
    #[must_use]
    pub fn start_at(netns: &NetNs, address: Ipv4Addr) -> Self {
        let state = Arc::<Mutex<State>>::default();
        let shared = state.clone();
        let handler = move |request: &Request, out: &mut Out<'_>| handle(&shared, request, out);
        Self { state, server: Server::start(netns, address, Arc::new(handler)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// As in an image's name: `127.0.0.1:PORT`.
    #[must_use]
    pub fn host(&self) -> String {
        self.address().to_string()
    }

    /// Offers an image under a tag, and gives its name.
    pub fn add(&self, repository: &str, tag: &str, image: &Image) -> String {
        let mut state = self.state();
        for blob in image.blobs() {
            let place = (repository.to_owned(), blob.digest.clone());
            if blob.is_manifest() {
                state.manifests.insert(place.clone(), blob.clone());
            }
            state.blobs.insert(blob.digest.clone(), blob.bytes.clone());
            state.places.insert(place);
        }
        // Documents of any type can be the target of a tag.
        let place = (repository.to_owned(), image.digest().to_owned());
        state.manifests.insert(place, image.target.clone());
        state.tags.insert((repository.to_owned(), tag.to_owned()), image.digest().to_owned());
        format!("{}/{repository}:{tag}", self.host())
    }

    pub fn require(&self, auth: Auth) {
        self.state().auth = auth;
    }

    /// From now on, for each request whose `METHOD PATH` holds the text.
    pub fn always(&self, part: &str, answer: Answer) {
        self.state().rules.push(Rule { part: part.to_owned(), left: None, answer });
    }

    /// For the next so many.
    pub fn next(&self, count: usize, part: &str, answer: Answer) {
        self.state().rules.push(Rule { part: part.to_owned(), left: Some(count), answer });
    }

    /// Honest again.
    pub fn forgive(&self) {
        self.state().rules.clear();
    }

    /// Lets go of everything that is on [`Answer::Hold`], for good.
    pub fn release(&self) {
        self.state().released = true;
    }

    /// Every request so far, without the bodies.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.state().requests.clone()
    }

    pub fn forget_requests(&self) {
        self.state().requests.clear();
    }

    /// How many requests had the text in `METHOD PATH`.
    #[must_use]
    pub fn count(&self, part: &str) -> usize {
        self.state().requests.iter().filter(|request| line(request).contains(part)).count()
    }

    #[must_use]
    pub fn has_blob(&self, repository: &str, digest: &str) -> bool {
        self.state().places.contains(&(repository.to_owned(), digest.to_owned()))
    }

    /// What a tag stands for.
    #[must_use]
    pub fn tag(&self, repository: &str, tag: &str) -> Option<Blob> {
        let state = self.state();
        let digest = state.tags.get(&(repository.to_owned(), tag.to_owned()))?;
        state.manifests.get(&(repository.to_owned(), digest.clone())).cloned()
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().expect("no handler panics with it")
}

fn line(request: &Request) -> String {
    format!("{} {}", request.method, request.path)
}

fn handle(state: &Mutex<State>, request: &Request, out: &mut Out<'_>) -> io::Result<()> {
    let rule = {
        let mut state = lock(state);
        state.requests.push(Request { body: Vec::new(), ..request.clone() });
        let line = line(request);
        let rule =
            state.rules.iter_mut().find(|rule| rule.left != Some(0) && line.contains(&rule.part));
        rule.map(|rule| {
            rule.left = rule.left.map(|left| left - 1);
            rule.answer.clone()
        })
    };
    let honest = |range: bool| lock(state).honest(request, range);
    match rule {
        None => honest(true).write(out),
        Some(Answer::IgnoreRange) => honest(false).write(out),
        Some(Answer::Status(status)) => Honest::error(status, "TOLD", "told to").write(out),
        Some(Answer::Whole { status, headers, body }) => {
            Honest { status, headers, body }.write(out)
        }
        Some(Answer::Promise(length)) => {
            let honest = honest(true);
            honest.head(out, length)?;
            out.bytes(&honest.body)?;
            end()
        }
        Some(Answer::Cut(after)) => {
            let honest = honest(true);
            honest.head(out, honest.body.len() as u64)?;
            out.bytes(&honest.body[..after.min(honest.body.len())])?;
            end()
        }
        Some(Answer::Hold(after)) => {
            let honest = honest(true);
            let (first, rest) = honest.body.split_at(after.min(honest.body.len()));
            honest.head(out, honest.body.len() as u64)?;
            out.bytes(first)?;
            if out.wait(|| lock(state).released) { out.bytes(rest) } else { end() }
        }
        Some(Answer::Slow) => {
            let honest = honest(true);
            honest.head(out, honest.body.len() as u64)?;
            for byte in honest.body {
                out.bytes(&[byte])?;
                let next = Instant::now() + Duration::from_secs(1);
                if !out.wait(|| Instant::now() >= next) {
                    return end();
                }
            }
            Ok(())
        }
        Some(Answer::Silent) => {
            out.wait(|| false);
            end()
        }
        Some(Answer::Garbage) => {
            out.bytes(b"\x16\x03\x01 this is not what you asked for\r\n\r\n")?;
            end()
        }
        Some(Answer::Endless(limit)) => {
            honest(true).head(out, limit)?;
            let chunk = vec![0; 1 << 20];
            (0..limit >> 20).try_for_each(|_| out.bytes(&chunk))?;
            end()
        }
    }
}

/// Ends the connection.
fn end() -> io::Result<()> {
    Err(io::ErrorKind::ConnectionAborted.into())
}

/// The header's value for a name and a password.
#[must_use]
pub fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

#[cfg(test)]
mod tests {
    use std::process::Output;

    use super::{Answer, Auth, FakeRegistry};
    use crate::image::{Image, Recipe, noise};
    use crate::netns::NetNs;
    use crate::tar::Entry;

    fn skopeo(netns: &NetNs, words: &str) -> Output {
        let mut command = netns.command("skopeo");
        command.args(["--insecure-policy", "copy", "--quiet", "--src-tls-verify=false"]);
        command.args(crate::ctl::split(words)).output().unwrap()
    }

    fn image() -> Image {
        Recipe::new().files(&[Entry::file("noise", noise(1, 100_000))]).image()
    }

    #[test]
    fn it_is_a_registry() {
        let netns = NetNs::new(&format!("bosun-f-{}", std::process::id()));
        let (registry, directory) = (FakeRegistry::start(&netns), tempfile::tempdir().unwrap());
        let (name, place) = (registry.add("a", "1", &image()), directory.path().display());
        assert!(skopeo(&netns, &format!("docker://{name} dir:{place}")).status.success());
        registry.require(Auth::Bearer {
            user: "user".to_owned(),
            password: "password".to_owned(),
            realm: String::new(),
        });
        let push =
            format!("--dest-tls-verify=false dir:{place} docker://{}/b/c:2", registry.host());
        assert!(!skopeo(&netns, &push).status.success());
        let push = format!("--dest-creds user:password {push}");
        let output = skopeo(&netns, &push);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(registry.tag("b/c", "2").unwrap().digest, image().digest());
        assert!(registry.has_blob("b/c", &image().layers()[0].digest));
    }

    #[test]
    fn it_does_as_it_is_told() {
        let netns = NetNs::new(&format!("bosun-g-{}", std::process::id()));
        let (registry, image) = (FakeRegistry::start(&netns), image());
        let path = format!("/v2/a/blobs/{}", image.layers()[0].digest);
        registry.add("a", "1", &image);
        let get = |headers: &[(&str, &str)]| {
            crate::http::send(&netns.path(), registry.address(), "GET", &path, headers, &[])
        };
        let whole = get(&[]).unwrap().body;
        assert_eq!(whole, image.layers()[0].bytes);
        let part = get(&[("Range", "bytes=99-")]).unwrap();
        assert_eq!((part.status, &part.body[..]), (206, &whole[99..]));
        registry.next(1, "GET /v2/a/blobs/", Answer::IgnoreRange);
        assert_eq!(get(&[("Range", "bytes=99-")]).unwrap().body.len(), whole.len());
        registry.next(1, "GET /v2/a/blobs/", Answer::Cut(10));
        assert_eq!(get(&[]).unwrap().body.len(), 10);
        registry.next(1, "/blobs/", Answer::too_many(7));
        assert_eq!(get(&[]).unwrap().header("retry-after"), Some("7"));
        registry.next(1, "/blobs/", Answer::Garbage);
        assert!(get(&[]).is_err());
        registry.next(1, "/blobs/", Answer::Hold(5));
        std::thread::scope(|scope| {
            let held = scope.spawn(|| get(&[]));
            crate::wait::until_true("the request", || registry.count("/blobs/") == 7);
            registry.release();
            assert_eq!(held.join().unwrap().unwrap().body, whole);
        });
        assert_eq!(registry.count("GET /v2/a/blobs/"), 7);
    }
}
