//! Configurations: what an image says of its processes and of its layers.
//!
//! Docker writes `null` for most of what is not set, and adds keys of its own; both are read over.
//! Who changes a configuration uses a [`Draft`](crate::Draft), which keeps what is not understood.

use std::collections::BTreeMap;

use serde::de::{Error as _, IgnoredAny};
use serde::{Deserialize, Deserializer, Serialize};

use crate::error::{Error, Result, shortened};
use crate::{Descriptor, Digest, Kind, MAX_DOCUMENT, MAX_LAYERS, Manifest, Platform, bounded};

/// The image configuration (OCI image specification, config), as far as it is understood.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub architecture: String,
    pub os: String,
    pub variant: String,
    /// RFC 3339, as written.
    pub created: Option<String>,
    pub author: Option<String>,
    pub config: Execution,
    /// The uncompressed layers, lowest first.
    pub diff_ids: Vec<Digest>,
    pub history: Vec<History>,
}

/// How the image's processes are to run, unless the user says otherwise.
///
/// Written, what is empty is absent.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Execution {
    #[serde(deserialize_with = "bounded::or_default", skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// `PORT/PROTOCOL`, sorted.
    #[serde(with = "keys", skip_serializing_if = "Vec::is_empty")]
    pub exposed_ports: Vec<String>,
    /// `NAME=VALUE`, in order.
    #[serde(deserialize_with = "bounded::list", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    #[serde(deserialize_with = "bounded::optional_list", skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    #[serde(deserialize_with = "bounded::optional_list", skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// Paths, sorted.
    #[serde(with = "keys", skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<String>,
    #[serde(deserialize_with = "bounded::or_default", skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    #[serde(deserialize_with = "bounded::map", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    #[serde(deserialize_with = "bounded::optional_list", skip_serializing_if = "Option::is_none")]
    pub shell: Option<Vec<String>>,
    /// Docker's own, as it is but for keys that docker does not know.
    #[serde(deserialize_with = "healthcheck", skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<serde_json::Value>,
}

/// How a layer, or a change without one, came about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct History {
    /// RFC 3339, as written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    #[serde(deserialize_with = "bounded::or_default", skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

impl Config {
    /// Reads a configuration.
    ///
    /// # Errors
    /// It is too large, no JSON of its kind, without `rootfs`, or has too many layers.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        const WHAT: &str = "configuration";
        if bytes.len() > MAX_DOCUMENT {
            return Err(Error::TooLarge { what: WHAT, size: bytes.len() });
        }
        let raw: Raw =
            serde_json::from_slice(bytes).map_err(|source| Error::Json { what: WHAT, source })?;
        let rootfs = raw.rootfs.ok_or(Error::Missing { what: WHAT, key: "rootfs" })?;
        if !matches!(rootfs.kind.as_str(), "" | "layers") {
            return Err(Error::RootType { kind: shortened(&rootfs.kind) });
        }
        let count = rootfs.diff_ids.len();
        if count > MAX_LAYERS {
            return Err(Error::TooMany { what: WHAT, of: "diff ids", count, limit: MAX_LAYERS });
        }
        Ok(Self {
            architecture: raw.architecture,
            os: raw.os,
            variant: raw.variant,
            created: raw.created,
            author: raw.author,
            config: raw.config,
            diff_ids: rootfs.diff_ids,
            history: raw.history,
        })
    }

    /// Where the image runs; what it does not say is this machine's.
    #[must_use]
    pub fn platform(&self) -> Platform {
        let host = Platform::host();
        let or = |text: &str, other: String| if text.is_empty() { other } else { text.to_owned() };
        let architecture = or(&self.architecture, host.architecture);
        Platform::new(&or(&self.os, host.os), &architecture, &self.variant)
    }

    /// The layers of a manifest beside what they are when uncompressed. What is no layer by its
    /// media type takes no part; a foreign layer does.
    ///
    /// # Errors
    /// [`Error::LayerCount`]: there are not as many of the ones as of the others.
    pub fn check_layers<'a>(
        &'a self,
        manifest: &'a Manifest,
    ) -> Result<Vec<(&'a Descriptor, &'a Digest)>> {
        let is_layer = |layer: &&Descriptor| matches!(layer.kind(), Kind::Layer(_));
        let layers: Vec<_> = manifest.layers.iter().filter(is_layer).collect();
        if layers.len() != self.diff_ids.len() {
            let (layers, diff_ids) = (layers.len(), self.diff_ids.len());
            return Err(Error::LayerCount { layers, diff_ids });
        }
        Ok(layers.into_iter().zip(&self.diff_ids).collect())
    }
}

/// What each layer is together with all below it (OCI image specification, layer chain id).
#[must_use]
pub fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        chain.push(match chain.last() {
            None => diff_id.clone(),
            Some(below) => Digest::of(format!("{below} {diff_id}").as_bytes()),
        });
    }
    chain
}

#[derive(Deserialize)]
struct Raw {
    #[serde(default, deserialize_with = "bounded::or_default")]
    architecture: String,
    #[serde(default, deserialize_with = "bounded::or_default")]
    os: String,
    #[serde(default, deserialize_with = "bounded::or_default")]
    variant: String,
    created: Option<String>,
    author: Option<String>,
    #[serde(default, deserialize_with = "bounded::or_default")]
    config: Execution,
    rootfs: Option<RootFs>,
    #[serde(default, deserialize_with = "bounded::list")]
    history: Vec<History>,
}

#[derive(Deserialize)]
struct RootFs {
    #[serde(default, rename = "type", deserialize_with = "bounded::or_default")]
    kind: String,
    #[serde(default, deserialize_with = "bounded::list")]
    diff_ids: Vec<Digest>,
}

/// Read by its shape: any JSON at all would cost a multiple of its length in memory.
fn healthcheck<'de, D: Deserializer<'de>>(from: D) -> Result<Option<serde_json::Value>, D::Error> {
    #[derive(Default, Deserialize, Serialize)]
    #[serde(rename_all = "PascalCase", default)]
    struct Healthcheck {
        #[serde(deserialize_with = "bounded::list", skip_serializing_if = "Vec::is_empty")]
        test: Vec<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        interval: Option<i64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        timeout: Option<i64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        start_period: Option<i64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        start_interval: Option<i64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        retries: Option<i64>,
    }
    let read = Option::<Healthcheck>::deserialize(from)?;
    read.map(serde_json::to_value).transpose().map_err(D::Error::custom)
}

/// A set that docker writes as an object of empty objects.
mod keys {
    use serde::{Deserializer, Serializer};

    use super::{BTreeMap, IgnoredAny, bounded};

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
        Ok(bounded::map::<D, IgnoredAny>(from)?.into_keys().collect())
    }

    pub(super) fn serialize<S: Serializer>(keys: &[String], to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(keys.iter().map(|key| (key, BTreeMap::<String, String>::new())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media_type::{DOCKER_FOREIGN_GZIP, OCI_CONFIG, OCI_LAYER, OCI_MANIFEST};

    const A: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn dockers_nulls_and_unknown_keys_are_read_over() {
        let text = format!(
            r#"{{"architecture":"arm","os":"linux","variant":null,"created":"2024-01-01T00:00:00Z",
            "author":null,"container_config":{{"Cmd":null}},"docker_version":"1.2",
            "config":{{"Hostname":"","User":"","ExposedPorts":{{"80/tcp":{{}},"443/tcp":{{}}}},
              "Env":["A=b"],"Entrypoint":null,"Cmd":["sh"],"Volumes":null,"WorkingDir":"",
              "Labels":null,"OnBuild":null,"StopSignal":"SIGINT",
              "Healthcheck":{{"Test":["CMD","true"],"Interval":5,"Odd":[[1]]}}}},
            "rootfs":{{"type":"layers","diff_ids":["{A}"]}},
            "history":[{{"created_by":"x","empty_layer":true}},{{"comment":null}}]}}"#
        );
        let config = Config::parse(text.as_bytes()).unwrap();
        assert_eq!(config.platform().to_string(), "linux/arm/v7");
        assert_eq!(config.config.exposed_ports, ["443/tcp", "80/tcp"]);
        assert_eq!(config.config.cmd.as_deref(), Some(&["sh".to_owned()][..]));
        assert_eq!((&config.config.entrypoint, config.config.volumes.len()), (&None, 0));
        assert_eq!(config.config.stop_signal.as_deref(), Some("SIGINT"));
        let healthcheck = serde_json::json!({"Test": ["CMD", "true"], "Interval": 5});
        assert_eq!(config.config.healthcheck, Some(healthcheck));
        assert!(config.history[0].empty_layer && !config.history[1].empty_layer);
        let bare = Config::parse(br#"{"config":null,"history":null,"rootfs":{"diff_ids":null}}"#);
        assert_eq!(bare.unwrap().platform(), Platform::host());
    }

    #[test]
    fn what_is_no_configuration_is_refused() {
        for text in ["", "{}", "[]", r#"{"rootfs":null}"#] {
            assert!(Config::parse(text.as_bytes()).is_err(), "{text}");
        }
        let other = br#"{"rootfs":{"type":"layers+base","diff_ids":[]}}"#;
        assert!(matches!(Config::parse(other), Err(Error::RootType { .. })));
        let ids = vec![A; MAX_LAYERS + 1];
        let text = serde_json::json!({"rootfs": {"diff_ids": ids}}).to_string();
        assert!(matches!(Config::parse(text.as_bytes()), Err(Error::TooMany { .. })));
        let text = serde_json::json!({"rootfs": {}, "history": vec![History::default(); 10_001]});
        assert!(matches!(Config::parse(text.to_string().as_bytes()), Err(Error::Json { .. })));
    }

    #[test]
    fn every_layer_has_its_diff_id_foreign_ones_too() {
        let config =
            Config::parse(format!(r#"{{"rootfs":{{"diff_ids":["{A}","{A}"]}}}}"#).as_bytes());
        let config = config.unwrap();
        let layers = [DOCKER_FOREIGN_GZIP, OCI_LAYER, "application/vnd.in-toto+json"];
        let mut manifest = Manifest {
            media_type: OCI_MANIFEST.to_owned(),
            config: Descriptor::of(OCI_CONFIG, b"{}"),
            layers: layers.iter().map(|kind| Descriptor::of(kind, kind.as_bytes())).collect(),
            annotations: BTreeMap::new(),
        };
        let pairs = config.check_layers(&manifest).unwrap();
        assert_eq!(
            pairs.iter().map(|pair| pair.0.media_type.as_str()).collect::<Vec<_>>(),
            layers[..2]
        );
        manifest.layers.remove(0);
        assert!(matches!(
            config.check_layers(&manifest),
            Err(Error::LayerCount { layers: 1, diff_ids: 2 })
        ));
    }

    #[test]
    fn chain_ids_are_the_specifications() {
        let ids: Vec<_> = [b"a", b"b", b"c"].iter().map(|bytes| Digest::of(*bytes)).collect();
        let chain = chain_ids(&ids);
        assert_eq!(chain[0], ids[0]);
        assert_eq!(chain[1], Digest::of(format!("{} {}", ids[0], ids[1]).as_bytes()));
        assert_eq!(chain[2], Digest::of(format!("{} {}", chain[1], ids[2]).as_bytes()));
        assert!(chain_ids(&[]).is_empty());
    }
}
