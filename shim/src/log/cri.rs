//! The CRI's log format, `time stream F|P text`, as the kubelet reads it. Bytes go through as they
//! are. A piece that is cut has the tag `P`; the line's last one, and the stream's, `F`.

use super::lines::Ending;
use super::{Frame, Stream};
use crate::clock::RFC3339_LEN;

/// What stands before and behind the text of a record.
pub(super) fn frame(time: &[u8; RFC3339_LEN], stream: Stream, ending: Ending) -> Frame {
    let tag: &[u8] = match (stream, ending) {
        (Stream::Stdout, Ending::Newline | Ending::End) => b" stdout F ",
        (Stream::Stdout, Ending::Cut) => b" stdout P ",
        (Stream::Stderr, Ending::Newline | Ending::End) => b" stderr F ",
        (Stream::Stderr, Ending::Cut) => b" stderr P ",
    };
    Frame { before: [time.as_slice(), tag].concat(), after: b"\n".to_vec() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_say_whether_the_line_goes_on() {
        let time = b"2026-11-23T20:54:01.000000001Z";
        for (stream, ending, expected) in [
            (Stream::Stdout, Ending::Newline, " stdout F "),
            (Stream::Stdout, Ending::Cut, " stdout P "),
            (Stream::Stderr, Ending::Cut, " stderr P "),
            (Stream::Stderr, Ending::End, " stderr F "),
        ] {
            let Frame { before, after } = frame(time, stream, ending);
            let expected = format!("2026-11-23T20:54:01.000000001Z{expected}");
            assert_eq!((String::from_utf8(before), &after[..]), (Ok(expected), &b"\n"[..]));
        }
    }
}
