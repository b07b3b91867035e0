//! What one attach client has not read yet: whole frames, in a bounded buffer.
//!
//! A client that falls too far behind loses everything but the frame that is half sent, and gets a
//! notice in its place, so that what it has read so far stays well-formed.

use shim_wire::attach::{self, Kind, MAX_PAYLOAD};

/// Bytes that a client may be behind.
pub(super) const LIMIT: usize = 1 << 20;

/// The same at the end, for a client that is [`paced`](attach::Hello::paced): everything that was in
/// the pipes (1 MiB each at most) when the process ended, because nothing may hold the exit back.
pub(super) const PACED_LIMIT: usize = 4 << 20;

/// Frames on their way to a client.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    bytes: Vec<u8>,
    /// How many of `bytes` have been sent.
    sent: usize,
    /// Where the first frame that is not sent whole ends in `bytes`.
    frame_end: usize,
}

/// The client is too far behind.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Overrun;

impl Backlog {
    /// Adds `data` as frames of `kind`, unless that would make it more than `limit`.
    pub(super) fn push(&mut self, kind: Kind, data: &[u8], limit: usize) -> Result<(), Overrun> {
        let frames = data.len().div_ceil(MAX_PAYLOAD).max(1);
        if self.unsent().len() + data.len() + frames * attach::HEADER_LEN > limit {
            return Err(Overrun);
        }
        if data.is_empty() {
            self.bytes.extend_from_slice(&attach::header(kind, 0));
        }
        for payload in data.chunks(MAX_PAYLOAD) {
            self.bytes.extend_from_slice(&attach::header(kind, payload.len()));
            self.bytes.extend_from_slice(payload);
        }
        Ok(())
    }

    /// Forgets everything but the frame that is half sent, and adds an empty one of `kind`.
    pub(super) fn cut_short(&mut self, kind: Kind) {
        let end = if self.sent < self.frame_end { self.frame_end } else { self.sent };
        self.bytes.truncate(end);
        self.bytes.extend_from_slice(&attach::header(kind, 0));
        self.bytes.shrink_to_fit();
    }

    pub(super) fn unsent(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    pub(super) fn is_empty(&self) -> bool {
        self.unsent().is_empty()
    }

    /// Notes that the first `len` bytes of [`unsent`](Self::unsent) were sent.
    pub(super) fn advance(&mut self, len: usize) {
        self.sent += len;
        while self.frame_end < self.sent {
            match attach::decode(&self.bytes[self.frame_end..]) {
                Ok(Some(frame)) => self.frame_end += frame.size,
                Ok(None) | Err(_) => unreachable!("only whole frames are pushed"),
            }
        }
        if self.is_empty() {
            (self.sent, self.frame_end) = (0, 0);
            self.bytes.clear();
        } else if self.sent >= LIMIT / 4 {
            self.bytes.drain(..self.sent);
            (self.frame_end, self.sent) = (self.frame_end - self.sent, 0);
        }
    }

    /// Gives memory back that only a slow client needs.
    pub(super) fn shrink(&mut self) {
        if self.is_empty() {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes `bytes` to the end, which must be the end of a frame.
    fn frames(mut bytes: &[u8]) -> Vec<(Kind, usize)> {
        let mut frames = Vec::new();
        while !bytes.is_empty() {
            let frame = attach::decode(bytes).unwrap().expect("a whole frame");
            frames.push((frame.kind, frame.payload.len()));
            bytes = &bytes[frame.size..];
        }
        frames
    }

    #[test]
    fn data_is_cut_into_frames() {
        for (len, expected) in [
            (0, vec![0]),
            (1, vec![1]),
            (MAX_PAYLOAD, vec![MAX_PAYLOAD]),
            (MAX_PAYLOAD + 1, vec![MAX_PAYLOAD, 1]),
        ] {
            let mut backlog = Backlog::default();
            backlog.push(Kind::Stdout, &vec![b'x'; len], LIMIT).unwrap();
            let lengths: Vec<usize> =
                frames(backlog.unsent()).iter().map(|(_, len)| *len).collect();
            assert_eq!(lengths, expected);
        }
    }

    #[test]
    fn whatever_was_sent_what_follows_an_overrun_is_well_formed() {
        for sent in [0, 1, 4, 5, 6, 14, 15, 16, 29, 30] {
            let mut backlog = Backlog::default();
            let mut stream = Vec::new();
            for _ in 0..2 {
                backlog.push(Kind::Stdout, &[b'x'; 10], LIMIT).unwrap();
            }
            stream.extend_from_slice(&backlog.unsent()[..sent]);
            backlog.advance(sent);
            assert_eq!(backlog.push(Kind::Stderr, &[b'y'; 10], 14), Err(Overrun));
            backlog.cut_short(Kind::Lagged);
            stream.extend_from_slice(backlog.unsent());
            let whole = sent.div_ceil(15);
            let mut expected = vec![(Kind::Stdout, 10); whole];
            expected.push((Kind::Lagged, 0));
            assert_eq!(frames(&stream), expected, "{sent} bytes sent");
        }
    }

    #[test]
    fn a_client_that_reads_in_small_steps_gets_every_frame() {
        let mut backlog = Backlog::default();
        let mut stream = Vec::new();
        for step in 0..200 {
            backlog.push(Kind::Stdout, &vec![b'x'; step * 97], LIMIT).unwrap();
            let len = backlog.unsent().len().min(8_000 + step);
            stream.extend_from_slice(&backlog.unsent()[..len]);
            backlog.advance(len);
        }
        stream.extend_from_slice(backlog.unsent());
        let total: usize = frames(&stream).iter().map(|(_, len)| len).sum();
        assert_eq!(total, (0..200).map(|step| step * 97).sum::<usize>());
    }

    #[test]
    fn nobody_can_be_further_behind_than_the_limit() {
        let mut backlog = Backlog::default();
        while backlog.push(Kind::Stdout, &[0; 50_000], LIMIT).is_ok() {}
        assert!(backlog.bytes.len() <= LIMIT);
    }
}
