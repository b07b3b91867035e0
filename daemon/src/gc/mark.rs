//! What is reachable: a pure function over what one transaction sees.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::error::Result;
use crate::store::{
    BlobRow, ImageRow, LeaseRow, OfImage, Resource, ResourceKind, SnapshotRow, Transaction,
};
use crate::time::Time;

/// Keeps what it is on, whatever its value.
const ROOT: &str = "containerd.io/gc.root";
/// A moment (RFC 3339) from which an image is no root any more.
const EXPIRE: &str = "containerd.io/gc.expire";
/// A lease that keeps what it names and nothing that those refer to.
const FLAT: &str = "containerd.io/gc.flat";
/// "As long as I am here, keep that."
const REFERENCE: &str = "containerd.io/gc.ref.";
/// A reference to a snapshot, of whatever has several with `/` and a word behind it.
pub const SNAPSHOT_REFERENCE: &str = "containerd.io/gc.ref.snapshot.overlayfs";
/// "As long as that is here, keep me."
const BACK_REFERENCE: &str = "containerd.io/gc.bref.";
/// The snapshotter that labels have to name.
const SNAPSHOTTER: &str = "overlayfs";

/// Everything of a namespace that keeps or is kept.
#[derive(Debug, Default)]
pub struct Graph {
    pub images: Vec<ImageRow>,
    pub blobs: Vec<BlobRow>,
    pub snapshots: Vec<SnapshotRow>,
    pub leases: Vec<(LeaseRow, Vec<Resource>)>,
    pub containers: Vec<OfImage>,
    /// Numbers of snapshots that are being made.
    pub pinned: HashSet<i64>,
}

/// What nothing reaches.
#[derive(Debug, Default)]
pub struct Unreachable {
    /// Names that have expired.
    pub images: Vec<String>,
    pub blobs: Vec<BlobRow>,
    /// Children before their parents.
    pub snapshots: Vec<SnapshotRow>,
}

/// What is to be thought away.
#[derive(Clone, Debug, Default)]
pub struct Without {
    /// Names of images.
    pub images: BTreeSet<String>,
    /// Ids of containers; their snapshots go with them, and are not counted as collected.
    pub containers: BTreeSet<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Node {
    Image(String),
    Blob(String),
    /// By key.
    Snapshot(String),
    Container(String),
}

impl Graph {
    /// Loads the graph of a namespace.
    ///
    /// # Errors
    /// The store's own.
    pub fn load(tx: &mut Transaction<'_>, namespace: &str, pinned: HashSet<i64>) -> Result<Self> {
        tx.drop_expired_leases(Time::now())?;
        let mut leases = Vec::new();
        for lease in tx.leases(namespace)? {
            let held = tx.held_by_lease(namespace, &lease.id)?;
            leases.push((lease, held));
        }
        Ok(Self {
            images: tx.images(namespace)?,
            blobs: tx.blobs(namespace)?,
            snapshots: tx.snapshots(namespace)?,
            leases,
            containers: tx.containers_of_images(namespace)?,
            pinned,
        })
    }

    /// Thinks things away.
    pub fn forget(&mut self, without: &Without) {
        self.images.retain(|image| !without.images.contains(&image.name));
        self.containers.retain(|container| !without.containers.contains(&container.id));
        let holds = |holder: &String| without.containers.contains(holder);
        self.snapshots.retain(|snapshot| !snapshot.held_by.as_ref().is_some_and(holds));
    }

    fn has_expired(image: &ImageRow, now: Time) -> bool {
        let Some(text) = image.labels.get(EXPIRE) else { return false };
        // What can't be read expires nothing.
        Time::parse(text).is_some_and(|at| at <= now)
    }
}

/// Marks from the roots and answers what is left.
#[must_use]
pub fn unreachable(graph: &Graph, now: Time) -> Unreachable {
    let mut marks = Marks::new(graph);
    for image in graph.images.iter().filter(|image| !Graph::has_expired(image, now)) {
        marks.reach(Node::Image(image.name.clone()));
    }
    for container in &graph.containers {
        marks.reach(Node::Container(container.id.clone()));
    }
    for (lease, resources) in &graph.leases {
        for resource in resources {
            let node = match resource.kind {
                ResourceKind::Content => Node::Blob(resource.id.clone()),
                ResourceKind::Snapshot => Node::Snapshot(resource.id.clone()),
            };
            match lease.labels.contains_key(FLAT) {
                true => marks.keep(node),
                false => marks.reach(node),
            }
        }
    }
    for blob in graph.blobs.iter().filter(|blob| blob.labels.contains_key(ROOT)) {
        marks.reach(Node::Blob(blob.digest.clone()));
    }
    let is_root = |snapshot: &&SnapshotRow| {
        snapshot.held_by.is_some()
            || snapshot.labels.contains_key(ROOT)
            || graph.pinned.contains(&snapshot.number)
    };
    for snapshot in graph.snapshots.iter().filter(is_root) {
        marks.reach(Node::Snapshot(snapshot.key.clone()));
    }
    marks.follow();
    let images = graph.images.iter().filter(|image| Graph::has_expired(image, now));
    let blobs = graph.blobs.iter().filter(|blob| !marks.has(&Node::Blob(blob.digest.clone())));
    let mut snapshots: Vec<SnapshotRow> = graph
        .snapshots
        .iter()
        .filter(|snapshot| !marks.has(&Node::Snapshot(snapshot.key.clone())))
        .cloned()
        .collect();
    snapshots.sort_by_key(|snapshot| std::cmp::Reverse(marks.depth(snapshot.number)));
    Unreachable {
        images: images.map(|image| image.name.clone()).collect(),
        blobs: blobs.cloned().collect(),
        snapshots,
    }
}

/// What was reached, and the arrows that lead on.
struct Marks<'a> {
    reached: HashSet<Node>,
    /// Kept without what they lead to. Something else may still reach them.
    kept: HashSet<Node>,
    waiting: Vec<Node>,
    images: HashMap<&'a str, &'a ImageRow>,
    blobs: HashMap<&'a str, &'a BlobRow>,
    snapshots: HashMap<&'a str, &'a SnapshotRow>,
    by_number: HashMap<i64, &'a SnapshotRow>,
    containers: HashMap<&'a str, &'a OfImage>,
    /// Who is kept by a node that it names itself.
    kept_by: HashMap<Node, Vec<Node>>,
}

impl<'a> Marks<'a> {
    fn new(graph: &'a Graph) -> Self {
        let mut kept_by: HashMap<Node, Vec<Node>> = HashMap::new();
        let mut note = |labels: &BTreeMap<String, String>, own: Node| {
            for target in labels
                .iter()
                .filter_map(|(key, value)| target(key.strip_prefix(BACK_REFERENCE)?, value))
            {
                kept_by.entry(target).or_default().push(own.clone());
            }
        };
        for blob in &graph.blobs {
            note(&blob.labels, Node::Blob(blob.digest.clone()));
        }
        for snapshot in &graph.snapshots {
            note(&snapshot.labels, Node::Snapshot(snapshot.key.clone()));
        }
        Self {
            reached: HashSet::new(),
            kept: HashSet::new(),
            waiting: Vec::new(),
            images: graph.images.iter().map(|row| (row.name.as_str(), row)).collect(),
            blobs: graph.blobs.iter().map(|row| (row.digest.as_str(), row)).collect(),
            snapshots: graph.snapshots.iter().map(|row| (row.key.as_str(), row)).collect(),
            by_number: graph.snapshots.iter().map(|row| (row.number, row)).collect(),
            containers: graph.containers.iter().map(|row| (row.id.as_str(), row)).collect(),
            kept_by,
        }
    }

    /// Keeps a node and all that it leads to.
    fn reach(&mut self, node: Node) {
        if self.reached.insert(node.clone()) {
            self.waiting.push(node);
        }
    }

    /// Keeps a node alone; a snapshot can't be without its parents.
    fn keep(&mut self, node: Node) {
        if let Node::Snapshot(key) = &node {
            let parent = self.snapshots.get(key.as_str()).and_then(|row| row.parent);
            if let Some(parent) = parent.and_then(|number| self.by_number.get(&number)) {
                self.keep(Node::Snapshot(parent.key.clone()));
            }
        }
        self.kept.insert(node);
    }

    fn follow(&mut self) {
        while let Some(node) = self.waiting.pop() {
            for next in self.arrows(&node) {
                self.reach(next);
            }
        }
    }

    fn arrows(&self, node: &Node) -> Vec<Node> {
        let mut arrows = self.kept_by.get(node).cloned().unwrap_or_default();
        let mut from_labels = |labels: &BTreeMap<String, String>| {
            arrows.extend(
                labels
                    .iter()
                    .filter_map(|(key, value)| target(key.strip_prefix(REFERENCE)?, value)),
            );
        };
        match node {
            Node::Image(name) => {
                if let Some(row) = self.images.get(name.as_str()) {
                    from_labels(&row.labels);
                    arrows.push(Node::Blob(row.target.digest.to_string()));
                }
            }
            Node::Blob(digest) => {
                if let Some(row) = self.blobs.get(digest.as_str()) {
                    from_labels(&row.labels);
                }
            }
            Node::Snapshot(key) => {
                if let Some(row) = self.snapshots.get(key.as_str()) {
                    from_labels(&row.labels);
                    let parent = row.parent.and_then(|number| self.by_number.get(&number));
                    arrows.extend(parent.map(|parent| Node::Snapshot(parent.key.clone())));
                }
            }
            Node::Container(id) => {
                if let Some(row) = self.containers.get(id.as_str()) {
                    arrows.push(Node::Blob(row.manifest.clone()));
                }
            }
        }
        arrows
    }

    fn has(&self, node: &Node) -> bool {
        self.reached.contains(node) || self.kept.contains(node)
    }

    /// How many parents a snapshot has.
    fn depth(&self, number: i64) -> usize {
        let mut depth = 0;
        let mut next = self.by_number.get(&number).and_then(|row| row.parent);
        while let Some(number) = next {
            depth += 1;
            next = self.by_number.get(&number).and_then(|row| row.parent);
        }
        depth
    }
}

/// What a reference label names: `content[.x|/x]`, `snapshot.SNAPSHOTTER[.x|/x]`, `image[.x|/x]`,
/// `container[.x|/x]`, with the digest, key, name or id as its value.
fn target(kind: &str, value: &str) -> Option<Node> {
    let is = |word: &str| {
        kind.strip_prefix(word).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '/']))
    };
    if is("content") {
        return Some(Node::Blob(value.to_owned()));
    }
    if is("image") {
        return Some(Node::Image(value.to_owned()));
    }
    if is("container") {
        return Some(Node::Container(value.to_owned()));
    }
    if is(&format!("snapshot.{SNAPSHOTTER}")) {
        return Some(Node::Snapshot(value.to_owned()));
    }
    None
}

#[cfg(test)]
mod tests {
    use bosun_image::{Descriptor, Digest};

    use super::*;
    use crate::store::Kind;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn digest(name: &str) -> Digest {
        Digest::of(name.as_bytes())
    }

    fn image(name: &str, target: &str, pairs: &[(&str, &str)]) -> ImageRow {
        ImageRow {
            name: name.to_owned(),
            target: Descriptor {
                media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
                digest: digest(target),
                size: 1,
                annotations: BTreeMap::new(),
                platform: None,
            },
            created_at: Time::default(),
            updated_at: Time::default(),
            labels: labels(pairs),
        }
    }

    fn blob(name: &str, pairs: &[(&str, &str)]) -> BlobRow {
        BlobRow {
            digest: digest(name).to_string(),
            size: 1,
            created_at: Time::default(),
            labels: labels(pairs),
        }
    }

    fn snapshot(
        number: i64,
        key: &str,
        parent: Option<i64>,
        pairs: &[(&str, &str)],
    ) -> SnapshotRow {
        SnapshotRow {
            number,
            key: key.to_owned(),
            kind: Kind::Committed,
            parent,
            directory: None,
            held_by: None,
            created_at: Time::default(),
            updated_at: Time::default(),
            labels: labels(pairs),
            written_in: None,
        }
    }

    fn lease(
        id: &str,
        pairs: &[(&str, &str)],
        kind: ResourceKind,
        resource: &str,
    ) -> (LeaseRow, Vec<Resource>) {
        let row = LeaseRow {
            id: id.to_owned(),
            created_at: Time::default(),
            expires_at: None,
            labels: labels(pairs),
        };
        (row, vec![Resource { kind, id: resource.to_owned() }])
    }

    /// An image whose manifest has a configuration, a layer, and two unpacked layers.
    fn whole() -> Graph {
        let config = digest("config").to_string();
        let layer = digest("layer").to_string();
        Graph {
            images: vec![image("a", "manifest", &[])],
            blobs: vec![
                blob(
                    "manifest",
                    &[
                        ("containerd.io/gc.ref.content.config", &config),
                        ("containerd.io/gc.ref.content.l.0", &layer),
                    ],
                ),
                blob("config", &[("containerd.io/gc.ref.snapshot.overlayfs", "top")]),
                blob("layer", &[]),
            ],
            snapshots: vec![snapshot(1, "base", None, &[]), snapshot(2, "top", Some(1), &[])],
            ..Graph::default()
        }
    }

    fn names(gone: &Unreachable) -> (usize, Vec<&str>) {
        (gone.blobs.len(), gone.snapshots.iter().map(|row| row.key.as_str()).collect())
    }

    #[test]
    fn a_name_keeps_all_that_it_leads_to() {
        let gone = unreachable(&whole(), Time::default());
        assert_eq!(names(&gone), (0, vec![]));
    }

    #[test]
    fn without_a_name_all_goes_children_first() {
        let mut graph = whole();
        graph.images.clear();
        assert_eq!(names(&unreachable(&graph, Time::default())), (3, vec!["top", "base"]));
    }

    #[test]
    fn a_container_keeps_its_image_s_content_and_its_own_tree() {
        let mut graph = whole();
        graph.images.clear();
        graph.containers.push(OfImage {
            id: "c".to_owned(),
            name: "c".to_owned(),
            manifest: digest("manifest").to_string(),
        });
        assert_eq!(names(&unreachable(&graph, Time::default())), (0, vec![]));
        graph.containers.clear();
        let mut own = snapshot(3, "c", Some(2), &[]);
        own.held_by = Some("c".to_owned());
        graph.snapshots.push(own);
        assert_eq!(names(&unreachable(&graph, Time::default())), (3, vec![]));
    }

    #[test]
    fn leases_keep_all_beneath_and_flat_ones_only_what_they_name() {
        let mut graph = whole();
        graph.images.clear();
        let manifest = digest("manifest").to_string();
        graph.leases = vec![lease("l", &[], ResourceKind::Content, &manifest)];
        assert_eq!(names(&unreachable(&graph, Time::default())), (0, vec![]));
        graph.leases = vec![lease("l", &[(FLAT, "")], ResourceKind::Content, &manifest)];
        assert_eq!(names(&unreachable(&graph, Time::default())), (2, vec!["top", "base"]));
        graph.images = vec![image("a", "manifest", &[])];
        assert_eq!(
            names(&unreachable(&graph, Time::default())),
            (0, vec![]),
            "the name reaches on"
        );
        graph.images.clear();
        graph.leases = vec![lease("l", &[(FLAT, "")], ResourceKind::Snapshot, "top")];
        assert_eq!(names(&unreachable(&graph, Time::default())), (3, vec![]));
    }

    #[test]
    fn labels_are_read_as_containerd_reads_them() {
        let layer = digest("layer").to_string();
        for (key, value, kept) in [
            ("containerd.io/gc.ref.content", layer.as_str(), true),
            ("containerd.io/gc.ref.content.l.0", &layer, true),
            ("containerd.io/gc.ref.content/x", &layer, true),
            ("containerd.io/gc.ref.contents", &layer, false),
            ("containerd.io/gc.ref.content.x", "sha256:other", false),
            ("example.org/gc.ref.content", &layer, false),
        ] {
            let graph = Graph {
                images: vec![image("a", "m", &[(key, value)])],
                blobs: vec![blob("layer", &[])],
                ..Graph::default()
            };
            let gone = unreachable(&graph, Time::default());
            assert_eq!(gone.blobs.is_empty(), kept, "{key}");
        }
        let other = Graph {
            images: vec![image("a", "m", &[("containerd.io/gc.ref.snapshot.native", "s")])],
            snapshots: vec![snapshot(1, "s", None, &[])],
            ..Graph::default()
        };
        assert_eq!(unreachable(&other, Time::default()).snapshots.len(), 1, "another snapshotter");
    }

    #[test]
    fn roots_pins_and_back_references_keep() {
        let graph = Graph {
            blobs: vec![
                blob("root", &[(ROOT, "2026")]),
                blob("back", &[("containerd.io/gc.bref.content", digest("root").as_str())]),
                blob("lost", &[("containerd.io/gc.bref.content", digest("gone").as_str())]),
            ],
            snapshots: vec![
                snapshot(1, "labelled", None, &[(ROOT, "")]),
                snapshot(2, "pinned", None, &[]),
                snapshot(3, "free", None, &[]),
            ],
            pinned: HashSet::from([2]),
            ..Graph::default()
        };
        let gone = unreachable(&graph, Time::default());
        assert_eq!(names(&gone), (1, vec!["free"]));
        assert_eq!(gone.blobs[0].digest, digest("lost").as_str());
    }

    #[test]
    fn a_name_that_has_expired_keeps_nothing() {
        let mut graph = whole();
        graph.images[0].labels = labels(&[(EXPIRE, "2026-01-01T00:00:00Z")]);
        let before = Time { seconds: 1_767_225_599, nanos: 0 };
        assert_eq!(unreachable(&graph, before).images.len(), 0);
        let after = Time { seconds: 1_767_225_600, nanos: 0 };
        let gone = unreachable(&graph, after);
        assert_eq!((gone.images.len(), gone.blobs.len()), (1, 3));
    }
}
