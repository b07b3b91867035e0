//! Cuts one stream of bytes into the pieces that become log records.
//!
//! A piece ends at a newline, after [`MAX_PIECE`] bytes, or where the stream ends; an unfinished
//! one is held. Where the bytes were cut on their way through the pipe makes no difference. A
//! character of UTF-8 is never cut in two.

/// The longest piece, newline not counted: what docker and containerd cut at.
pub(crate) const MAX_PIECE: usize = 16 * 1024;

/// Why a piece ends where it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// A newline followed, which is not part of the text.
    Newline,
    /// The line goes on in the next piece.
    Cut,
    /// The stream ended without a newline.
    End,
}

/// What is known of a stream's unfinished line.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    pending: Vec<u8>,
    /// The last piece was [`Ending::Cut`] and nothing has followed yet.
    cut: bool,
}

impl Lines {
    /// Takes the next bytes of the stream and gives away the pieces that they complete.
    pub(crate) fn push(&mut self, mut data: &[u8], mut piece: impl FnMut(&[u8], Ending)) {
        while !self.pending.is_empty() && !data.is_empty() {
            data = self.complete_pending(data, &mut piece);
        }
        while !data.is_empty() {
            let window = &data[..data.len().min(MAX_PIECE)];
            let line = line_len(window);
            let (taken, ending) = match window[..line].split_last() {
                Some((b'\n', text)) => {
                    piece(text, Ending::Newline);
                    (line, Ending::Newline)
                }
                Some(_) | None if window.len() == MAX_PIECE => {
                    let cut = character_floor(window);
                    piece(&window[..cut], Ending::Cut);
                    (cut, Ending::Cut)
                }
                Some(_) | None => break,
            };
            self.cut = ending == Ending::Cut;
            data = &data[taken..];
        }
        self.pending.extend_from_slice(data);
    }

    /// Moves bytes behind the pending ones until these are a piece; returns the rest.
    fn complete_pending<'a>(
        &mut self,
        data: &'a [u8],
        piece: &mut impl FnMut(&[u8], Ending),
    ) -> &'a [u8] {
        let window = &data[..data.len().min(MAX_PIECE - self.pending.len())];
        let line = line_len(window);
        self.pending.extend_from_slice(&window[..line]);
        if let Some((b'\n', text)) = self.pending.split_last() {
            piece(text, Ending::Newline);
            self.pending.clear();
            self.cut = false;
        } else if self.pending.len() == MAX_PIECE {
            let cut = character_floor(&self.pending);
            piece(&self.pending[..cut], Ending::Cut);
            self.pending.drain(..cut);
            self.cut = true;
        }
        &data[line..]
    }

    /// The stream has ended: gives away what is left of it. A line that was cut and had nothing
    /// more to say is closed with an empty piece, so that no reader waits for its rest.
    pub(crate) fn end(&mut self, piece: impl FnOnce(&[u8], Ending)) {
        if !self.pending.is_empty() || self.cut {
            piece(&self.pending, Ending::End);
        }
        *self = Self::default();
    }

    /// Gives memory back when nothing is held.
    pub(crate) fn shrink(&mut self) {
        self.pending.shrink_to_fit();
    }
}

/// Bytes up to and with the first newline, or all.
fn line_len(window: &[u8]) -> usize {
    shim_sys::memory::position(window, b'\n').map_or(window.len(), |at| at + 1)
}

/// The longest start of `bytes` that does not end inside a character of UTF-8; all of it when the
/// bytes are not UTF-8 there.
fn character_floor(bytes: &[u8]) -> usize {
    for back in 1..=bytes.len().min(3) {
        let at = bytes.len() - back;
        let needed = match bytes[at] {
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            0x80..=0xbf => continue,
            0x00..=0x7f | 0xc0 | 0xc1 | 0xf5..=0xff => 1,
        };
        return if needed > back { at } else { bytes.len() };
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(stream: &[u8], chunk: usize) -> Vec<(Vec<u8>, Ending)> {
        let mut pieces = Vec::new();
        let mut lines = Lines::default();
        for data in stream.chunks(chunk) {
            lines.push(data, |text, ending| pieces.push((text.to_vec(), ending)));
        }
        lines.end(|text, ending| pieces.push((text.to_vec(), ending)));
        pieces
    }

    #[test]
    fn pieces_end_at_newlines_at_the_limit_and_at_the_end() {
        let long = vec![b'x'; MAX_PIECE];
        let with = |tail: &[u8]| [long.as_slice(), tail].concat();
        for (stream, expected) in [
            (b"".to_vec(), vec![]),
            (b"a\n".to_vec(), vec![(b"a".to_vec(), Ending::Newline)]),
            (b"\n\n".to_vec(), vec![(vec![], Ending::Newline), (vec![], Ending::Newline)]),
            (
                b"a\r\nb".to_vec(),
                vec![(b"a\r".to_vec(), Ending::Newline), (b"b".to_vec(), Ending::End)],
            ),
            (with(b""), vec![(long.clone(), Ending::Cut), (vec![], Ending::End)]),
            (with(b"\n"), vec![(long.clone(), Ending::Cut), (vec![], Ending::Newline)]),
            (with(b"yz"), vec![(long.clone(), Ending::Cut), (b"yz".to_vec(), Ending::End)]),
            (long[1..].to_vec(), vec![(long[1..].to_vec(), Ending::End)]),
        ] {
            for chunk in [1, 2, 3, 4096, MAX_PIECE - 1, MAX_PIECE, MAX_PIECE + 1, 1 << 20] {
                assert_eq!(cut(&stream, chunk), expected, "{} bytes by {chunk}", stream.len());
            }
        }
    }

    #[test]
    fn a_character_is_not_cut_in_two() {
        for (character, before) in [("é", 1), ("€", 1), ("€", 2), ("🦀", 1), ("🦀", 3)] {
            let head = "x".repeat(MAX_PIECE - before);
            let stream = format!("{head}{character}\n");
            for chunk in [1, 7, 1 << 20] {
                let pieces = cut(stream.as_bytes(), chunk);
                assert_eq!(pieces[0], (head.clone().into_bytes(), Ending::Cut), "{character}");
                assert_eq!(pieces[1], (character.as_bytes().to_vec(), Ending::Newline));
            }
        }
    }

    #[test]
    fn bytes_that_are_no_characters_are_cut_at_the_limit() {
        for filler in [0x80, 0xbf, 0xff] {
            let pieces = cut(&vec![filler; MAX_PIECE + 1], 1000);
            assert_eq!(pieces[0], (vec![filler; MAX_PIECE], Ending::Cut));
            assert_eq!(pieces[1], (vec![filler], Ending::End));
        }
    }

    #[test]
    fn nothing_is_held_after_the_end() {
        let mut lines = Lines::default();
        lines.push(b"half", |_, _| panic!("no piece yet"));
        lines.end(|text, ending| assert_eq!((text, ending), (&b"half"[..], Ending::End)));
        lines.end(|_, _| panic!("ended already"));
    }
}
