//! Media types: what a blob's descriptor says it is.
//!
//! OCI's and docker's are the same things under two names. Nothing else is understood: a type that
//! is not here is [`Kind::Other`], kept and copied, never opened.

pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
pub const OCI_FOREIGN: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar";
pub const OCI_FOREIGN_GZIP: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
pub const OCI_FOREIGN_ZSTD: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd";
pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
pub const DOCKER_LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";
pub const DOCKER_FOREIGN: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar";
pub const DOCKER_FOREIGN_GZIP: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
/// Docker's schema version 1, known only to be refused by its name.
pub const DOCKER_SCHEMA_1: &str = "application/vnd.docker.distribution.manifest.v1+json";
pub const DOCKER_SCHEMA_1_SIGNED: &str =
    "application/vnd.docker.distribution.manifest.v1+prettyjws";

/// What a media type stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Index,
    Manifest,
    Config,
    /// With the compression that its name promises. What the bytes are is for their reader to see.
    Layer(Compression),
    /// Attestations, signatures, charts: what is no part of a root file system.
    Other,
}

/// How a layer is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Kind {
    /// The kind of a media type; its parameters and its case do not matter.
    #[must_use]
    pub fn of(media_type: &str) -> Self {
        match essence(media_type).as_str() {
            OCI_INDEX | DOCKER_INDEX => Self::Index,
            OCI_MANIFEST | DOCKER_MANIFEST => Self::Manifest,
            OCI_CONFIG | DOCKER_CONFIG => Self::Config,
            OCI_LAYER | OCI_FOREIGN | DOCKER_LAYER | DOCKER_FOREIGN => {
                Self::Layer(Compression::None)
            }
            OCI_LAYER_GZIP | OCI_FOREIGN_GZIP | DOCKER_LAYER_GZIP | DOCKER_FOREIGN_GZIP => {
                Self::Layer(Compression::Gzip)
            }
            OCI_LAYER_ZSTD | OCI_FOREIGN_ZSTD | DOCKER_LAYER_ZSTD => Self::Layer(Compression::Zstd),
            _ => Self::Other,
        }
    }
}

/// A layer that its maker forbids to distribute: registries may lack it, and it is never pushed.
#[must_use]
pub fn is_foreign(media_type: &str) -> bool {
    matches!(
        essence(media_type).as_str(),
        OCI_FOREIGN | OCI_FOREIGN_GZIP | OCI_FOREIGN_ZSTD | DOCKER_FOREIGN | DOCKER_FOREIGN_GZIP
    )
}

/// The type without parameters, in lower case: what two of them are compared by.
pub(crate) fn essence(media_type: &str) -> String {
    let end = media_type.find(';').unwrap_or(media_type.len());
    media_type[..end].trim().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_media_type_says_what_a_blob_is() {
        let table = [
            (OCI_INDEX, Kind::Index),
            (DOCKER_INDEX, Kind::Index),
            (OCI_MANIFEST, Kind::Manifest),
            (DOCKER_MANIFEST, Kind::Manifest),
            ("Application/vnd.OCI.image.manifest.v1+json; charset=utf-8", Kind::Manifest),
            (OCI_CONFIG, Kind::Config),
            (DOCKER_CONFIG, Kind::Config),
            (OCI_LAYER, Kind::Layer(Compression::None)),
            (DOCKER_LAYER_GZIP, Kind::Layer(Compression::Gzip)),
            (OCI_LAYER_ZSTD, Kind::Layer(Compression::Zstd)),
            (OCI_FOREIGN_GZIP, Kind::Layer(Compression::Gzip)),
            (DOCKER_SCHEMA_1, Kind::Other),
            ("application/vnd.oci.image.layer.v1.tar+gzip+encrypted", Kind::Other),
            ("application/vnd.in-toto+json", Kind::Other),
            ("", Kind::Other),
        ];
        for (text, kind) in table {
            assert_eq!(Kind::of(text), kind, "{text}");
        }
        assert!(is_foreign(DOCKER_FOREIGN_GZIP) && !is_foreign(DOCKER_LAYER_GZIP));
    }
}
