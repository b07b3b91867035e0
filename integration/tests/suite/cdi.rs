//! Devices: nodes of the host, and those that vendors describe (Container Device Interface).

use std::path::Path;

use bosun_proto::cri;
use integration::daemon::{Daemon, Settings};
use integration::kubelet::{Kubelet, node_with};
use integration::wait;
use tonic::Code;

/// A device with everything that a specification can say, in YAML.
fn specification(place: &Path) -> String {
    let place = place.display();
    format!(
        r#"
cdiVersion: 0.7.0
kind: vendor.com/gpu
containerEdits:
  env: [ALL=yes]
devices:
  - name: "0"
    containerEdits:
      env: [DEVICE=zero, PATH=/vendor/bin:/usr/bin:/bin]
      deviceNodes:
        - {{path: /dev/mine, type: c, major: 1, minor: 11, permissions: r, fileMode: 384}}
      mounts:
        - {{hostPath: {place}/lib, containerPath: /opt/vendor, options: [ro, bind]}}
      hooks:
        - hookName: createContainer
          path: /bin/sh
          args:
            - sh
            - -c
            - 'b=$(sed "s/.*\"bundle\":\"\([^\"]*\)\".*/\1/"); test -f $b/config.json && ls $b/rootfs >{place}/seen'
          env: ["PATH=/usr/bin:/bin"]
        - {{hookName: poststop, path: /bin/sh, args: [sh, -c, "echo gone >{place}/gone"]}}
      additionalGids: [4711]
  - name: plain
    containerEdits: {{env: [DEVICE=plain]}}
"#
    )
}

fn settings() -> Settings {
    Settings::new()
}

/// Where the files of a test lie; the daemon reads them when a device is asked for.
fn prepare(daemon: &Daemon) -> std::path::PathBuf {
    let place = daemon.scratch().to_owned();
    for name in ["etc-cdi", "run-cdi", "lib"] {
        std::fs::create_dir_all(place.join(name)).unwrap();
    }
    std::fs::write(place.join("lib/note"), "from the vendor\n").unwrap();
    std::fs::write(place.join("etc-cdi/vendor.yaml"), specification(&place)).unwrap();
    place
}

const LOOK: &str =
    "echo $ALL $DEVICE; stat -c %t:%T:%a /dev/mine; cat /opt/vendor/note; id -G; echo $PATH";

#[test]
fn a_device_brings_what_its_specification_says() {
    let daemon = settings().start();
    let place = prepare(&daemon);
    let run = "run --name one --device vendor.com/gpu=0 --net none --rootfs / /bin/sh -c";
    let run = format!("{run} '{LOOK}'");
    let said = daemon.ctl(&run).text();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[..3], ["yes zero", "1:b:600", "from the vendor"], "{said}");
    assert!(lines[3].split(' ').any(|group| group == "4711"), "{said}");
    assert_eq!(lines[4], "/vendor/bin:/usr/bin:/bin");
    let seen = std::fs::read_to_string(place.join("seen")).unwrap();
    assert!(seen.lines().any(|name| name == "usr"), "the hook sees the rootfs: {seen}");
    wait::until_true("the hook of its end", || place.join("gone").exists());
    assert_eq!(daemon.inspect("one", "{{json .HostConfig.CDIDevices}}"), "[\"vendor.com/gpu=0\"]");
    // What it brought when it was made holds for all its runs.
    std::fs::remove_file(place.join("etc-cdi/vendor.yaml")).unwrap();
    assert_eq!(daemon.ctl("start -a one").text(), said);
    daemon.ctl("rm one").ok();
}

#[test]
fn under_runc_too() {
    let daemon = settings().start();
    let place = prepare(&daemon);
    let run = "run --rm --runtime runc --device vendor.com/gpu=0 --net none --rootfs /";
    let run = format!("{run} /bin/sh -c '{LOOK}'");
    let said = daemon.ctl(&run).text();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[..3], ["yes zero", "1:b:600", "from the vendor"], "{said}");
    assert!(lines[3].split(' ').any(|group| group == "4711"), "{said}");
    assert!(place.join("seen").exists());
}

#[test]
fn nodes_of_the_host_are_given_by_their_paths() {
    let daemon = Daemon::start();
    let run = "run --rm --device /dev/full:/dev/mine:r --net none --rootfs / /bin/sh -c \
               'stat -c %t:%T /dev/mine'";
    assert_eq!(daemon.ctl(run).text(), "1:7");
    daemon
        .ctl("run --rm --device /dev/no-such --net none --rootfs / /bin/true")
        .fails(125, &["/dev/no-such"]);
}

#[test]
fn what_can_not_be_had_is_refused_by_name() {
    let daemon = settings().start();
    let place = prepare(&daemon);
    let run = |device: &str| {
        daemon.ctl(&format!("run --rm --device {device} --net none --rootfs / /bin/true"))
    };
    let etc = place.join("etc-cdi").display().to_string();
    run("vendor.com/gpu=7").fails(125, &["vendor.com/gpu=7", "none of that name", &etc]);
    run("vendor.com/gpu=").fails(125, &["vendor.com/gpu=", "VENDOR/CLASS=NAME"]);
    let write = |name: &str, text: &str| std::fs::write(place.join(name), text).unwrap();
    write("run-cdi/bad.json", "{\"cdiVersion\": \"9.0.0\", \"kind\": \"a/b\", \"devices\": []}");
    run("a/b=c").fails(125, &["a/b=c", "bad.json", "9.0.0"]);
    let rdt = "{\"name\": \"c\", \"containerEdits\": {\"intelRdt\": {\"closID\": \"x\"}}}";
    let one = |devices: &str| {
        format!("{{\"cdiVersion\": \"1.0.0\", \"kind\": \"a/b\", \"devices\": [{devices}]}}")
    };
    write("run-cdi/bad.json", &one(rdt));
    run("a/b=c").fails(125, &["a/b=c", "bad.json", "intelRdt is not supported"]);
    write("run-cdi/other.json", &one("{\"name\": \"c\", \"containerEdits\": {}}"));
    run("a/b=c").fails(125, &["a/b=c", "bad.json", "other.json"]);
    let node =
        "{\"name\": \"d\", \"containerEdits\": {\"deviceNodes\": [{\"path\": \"/dev/gone\"}]}}";
    write("run-cdi/other.json", &one(node));
    run("a/b=d").fails(125, &["/dev/gone"]);
    run("vendor.com/gpu=plain").ok();
    assert_eq!(daemon.ctl("ps -a -q").text(), "");
    daemon.expect_nothing_left();
}

#[test]
fn kubelets_name_devices_in_a_field_and_in_annotations() {
    let daemon = node_with(settings());
    prepare(&daemon);
    let kubelet = Kubelet::of(&daemon);
    let config = kubelet.pod_config("web");
    let pod = kubelet.run_pod(&config);
    let mut container = kubelet.container_config("one", "echo $ALL $DEVICE; ls -l /dev/mine");
    container.cdi_devices = vec![cri::CdiDevice { name: "vendor.com/gpu=0".to_owned() }];
    let key = "cdi.k8s.io/plugin".to_owned();
    container.annotations = [(key.clone(), "vendor.com/gpu=0".to_owned())].into();
    let said = kubelet.output(&pod, &container, &config);
    assert!(said.starts_with("yes zero\n") && said.contains("1,  11"), "{said}");
    let mut annotated = kubelet.container_config("two", "echo $DEVICE");
    annotated.annotations = [(key.clone(), "vendor.com/gpu=plain".to_owned())].into();
    assert_eq!(kubelet.output(&pod, &annotated, &config), "plain\n");
    for name in ["vendor.com/gpu=9", "gpu"] {
        let mut bad = kubelet.container_config("bad", "true");
        bad.annotations = [(key.clone(), name.to_owned())].into();
        let refused = kubelet.try_create(&pod, &bad, &config).unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        assert!(refused.message().contains(name), "{refused}");
    }
}
