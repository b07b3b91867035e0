//! Statistics of a group, in containerd's messages.
//!
//! One buffer serves all files, and what is not there is absent or 0: a kernel may be older, a
//! controller in another hierarchy, or switched off. containerd tells the two messages apart by what
//! the machine is: v1's on a hybrid one.

mod v1;
mod v2;

use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use shim_wire::metrics;

use crate::{Cgroup, Error, read_to_end};

/// What a machine of the one or the other kind counts.
#[derive(Clone, Debug, PartialEq)]
pub enum Metrics {
    V1(metrics::v1::Metrics),
    V2(metrics::v2::Metrics),
}

impl Cgroup {
    /// What the group, with those below it, uses and has used.
    ///
    /// # Errors
    /// [`Error::Io`], `ENOENT` when the group does not exist.
    pub fn metrics(&self) -> Result<Metrics, Error> {
        if !self.exists() {
            let path = self.paths().into_iter().next().unwrap_or_default();
            return Err(Error::io("read", &path, Errno::NOENT));
        }
        match self.layout.unified() {
            Some(unified) if self.layout.is_v2() => {
                v2::metrics(Files::of(unified.join(&self.path))).map(Metrics::V2)
            }
            Some(_) | None => v1::metrics(self).map(Metrics::V1),
        }
    }
}

/// The control files of one directory.
struct Files {
    group: PathBuf,
    buffer: Vec<u8>,
}

impl Files {
    fn of(group: PathBuf) -> Self {
        Self { group, buffer: Vec::new() }
    }

    fn has(&self, name: &str) -> bool {
        self.group.join(name).exists()
    }

    /// `None` when there is no such file, or nothing behind it (the pressure files of a kernel that
    /// was booted with `psi=0`).
    fn text(&mut self, name: &str) -> Result<Option<&str>, Error> {
        let path = self.group.join(name);
        self.buffer.clear();
        let read = rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .and_then(|file| read_to_end(&file, &mut self.buffer));
        match read {
            Ok(()) => Ok(std::str::from_utf8(&self.buffer).ok()),
            Err(Errno::NOENT | Errno::OPNOTSUPP) => Ok(None),
            Err(errno) => Err(Error::io("read", &path, errno)),
        }
    }

    /// 0 when there is no such file.
    fn number(&mut self, name: &str) -> Result<u64, Error> {
        Ok(self.text(name)?.map_or(0, number))
    }

    /// Each line of a file of names and values.
    fn pairs(&mut self, name: &str, mut each: impl FnMut(&str, u64)) -> Result<(), Error> {
        for line in self.text(name)?.unwrap_or_default().lines() {
            if let Some((key, value)) = line.split_once(' ') {
                each(key, number(value));
            }
        }
        Ok(())
    }
}

/// `max` is the largest there is.
fn number(text: &str) -> u64 {
    let text = text.trim();
    text.parse().unwrap_or(if text == "max" { u64::MAX } else { 0 })
}

/// The numbers of a device in `8:0`.
fn device(text: &str) -> Option<(u64, u64)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The sizes of huge pages that this kernel has, as control files name them: `2MB`, `1GB`.
fn page_sizes() -> Vec<String> {
    let Ok(found) = std::fs::read_dir("/sys/kernel/mm/hugepages") else { return Vec::new() };
    let name = |entry: std::fs::DirEntry| page_size(entry.file_name().to_str()?);
    let mut sizes: Vec<String> = found.flatten().filter_map(name).collect();
    sizes.sort_unstable();
    sizes
}

/// `hugepages-2048kB` is `2MB`.
fn page_size(directory: &str) -> Option<String> {
    let kilobytes: u64 = directory.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
    Some(match kilobytes {
        gigabytes if gigabytes >= 1 << 20 => format!("{}GB", gigabytes >> 20),
        megabytes if megabytes >= 1 << 10 => format!("{}MB", megabytes >> 10),
        kilobytes => format!("{kilobytes}KB"),
    })
}

/// Lines as `mlx5_0 hca_handle=2 hca_object=max`: the device, its handles, its objects.
fn rdma(text: &str) -> impl Iterator<Item = (String, u32, u32)> {
    text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let device = words.next()?.to_owned();
        let (mut handles, mut objects) = (0, 0);
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let value = u32::try_from(number(value)).unwrap_or(u32::MAX);
            match key {
                "hca_handle" => handles = value,
                "hca_object" => objects = value,
                _ => {}
            }
        }
        Some((device, handles, objects))
    })
}

/// `/dev/NAME` of a block device; empty when it has gone.
fn device_path(major: u64, minor: u64) -> String {
    let link = std::fs::read_link(format!("/sys/dev/block/{major}:{minor}"));
    let name = link.ok().and_then(|link| Some(Path::new(&link).file_name()?.to_owned()));
    name.map_or_else(String::new, |name| format!("/dev/{}", name.to_string_lossy()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_pages_are_named_as_their_files_are() {
        for (directory, size) in [
            ("hugepages-2048kB", Some("2MB")),
            ("hugepages-1048576kB", Some("1GB")),
            ("hugepages-64kB", Some("64KB")),
            ("hugepages-16777216kB", Some("16GB")),
            ("hugepages", None),
        ] {
            assert_eq!(page_size(directory).as_deref(), size, "{directory}");
        }
    }

    #[test]
    fn what_is_not_there_is_nothing() {
        let group = tempfile::tempdir().unwrap();
        std::fs::write(group.path().join("pids.max"), "max\n").unwrap();
        let mut files = Files::of(group.path().to_owned());
        assert_eq!(files.text("cpu.stat").unwrap(), None);
        assert_eq!(files.number("pids.current").unwrap(), 0);
        assert_eq!(files.number("pids.max").unwrap(), u64::MAX);
    }
}
