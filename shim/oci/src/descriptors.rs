//! Descriptors that a caller hands through: `--preserve-fds N` and systemd's `LISTEN_FDS` (sd_listen_fds(3)).

use crate::error::Error;

/// What the process is to have beyond descriptors 0 to 2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Preserved {
    listening: u32,
    more: u32,
}

impl Preserved {
    /// Takes over what was inherited and closes the rest. To be called before anything of this
    /// program is open.
    ///
    /// # Errors
    /// [`Error::NotPreserved`] for one that is not there: something of ours could take its place.
    pub(crate) fn take(more: u32, with_listening: bool) -> Result<Self, Error> {
        let listening = std::env::var("LISTEN_FDS").ok().filter(|_| with_listening);
        let listening = match listening.filter(|text| !text.is_empty()) {
            None => 0,
            Some(text) => text.parse().ok().filter(|count| *count < 1 << 16).ok_or({
                Error::Malformed {
                    flag: "LISTEN_FDS",
                    value: text,
                    expected: "a number of descriptors",
                }
            })?,
        };
        let preserved = Self { listening, more };
        for number in 3..3 + preserved.count() {
            if !std::path::Path::new(&format!("/proc/self/fd/{number}")).exists() {
                return Err(Error::NotPreserved { number });
            }
        }
        shim_sys::exec::close_inherited_from(3 + preserved.count())
            .map_err(Error::system("close inherited descriptors"))?;
        Ok(preserved)
    }

    /// From 3 on.
    pub(crate) fn count(self) -> u32 {
        self.listening.saturating_add(self.more)
    }

    /// What tells the process of those it listens with. Its pid is the container's first.
    pub(crate) fn environment(self) -> Vec<String> {
        if self.listening == 0 {
            return Vec::new();
        }
        let names = std::env::var("LISTEN_FDNAMES").ok();
        let mut entries = vec![format!("LISTEN_FDS={}", self.listening), "LISTEN_PID=1".to_owned()];
        entries.extend(names.map(|names| format!("LISTEN_FDNAMES={names}")));
        entries
    }
}
