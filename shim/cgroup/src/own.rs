//! What the groups that the calling process itself is in allow it.

use std::path::{Component, Path, PathBuf};

use crate::{Controller, Error, Layout, UNLIMITED, read};

impl Layout {
    /// How many bytes of memory the calling process may have, together with who shares its groups: the
    /// lowest limit of its own group and of those above it, as far as they are mounted here; on v2 also
    /// where the kernel begins to hold it back (`memory.high`). `None` where nothing limits it.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn own_memory_limit(&self) -> Result<Option<u64>, Error> {
        Ok(self.memory_limit_of(&read(Path::new("/proc/self/cgroup"))?))
    }

    /// That of the groups in the text of `/proc/PID/cgroup` (cgroups(7)).
    fn memory_limit_of(&self, membership: &str) -> Option<u64> {
        let v1 = self.controller(Controller::Memory);
        let (mount, files): (&Path, &[&str]) = match v1 {
            Some(hierarchy) => (hierarchy.mount(), &["memory.limit_in_bytes"]),
            None => (self.unified()?, &["memory.max", "memory.high"]),
        };
        let group = membership.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            let is_it = match v1 {
                Some(_) => controllers.split(',').any(|name| name == Controller::Memory.name()),
                None => controllers.is_empty(),
            };
            is_it.then_some(path)
        })?;
        // In a container without a namespace of its groups the path is the host's, and what is mounted
        // is its own group: what is not there is passed over, and the mount point always looked at.
        let below =
            Path::new(group).components().filter(|part| matches!(part, Component::Normal(_)));
        let group = mount.join(below.collect::<PathBuf>());
        let levels = group.ancestors().take_while(|level| level.starts_with(mount));
        let limits = levels.flat_map(|level| files.iter().map(|file| level.join(file)));
        limits
            .filter_map(|file| read(&file).ok()?.trim().parse().ok())
            .filter(|limit| *limit < UNLIMITED)
            .min()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A machine of which a part is in a directory.
    struct Machine(tempfile::TempDir);

    impl Machine {
        fn with(files: &[(&str, &str)]) -> Self {
            let root = tempfile::tempdir().unwrap();
            for (path, text) in files {
                let path = root.path().join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, format!("{text}\n")).unwrap();
            }
            Self(root)
        }

        /// `mounts`: directories, kinds and options.
        fn layout(&self, mounts: &[(&str, &str, &str)]) -> Layout {
            let line = |(directory, kind, options): &(&str, &str, &str)| {
                let at = self.0.path().join(directory);
                format!("1 1 0:1 / {} rw - {kind} {kind} {options}\n", at.display())
            };
            Layout::parse(&mounts.iter().map(line).collect::<String>())
        }
    }

    const V1: &[(&str, &str, &str)] = &[
        ("memory", "cgroup", "rw,memory"),
        ("cpu,cpuacct", "cgroup", "rw,cpu,cpuacct"),
        ("unified", "cgroup2", "rw"),
    ];
    const V2: &[(&str, &str, &str)] = &[("all", "cgroup2", "rw")];
    const NONE: &str = "9223372036854771712";

    #[test]
    fn the_lowest_limit_on_the_way_up_counts_in_v1() {
        let membership = "5:cpu,cpuacct:/other\n4:memory:/a/b\n0::/c\n";
        let file = "memory.limit_in_bytes";
        for (top, a, b, expected) in [
            (NONE, NONE, NONE, None),
            (NONE, NONE, "67108864", Some(64 << 20)),
            (NONE, "67108864", NONE, Some(64 << 20)),
            ("1048576", "67108864", "2097152", Some(1 << 20)),
        ] {
            let places =
                ["memory", "memory/a", "memory/a/b"].map(|place| format!("{place}/{file}"));
            let [first, second, third] = places.each_ref().map(String::as_str);
            let others = [("memory/c/memory.limit_in_bytes", "1"), ("unified/c/memory.max", "1")];
            let own = [(first, top), (second, a), (third, b)];
            let machine = Machine::with(&[&own[..], &others[..]].concat());
            assert_eq!(machine.layout(V1).memory_limit_of(membership), expected, "{own:?}");
        }
    }

    #[test]
    fn the_lowest_limit_on_the_way_up_counts_in_v2() {
        for (files, expected) in [
            (&[("all/a/b/memory.max", "max"), ("all/a/b/memory.high", "max")][..], None),
            (&[("all/a/b/memory.max", "67108864"), ("all/a/memory.max", "max")], Some(64 << 20)),
            (&[("all/a/b/memory.max", "max"), ("all/a/memory.max", "1048576")], Some(1 << 20)),
            (&[("all/a/b/memory.max", "67108864"), ("all/a/b/memory.high", "4096")], Some(4096)),
            (&[("all/c/memory.max", "1")], None),
            (&[("all/a/b/memory.max", "not a number")], None),
            (&[], None),
        ] {
            let machine = Machine::with(files);
            assert_eq!(machine.layout(V2).memory_limit_of("0::/a/b\n"), expected, "{files:?}");
        }
    }

    #[test]
    fn of_a_container_the_groups_that_it_sees_count() {
        let machine = Machine::with(&[("memory/memory.limit_in_bytes", "4096")]);
        for path in ["/docker/1234", "/", "/../..", "/a (deleted)"] {
            let membership = format!("4:memory:{path}\n");
            assert_eq!(machine.layout(V1).memory_limit_of(&membership), Some(4096), "{path}");
        }
        for nothing in ["", "4:cpu:/a\n", "nonsense\n4:memory\n"] {
            assert_eq!(machine.layout(V1).memory_limit_of(nothing), None, "{nothing:?}");
        }
    }

    #[test]
    fn the_groups_of_this_process_can_be_looked_at() {
        assert!(Layout::detect().unwrap().own_memory_limit().is_ok());
    }
}
