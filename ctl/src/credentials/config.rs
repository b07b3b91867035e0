//! docker's `config.json`. What is unknown in it is kept as it is.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use bosun_proto::v1::RegistryAuth;
use serde_json::{Map, Value};

use super::{CredentialError, key};
use crate::whole_file::WholeFile;

const DIRECTORY_MODE: u32 = 0o700;

#[derive(Debug)]
pub(super) struct Config {
    path: PathBuf,
    fields: Map<String, Value>,
}

impl Config {
    pub(super) fn open() -> Result<Self, CredentialError> {
        let directory = match (std::env::var_os("DOCKER_CONFIG"), std::env::var_os("HOME")) {
            (Some(directory), _) if !directory.is_empty() => PathBuf::from(directory),
            (_, Some(home)) if !home.is_empty() => PathBuf::from(home).join(".docker"),
            (_, _) => return Err(CredentialError::NoHome),
        };
        Self::read(directory.join("config.json"))
    }

    fn read(path: PathBuf) -> Result<Self, CredentialError> {
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(source) => return Err(CredentialError::File { step: "read", path, source }),
        };
        if text.trim_ascii().is_empty() {
            return Ok(Self { path, fields: Map::new() });
        }
        match serde_json::from_slice(&text) {
            Ok(fields) => Ok(Self { path, fields }),
            Err(error) => {
                let (line, column) = (error.line(), error.column());
                Err(CredentialError::Malformed { path, line, column })
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The helper that has the credentials of a host: its own, or the one for all.
    pub(super) fn helper(&self, host: &str) -> Option<&str> {
        let own = self.fields.get("credHelpers").and_then(Value::as_object);
        let own =
            own.and_then(|helpers| entry_of(helpers, host)).and_then(|(_, name)| name.as_str());
        let all = self.fields.get("credsStore").and_then(Value::as_str);
        own.or(all).filter(|name| !name.is_empty())
    }

    /// What `auths` has for a host.
    pub(super) fn auth(&self, host: &str) -> Result<Option<RegistryAuth>, CredentialError> {
        let auths = self.fields.get("auths").and_then(Value::as_object);
        let Some((key, entry)) = auths.and_then(|auths| entry_of(auths, host)) else {
            return Ok(None);
        };
        let bad = || CredentialError::Entry { path: self.path.clone(), key: key.to_owned() };
        let text = |field| entry.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut auth = RegistryAuth {
            username: text("username"),
            password: text("password"),
            identity_token: text("identitytoken"),
            registry_token: text("registrytoken"),
            ..RegistryAuth::default()
        };
        let encoded = text("auth");
        if !encoded.is_empty() {
            (auth.username, auth.password) = decoded(&encoded).ok_or_else(bad)?;
        }
        // docker leaves an empty entry for what a helper has.
        let secrets = [&auth.username, &auth.identity_token, &auth.registry_token];
        Ok(secrets.iter().any(|text| !text.is_empty()).then_some(auth))
    }

    /// Writes an entry of `auths`.
    pub(super) fn set(
        &mut self,
        key: &str,
        entry: Map<String, Value>,
    ) -> Result<(), CredentialError> {
        let known = self.fields.get_mut("auths").and_then(Value::as_object_mut);
        let mut auths = known.map(std::mem::take).unwrap_or_default();
        auths.insert(key.to_owned(), entry.into());
        self.fields.insert("auths".to_owned(), auths.into());
        self.write()
    }

    /// Removes every entry of a host. A file without one is left alone.
    pub(super) fn remove(&mut self, host: &str) -> Result<(), CredentialError> {
        let Some(auths) = self.fields.get_mut("auths").and_then(Value::as_object_mut) else {
            return Ok(());
        };
        let before = auths.len();
        auths.retain(|key, _| !key::is_of(key, host));
        if auths.len() == before { Ok(()) } else { self.write() }
    }

    fn write(&self) -> Result<(), CredentialError> {
        use std::os::unix::fs::DirBuilderExt;
        let failed =
            |source| CredentialError::File { step: "write", path: self.path.clone(), source };
        if let Some(directory) = self.path.parent() {
            let mut builder = std::fs::DirBuilder::new();
            builder.recursive(true).mode(DIRECTORY_MODE).create(directory).map_err(failed)?;
        }
        let mut text = Vec::new();
        let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
        let mut serializer = serde_json::Serializer::with_formatter(&mut text, formatter);
        serde::Serialize::serialize(&self.fields, &mut serializer)
            .map_err(|error| failed(error.into()))?;
        text.push(b'\n');
        let mut file = WholeFile::create(&self.path).map_err(failed)?;
        file.write(&text).and_then(|()| file.finish()).map_err(failed)
    }
}

/// An entry of `auths`. A token takes the place of the password.
pub(super) fn entry(auth: &RegistryAuth) -> Map<String, Value> {
    let password = if auth.identity_token.is_empty() { auth.password.as_str() } else { "" };
    let encoded = STANDARD.encode(format!("{}:{password}", auth.username));
    let mut entry = Map::from_iter([("auth".to_owned(), encoded.into())]);
    if !auth.identity_token.is_empty() {
        entry.insert("identitytoken".to_owned(), auth.identity_token.as_str().into());
    }
    entry
}

/// The entry for a host, the one under docker's own key first.
fn entry_of<'a>(entries: &'a Map<String, Value>, host: &str) -> Option<(&'a str, &'a Value)> {
    let exact = entries.get_key_value(&key::of(host));
    let found = exact.or_else(|| entries.iter().find(|(key, _)| key::is_of(key, host)));
    found.map(|(key, entry)| (key.as_str(), entry))
}

/// `USER:PASSWORD` in base64; docker pads the password with zero bytes here and there.
fn decoded(text: &str) -> Option<(String, String)> {
    let bytes = STANDARD.decode(text).or_else(|_| STANDARD_NO_PAD.decode(text)).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.trim_end_matches('\0').to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        Config { path: "/c.json".into(), fields: serde_json::from_str(text).unwrap() }
    }

    #[test]
    fn entries_are_found_in_every_form() {
        // me:secret, and me: with a token.
        let config = config(
            r#"{"auths": {
                "https://index.docker.io/v1/": {"auth": "bWU6c2VjcmV0"},
                "https://a.example/v1/": {"auth": "bWU6c2VjcmV0AAA="},
                "b.example": {"auth": "bWU6", "identitytoken": "T"},
                "c.example": {"registrytoken": "R"},
                "d.example": {},
                "e.example": {"username": "me", "password": "secret"},
                "f.example": {"auth": "?"}
            }}"#,
        );
        let auth = |username: &str, password: &str, token: &str, registry: &str| {
            Some(RegistryAuth {
                host: String::new(),
                username: username.to_owned(),
                password: password.to_owned(),
                identity_token: token.to_owned(),
                registry_token: registry.to_owned(),
            })
        };
        for (host, want) in [
            ("docker.io", auth("me", "secret", "", "")),
            ("a.example", auth("me", "secret", "", "")),
            ("b.example", auth("me", "", "T", "")),
            ("c.example", auth("", "", "", "R")),
            ("d.example", None),
            ("e.example", auth("me", "secret", "", "")),
            ("example", None),
            ("a.example:443", None),
        ] {
            assert_eq!(config.auth(host).unwrap(), want, "{host}");
        }
        let error = config.auth("f.example").unwrap_err().to_string();
        assert!(error.contains("f.example") && error.contains("log in again"), "{error}");
    }

    #[test]
    fn a_hosts_own_helper_comes_before_the_one_for_all() {
        let config =
            config(r#"{"credsStore": "all", "credHelpers": {"https://a.example": "own"}}"#);
        assert_eq!(config.helper("a.example"), Some("own"));
        assert_eq!(config.helper("b.example"), Some("all"));
    }

    #[test]
    fn writing_keeps_what_is_unknown_and_is_for_the_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("docker/config.json");
        let mut config = Config::read(path.clone()).unwrap();
        config.fields.insert("detachKeys".to_owned(), "ctrl-a".into());
        let auth = RegistryAuth {
            username: "me".to_owned(),
            password: "secret".to_owned(),
            ..RegistryAuth::default()
        };
        config.set("a.example", entry(&auth)).unwrap();
        let mut again = Config::read(path.clone()).unwrap();
        assert_eq!(again.fields["detachKeys"], "ctrl-a");
        assert_eq!(again.auth("a.example").unwrap(), Some(auth));
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        again.remove("a.example").unwrap();
        assert_eq!(Config::read(path).unwrap().auth("a.example").unwrap(), None);
        assert_eq!(std::fs::read_dir(dir.path().join("docker")).unwrap().count(), 1);
    }

    #[test]
    fn an_error_quotes_no_secret() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        std::fs::write(&path, "[\"hunter2\"]").unwrap();
        let error = Config::read(path).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        assert!(error.to_string().contains("line 1"), "{error}");
    }
}
