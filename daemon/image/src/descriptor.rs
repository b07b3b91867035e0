//! Descriptors: a blob as another one names it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Digest, Kind, Platform, bounded};

/// A blob's type, digest and size (OCI image specification, descriptor).
///
/// `urls`, `data` and `artifactType` are deliberately not read: a blob comes from the registry that
/// has the image, never from where its manifest points (CVE-2020-15157).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    pub media_type: String,
    pub digest: Digest,
    /// In bytes, as stored: of a layer, compressed.
    pub size: u64,
    #[serde(
        default,
        deserialize_with = "bounded::map",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub annotations: BTreeMap<String, String>,
    /// In an index: where the manifest runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
}

impl Descriptor {
    /// A descriptor of these bytes.
    #[must_use]
    pub fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self::new(media_type, Digest::of(bytes), bytes.len() as u64)
    }

    /// A descriptor of what is known already.
    #[must_use]
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        let media_type = media_type.to_owned();
        Self { media_type, digest, size, annotations: BTreeMap::new(), platform: None }
    }

    /// What the blob is by its media type.
    #[must_use]
    pub fn kind(&self) -> Kind {
        Kind::of(&self.media_type)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn a_descriptor_is_read_as_oci_writes_it_and_its_urls_are_not() {
        let text = format!(
            r#"{{"mediaType":"a/b","digest":"sha256:{HEX}","size":7,"annotations":null,
               "urls":["http://elsewhere/"],"data":"AA==","artifactType":"x/y"}}"#
        );
        let descriptor: Descriptor = serde_json::from_str(&text).unwrap();
        assert_eq!((descriptor.size, descriptor.digest.hex()), (7, HEX));
        let written = serde_json::to_value(&descriptor).unwrap();
        let wanted = serde_json::json!({
            "mediaType": "a/b", "digest": format!("sha256:{HEX}"), "size": 7
        });
        assert_eq!(written, wanted);
    }

    #[test]
    fn a_descriptor_without_an_honest_size_is_none() {
        for size in ["-1", "1.5", "\"7\"", "18446744073709551616", "null"] {
            let text = format!(r#"{{"mediaType":"a/b","digest":"sha256:{HEX}","size":{size}}}"#);
            assert!(serde_json::from_str::<Descriptor>(&text).is_err(), "{size}");
        }
    }
}
