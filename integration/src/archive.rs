//! Images in files: OCI layout directories, OCI archives, docker archives.

use std::path::Path;

use serde_json::{Value, json};

use crate::daemon::Daemon;
use crate::image::{DOCKER_LIST, Image, OCI_INDEX};
use crate::tar::{self, Entry};

const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;

/// The files of an OCI layout: path and contents. A name becomes `org.opencontainers.image.ref.name`.
#[must_use]
pub fn layout(images: &[(&str, &Image)]) -> Vec<(String, Vec<u8>)> {
    let manifests: Vec<Value> = images
        .iter()
        .map(|(name, image)| {
            let mut descriptor = image.target.descriptor();
            if !name.is_empty() {
                descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": name});
            }
            descriptor
        })
        .collect();
    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests});
    let mut files = vec![
        ("oci-layout".to_owned(), LAYOUT.as_bytes().to_vec()),
        ("index.json".to_owned(), index.to_string().into_bytes()),
    ];
    for blob in images.iter().flat_map(|(_, image)| image.blobs()) {
        let path = format!("blobs/sha256/{}", blob.hex());
        if files.iter().all(|(other, _)| *other != path) {
            files.push((path, blob.bytes.clone()));
        }
    }
    files
}

/// Writes an OCI layout as a directory.
///
/// # Panics
/// When the disk is full.
pub fn write_layout(directory: &Path, images: &[(&str, &Image)]) {
    for (path, data) in layout(images) {
        let file = directory.join(path);
        std::fs::create_dir_all(file.parent().expect("below the directory")).expect("a directory");
        std::fs::write(file, data).expect("a file");
    }
}

/// An OCI archive: the layout as a tar.
#[must_use]
pub fn oci(images: &[(&str, &Image)]) -> Vec<u8> {
    tar::tar(&entries(layout(images)))
}

/// Has a daemon load images from a file, without any registry.
///
/// # Panics
/// When it doesn't.
#[track_caller]
pub fn load(daemon: &Daemon, images: &[(&str, &Image)]) {
    let file = daemon.scratch().join("images.tar");
    std::fs::write(&file, oci(images)).expect("a file");
    daemon.ctl(&format!("load -i {}", file.display())).ok();
    std::fs::remove_file(file).expect("a file");
}

/// The entries of a docker archive: `HEX.json`, `N/layer.tar`, `manifest.json`.
///
/// # Panics
/// When an image is an index.
#[must_use]
pub fn docker_files(images: &[(&[&str], &Image)]) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    let mut manifest = Vec::new();
    for (number, (names, image)) in images.iter().enumerate() {
        assert_ne!(image.target.media_type, DOCKER_LIST, "one platform");
        let id = image.id();
        let config = image.parts.iter().find(|blob| blob.digest == id).expect("its configuration");
        let config_path = format!("{}.json", config.hex());
        let mut layers = Vec::new();
        for (position, layer) in image.layers().into_iter().enumerate() {
            let path = format!("{number}-{position}/layer.tar");
            layers.push(path.clone());
            files.push((path, layer.bytes.clone()));
        }
        files.push((config_path.clone(), config.bytes.clone()));
        manifest.push(json!({"Config": config_path, "RepoTags": names, "Layers": layers}));
    }
    files.push(("manifest.json".to_owned(), Value::from(manifest).to_string().into_bytes()));
    files
}

/// A docker archive.
#[must_use]
pub fn docker(images: &[(&[&str], &Image)]) -> Vec<u8> {
    tar::tar(&entries(docker_files(images)))
}

/// Files as entries of a tar.
#[must_use]
pub fn entries(files: Vec<(String, Vec<u8>)>) -> Vec<Entry> {
    files.into_iter().map(|(path, data)| Entry::file(&path, data)).collect()
}

/// The same in another order: the last first, halves exchanged.
#[must_use]
pub fn shuffled(mut entries: Vec<Entry>) -> Vec<Entry> {
    let half = entries.len() / 2;
    entries.rotate_left(half);
    entries.reverse();
    entries
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::{docker, docker_files, entries, oci, shuffled, write_layout};
    use crate::image::{Compression, Dialect, Image, Layer, Recipe};
    use crate::netns::run;
    use crate::tar::{Entry, tar};
    use crate::tree::{Tree, What};

    fn image(dialect: Dialect) -> Image {
        Recipe::busybox()
            .dialect(dialect)
            .layer(Layer::of(&[Entry::file("etc/extra", "more").mode(0o4711).owner(3, 4)]))
            .layer(Layer::of(&[Entry::file("etc/.wh.group", "")]))
            .image()
    }

    #[test]
    fn skopeo_and_umoci_read_what_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let (ours, docker_image) = (image(Dialect::Oci), image(Dialect::Docker));
        std::fs::write(at("oci.tar"), oci(&[("one", &ours)])).unwrap();
        // skopeo wants plain layers in a docker archive.
        let plain = Recipe::new()
            .layer(Layer::raw(tar(&[Entry::file("a", "b")]), Compression::None))
            .image();
        std::fs::write(at("docker.tar"), docker(&[(&["a:1"], &plain)])).unwrap();
        let mixed = tar(&shuffled(entries(docker_files(&[(&["a:1"], &plain)]))));
        std::fs::write(at("mixed.tar"), mixed).unwrap();
        write_layout(&at("layout"), &[("one", &ours), ("two", &docker_image)]);
        for (number, from) in [
            "oci-archive:oci.tar:one",
            "docker-archive:docker.tar",
            "docker-archive:mixed.tar",
            "oci:layout:one",
        ]
        .into_iter()
        .enumerate()
        {
            let mut command = Command::new("skopeo");
            command.args(["--insecure-policy", "copy", "--quiet", from, &format!("dir:{number}")]);
            run(command.current_dir(directory.path()));
        }
        let mut command = Command::new("umoci");
        run(command
            .args(["unpack", "--image", "layout:one", "bundle"])
            .current_dir(directory.path()));
        let tree = Tree::walk(&at("bundle/rootfs"));
        assert!(!tree.has("etc/group"));
        let extra = tree.node("etc/extra");
        assert_eq!((extra.mode, extra.uid, extra.gid), (0o4711, 3, 4));
        assert!(matches!(extra.what, What::File { size: 4, .. }), "{extra}");
        let shell = tree.node("bin/sh");
        assert!(shell.same_as.is_some(), "{shell}");
        assert_eq!(tree.differences(&tree.clone()), Vec::<String>::new());
    }
}
