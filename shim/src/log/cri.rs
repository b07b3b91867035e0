//! The CRI's log format, `time stream F|P text`, as the kubelet reads it. Bytes go through as they
//! are. A piece that is cut has the tag `P`; the line's last one, and the stream's, `F`.

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
    buffer.extend_from_slice(time);
    buffer.extend_from_slice(match (stream, ending) {
        (Stream::Stdout, Ending::Newline | Ending::End) => b" stdout F ",
        (Stream::Stdout, Ending::Cut) => b" stdout P ",
        (Stream::Stderr, Ending::Newline | Ending::End) => b" stderr F ",
        (Stream::Stderr, Ending::Cut) => b" stderr P ",
    });
    buffer.extend_from_slice(text);
    buffer.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_say_whether_the_line_goes_on() {
        let time = b"2026-11-23T20:54:01.000000001Z";
        for (stream, ending, expected) in [
            (Stream::Stdout, Ending::Newline, "stdout F \u{fffd}\0x"),
            (Stream::Stderr, Ending::Cut, "stderr P \u{fffd}\0x"),
            (Stream::Stderr, Ending::End, "stderr F \u{fffd}\0x"),
        ] {
            let mut buffer = Vec::new();
            encode(&mut buffer, time, stream, "\u{fffd}\0x".as_bytes(), ending);
            let expected = format!("2026-11-23T20:54:01.000000001Z {expected}\n");
            assert_eq!(String::from_utf8(buffer), Ok(expected));
        }
    }
}
