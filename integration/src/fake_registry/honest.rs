//! What a registry answers that keeps to the specification: tokens, manifests, blobs by range,
//! uploads and mounts.

use std::io;

use serde_json::{Value, json};

use super::{Auth, State, basic};
use crate::http_server::{Out, Request};
use crate::image::{self, Blob};

/// An answer as a registry gives it.
pub(super) struct Honest {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Honest {
    fn new(status: u16, headers: &[(&str, &str)]) -> Self {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Self { status, headers: headers.iter().map(own).collect(), body: Vec::new() }
    }

    pub(super) fn error(status: u16, code: &str, message: &str) -> Self {
        let value = json!({"errors": [{"code": code, "message": message}]});
        let body = value.to_string().into_bytes();
        Self { body, ..Self::new(status, &[("Content-Type", "application/json")]) }
    }

    fn json(value: &Value) -> Self {
        let body = value.to_string().into_bytes();
        Self { body, ..Self::new(200, &[("Content-Type", "application/json")]) }
    }

    fn borrowed(&self) -> Vec<(&str, &str)> {
        self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }

    pub(super) fn head(&self, out: &mut Out<'_>, length: u64) -> io::Result<()> {
        out.head(self.status, &self.borrowed(), length)
    }

    pub(super) fn write(&self, out: &mut Out<'_>) -> io::Result<()> {
        out.answer(self.status, &self.borrowed(), &self.body)
    }
}

impl State {
    pub(super) fn honest(&mut self, request: &Request, range: bool) -> Honest {
        if request.path == "/token" {
            return self.token(request);
        }
        let Some(rest) = request.path.strip_prefix("/v2/") else {
            return Honest::error(404, "NOT_FOUND", "no such path");
        };
        if let Some(refusal) = self.refusal(request, rest) {
            return refusal;
        }
        if rest.is_empty() {
            return Honest::json(&json!({}));
        }
        for (middle, serve) in [
            ("/manifests/", Self::manifest as fn(&mut Self, &Request, &str, &str, bool) -> Honest),
            ("/blobs/uploads/", Self::upload),
            ("/blobs/", Self::blob),
            ("/tags/", Self::list_tags),
        ] {
            if let Some((repository, name)) = rest.split_once(middle) {
                return serve(self, request, repository, name, range);
            }
        }
        Honest::error(404, "NOT_FOUND", "no such path")
    }

    /// The 401 for who may not do that.
    fn refusal(&self, request: &Request, rest: &str) -> Option<Honest> {
        let authorization = request.header("authorization").unwrap_or_default();
        let challenge = match &self.auth {
            Auth::Everybody => return None,
            Auth::Basic { user, password } => {
                if authorization == basic(user, password) {
                    return None;
                }
                "Basic realm=\"fake\"".to_owned()
            }
            Auth::Bearer { realm, .. } => {
                let repository = ["/manifests/", "/blobs/", "/tags/"]
                    .iter()
                    .find_map(|middle| Some(rest.split_once(middle)?.0));
                let action =
                    if matches!(request.method.as_str(), "GET" | "HEAD") { "pull" } else { "push" };
                if self.token_allows(authorization, repository, action) {
                    return None;
                }
                let host = request.header("host").unwrap_or_default();
                let realm =
                    if realm.is_empty() { format!("http://{host}/token") } else { realm.clone() };
                let scope = repository
                    .map(|name| {
                        let actions = if action == "push" { "pull,push" } else { "pull" };
                        format!(",scope=\"repository:{name}:{actions}\"")
                    })
                    .unwrap_or_default();
                format!("Bearer realm=\"{realm}\",service=\"fake\"{scope}")
            }
        };
        let mut refusal = Honest::error(401, "UNAUTHORIZED", "authentication required");
        refusal.headers.push(("WWW-Authenticate".to_owned(), challenge));
        Some(refusal)
    }

    fn token_allows(&self, authorization: &str, repository: Option<&str>, action: &str) -> bool {
        let Some(token) = authorization.strip_prefix("Bearer ") else { return false };
        let Some(scopes) = self.tokens.get(token) else { return false };
        let Some(repository) = repository else { return true };
        scopes.iter().any(|scope| {
            scope
                .strip_prefix(&format!("repository:{repository}:"))
                .is_some_and(|actions| actions.split(',').any(|allowed| allowed == action))
        })
    }

    fn token(&mut self, request: &Request) -> Honest {
        let Auth::Bearer { user, password, .. } = &self.auth else {
            return Honest::error(404, "NOT_FOUND", "no tokens here");
        };
        let form = Request {
            query: String::from_utf8_lossy(&request.body).into_owned(),
            ..request.clone()
        };
        let known = match request.header("authorization") {
            Some(sent) if sent == basic(user, password) => true,
            Some(_) => return Honest::error(401, "UNAUTHORIZED", "incorrect username or password"),
            None => {
                form.parameter("refresh_token").is_some_and(|sent| sent == *password)
                    || form.parameter("password").is_some_and(|sent| sent == *password)
            }
        };
        let asked = [request.parameters("scope"), form.parameters("scope")].concat();
        let granted = asked.iter().flat_map(|scopes| scopes.split(' ')).map(|scope| {
            if known { scope.to_owned() } else { scope.replace(":pull,push", ":pull") }
        });
        let granted: Vec<String> = granted.collect();
        let token = format!("token-{}", self.tokens.len());
        self.tokens.insert(token.clone(), granted);
        Honest::json(&json!({"token": token, "access_token": token, "expires_in": 300}))
    }

    fn manifest(&mut self, request: &Request, repository: &str, name: &str, _: bool) -> Honest {
        let key = (repository.to_owned(), name.to_owned());
        if request.method == "PUT" {
            let media_type = request.header("content-type").unwrap_or_default();
            let blob = Blob::new(media_type, request.body.clone());
            let digest = blob.digest.clone();
            self.manifests.insert((repository.to_owned(), digest.clone()), blob);
            if !name.contains(':') {
                self.tags.insert(key, digest.clone());
            }
            return Honest::new(201, &[("Docker-Content-Digest", &digest)]);
        }
        let digest = self.tags.get(&key).cloned().unwrap_or(key.1);
        match self.manifests.get(&(key.0, digest)) {
            None => Honest::error(404, "MANIFEST_UNKNOWN", "manifest unknown"),
            Some(blob) => {
                let headers = [
                    ("Content-Type", blob.media_type.as_str()),
                    ("Docker-Content-Digest", &blob.digest),
                ];
                Honest { body: blob.bytes.clone(), ..Honest::new(200, &headers) }
            }
        }
    }

    fn blob(&mut self, request: &Request, repository: &str, digest: &str, range: bool) -> Honest {
        if !self.places.contains(&(repository.to_owned(), digest.to_owned())) {
            return Honest::error(404, "BLOB_UNKNOWN", "blob unknown");
        }
        let bytes = &self.blobs[digest];
        let headers = [
            ("Content-Type", "application/octet-stream"),
            ("Docker-Content-Digest", digest),
            ("Accept-Ranges", "bytes"),
        ];
        let asked = range
            .then(|| request.header("range").and_then(|text| first_and_end(text, bytes.len())));
        let Some(Some((first, end))) = asked else {
            return Honest { body: bytes.clone(), ..Honest::new(200, &headers) };
        };
        if first >= bytes.len() {
            return Honest::error(416, "RANGE", "nothing there");
        }
        let mut part = Honest { body: bytes[first..end].to_vec(), ..Honest::new(206, &headers) };
        let said = format!("bytes {first}-{}/{}", end - 1, bytes.len());
        part.headers.push(("Content-Range".to_owned(), said));
        part
    }

    fn upload(&mut self, request: &Request, repository: &str, id: &str, _: bool) -> Honest {
        let location = |id: &str| format!("/v2/{repository}/blobs/uploads/{id}");
        match request.method.as_str() {
            "POST" => {
                if let (Some(digest), Some(from)) =
                    (request.parameter("mount"), request.parameter("from"))
                    && self.places.contains(&(from, digest.clone()))
                {
                    self.places.insert((repository.to_owned(), digest.clone()));
                    return Honest::new(201, &[("Docker-Content-Digest", &digest)]);
                }
                let id = format!("upload-{}", self.requests.len());
                self.uploads.insert(id.clone(), Vec::new());
                Honest::new(202, &[("Location", &location(&id)), ("Docker-Upload-UUID", &id)])
            }
            "PATCH" => {
                let Some(upload) = self.uploads.get_mut(id) else {
                    return Honest::error(404, "BLOB_UPLOAD_UNKNOWN", "no such upload");
                };
                upload.extend_from_slice(&request.body);
                let range = format!("0-{}", upload.len().saturating_sub(1));
                Honest::new(202, &[("Location", &location(id)), ("Range", &range)])
            }
            "PUT" => {
                let Some(mut bytes) = self.uploads.remove(id) else {
                    return Honest::error(404, "BLOB_UPLOAD_UNKNOWN", "no such upload");
                };
                bytes.extend_from_slice(&request.body);
                let digest = image::digest(&bytes);
                if request.parameter("digest").as_ref() != Some(&digest) {
                    return Honest::error(400, "DIGEST_INVALID", "another digest than promised");
                }
                self.blobs.insert(digest.clone(), bytes);
                self.places.insert((repository.to_owned(), digest.clone()));
                Honest::new(201, &[("Docker-Content-Digest", &digest)])
            }
            _ => Honest::error(405, "UNSUPPORTED", "not here"),
        }
    }

    fn list_tags(&mut self, _: &Request, repository: &str, _: &str, _: bool) -> Honest {
        let tags = self.tags.keys().filter(|(of, _)| of == repository);
        let names: Vec<&String> = tags.map(|(_, tag)| tag).collect();
        Honest::json(&json!({"name": repository, "tags": names}))
    }
}

/// Of `bytes=A-` or `bytes=A-B`: A, and B + 1 or the length.
fn first_and_end(text: &str, length: usize) -> Option<(usize, usize)> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    let end = if last.is_empty() { length } else { last.parse::<usize>().ok()? + 1 };
    Some((first.parse().ok()?, end.min(length)))
}
