//! Labels that an image may not bring: what bosun, containerd and Kubernetes read as orders.
//!
//! A label of an image became a command on the host once (CVE-2026-53488). So names in these
//! namespaces are dropped before labels of an image and of a user meet.

use std::collections::BTreeMap;

/// A name is reserved when it begins with one of these, to the letter.
const RESERVED: [&str; 9] = [
    "containerd.io/",
    "io.bosun.",
    "io.bosun/",
    "io.cri-containerd",
    "io.containerd.",
    "io.containers.",
    "io.kubernetes.",
    "cdi.k8s.io/",
    "nerdctl/",
];

/// Whether only bosun itself, or a user's own request, may set the label.
#[must_use]
pub fn is_reserved(name: &str) -> bool {
    RESERVED.iter().any(|prefix| name.starts_with(prefix))
}

/// Removes the reserved labels of an image, and gives back their names, for a warning.
pub fn take_reserved(labels: &mut BTreeMap<String, String>) -> Vec<String> {
    let reserved: Vec<_> = labels.keys().filter(|name| is_reserved(name)).cloned().collect();
    for name in &reserved {
        labels.remove(name);
    }
    reserved
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_labels_are_dropped_and_named() {
        let name = |name: &&str| ((*name).to_owned(), "x".to_owned());
        let reserved = [
            "containerd.io/restart.loguri",
            "io.bosun.volume",
            "io.cri-containerd.kind",
            "io.kubernetes.pod.name",
            "nerdctl/networks",
        ];
        let free =
            ["org.opencontainers.image.title", "xcontainerd.io/a", "io.kubernetesx", "nerdctl"];
        let mut labels: BTreeMap<_, _> = reserved.iter().chain(&free).map(name).collect();
        assert_eq!(take_reserved(&mut labels), reserved);
        assert_eq!(labels, free.iter().map(name).collect());
    }
}
