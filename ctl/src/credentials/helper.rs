//! Credential helpers: `docker-credential-NAME get|store|erase`, which speak over their standard
//! input and output.

use std::io;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use bosun_proto::v1::RegistryAuth;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::CredentialError;
use crate::output::escaped;

/// A helper may ask its user something.
const PATIENCE: Duration = Duration::from_secs(120);

/// In place of a user: the secret is a token.
const TOKEN_USER: &str = "<token>";

/// How helpers say that they have nothing, on their standard output.
const NOT_FOUND: &str = "credentials not found in native keychain";

#[derive(Debug)]
pub(super) struct Helper {
    program: String,
    /// Of the configuration that names it.
    named_in: std::path::PathBuf,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Secret<'a> {
    #[serde(rename = "ServerURL")]
    server_url: &'a str,
    username: &'a str,
    secret: &'a str,
}

impl Helper {
    /// `named_in` is for errors.
    pub(super) fn new(name: &str, named_in: &Path) -> Result<Self, CredentialError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if name.is_empty() || !name.chars().all(plain) {
            let (path, name) = (named_in.to_owned(), escaped(name));
            return Err(CredentialError::HelperName { path, name });
        }
        Ok(Self { program: format!("docker-credential-{name}"), named_in: named_in.to_owned() })
    }

    pub(super) async fn get(&self, key: &str) -> Result<Option<RegistryAuth>, CredentialError> {
        let output = self.run("get", key.as_bytes()).await?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stdout);
            return if said.trim() == NOT_FOUND {
                Ok(None)
            } else {
                Err(self.failed("get", &output))
            };
        }
        let answer: Answer = serde_json::from_slice(&output.stdout)
            .map_err(|_| CredentialError::HelperAnswer { program: self.program.clone() })?;
        Ok(Some(if answer.username == TOKEN_USER {
            RegistryAuth { identity_token: answer.secret, ..RegistryAuth::default() }
        } else {
            RegistryAuth {
                username: answer.username,
                password: answer.secret,
                ..RegistryAuth::default()
            }
        }))
    }

    pub(super) async fn store(
        &self,
        key: &str,
        auth: &RegistryAuth,
    ) -> Result<(), CredentialError> {
        let (username, secret) = match auth.identity_token.as_str() {
            "" => (auth.username.as_str(), auth.password.as_str()),
            token => (TOKEN_USER, token),
        };
        // Three strings always serialize.
        let input = serde_json::to_vec(&Secret { server_url: key, username, secret });
        let output = self.run("store", &input.unwrap_or_default()).await?;
        if output.status.success() { Ok(()) } else { Err(self.failed("store", &output)) }
    }

    pub(super) async fn erase(&self, key: &str) -> Result<(), CredentialError> {
        let output = self.run("erase", key.as_bytes()).await?;
        let said = String::from_utf8_lossy(&output.stdout);
        if output.status.success() || said.trim() == NOT_FOUND {
            return Ok(());
        }
        Err(self.failed("erase", &output))
    }

    async fn run(&self, action: &'static str, input: &[u8]) -> Result<Output, CredentialError> {
        let not_run = |source| CredentialError::HelperStart {
            program: self.program.clone(),
            path: self.named_in.clone(),
            source,
        };
        let mut child = Command::new(&self.program)
            .arg(action)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(not_run)?;
        let stdin = child.stdin.take();
        let work = async {
            if let Some(mut stdin) = stdin {
                match stdin.write_all(input).await {
                    // One that does not read says why with its exit.
                    Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
                    Ok(()) | Err(_) => {}
                }
            }
            child.wait_with_output().await
        };
        match tokio::time::timeout(PATIENCE, work).await {
            Ok(output) => output.map_err(not_run),
            Err(_) => Err(CredentialError::HelperHung {
                program: self.program.clone(),
                action,
                seconds: PATIENCE.as_secs(),
            }),
        }
    }

    /// What it said on its standard output is its error, one line of it.
    fn failed(&self, action: &'static str, output: &Output) -> CredentialError {
        let said = String::from_utf8_lossy(&output.stdout);
        let line = said.trim().lines().next().unwrap_or_default();
        let said = match line {
            "" => output.status.to_string(),
            line => escaped(&line.chars().take(500).collect::<String>()),
        };
        CredentialError::HelperFailed { program: self.program.clone(), action, said }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_are_run() {
        let path = Path::new("/c.json");
        assert_eq!(Helper::new("pass", path).unwrap().program, "docker-credential-pass");
        for name in ["", "../x", "a/b", "a b", "a\u{1b}[2J"] {
            let error = Helper::new(name, path).unwrap_err().to_string();
            assert!(error.starts_with("/c.json: \""), "{error}");
            assert!(!error.contains('\u{1b}'), "{error:?}");
        }
    }
}
