//! Drafts: a new configuration made from another one, or from nothing.
//!
//! An image that is committed on top of another keeps all that its configuration says, also what
//! nobody here understands. So a draft holds the JSON itself, taken apart where it is changed.

use serde_json::{Map, Value, json};

use crate::error::{Error, Result};
use crate::{Config, Digest, Execution, History, Platform};

/// A configuration in the making.
#[derive(Clone, Debug, PartialEq)]
pub struct Draft {
    config: Map<String, Value>,
    diff_ids: Vec<Digest>,
    history: Vec<Value>,
    /// All other keys.
    rest: Map<String, Value>,
}

/// The keys of an [`Execution`].
const EXECUTION: [&str; 11] = [
    "User",
    "ExposedPorts",
    "Env",
    "Entrypoint",
    "Cmd",
    "Volumes",
    "WorkingDir",
    "Labels",
    "StopSignal",
    "Shell",
    "Healthcheck",
];

/// What docker says of the container that a layer was made in: true of that layer alone.
const OF_ITS_CONTAINER: [&str; 5] = ["container", "container_config", "id", "parent", "parent_id"];

impl Draft {
    /// The configuration of an image without layers.
    #[must_use]
    pub fn new(platform: &Platform) -> Self {
        let mut rest = Map::new();
        rest.insert("architecture".to_owned(), platform.architecture.as_str().into());
        rest.insert("os".to_owned(), platform.os.as_str().into());
        if !platform.variant.is_empty() {
            rest.insert("variant".to_owned(), platform.variant.as_str().into());
        }
        Self { config: Map::new(), diff_ids: Vec::new(), history: Vec::new(), rest }
    }

    /// A draft that begins as the configuration in these bytes.
    ///
    /// # Errors
    /// As [`Config::parse`].
    pub fn of(bytes: &[u8]) -> Result<Self> {
        let diff_ids = Config::parse(bytes)?.diff_ids;
        let mut rest: Map<String, Value> = serde_json::from_slice(bytes).map_err(not_json)?;
        for key in OF_ITS_CONTAINER {
            rest.remove(key);
        }
        let config = match rest.remove("config") {
            Some(Value::Object(config)) => config,
            Some(_) | None => Map::new(),
        };
        let history = match rest.remove("history") {
            Some(Value::Array(history)) => history,
            Some(_) | None => Vec::new(),
        };
        Ok(Self { config, diff_ids, history, rest })
    }

    /// When the image was made: RFC 3339.
    pub fn set_created(&mut self, created: &str) {
        self.rest.insert("created".to_owned(), created.into());
    }

    pub fn set_author(&mut self, author: &str) {
        self.rest.insert("author".to_owned(), author.into());
    }

    /// Replaces what an [`Execution`] holds, and nothing beside it.
    ///
    /// # Errors
    /// It can't be written as JSON.
    pub fn set_execution(&mut self, execution: &Execution) -> Result<()> {
        for key in EXECUTION {
            self.config.remove(key);
        }
        let written = serde_json::to_value(execution).map_err(not_json)?;
        if let Value::Object(keys) = written {
            self.config.extend(keys);
        }
        Ok(())
    }

    /// Adds a layer on top of the others, or with no diff id a change that made none.
    ///
    /// # Errors
    /// The history can't be written as JSON.
    pub fn push(&mut self, diff_id: Option<Digest>, history: &History) -> Result<()> {
        // Readers match layers and history from the first one on: what an image says too little of is
        // filled up.
        let is_layer = |entry: &&Value| entry.get("empty_layer") != Some(&Value::Bool(true));
        let known = self.history.iter().filter(is_layer).count();
        for _ in known..self.diff_ids.len() {
            self.history.push(json!({}));
        }
        let history = History { empty_layer: diff_id.is_none(), ..history.clone() };
        self.history.push(serde_json::to_value(history).map_err(not_json)?);
        self.diff_ids.extend(diff_id);
        Ok(())
    }

    /// The bytes that are stored, and what they say.
    ///
    /// # Errors
    /// As [`Config::parse`]: there are too many layers, or too many bytes.
    pub fn finish(self) -> Result<(Vec<u8>, Config)> {
        let diff_ids: Vec<_> = self.diff_ids.iter().map(Digest::as_str).collect();
        let mut whole = self.rest;
        whole.insert("config".to_owned(), Value::Object(self.config));
        whole.insert("rootfs".to_owned(), json!({"type": "layers", "diff_ids": diff_ids}));
        whole.insert("history".to_owned(), Value::Array(self.history));
        let bytes = Value::Object(whole).to_string().into_bytes();
        let config = Config::parse(&bytes)?;
        Ok((bytes, config))
    }
}

fn not_json(source: serde_json::Error) -> Error {
    Error::Json { what: "configuration", source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MAX_LAYERS;

    #[test]
    fn what_is_not_understood_stays() {
        let old = json!({
            "architecture": "amd64", "os": "linux", "os.features": ["x"], "container": "abc",
            "config": {"Env": ["A=1"], "Cmd": ["old"], "OnBuild": ["RUN x"], "Labels": null},
            "rootfs": {"type": "layers", "diff_ids": [Digest::of(b"1")]},
            "history": [{"created_by": "one", "note": 7}],
        });
        let mut draft = Draft::of(old.to_string().as_bytes()).unwrap();
        let execution = Execution {
            cmd: Some(vec!["new".to_owned()]),
            exposed_ports: vec!["80/tcp".to_owned()],
            ..Execution::default()
        };
        draft.set_execution(&execution).unwrap();
        let why = History { created_by: Some("two".to_owned()), ..History::default() };
        draft.push(Some(Digest::of(b"2")), &why).unwrap();
        draft.push(None, &why).unwrap();
        draft.set_author("me");
        draft.set_created("2026-01-01T00:00:00Z");
        let (bytes, config) = draft.finish().unwrap();
        assert_eq!(config.config, execution);
        let wanted = json!({
            "architecture": "amd64", "os": "linux", "os.features": ["x"], "author": "me",
            "created": "2026-01-01T00:00:00Z",
            "config": {"Cmd": ["new"], "ExposedPorts": {"80/tcp": {}}, "OnBuild": ["RUN x"]},
            "rootfs": {"type": "layers", "diff_ids": [Digest::of(b"1"), Digest::of(b"2")]},
            "history": [
                {"created_by": "one", "note": 7},
                {"created_by": "two"},
                {"created_by": "two", "empty_layer": true},
            ],
        });
        assert_eq!(serde_json::from_slice::<Value>(&bytes).unwrap(), wanted);
    }

    #[test]
    fn a_new_image_is_one_of_its_platform_and_has_no_more_layers_than_fit() {
        let platform: Platform = "linux/arm64".parse().unwrap();
        let mut draft = Draft::new(&platform);
        for _ in 0..MAX_LAYERS {
            draft.push(Some(Digest::of(b"")), &History::default()).unwrap();
        }
        let (_, config) = draft.clone().finish().unwrap();
        assert_eq!((config.platform(), config.diff_ids.len()), (platform, MAX_LAYERS));
        draft.push(Some(Digest::of(b"")), &History::default()).unwrap();
        assert!(matches!(draft.finish(), Err(Error::TooMany { .. })));
    }
}
