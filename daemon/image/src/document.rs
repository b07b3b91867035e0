//! Documents: the JSON that a reference leads to, an index or a manifest, and never both.
//!
//! The same bytes have the same digest whatever a registry says they are, so a document that could
//! be read as an index by one and as a manifest by another would get past whoever checked it
//! (CVE-2021-41190). What is here is either, by its keys, by its own word and by its media type.

use std::collections::BTreeMap;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, shortened};
use crate::media_type::{self, DOCKER_SCHEMA_1, DOCKER_SCHEMA_1_SIGNED, OCI_INDEX, OCI_MANIFEST};
use crate::{Descriptor, Kind, MAX_DOCUMENT, MAX_LAYERS, MAX_MANIFESTS, bounded};

/// What a reference, or an entry of an index, leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    Index(Index),
    Manifest(Manifest),
}

/// A choice of manifests, most often by platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    pub media_type: String,
    pub manifests: Vec<Descriptor>,
    pub annotations: BTreeMap<String, String>,
}

/// One image: its configuration and its layers, lowest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    pub media_type: String,
    pub config: Descriptor,
    pub layers: Vec<Descriptor>,
    pub annotations: BTreeMap<String, String>,
}

impl Document {
    /// Reads a document that came with a media type: a descriptor's, or a response's. A type that
    /// says nothing of images (`application/json`) is as good as none.
    ///
    /// # Errors
    /// It is too large, no JSON of its kind, of schema version 1, both or neither of index and
    /// manifest, another than the media type says, or has too many entries or layers.
    pub fn parse(bytes: &[u8], media_type: Option<&str>) -> Result<Self> {
        const WHAT: &str = "manifest";
        if bytes.len() > MAX_DOCUMENT {
            return Err(Error::TooLarge { what: WHAT, size: bytes.len() });
        }
        let given = media_type.map(media_type::essence);
        if given
            .as_deref()
            .is_some_and(|given| given == DOCKER_SCHEMA_1 || given == DOCKER_SCHEMA_1_SIGNED)
        {
            return Err(Error::SchemaOne);
        }
        let raw: Raw =
            serde_json::from_slice(bytes).map_err(|source| Error::Json { what: WHAT, source })?;
        raw.check_schema()?;
        let media_type = raw.settle_media_type(given)?;
        match (raw.manifests, raw.layers, raw.config) {
            (Some(_), Some(_), _) => Err(Error::Ambiguous { other: "layers" }),
            (Some(_), None, Some(_)) => Err(Error::Ambiguous { other: "config" }),
            (Some(Listed(manifests)), None, None) => {
                let media_type = expect(media_type, Kind::Index, OCI_INDEX, "manifests")?;
                check_count("index", "entries", manifests.len(), MAX_MANIFESTS)?;
                Ok(Self::Index(Index { media_type, manifests, annotations: raw.annotations }))
            }
            (None, None, None) => Err(Error::Shapeless),
            (None, layers, config) => {
                let media_type = expect(media_type, Kind::Manifest, OCI_MANIFEST, "config")?;
                let missing = |key| Error::Missing { what: WHAT, key };
                let Listed(layers) = layers.ok_or_else(|| missing("layers"))?;
                let config = config.ok_or_else(|| missing("config"))?;
                check_count(WHAT, "layers", layers.len(), MAX_LAYERS)?;
                Ok(Self::Manifest(Manifest {
                    media_type,
                    config,
                    layers,
                    annotations: raw.annotations,
                }))
            }
        }
    }

    /// The media type that it has, whether it says so itself or not.
    #[must_use]
    pub fn media_type(&self) -> &str {
        match self {
            Self::Index(index) => &index.media_type,
            Self::Manifest(manifest) => &manifest.media_type,
        }
    }
}

impl Index {
    /// The bytes that are stored and sent.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        Written {
            schema_version: 2,
            media_type: &self.media_type,
            config: None,
            layers: None,
            manifests: Some(&self.manifests),
            annotations: &self.annotations,
        }
        .to_bytes()
    }
}

impl Manifest {
    /// The bytes that are stored and sent.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        Written {
            schema_version: 2,
            media_type: &self.media_type,
            config: Some(&self.config),
            layers: Some(&self.layers),
            manifests: None,
            annotations: &self.annotations,
        }
        .to_bytes()
    }
}

/// A document as written. A key that is there twice is refused: readers differ in which one counts.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    schema_version: Option<u64>,
    media_type: Option<String>,
    manifests: Option<Listed>,
    layers: Option<Listed>,
    config: Option<Descriptor>,
    /// Of schema version 1.
    fs_layers: Option<IgnoredAny>,
    #[serde(default, deserialize_with = "bounded::map")]
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(transparent)]
struct Listed(#[serde(deserialize_with = "bounded::list")] Vec<Descriptor>);

impl Raw {
    fn check_schema(&self) -> Result<()> {
        match (self.schema_version, &self.fs_layers) {
            (Some(1), _) | (_, Some(_)) => Err(Error::SchemaOne),
            (Some(2) | None, None) => Ok(()),
            (Some(version), None) => Err(Error::SchemaVersion { version }),
        }
    }

    /// The one media type of the document's own word and of the one it came with.
    fn settle_media_type(&self, given: Option<String>) -> Result<Option<String>> {
        let is_image = |text: &String| matches!(Kind::of(text), Kind::Index | Kind::Manifest);
        let inside = self.media_type.as_deref().map(media_type::essence);
        let inside = inside.filter(|text| !text.is_empty());
        match (given.filter(is_image), inside) {
            (Some(given), Some(inside)) if given != inside => {
                Err(Error::MediaType { given, inside: shortened(&inside) })
            }
            (_, Some(inside)) if !is_image(&inside) => {
                Err(Error::NotAnImage { media_type: shortened(&inside) })
            }
            (given, inside) => Ok(inside.or(given)),
        }
    }
}

fn expect(
    media_type: Option<String>,
    kind: Kind,
    default: &str,
    key: &'static str,
) -> Result<String> {
    match media_type {
        None => Ok(default.to_owned()),
        Some(text) if Kind::of(&text) == kind => Ok(text),
        Some(text) => Err(Error::MediaType { given: text, inside: format!("having {key:?}") }),
    }
}

fn check_count(what: &'static str, of: &'static str, count: usize, limit: usize) -> Result<()> {
    if count > limit { Err(Error::TooMany { what, of, count, limit }) } else { Ok(()) }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Written<'a> {
    schema_version: u64,
    media_type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    config: Option<&'a Descriptor>,
    #[serde(skip_serializing_if = "Option::is_none")]
    layers: Option<&'a [Descriptor]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    manifests: Option<&'a [Descriptor]>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
}

impl Written<'_> {
    fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings, numbers and maps of strings are JSON")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media_type::{DOCKER_INDEX, DOCKER_MANIFEST, OCI_CONFIG, OCI_LAYER_GZIP};

    fn manifest() -> Manifest {
        Manifest {
            media_type: OCI_MANIFEST.to_owned(),
            config: Descriptor::of(OCI_CONFIG, b"{}"),
            layers: vec![Descriptor::of(OCI_LAYER_GZIP, b"l")],
            annotations: BTreeMap::new(),
        }
    }

    fn index() -> Index {
        let manifests = vec![Descriptor::of(OCI_MANIFEST, b"m")];
        Index { media_type: DOCKER_INDEX.to_owned(), manifests, annotations: BTreeMap::new() }
    }

    #[test]
    fn what_is_written_is_read() {
        let bytes = manifest().to_bytes();
        assert_eq!(Document::parse(&bytes, None).unwrap(), Document::Manifest(manifest()));
        let bytes = index().to_bytes();
        for given in [None, Some(DOCKER_INDEX), Some("application/json"), Some("text/plain; a=b")] {
            assert_eq!(Document::parse(&bytes, given).unwrap(), Document::Index(index()));
        }
    }

    #[test]
    fn without_a_word_of_its_own_a_document_is_what_it_came_as() {
        let text = String::from_utf8(manifest().to_bytes()).unwrap();
        let silent = text.replace(&format!(r#""mediaType":"{OCI_MANIFEST}","#), "");
        assert_ne!(text, silent);
        for (given, wanted) in [(None, OCI_MANIFEST), (Some(DOCKER_MANIFEST), DOCKER_MANIFEST)] {
            let read = Document::parse(silent.as_bytes(), given).unwrap();
            assert_eq!(read.media_type(), wanted);
        }
        assert!(matches!(
            Document::parse(silent.as_bytes(), Some(DOCKER_INDEX)),
            Err(Error::MediaType { .. })
        ));
    }

    /// A document with these keys, of which `%C` is a configuration and `%L` a list of descriptors.
    fn error(keys: &str, given: Option<&str>) -> Error {
        let one = serde_json::to_string(&Descriptor::of(OCI_CONFIG, b"")).unwrap();
        let text = keys.replace("%C", &one).replace("%L", &format!("[{one}]"));
        Document::parse(text.as_bytes(), given).unwrap_err()
    }

    #[test]
    fn what_two_readers_could_read_differently_is_refused() {
        let ambiguous = [
            r#"{"schemaVersion":2,"manifests":%L,"layers":%L,"config":%C}"#,
            r#"{"schemaVersion":2,"manifests":[],"layers":[]}"#,
            r#"{"schemaVersion":2,"manifests":%L,"config":%C}"#,
        ];
        for text in ambiguous {
            assert!(matches!(error(text, None), Error::Ambiguous { .. }), "{text}");
        }
        let twice = r#"{"schemaVersion":2,"config":%C,"layers":%L,"layers":[]}"#;
        assert!(matches!(error(twice, None), Error::Json { .. }));
        let contradicting = [
            (
                r#"{"mediaType":"application/vnd.oci.image.index.v1+json","config":%C,"layers":%L}"#,
                None,
            ),
            (r#"{"mediaType":"application/vnd.oci.image.manifest.v1+json","manifests":%L}"#, None),
            (
                r#"{"mediaType":"application/vnd.oci.image.manifest.v1+json","config":%C,"layers":%L}"#,
                Some(DOCKER_MANIFEST),
            ),
        ];
        for (text, given) in contradicting {
            assert!(matches!(error(text, given), Error::MediaType { .. }), "{text}");
        }
    }

    #[test]
    fn what_is_no_image_is_refused_by_its_name() {
        assert!(matches!(error(r#"{"schemaVersion":1,"fsLayers":[]}"#, None), Error::SchemaOne));
        assert!(matches!(error("{}", Some(DOCKER_SCHEMA_1_SIGNED)), Error::SchemaOne));
        assert!(matches!(
            error(r#"{"schemaVersion":3}"#, None),
            Error::SchemaVersion { version: 3 }
        ));
        assert!(matches!(error("{}", None), Error::Shapeless));
        assert!(matches!(error(r#"{"layers":%L}"#, None), Error::Missing { key: "config", .. }));
        assert!(matches!(error(r#"{"mediaType":"a/b"}"#, None), Error::NotAnImage { .. }));
        for text in ["", "null", "[]", "{", "<html>", "{\"layers\":7}", "{\"layers\":[{}]}"] {
            let error = error(text, None);
            assert!(matches!(error, Error::Json { .. }), "{text}: {error:?}");
        }
    }

    #[test]
    fn numbers_sizes_and_depth_are_bounded() {
        let mut wide = manifest();
        wide.layers = vec![wide.config.clone(); MAX_LAYERS];
        assert!(Document::parse(&wide.to_bytes(), None).is_ok());
        wide.layers.push(wide.config.clone());
        assert!(matches!(
            Document::parse(&wide.to_bytes(), None),
            Err(Error::TooMany { count: 129, .. })
        ));
        wide.layers = vec![wide.config.clone(); 20_000];
        assert!(matches!(Document::parse(&wide.to_bytes(), None), Err(Error::Json { .. })));
        let mut many = index();
        many.manifests = vec![many.manifests[0].clone(); MAX_MANIFESTS + 1];
        assert!(matches!(Document::parse(&many.to_bytes(), None), Err(Error::TooMany { .. })));
        let large = vec![b' '; MAX_DOCUMENT + 1];
        assert!(matches!(Document::parse(&large, None), Err(Error::TooLarge { .. })));
        let deep = format!(r#"{{"x":{}"#, "[".repeat(1_000_000));
        assert!(matches!(Document::parse(deep.as_bytes(), None), Err(Error::Json { .. })));
    }

    /// Every cut and many single-byte changes of real documents: an answer, never a panic.
    #[test]
    fn any_input_gets_an_answer() {
        for good in [manifest().to_bytes(), index().to_bytes()] {
            for end in 0..good.len() {
                assert!(Document::parse(&good[..end], None).is_err());
            }
            let mut seed = 7_u32;
            for at in 0..good.len() {
                for _ in 0..16 {
                    seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    let mut bad = good.clone();
                    bad[at] = seed.to_be_bytes()[0];
                    let _ = Document::parse(&bad, Some(OCI_MANIFEST));
                    let _ = crate::Config::parse(&bad);
                    let text = String::from_utf8_lossy(&bad[at..]);
                    let _ = (text.parse::<crate::Reference>(), text.parse::<crate::Platform>());
                }
            }
        }
    }
}
