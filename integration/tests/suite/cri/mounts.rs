//! Mounts that are made while a container runs, on either side, and those below a mount that is read-only.

use std::path::{Path, PathBuf};
use std::process::Command;

use bosun_proto::cri;
use bosun_proto::cri::MountPropagation as Propagation;
use integration::daemon::Daemon;
use integration::kubelet::{Kubelet, node};
use integration::netns::run;
use integration::process::{Process, mount_points};

/// Mounts something in a container below the source.
const INSIDE: &str =
    "mount -t tmpfs tmpfs /mnt/inside && echo inside > /mnt/inside/file && cat /mnt/inside/file";

/// A directory of the host that is a mount of the test's own. It goes with this value, and all that is mounted
/// below it with it.
struct Source(PathBuf);

impl Source {
    fn private(daemon: &Daemon) -> Self {
        let path = daemon.scratch().join("source");
        for name in ["later", "inside"] {
            std::fs::create_dir_all(path.join(name)).unwrap();
        }
        run(Command::new("mount").arg("--bind").args([&path, &path]));
        let source = Self(path);
        // It is a peer of the root's where that one is shared.
        run(Command::new("mount").arg("--make-private").arg(&source.0));
        source
    }

    fn shared(daemon: &Daemon) -> Self {
        let source = Self::private(daemon);
        run(Command::new("mount").arg("--make-shared").arg(&source.0));
        source
    }

    /// Sees what is mounted below the other one, and shows nothing.
    fn slave(daemon: &Daemon, master: &Self) -> Self {
        let path = daemon.scratch().join("slave");
        std::fs::create_dir(&path).unwrap();
        run(Command::new("mount").arg("--bind").args([&master.0, &path]));
        let source = Self(path);
        run(Command::new("mount").arg("--make-slave").arg(&source.0));
        source
    }

    /// Mounts something below it, on the host.
    fn mount(&self, name: &str) {
        let path = self.0.join(name);
        run(Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(&path));
        std::fs::write(path.join("file"), "of the host\n").unwrap();
    }

    /// Whether something is mounted there, on the host.
    fn has(&self, name: &str) -> bool {
        let path = self.0.join(name).display().to_string();
        mount_points(Process(std::process::id())).contains(&path)
    }

    /// As a kubelet asks for it.
    fn at(&self, inside: &str, propagation: Propagation) -> cri::Mount {
        cri::Mount {
            host_path: self.0.display().to_string(),
            container_path: inside.to_owned(),
            propagation: propagation.into(),
            ..cri::Mount::default()
        }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("--lazy").arg(&self.0).status();
        let gone = unmounted.is_ok_and(|status| status.success());
        assert!(gone || std::thread::panicking(), "{} stays", self.0.display());
    }
}

/// A container in a pod of its own, with the source at `/mnt`.
fn started(
    kubelet: &Kubelet,
    source: &Source,
    propagation: Propagation,
    privileged: bool,
) -> String {
    let mut config = kubelet.pod_config("web");
    let linux = config.linux.as_mut().unwrap();
    linux.security_context.as_mut().unwrap().privileged = privileged;
    let pod = kubelet.run_pod(&config);
    let mut container = kubelet.container_config("one", "exec sleep 600");
    let linux = container.linux.as_mut().unwrap();
    linux.security_context.as_mut().unwrap().privileged = privileged;
    container.mounts = vec![source.at("/mnt", propagation)];
    let id = kubelet.run(&pod, &container, &config);
    assert_eq!(kubelet.status(&id).mounts, container.mounts);
    id
}

#[test]
fn a_private_mount_sees_none_that_comes_later_and_shows_none() {
    let daemon = node();
    let source = Source::shared(&daemon);
    let kubelet = Kubelet::of(&daemon);
    let id = started(&kubelet, &source, Propagation::PropagationPrivate, true);
    source.mount("later");
    assert_eq!(kubelet.exec_text(&id, "ls /mnt/later"), "");
    assert_eq!(kubelet.exec_text(&id, INSIDE), "inside");
    assert!(!source.has("inside"));
}

#[test]
fn what_the_host_mounts_later_comes_to_a_container_that_shows_none() {
    let daemon = node();
    let source = Source::shared(&daemon);
    let kubelet = Kubelet::of(&daemon);
    let id = started(&kubelet, &source, Propagation::PropagationHostToContainer, true);
    source.mount("later");
    assert_eq!(kubelet.exec_text(&id, "cat /mnt/later/file"), "of the host");
    assert_eq!(kubelet.exec_text(&id, INSIDE), "inside");
    assert!(!source.has("inside"));
    run(Command::new("umount").arg(source.0.join("later")));
    assert_eq!(kubelet.exec_text(&id, "ls /mnt/later"), "");
}

#[test]
fn what_a_container_mounts_comes_to_the_host_and_stays_when_the_container_ends() {
    let daemon = node();
    let source = Source::shared(&daemon);
    let kubelet = Kubelet::of(&daemon);
    let id = started(&kubelet, &source, Propagation::PropagationBidirectional, true);
    source.mount("later");
    assert_eq!(kubelet.exec_text(&id, "cat /mnt/later/file"), "of the host");
    assert_eq!(kubelet.exec_text(&id, INSIDE), "inside");
    assert!(source.has("inside"));
    let file = source.0.join("inside/file");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "inside\n");
    let _ = kubelet.exec_text(&id, "umount /mnt/inside");
    assert!(!source.has("inside"));
    let _ = kubelet.exec_text(&id, INSIDE);
    kubelet.stop(&id, 0).unwrap();
    kubelet.remove(&id).unwrap();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "inside\n");
    assert!(source.has("later"), "what was the host's own");
}

#[test]
fn a_container_that_is_not_privileged_mounts_nothing_and_sees_what_the_host_mounts() {
    let daemon = node();
    let source = Source::shared(&daemon);
    let kubelet = Kubelet::of(&daemon);
    let id = started(&kubelet, &source, Propagation::PropagationBidirectional, false);
    source.mount("later");
    assert_eq!(kubelet.exec_text(&id, "cat /mnt/later/file"), "of the host");
    assert_ne!(kubelet.exec(&id, INSIDE, 0).unwrap().exit_code, 0);
    assert!(!source.has("inside"));
}

#[test]
fn a_mount_is_to_travel_only_where_the_host_lets_it() {
    let daemon = node();
    let kubelet = Kubelet::of(&daemon);
    let mut config = kubelet.pod_config("web");
    let linux = config.linux.as_mut().unwrap();
    linux.security_context.as_mut().unwrap().privileged = true;
    let pod = kubelet.run_pod(&config);
    let create = |name: &str, path: &Path, propagation: Propagation| {
        let mut container = kubelet.container_config(name, "exec sleep 600");
        container.mounts = vec![cri::Mount {
            host_path: path.display().to_string(),
            container_path: "/mnt".to_owned(),
            propagation: propagation.into(),
            ..cri::Mount::default()
        }];
        kubelet.try_create(&pod, &container, &config)
    };
    let (to_container, both_ways) =
        (Propagation::PropagationHostToContainer, Propagation::PropagationBidirectional);
    let refused = |path: &Path, propagation, mounted: &Source, words: &[&str]| {
        let refused = create("bad", path, propagation).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{refused}");
        let way_out = format!("`mount --make-shared {}`", mounted.0.display());
        let path = format!("source {}: ", path.display());
        for word in [&[way_out.as_str(), &path, "/mnt"], words].concat() {
            assert!(refused.message().contains(word), "{word}: {refused}");
        }
    };
    let source = Source::private(&daemon);
    let link = daemon.scratch().join("link");
    std::os::unix::fs::symlink(source.0.join("later"), &link).unwrap();
    for path in [source.0.clone(), source.0.join("later"), source.0.join("new"), link] {
        refused(&path, to_container, &source, &["HOST_TO_CONTAINER", "private"]);
        refused(&path, both_ways, &source, &["BIDIRECTIONAL", "private"]);
    }
    assert!(kubelet.containers(cri::ContainerFilter::default()).is_empty());
    let _ = create("none", &source.0, Propagation::PropagationPrivate).unwrap();
    run(Command::new("mount").arg("--make-shared").arg(&source.0));
    let _ = create("one", &source.0, to_container).unwrap();
    let _ = create("two", &source.0.join("later"), both_ways).unwrap();
    let slave = Source::slave(&daemon, &source);
    refused(&slave.0, both_ways, &slave, &["BIDIRECTIONAL", "slave"]);
    let id = create("three", &slave.0, to_container).unwrap();
    kubelet.start(&id).unwrap();
    source.mount("later");
    assert_eq!(kubelet.exec_text(&id, "cat /mnt/later/file"), "of the host");
    drop(kubelet);
}

#[test]
fn read_only_is_a_mount_alone_or_all_that_is_below_it() {
    let daemon = node();
    let source = Source::shared(&daemon);
    source.mount("later");
    let kubelet = Kubelet::of(&daemon);
    let config = kubelet.pod_config("web");
    let pod = kubelet.run_pod(&config);
    let script = "for path in /plain /plain/later /all /all/later; do \
        (echo x > $path/x) 2>/dev/null && echo $path; done; cat /all/later/file";
    let mut container = kubelet.container_config("one", script);
    let plain =
        cri::Mount { readonly: true, ..source.at("/plain", Propagation::PropagationPrivate) };
    let all = cri::Mount {
        container_path: "/all".to_owned(),
        recursive_read_only: true,
        ..plain.clone()
    };
    container.mounts = vec![plain, all.clone()];
    let id = kubelet.run(&pod, &container, &config);
    let status = kubelet.ended(&id);
    assert_eq!(kubelet.said(&id), "/plain/later\nof the host\n");
    assert_eq!(status.mounts, container.mounts);
    std::fs::write(source.0.join("later/x"), "as ever").expect("the host writes there");
    let refused = |mount: cri::Mount| {
        let mut container = kubelet.container_config("bad", "true");
        container.mounts = vec![mount];
        let refused = kubelet.try_create(&pod, &container, &config).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{refused}");
        refused.message().to_owned()
    };
    let writable = refused(cri::Mount { readonly: false, ..all.clone() });
    assert!(writable.contains("/all") && writable.contains("not read-only"), "{writable}");
    for kind in [Propagation::PropagationHostToContainer, Propagation::PropagationBidirectional] {
        let travels = refused(cri::Mount { propagation: kind.into(), ..all.clone() });
        assert!(travels.contains("/all") && travels.contains("private propagation"), "{travels}");
    }
    let optioned = refused(cri::Mount { mount_options: vec!["noexec".to_owned()], ..all });
    assert!(optioned.contains("/all") && optioned.contains("noexec"), "{optioned}");
}
