//! The json-file format: one object a line, as `docker logs` and its collectors read it.
//!
//! ```json
//! {"log":"hello\r\n","stream":"stdout","time":"2026-11-23T20:54:01.000000001Z"}
//! ```
//!
//! A piece that is not a whole line has no `\n` at the end of its `log`. What is not UTF-8 becomes
//! U+FFFD: JSON can't carry it.

use super::lines::Ending;
use super::{Frame, Stream};
use crate::clock::RFC3339_LEN;

/// What stands before and behind the text of a record.
pub(super) fn frame(time: &[u8; RFC3339_LEN], stream: Stream, ending: Ending) -> Frame {
    let line_end: &[u8] = if ending == Ending::Newline { b"\\n" } else { b"" };
    let stream: &[u8] = match stream {
        Stream::Stdout => b"\",\"stream\":\"stdout\",\"time\":\"",
        Stream::Stderr => b"\",\"stream\":\"stderr\",\"time\":\"",
    };
    Frame {
        before: b"{\"log\":\"".to_vec(),
        after: [line_end, stream, time.as_slice(), b"\"}\n"].concat(),
    }
}

/// Appends `text` as the inside of a JSON string.
pub(super) fn escape(buffer: &mut Vec<u8>, text: &[u8]) {
    let plain = plain_len(text);
    buffer.extend_from_slice(&text[..plain]);
    if plain == text.len() {
        return;
    }
    for chunk in text[plain..].utf8_chunks() {
        escape_valid(buffer, chunk.valid().as_bytes());
        if !chunk.invalid().is_empty() {
            buffer.extend_from_slice(b"\\ufffd");
        }
    }
}

/// `text` is UTF-8, and every byte of a character beyond ASCII goes through as it is.
fn escape_valid(buffer: &mut Vec<u8>, mut text: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    while let Some(at) = text.iter().position(|byte| needs_escape(*byte)) {
        buffer.extend_from_slice(&text[..at]);
        let byte = text[at];
        match byte {
            b'"' => buffer.extend_from_slice(b"\\\""),
            b'\\' => buffer.extend_from_slice(b"\\\\"),
            b'\n' => buffer.extend_from_slice(b"\\n"),
            b'\r' => buffer.extend_from_slice(b"\\r"),
            b'\t' => buffer.extend_from_slice(b"\\t"),
            other => {
                buffer.extend_from_slice(b"\\u00");
                buffer.push(HEX[usize::from(other >> 4)]);
                buffer.push(HEX[usize::from(other & 15)]);
            }
        }
        text = &text[at + 1..];
    }
    buffer.extend_from_slice(text);
}

fn needs_escape(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\' || byte == 0x7f
}

/// How many bytes from the start are printable ASCII without quote and backslash. Nearly every byte
/// of a flood passes here, so they are looked at eight in a word and four words at once.
fn plain_len(text: &[u8]) -> usize {
    let (blocks, tail) = text.as_chunks::<32>();
    let is_plain = |block: &&[u8; 32]| {
        let (words, _) = block.as_chunks::<8>();
        words.iter().fold(0, |found, word| found | special_bytes(u64::from_le_bytes(*word))) == 0
    };
    let plain_blocks = blocks.iter().take_while(is_plain).count();
    let rest = blocks.get(plain_blocks).map_or(tail, |block| block.as_slice());
    let special = |byte: &u8| *byte >= 0x80 || needs_escape(*byte);
    plain_blocks * 32 + rest.iter().position(special).unwrap_or(rest.len())
}

/// Not zero when one of the eight bytes is beyond ASCII or needs an escape.
fn special_bytes(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    // Sets the high bit of a byte that is less than `limit`, as long as no byte is beyond ASCII; a
    // borrow out of such a byte can only mark more.
    let below = |word: u64, limit: u64| word.wrapping_sub(ONES * limit);
    let equal = |byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    let found = word | below(word, 0x20) | equal(b'"') | equal(b'\\') | equal(0x7f);
    found & HIGHS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escaped(text: &[u8]) -> String {
        let mut buffer = Vec::new();
        escape(&mut buffer, text);
        String::from_utf8(buffer).expect("JSON is UTF-8")
    }

    #[test]
    fn every_kind_of_byte_has_its_text() {
        for (text, expected) in [
            (&b"plain text, 100%"[..], "plain text, 100%"),
            (b"\r\n\t", "\\r\\n\\t"),
            (b"\"\\/", "\\\"\\\\/"),
            (b"\0\x01\x1b[0m\x7f", "\\u0000\\u0001\\u001b[0m\\u007f"),
            ("é€🦀".as_bytes(), "é€🦀"),
            (b"a\xffb", "a\\ufffdb"),
            (b"a\xe2\x82", "a\\ufffd"),
            (b"12345678\"", "12345678\\\""),
            (b"", ""),
        ] {
            assert_eq!(escaped(text), expected, "{text:?}");
        }
    }

    #[test]
    fn every_byte_is_found_at_every_place() {
        for byte in 0..=255u8 {
            let special = byte >= 0x80 || needs_escape(byte);
            for at in 0..70 {
                let mut text = vec![b'a'; 70];
                text[at] = byte;
                assert_eq!(plain_len(&text), if special { at } else { 70 }, "{byte:#x} at {at}");
            }
        }
    }

    #[test]
    fn a_record_is_one_line() {
        let time = b"2026-11-23T20:54:01.000000001Z";
        for (stream, text, ending, expected) in [
            (Stream::Stderr, "a\r", Ending::Newline, r#"{"log":"a\r\n","stream":"stderr","#),
            (Stream::Stdout, "b", Ending::End, r#"{"log":"b","stream":"stdout","#),
            (Stream::Stdout, "c", Ending::Cut, r#"{"log":"c","stream":"stdout","#),
        ] {
            let Frame { before, after } = frame(time, stream, ending);
            let record = [before.as_slice(), escaped(text.as_bytes()).as_bytes(), &after].concat();
            let expected = format!("{expected}\"time\":\"2026-11-23T20:54:01.000000001Z\"}}\n");
            assert_eq!(String::from_utf8(record), Ok(expected));
        }
    }
}
