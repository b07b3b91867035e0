//! What the runtime reads: specifications, options of mounts, a rootfs' files of users, and the frames
//! of a shim's socket.

use std::os::fd::OwnedFd;

use prost::Message;
use rustix::fs::{Mode, OFlags};
use shim_plan::{Context, parse};
use shim_rootfs::Root;
use shim_rootfs::user::{Wanted, resolve};
use shim_wire::plan::{CreateOptions, Plan};
use shim_wire::ttrpc;

/// CLONE_NEW* of clone(2), and the one of time namespaces.
const NAMESPACES: u64 = 0x7e02_0000 | 0x80;

fn context() -> Context {
    Context {
        id: "fuzz".to_owned(),
        bundle: Some("/bundle".into()),
        cgroup: "fuzz".to_owned(),
        ..Context::default()
    }
}

/// A `config.json`: refused with a path and a reason on one line, or lowered to a plan that stays
/// inside, arrives as it was sent, and is the same again for the same words.
pub fn spec(data: &[u8]) {
    let parsed = match parse::config(data) {
        Ok(parsed) => parsed,
        Err(error) => return reason(&error.to_string()),
    };
    let lowered = shim_plan::plan(&parsed.value, &context());
    let again = serde_json::to_vec(&parsed.value).unwrap();
    let (create, plan) = match lowered {
        Ok(lowered) => lowered,
        Err(error) => return reason(&error.to_string()),
    };
    let hooks = shim_plan::hooks(&parsed.value, &context()).unwrap();
    assert_eq!(hooks.map_or(0, |hooks| hooks.kinds()), create.hooks);
    // What was stored is read as the same, but for names of flags that the types misspell.
    if let Ok(stored) = parse::config(&again) {
        assert_eq!(
            shim_plan::plan(&stored.value, &context()).unwrap(),
            (create.clone(), plan.clone())
        );
    }
    assert_eq!(CreateOptions::decode(create.encode_to_vec().as_slice()).unwrap(), create);
    assert_eq!(Plan::decode(plan.encode_to_vec().as_slice()).unwrap(), plan);
    assert_eq!(create.clone_flags & !NAMESPACES, 0);
    stays_below(&create.cgroup);
    for mount in &plan.mounts {
        inside(&mount.destination);
    }
    for device in &plan.devices {
        inside(&device.path);
    }
    for sysctl in &plan.sysctls {
        stays_below(&sysctl.path);
    }
    let process = plan.process.unwrap();
    assert!(!process.args[0].is_empty() && process.cwd.starts_with('/'));
    let words = process.args.iter().chain(&process.env);
    assert!(words.into_iter().all(|word| !word.contains('\0')));
    assert!(process.seccomp.len().is_multiple_of(8) && process.seccomp.len() <= 8 * 4096);
}

fn reason(said: &str) {
    let Some((place, reason)) = said.split_once(": ") else {
        // Of the document as a whole.
        return assert_eq!(said, "an object is expected");
    };
    assert!(!place.is_empty() && !reason.is_empty(), "{said:?}");
}

fn inside(path: &str) {
    assert!(path.starts_with('/') && !path.contains('\0'), "{path:?}");
    assert!(path.split('/').all(|part| part != ".."), "{path:?}");
}

fn stays_below(path: &str) {
    assert!(!path.is_empty() && !path.starts_with('/'), "{path:?}");
    assert!(path.split('/').all(|part| !matches!(part, "" | "." | "..")), "{path:?}");
}

/// Options of a mount as fstab(5) lists them: each is refused, becomes a flag, or is handed to the
/// file system as it is, and the last word on writing holds.
pub fn mount_options(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let options: Vec<&str> = text.split(',').collect();
    for kind in ["tmpfs", "bind"] {
        let spec = serde_json::json!({
            "ociVersion": "1.3.0",
            "process": {"user": {"uid": 0, "gid": 0}, "args": ["/x"], "cwd": "/"},
            "root": {"path": "/rootfs"},
            "mounts": [{"destination": "/a", "type": kind, "source": "/a", "options": options}],
            "linux": {"namespaces": [{"type": "mount"}]},
        });
        let spec = parse::config(spec.to_string().as_bytes()).unwrap().value;
        let plan = match shim_plan::plan(&spec, &context()) {
            Ok((_, plan)) => plan,
            Err(error) => {
                assert!(error.to_string().starts_with("mounts[0]."), "{error}");
                continue;
            }
        };
        let [mount] = &plan.mounts[..] else { panic!("{:?}", plan.mounts) };
        let handed = mount.data.split(',').filter(|part| !part.is_empty());
        for part in handed {
            assert!(options.contains(&part), "{part:?} of {options:?}");
        }
        let writing = options.iter().rev().find(|option| matches!(**option, "ro" | "rw"));
        if let Some(last) = writing.filter(|_| !options.contains(&"defaults")) {
            assert_eq!(mount.flags & 1 != 0, *last == "ro", "{options:?}");
        }
    }
}

/// A user by name or number, and the files of users and groups of a rootfs, each ended by a NUL: who
/// is found has numbers that a kernel knows, and a number is never somebody else's.
pub fn user(data: &[u8]) {
    let mut parts = data.splitn(3, |byte| *byte == 0);
    let Ok(wanted) = std::str::from_utf8(parts.next().unwrap_or_default()) else { return };
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("etc")).unwrap();
    for name in ["etc/passwd", "etc/group"] {
        let text = parts.next().unwrap_or_default();
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root: OwnedFd = rustix::fs::open(directory.path(), flags, Mode::empty()).unwrap();
    let Ok(Ok(found)) = resolve(&Root::new(root), Wanted::Named(wanted)) else { return };
    let limit = i32::MAX.unsigned_abs();
    assert!(found.uid <= limit && found.gid <= limit, "{found:?}");
    assert!(found.groups.contains(&found.gid), "{found:?}");
    assert!(found.groups.is_sorted_by(|one, other| one < other), "{found:?}");
    assert!(!found.home.is_empty() && !found.home.contains(['\n', ':']), "{found:?}");
    let (who, group) = wanted.split_once(':').unwrap_or((wanted, ""));
    for (asked, is) in [(who, found.uid), (group, found.gid)] {
        if let Ok(number) = asked.parse::<u32>() {
            assert_eq!(number, is, "{wanted:?}: {found:?}");
        }
    }
}

/// What a client sends to a shim: a frame is there whole or not at all, and says the same again.
pub fn ttrpc_frames(data: &[u8]) {
    let mut rest = data;
    while let Ok(Some(frame)) = ttrpc::decode(rest) {
        assert!(frame.size > 0 && frame.size <= rest.len());
        assert_eq!(ttrpc::decode(&rest[..frame.size - 1]), Ok(None), "half a frame");
        match frame.kind {
            ttrpc::Kind::Request => same::<ttrpc::Request>(&frame),
            ttrpc::Kind::Response => same::<ttrpc::Response>(&frame),
        }
        rest = &rest[frame.size..];
    }
}

fn same<T: Message + Default + PartialEq + std::fmt::Debug>(frame: &ttrpc::Frame<'_>) {
    let Ok(message) = T::decode(frame.message) else { return };
    let mut bytes = Vec::new();
    ttrpc::encode(&mut bytes, frame.kind, frame.stream, &message);
    let again = ttrpc::decode(&bytes).unwrap().unwrap();
    assert_eq!((again.kind, again.stream, again.size), (frame.kind, frame.stream, bytes.len()));
    assert_eq!(T::decode(again.message).unwrap(), message);
}
