//! The json-file format: one object a line, as `docker logs` and its collectors read it.
//!
//! ```json
//! {"log":"hello\r\n","stream":"stdout","time":"2026-11-23T20:54:01.000000001Z"}
//! ```
//!
//! A piece that is not a whole line has no `\n` at the end of its `log`. What is not UTF-8 becomes
//! U+FFFD: JSON can't carry it.

use super::Stream;
use super::lines::Ending;
use crate::clock::RFC3339_LEN;

/// Appends one record.
pub(super) fn encode(
    buffer: &mut Vec<u8>,
    time: &[u8; RFC3339_LEN],
    stream: Stream,
    text: &[u8],
    ending: Ending,
) {
    buffer.extend_from_slice(b"{\"log\":\"");
    escape(buffer, text);
    if ending == Ending::Newline {
        buffer.extend_from_slice(b"\\n");
    }
    buffer.extend_from_slice(match stream {
        Stream::Stdout => b"\",\"stream\":\"stdout\",\"time\":\"",
        Stream::Stderr => b"\",\"stream\":\"stderr\",\"time\":\"",
    });
    buffer.extend_from_slice(time);
    buffer.extend_from_slice(b"\"}\n");
}

fn escape(buffer: &mut Vec<u8>, text: &[u8]) {
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

/// How many bytes from the start are printable ASCII without quote and backslash. Eight at a time:
/// nearly every byte of a flood passes here.
fn plain_len(text: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    // For bytes below 0x80: the high bit of a byte is set where it is zero.
    let zero = |word: u64| word.wrapping_sub(ONES) & !word & HIGHS;
    let mut at = 0;
    while let Some(bytes) = text[at..].first_chunk::<8>() {
        let word = u64::from_le_bytes(*bytes);
        let control = word.wrapping_sub(ONES * 0x20) & !word;
        let quote = zero(word ^ (ONES * u64::from(b'"')));
        let backslash = zero(word ^ (ONES * u64::from(b'\\')));
        let delete = zero(word ^ (ONES * 0x7f));
        // A borrow can only mark a byte behind one that is marked rightly.
        let special = (word | control | quote | backslash | delete) & HIGHS;
        if special != 0 {
            return at + special.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let tail = &text[at..];
    at + tail.iter().position(|byte| *byte >= 0x80 || needs_escape(*byte)).unwrap_or(tail.len())
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
    fn every_byte_is_found_at_every_place_of_a_word() {
        for byte in 0..=255u8 {
            let special = byte >= 0x80 || needs_escape(byte);
            for at in 0..24 {
                let mut text = vec![b'a'; 24];
                text[at] = byte;
                assert_eq!(plain_len(&text), if special { at } else { 24 }, "{byte:#x} at {at}");
            }
        }
    }

    #[test]
    fn a_record_is_one_line() {
        let mut buffer = Vec::new();
        let time = b"2026-11-23T20:54:01.000000001Z";
        encode(&mut buffer, time, Stream::Stderr, b"a\r", Ending::Newline);
        encode(&mut buffer, time, Stream::Stdout, b"b", Ending::End);
        let expected = concat!(
            "{\"log\":\"a\\r\\n\",\"stream\":\"stderr\",\"time\":\"2026-11-23T20:54:01.000000001Z\"}\n",
            "{\"log\":\"b\",\"stream\":\"stdout\",\"time\":\"2026-11-23T20:54:01.000000001Z\"}\n",
        );
        assert_eq!(String::from_utf8(buffer).as_deref(), Ok(expected));
    }
}
