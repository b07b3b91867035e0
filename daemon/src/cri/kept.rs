//! What a kubelet asked for, kept with the record as it came, in the bytes of its message: nothing of
//! it is lost, and a later bosund reads what an earlier one kept.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message;

use super::wire;
use crate::container::Record;
use crate::spec::ContainerOptions;

/// The name of this face among a record's extensions.
pub(super) const NAME: &str = "cri";

/// The name of what a kubelet said of a pod's resources since.
pub(super) const FIGURES: &str = "cri.figures";

/// The text of a message.
pub(super) fn text(message: &impl Message) -> String {
    STANDARD.encode(message.encode_to_vec())
}

/// What a pod was asked to be; empty for one that another face made.
pub(super) fn pod(record: &Record) -> wire::RunPodSandboxRequest {
    read(&record.options, NAME)
}

/// The resources of a pod as its kubelet said them last.
pub(super) fn figures(record: &Record) -> wire::UpdatePodSandboxResourcesRequest {
    if record.options.extensions.contains_key(FIGURES) {
        return read(&record.options, FIGURES);
    }
    let linux = pod(record).config.and_then(|config| config.linux).unwrap_or_default();
    wire::UpdatePodSandboxResourcesRequest {
        overhead: linux.overhead,
        resources: linux.resources,
        ..wire::UpdatePodSandboxResourcesRequest::default()
    }
}

/// What a container was asked to be; empty for one that another face made. Its pod's part is left out.
pub(super) fn container(record: &Record) -> wire::CreateContainerRequest {
    container_of(&record.options)
}

/// Of what a container was asked to be, what lists show of it: with the rest, mounts and variables above
/// all, most of a list's time went.
pub(super) fn listed(record: &Record) -> Listed {
    read::<ListedRequest>(&record.options, NAME).config.unwrap_or_default()
}

/// `CreateContainerRequest`, read in part.
#[derive(Clone, PartialEq, Message)]
struct ListedRequest {
    #[prost(message, optional, tag = "2")]
    config: Option<Listed>,
}

/// `ContainerConfig`, read in part.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Listed {
    #[prost(message, optional, tag = "1")]
    pub(super) metadata: Option<wire::ContainerMetadata>,
    #[prost(message, optional, tag = "2")]
    pub(super) image: Option<wire::ImageSpec>,
    #[prost(map = "string, string", tag = "9")]
    pub(super) labels: HashMap<String, String>,
    #[prost(map = "string, string", tag = "10")]
    pub(super) annotations: HashMap<String, String>,
}

/// As [`container`], of one that is not there yet.
pub(super) fn container_of(options: &ContainerOptions) -> wire::CreateContainerRequest {
    read(options, NAME)
}

fn read<M: Message + Default>(options: &ContainerOptions, name: &str) -> M {
    let kept = options.extensions.get(name);
    let bytes = kept.and_then(|text| STANDARD.decode(text).ok());
    bytes.and_then(|bytes| M::decode(bytes.as_slice()).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lists_show_is_what_was_asked_for() {
        let config = wire::ContainerConfig {
            metadata: Some(wire::ContainerMetadata { name: "one".to_owned(), attempt: 3 }),
            image: Some(wire::ImageSpec { image: "a:1".to_owned(), ..Default::default() }),
            labels: [("label".to_owned(), "x".to_owned())].into(),
            annotations: [("note".to_owned(), "y".to_owned())].into(),
            envs: vec![wire::KeyValue { key: "A".to_owned(), value: "b".into() }],
            mounts: vec![wire::Mount { host_path: "/a".to_owned(), ..Default::default() }],
            ..wire::ContainerConfig::default()
        };
        let request = wire::CreateContainerRequest {
            pod_sandbox_id: "pod".to_owned(),
            config: Some(config.clone()),
            sandbox_config: None,
        };
        let options = ContainerOptions {
            extensions: [(NAME.to_owned(), text(&request))].into(),
            ..ContainerOptions::default()
        };
        let listed = read::<ListedRequest>(&options, NAME).config.unwrap();
        assert_eq!((listed.metadata, listed.image), (config.metadata, config.image));
        assert_eq!((listed.labels, listed.annotations), (config.labels, config.annotations));
    }
}
