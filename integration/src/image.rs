//! Images as data: layers from entries, a configuration, a manifest, an index of several platforms.
//!
//! Nothing is read from the machine but Debian's static busybox, and the same recipe gives the same
//! digests. Where an image goes, a registry or an archive, is said elsewhere.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::OnceLock;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::tar::{self, Entry};

pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";

/// `sha256:HEX` of some bytes.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold("sha256:".to_owned(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string grows");
        text
    })
}

/// Bytes with a media type, under their digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    pub media_type: String,
    pub digest: String,
    pub bytes: Vec<u8>,
}

impl Blob {
    #[must_use]
    pub fn new(media_type: &str, bytes: Vec<u8>) -> Self {
        Self { media_type: media_type.to_owned(), digest: digest(&bytes), bytes }
    }

    #[must_use]
    pub fn json(media_type: &str, value: &Value) -> Self {
        Self::new(media_type, value.to_string().into_bytes())
    }

    /// What points at it in a manifest.
    #[must_use]
    pub fn descriptor(&self) -> Value {
        json!({"mediaType": self.media_type, "digest": self.digest, "size": self.bytes.len()})
    }

    /// The digest without `sha256:`.
    #[must_use]
    pub fn hex(&self) -> &str {
        self.digest.trim_start_matches("sha256:")
    }

    #[must_use]
    pub fn is_manifest(&self) -> bool {
        [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST].contains(&self.media_type.as_str())
    }
}

/// How a layer is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    /// # Panics
    /// When memory is short.
    #[must_use]
    pub fn apply(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::None => bytes.to_vec(),
            Self::Gzip => {
                let level = flate2::Compression::fast();
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
                encoder.write_all(bytes).expect("a vector grows");
                encoder.finish().expect("a vector grows")
            }
            Self::Zstd => zstd::stream::encode_all(bytes, 1).expect("a vector grows"),
        }
    }

    fn suffix(self, dialect: Dialect) -> &'static str {
        match (self, dialect) {
            (Self::None, _) => "",
            (Self::Gzip, Dialect::Oci) => "+gzip",
            (Self::Gzip, Dialect::Docker) => ".gzip",
            (Self::Zstd, Dialect::Oci) => "+zstd",
            (Self::Zstd, Dialect::Docker) => ".zstd",
        }
    }
}

/// Whose media types are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    Oci,
    Docker,
}

/// A layer: its tar, and the form it travels in.
#[derive(Clone, Debug)]
pub struct Layer {
    /// The uncompressed tar.
    pub tar: Vec<u8>,
    packed: Vec<u8>,
    compression: Compression,
}

impl Layer {
    /// Gzip, as most are.
    #[must_use]
    pub fn of(entries: &[Entry]) -> Self {
        Self::raw(tar::tar(entries), Compression::Gzip)
    }

    /// Any bytes in place of a tar.
    #[must_use]
    pub fn raw(tar: Vec<u8>, compression: Compression) -> Self {
        Self { packed: compression.apply(&tar), tar, compression }
    }

    /// Any bytes in place of a compressed tar, and what they claim to be.
    #[must_use]
    pub fn packed(packed: Vec<u8>, compression: Compression, tar: Vec<u8>) -> Self {
        Self { tar, packed, compression }
    }

    #[must_use]
    pub fn compressed(self, compression: Compression) -> Self {
        Self::raw(self.tar, compression)
    }

    #[must_use]
    pub fn diff_id(&self) -> String {
        digest(&self.tar)
    }

    fn blob(&self, dialect: Dialect) -> Blob {
        let base = match dialect {
            Dialect::Oci => OCI_LAYER,
            Dialect::Docker => DOCKER_LAYER,
        };
        Blob::new(&format!("{base}{}", self.compression.suffix(dialect)), self.packed.clone())
    }
}

/// What an image is made of. [`Recipe::image`] makes it.
#[derive(Clone, Debug)]
pub struct Recipe {
    layers: Vec<Layer>,
    config: Value,
    platform: String,
    dialect: Dialect,
    document: Value,
    manifest: Value,
}

impl Default for Recipe {
    fn default() -> Self {
        Self {
            layers: Vec::new(),
            config: json!({"Env": ["PATH=/bin:/usr/bin"], "Cmd": ["sh"]}),
            platform: format!("linux/{}", architecture()),
            dialect: Dialect::Oci,
            document: json!({}),
            manifest: json!({}),
        }
    }
}

/// This machine's, in Go's words.
#[must_use]
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

impl Recipe {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Busybox with all its names as the first layer.
    #[must_use]
    pub fn busybox() -> Self {
        static LAYER: OnceLock<Layer> = OnceLock::new();
        Self::new().layer(LAYER.get_or_init(|| Layer::of(&busybox())).clone())
    }

    #[must_use]
    pub fn layer(mut self, layer: Layer) -> Self {
        self.layers.push(layer);
        self
    }

    #[must_use]
    pub fn files(self, entries: &[Entry]) -> Self {
        self.layer(Layer::of(entries))
    }

    /// Keys of the configuration's `config` object, over those that are there.
    #[must_use]
    pub fn config(mut self, keys: Value) -> Self {
        merge(&mut self.config, keys);
        self
    }

    /// Keys of the configuration document itself, over those that are made.
    #[must_use]
    pub fn document(mut self, keys: Value) -> Self {
        merge(&mut self.document, keys);
        self
    }

    /// Keys of the manifest, over those that are made.
    #[must_use]
    pub fn manifest(mut self, keys: Value) -> Self {
        merge(&mut self.manifest, keys);
        self
    }

    /// OS/ARCHITECTURE[/VARIANT]
    #[must_use]
    pub fn platform(mut self, platform: &str) -> Self {
        platform.clone_into(&mut self.platform);
        self
    }

    #[must_use]
    pub fn dialect(mut self, dialect: Dialect) -> Self {
        self.dialect = dialect;
        self
    }

    #[must_use]
    pub fn image(self) -> Image {
        let (config_type, manifest_type) = match self.dialect {
            Dialect::Oci => (OCI_CONFIG, OCI_MANIFEST),
            Dialect::Docker => (DOCKER_CONFIG, DOCKER_MANIFEST),
        };
        let mut document = platform(&self.platform);
        merge(
            &mut document,
            json!({
                "created": "2024-01-01T00:00:00Z",
                "config": self.config,
                "rootfs": {
                    "type": "layers",
                    "diff_ids": self.layers.iter().map(Layer::diff_id).collect::<Vec<_>>(),
                },
                "history": self.layers.iter().enumerate().map(|(number, _)| json!({
                    "created": "2024-01-01T00:00:00Z", "created_by": format!("layer {number}"),
                })).collect::<Vec<_>>(),
            }),
        );
        merge(&mut document, self.document);
        let config = Blob::json(config_type, &document);
        let layers: Vec<Blob> = self.layers.iter().map(|layer| layer.blob(self.dialect)).collect();
        let mut manifest = json!({
            "schemaVersion": 2,
            "mediaType": manifest_type,
            "config": config.descriptor(),
            "layers": layers.iter().map(Blob::descriptor).collect::<Vec<_>>(),
        });
        merge(&mut manifest, self.manifest);
        let target = Blob::json(manifest_type, &manifest);
        let parts = layers.into_iter().chain([config]).collect();
        Image { target, parts, platform: self.platform }
    }
}

/// A manifest or an index with everything that it reaches.
#[derive(Clone, Debug)]
pub struct Image {
    pub target: Blob,
    /// Layers first, then configurations, then the manifests of an index.
    pub parts: Vec<Blob>,
    platform: String,
}

impl Image {
    /// An index of these.
    #[must_use]
    pub fn index(dialect: Dialect, images: &[Self]) -> Self {
        let media_type = match dialect {
            Dialect::Oci => OCI_INDEX,
            Dialect::Docker => DOCKER_LIST,
        };
        let manifests: Vec<Value> = images
            .iter()
            .map(|image| {
                let mut descriptor = image.target.descriptor();
                descriptor["platform"] = platform(&image.platform);
                descriptor
            })
            .collect();
        let value = json!({"schemaVersion": 2, "mediaType": media_type, "manifests": manifests});
        let mut parts: Vec<Blob> = images.iter().flat_map(|image| image.parts.clone()).collect();
        parts.extend(images.iter().map(|image| image.target.clone()));
        Self { target: Blob::json(media_type, &value), parts, platform: String::new() }
    }

    /// Any document as the target of a name.
    #[must_use]
    pub fn of(target: Blob, parts: Vec<Blob>) -> Self {
        Self { target, parts, platform: format!("linux/{}", architecture()) }
    }

    /// The digest of its manifest or index.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.target.digest
    }

    /// The configuration's digest, which is the image's id.
    ///
    /// # Panics
    /// When it is an index.
    #[must_use]
    pub fn id(&self) -> String {
        let manifest: Value = serde_json::from_slice(&self.target.bytes).expect("a manifest");
        manifest["config"]["digest"].as_str().expect("a manifest").to_owned()
    }

    /// Its layers, lowest first; of an index, of all its images.
    #[must_use]
    pub fn layers(&self) -> Vec<&Blob> {
        self.parts.iter().filter(|blob| blob.media_type.contains(".tar")).collect()
    }

    /// Everything, each blob once, the target last.
    #[must_use]
    pub fn blobs(&self) -> Vec<&Blob> {
        let mut all: Vec<&Blob> = Vec::new();
        for blob in self.parts.iter().chain([&self.target]) {
            if all.iter().all(|other| other.digest != blob.digest) {
                all.push(blob);
            }
        }
        all
    }
}

/// `OS/ARCHITECTURE[/VARIANT]` as configurations and indexes have it.
fn platform(text: &str) -> Value {
    let mut parts = text.split('/');
    let mut value = json!({"os": parts.next(), "architecture": parts.next()});
    if let Some(variant) = parts.next() {
        value["variant"] = json!(variant);
    }
    value
}

fn merge(into: &mut Value, keys: Value) {
    let Value::Object(keys) = keys else { panic!("not an object: {keys}") };
    for (key, value) in keys {
        into[key] = value;
    }
}

/// A small system: one static program under all its names, as hard links.
///
/// # Panics
/// When Debian's busybox-static isn't installed.
#[must_use]
pub fn busybox() -> Vec<Entry> {
    let program = std::fs::read("/bin/busybox").expect("busybox-static is installed");
    let names = crate::netns::run(std::process::Command::new("/bin/busybox").arg("--list"));
    let mut entries: Vec<Entry> =
        ["bin", "dev", "etc", "home", "proc", "root", "sys", "usr", "var"]
            .map(Entry::directory)
            .to_vec();
    entries.push(Entry::directory("tmp").mode(0o1777));
    entries.push(Entry::file("bin/busybox", program).mode(0o755));
    let links = names.lines().filter(|name| *name != "busybox");
    entries.extend(
        links.map(|name| Entry::hard_link(&format!("bin/{name}"), "bin/busybox").mode(0o755)),
    );
    entries.push(Entry::file(
        "etc/passwd",
        "root:x:0:0:root:/root:/bin/sh\nwww:x:33:33:www:/home:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
    ));
    entries
        .push(Entry::file("etc/group", "root:x:0:\nwww:x:33:\ntape:x:26:www\nnogroup:x:65534:\n"));
    entries
}

/// Bytes that no compression makes smaller, the same each time.
#[must_use]
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
