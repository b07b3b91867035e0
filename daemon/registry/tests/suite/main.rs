//! The client against a fake registry that misbehaves in all ways, and against a real one.

#![allow(clippy::unwrap_used, reason = "a test that can't go on ends there")]

mod auth;
mod blobs;
mod docker_registry;
mod fake;
mod hosts;
mod manifests;
mod push;

use std::time::Duration;

use bosun_image::{Descriptor, Manifest, media_type};
use bosun_registry::{Blob, Credentials, Error, Options, Registry, Repository, Secret};

/// The options of a test: impatient.
fn options() -> Options {
    Options {
        connect_timeout: Duration::from_secs(5),
        response_timeout: Duration::from_millis(300),
        idle_timeout: Duration::from_millis(300),
        minimum_rate: 1000,
        rate_window: Duration::from_millis(500),
        attempts: 3,
        first_pause: Duration::from_millis(10),
        longest_pause: Duration::from_millis(300),
        ..Options::default()
    }
}

async fn repository(host: &str) -> Repository {
    repository_of(&Registry::new(options()), host, None).await
}

async fn repository_of(registry: &Registry, host: &str, who: Option<Credentials>) -> Repository {
    let reference = format!("{host}/a/b:tag").parse().unwrap();
    registry.repository(&reference, who).await.unwrap()
}

fn password(host: &str, password: &str) -> Credentials {
    let (username, password) = ("user".to_owned(), password.to_owned());
    Credentials::new(host, Secret::Password { username, password })
}

/// A small manifest.
fn manifest() -> Vec<u8> {
    Manifest {
        media_type: media_type::OCI_MANIFEST.to_owned(),
        config: Descriptor::of(media_type::OCI_CONFIG, b"{}"),
        layers: Vec::new(),
        annotations: Default::default(),
    }
    .to_bytes()
}

/// The rest of a blob.
async fn read(blob: &mut Blob) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    while let Some(read) = blob.next().await {
        bytes.extend_from_slice(&read?);
    }
    Ok(bytes)
}
