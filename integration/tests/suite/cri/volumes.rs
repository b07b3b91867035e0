//! Images as volumes.

use bosun_proto::cri;
use integration::image::{Layer, Recipe};
use integration::kubelet::{Kubelet, load, node};
use integration::tar::Entry;

const DATA: &str = "registry.example.org/data:1";

fn mount(sub_path: &str) -> cri::Mount {
    cri::Mount {
        container_path: "/data".to_owned(),
        readonly: true,
        image: Some(cri::ImageSpec { image: DATA.to_owned(), ..Default::default() }),
        image_sub_path: sub_path.to_owned(),
        ..cri::Mount::default()
    }
}

#[test]
fn an_image_is_a_volume_and_stays_while_it_is_one() {
    let daemon = node();
    let kubelet = Kubelet::of(&daemon);
    let upper = Layer::of(&[
        Entry::directory("a"),
        Entry::directory("a/b"),
        Entry::file("a/b/two", "2\n"),
        Entry::file("a/b/.wh.gone", ""),
    ]);
    let image = Recipe::new()
        .files(&[
            Entry::directory("a"),
            Entry::directory("a/b"),
            Entry::file("a/b/one", "1\n"),
            Entry::file("a/b/gone", "x"),
            Entry::symlink("link", "a/b"),
        ])
        .layer(upper);
    load(&daemon, &[(DATA, &image.image())]);
    let id = kubelet.image(DATA).unwrap().id;
    let config = kubelet.pod_config("web");
    let pod = kubelet.run_pod(&config);
    let seen = |name: &str, sub_path: &str| {
        let mut container =
            kubelet.container_config(name, "cd /data; ls; touch x 2>&1; cat b/one two");
        container.mounts = vec![mount(sub_path)];
        let id = kubelet.run(&pod, &container, &config);
        let status = kubelet.ended(&id);
        (kubelet.said(&id), status.mounts[0].image.clone().unwrap().image_ref)
    };
    let (whole, image_ref) = seen("whole", "");
    assert!(whole.starts_with("a\nlink\ntouch: x: Read-only file system\n"), "{whole}");
    assert_eq!(image_ref, id);
    let (part, _) = seen("part", "a");
    assert!(part.contains("b\ntouch") && part.contains("\n1\n"), "{part}");
    let (part, _) = seen("linked", "link");
    assert!(part.starts_with("one\ntwo\ntouch") && part.contains("\n2\n"), "{part}");
    let mut keeper =
        kubelet.container_config("keeper", "until test -e /go; do sleep 0.05; done; cat /data/two");
    keeper.mounts = vec![mount("a/b")];
    let keeper = kubelet.run(&pod, &keeper, &config);
    kubelet.remove_image(DATA).unwrap();
    daemon.ctl("--namespace k8s.io system prune -f").ok();
    let _ = kubelet.exec_text(&keeper, "touch /go");
    let _ = kubelet.ended(&keeper);
    assert_eq!(kubelet.said(&keeper), "2\n");
}

#[test]
fn in_a_pod_with_users_of_its_own_a_volume_belongs_to_them() {
    let daemon = node();
    let kubelet = Kubelet::of(&daemon);
    let lower = Recipe::new().files(&[
        Entry::directory("a"),
        Entry::file("a/one", "1\n").owner(1000, 1001),
        Entry::file("root", "r\n"),
    ]);
    let upper = Layer::of(&[Entry::directory("a"), Entry::file("a/two", "2\n").owner(7, 8)]);
    load(&daemon, &[(DATA, &lower.clone().image())]);
    let layered = "registry.example.org/layered:1";
    load(&daemon, &[(layered, &lower.layer(upper).image())]);
    let mut config = kubelet.pod_config("web");
    let mapping = cri::IdMapping { host_id: 1_000_000, container_id: 0, length: 65_536 };
    let context = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    context.namespace_options.as_mut().unwrap().userns_options = Some(cri::UserNamespace {
        mode: cri::NamespaceMode::Pod.into(),
        uids: vec![mapping],
        gids: vec![mapping],
    });
    let pod = kubelet.run_pod(&config);
    let script = "cd /data; stat -c '%n %u %g' root a/*; cat a/*; touch x || cd /part; ls";
    let mut container = kubelet.container_config("one", script);
    container.mounts =
        vec![mount(""), cri::Mount { container_path: "/part".to_owned(), ..mount("a") }];
    let said = kubelet.output(&pod, &container, &config);
    assert_eq!(
        said.lines().filter(|line| !line.contains("Read-only")).collect::<Vec<_>>(),
        ["root 0 0", "a/one 1000 1001", "1", "one"]
    );
    let mut container = kubelet.container_config("two", script);
    let image = Some(cri::ImageSpec { image: layered.to_owned(), ..Default::default() });
    let part = cri::Mount { container_path: "/part".to_owned(), ..mount("a") };
    container.mounts =
        vec![cri::Mount { image: image.clone(), ..mount("") }, cri::Mount { image, ..part }];
    let said = kubelet.output(&pod, &container, &config);
    assert_eq!(
        said.lines().filter(|line| !line.contains("Read-only")).collect::<Vec<_>>(),
        ["root 0 0", "a/one 1000 1001", "a/two 7 8", "1", "2", "one", "two"]
    );
}

#[test]
fn what_is_no_volume_is_refused() {
    let daemon = node();
    let kubelet = Kubelet::of(&daemon);
    load(&daemon, &[(DATA, &Recipe::new().files(&[Entry::file("a", "1")]).image())]);
    let config = kubelet.pod_config("web");
    let pod = kubelet.run_pod(&config);
    let refused = |mount: cri::Mount| {
        let mut container = kubelet.container_config("bad", "true");
        container.mounts = vec![mount];
        kubelet.try_create(&pod, &container, &config).unwrap_err().message().to_owned()
    };
    assert!(refused(mount("nowhere")).contains("nowhere"));
    assert!(refused(mount("../etc")).contains("image_sub_path"));
    assert!(refused(cri::Mount { readonly: false, ..mount("") }).contains("read-only"));
    let image = Some(cri::ImageSpec { image: "nowhere:1".to_owned(), ..Default::default() });
    assert!(refused(cri::Mount { image, ..mount("") }).contains("nowhere"));
}
