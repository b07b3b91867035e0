//! Reading an ingest while it is written: a layer is unpacked as it comes.
//!
//! The file itself is the buffer between the two sides, so that neither a slow disk nor a slow
//! registry makes memory grow, and what an earlier attempt left is read like the rest. That the
//! bytes are what they should be is known only at the end: whoever follows has to wait for the
//! writer's word before it makes anything of them.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// How far an ingest is, shared by its writer and its followers.
#[derive(Clone, Debug)]
pub(super) struct Growth(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Clone, Copy, Debug)]
struct State {
    received: u64,
    end: End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Open,
    Whole,
    /// The writer went away before the end.
    Torn,
}

/// The bytes of an ingest, in order, waiting for those that are still to come.
#[derive(Debug)]
pub struct Follower {
    file: File,
    position: u64,
    shared: Arc<Shared>,
}

/// The writer went away before the end; why is its own to say.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the download broke off")]
pub(super) struct Torn;

impl Growth {
    pub(super) fn new(received: u64) -> Self {
        let state = Mutex::new(State { received, end: End::Open });
        Self(Arc::new(Shared { state, changed: Condvar::new() }))
    }

    /// More bytes are in the file.
    pub(super) fn grow(&self, received: u64) {
        self.set(|state| state.received = received);
    }

    /// All bytes are there, and they are what was expected.
    pub(super) fn finish(&self) {
        self.set(|state| state.end = End::Whole);
    }

    /// Nothing more will come.
    pub(super) fn tear(&self) {
        self.set(|state| {
            if state.end == End::Open {
                state.end = End::Torn;
            }
        });
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.0.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.0.changed.notify_all();
    }
}

impl Follower {
    pub(super) fn new(file: File, growth: Growth) -> Self {
        Self { file, position: 0, shared: growth.0 }
    }

    /// How many bytes can be read; waits for one at least, or the end.
    fn available(&self) -> io::Result<u64> {
        let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match (state.received - self.position, state.end) {
                (0, End::Open) => {
                    state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                (0, End::Torn) => return Err(io::Error::other(Torn)),
                (available, End::Open | End::Whole | End::Torn) => return Ok(available),
            }
        }
    }
}

impl Read for Follower {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = usize::try_from(self.available()?).unwrap_or(usize::MAX);
        let length = buffer.len().min(available);
        let count = self.file.read_at(&mut buffer[..length], self.position)?;
        self.position += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn ingest() -> (tempfile::NamedTempFile, Growth) {
        (tempfile::NamedTempFile::new().unwrap(), Growth::new(0))
    }

    fn reader(file: &tempfile::NamedTempFile, growth: &Growth) -> Follower {
        Follower::new(file.reopen().unwrap(), growth.clone())
    }

    #[test]
    fn what_is_still_to_come_is_waited_for() {
        let (mut file, growth) = ingest();
        let mut follower = reader(&file, &growth);
        std::thread::scope(|scope| {
            let read = scope.spawn(move || {
                let mut text = String::new();
                follower.read_to_string(&mut text).map(|_| text)
            });
            for (part, received) in [("one ", 4), ("two", 7)] {
                file.write_all(part.as_bytes()).unwrap();
                growth.grow(received);
            }
            growth.finish();
            growth.tear();
            assert_eq!(read.join().unwrap().unwrap(), "one two");
        });
    }

    #[test]
    fn a_writer_that_goes_away_is_an_error_after_the_last_byte() {
        let (mut file, growth) = ingest();
        file.write_all(b"half").unwrap();
        growth.grow(4);
        growth.tear();
        let mut follower = reader(&file, &growth);
        let mut text = Vec::new();
        let error = follower.read_to_end(&mut text).unwrap_err();
        assert_eq!(
            (text.as_slice(), error.to_string().as_str()),
            (&b"half"[..], "the download broke off")
        );
    }
}
