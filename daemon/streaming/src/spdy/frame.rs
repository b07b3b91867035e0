//! SPDY/3.1 frames without I/O (draft-mbelshe-httpbis-spdy-00, section 2.2 and 2.6).
//!
//! ```text
//!   control  1 version(15) kind(16)  flags(8) length(24)  payload
//!   data     0 stream(31)            flags(8) length(24)  bytes
//! ```

use super::error::Error;
use super::headers::{Deflater, Headers, Inflater};
use crate::limits::MAX_CONTROL_BYTES;

/// Bytes of the head of every frame.
pub const HEAD: usize = 8;

/// The largest that a window of flow control can be.
pub const MAX_WINDOW: u32 = i32::MAX.unsigned_abs();

const VERSION: u16 = 3;
const FIN: u8 = 0x01;
const UNIDIRECTIONAL: u8 = 0x02;
const CLEAR_SETTINGS: u8 = 0x01;
const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const SETTINGS: u16 = 4;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
const WINDOW_UPDATE: u16 = 9;
const SETTING_INITIAL_WINDOW: u32 = 7;

/// What the first eight bytes of a frame say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// `length` bytes of a stream follow.
    Data { stream: u32, fin: bool, length: u32 },
    /// A payload of `length` bytes follows, for [`control`].
    Control { kind: u16, flags: u8, length: u32 },
}

/// Why a stream is reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    Protocol = 1,
    InvalidStream = 2,
    Refused = 3,
    Cancel = 5,
    Internal = 6,
    FlowControl = 7,
    AlreadyClosed = 9,
}

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GoAway {
    Ok = 0,
    Protocol = 1,
    Internal = 2,
}

/// A frame that controls. A peer's codes are kept as numbers, for it may have its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    SynStream {
        stream: u32,
        fin: bool,
        unidirectional: bool,
        headers: Headers,
    },
    SynReply {
        stream: u32,
        fin: bool,
        headers: Headers,
    },
    RstStream {
        stream: u32,
        status: u32,
    },
    /// The size of windows from now on, if the frame says so.
    Settings {
        initial_window: Option<u32>,
    },
    Ping {
        id: u32,
    },
    GoAway {
        last: u32,
        status: u32,
    },
    Headers {
        stream: u32,
        fin: bool,
        headers: Headers,
    },
    /// `stream` 0 is the window of the whole connection.
    WindowUpdate {
        stream: u32,
        delta: u32,
    },
    /// A kind that we don't know: to be skipped, says the draft.
    Unknown {
        kind: u16,
    },
}

/// Reads a head.
///
/// # Errors
///
/// When what follows can't be, or would be too large to be read whole.
pub fn head(bytes: [u8; HEAD]) -> Result<Head, Error> {
    let [a, b, c, d, flags, l0, l1, l2] = bytes;
    let length = u32::from_be_bytes([0, l0, l1, l2]);
    if a & 0x80 == 0 {
        let stream = u32::from_be_bytes([a, b, c, d]);
        return if stream == 0 {
            Err(Error::Stream { kind: 0, stream })
        } else {
            Ok(Head::Data { stream, fin: flags & FIN != 0, length })
        };
    }
    let (version, kind) = (u16::from_be_bytes([a & 0x7f, b]), u16::from_be_bytes([c, d]));
    if version != VERSION {
        Err(Error::Version { kind, version })
    } else if length > MAX_CONTROL_BYTES {
        Err(Error::Length { kind, length })
    } else {
        Ok(Head::Control { kind, flags, length })
    }
}

/// Reads the payload of a control frame. Every header block has to come by here, in order.
///
/// # Errors
///
/// What is wrong with it: the connection can't go on.
pub fn control(
    kind: u16,
    flags: u8,
    payload: &[u8],
    inflater: &mut Inflater,
) -> Result<Control, Error> {
    let mut fields = Fields { kind, rest: payload };
    let fin = flags & FIN != 0;
    let allowed = match kind {
        SYN_STREAM => FIN | UNIDIRECTIONAL,
        SYN_REPLY | HEADERS => FIN,
        SETTINGS => CLEAR_SETTINGS,
        RST_STREAM | PING | GOAWAY | WINDOW_UPDATE => 0,
        _ => return Ok(Control::Unknown { kind }),
    };
    if flags & !allowed != 0 {
        return Err(Error::Flags { kind, flags });
    }
    let frame = match kind {
        SYN_STREAM => {
            let stream = fields.stream()?;
            let _associated = fields.number()?;
            let _priority = fields.two()?;
            let unidirectional = flags & UNIDIRECTIONAL != 0;
            let headers = inflater.inflate(fields.all())?;
            Control::SynStream { stream, fin, unidirectional, headers }
        }
        SYN_REPLY => {
            let stream = fields.stream()?;
            Control::SynReply { stream, fin, headers: inflater.inflate(fields.all())? }
        }
        HEADERS => {
            let stream = fields.stream()?;
            Control::Headers { stream, fin, headers: inflater.inflate(fields.all())? }
        }
        RST_STREAM => Control::RstStream { stream: fields.stream()?, status: fields.number()? },
        SETTINGS => fields.settings()?,
        PING => Control::Ping { id: fields.number()? },
        GOAWAY => Control::GoAway { last: fields.number()? & MAX_WINDOW, status: fields.number()? },
        _ => Control::WindowUpdate {
            stream: fields.number()? & MAX_WINDOW,
            delta: fields.number()? & MAX_WINDOW,
        },
    };
    if fields.rest.is_empty() { Ok(frame) } else { Err(fields.bad_length(payload.len())) }
}

struct Fields<'a> {
    kind: u16,
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    fn bad_length(&self, length: usize) -> Error {
        Error::Length { kind: self.kind, length: u32::try_from(length).unwrap_or(u32::MAX) }
    }

    fn number(&mut self) -> Result<u32, Error> {
        let split = self.rest.split_first_chunk::<4>();
        let (number, after) = split.ok_or_else(|| self.bad_length(self.rest.len()))?;
        self.rest = after;
        Ok(u32::from_be_bytes(*number))
    }

    fn two(&mut self) -> Result<[u8; 2], Error> {
        let split = self.rest.split_first_chunk::<2>();
        let (two, after) = split.ok_or_else(|| self.bad_length(self.rest.len()))?;
        self.rest = after;
        Ok(*two)
    }

    fn stream(&mut self) -> Result<u32, Error> {
        let stream = self.number()? & MAX_WINDOW;
        if stream == 0 { Err(Error::Stream { kind: self.kind, stream }) } else { Ok(stream) }
    }

    fn all(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    fn settings(&mut self) -> Result<Control, Error> {
        let count = self.number()? as usize;
        if Some(self.rest.len()) != count.checked_mul(8) {
            return Err(self.bad_length(self.rest.len()));
        }
        let mut initial_window = None;
        for _ in 0..count {
            let id = self.number()? & 0x00ff_ffff;
            let value = self.number()?;
            if id == SETTING_INITIAL_WINDOW {
                if value > MAX_WINDOW {
                    return Err(self.bad_length(self.rest.len()));
                }
                initial_window = Some(value);
            }
        }
        Ok(Control::Settings { initial_window })
    }
}

/// Appends a data frame's head; its bytes are to follow. `length` is below 2^24.
pub fn put_data_head(out: &mut Vec<u8>, stream: u32, fin: bool, length: usize) {
    debug_assert!(length < 1 << 24);
    out.extend(stream.to_be_bytes());
    out.extend((u32::from(if fin { FIN } else { 0 }) << 24 | length as u32).to_be_bytes());
}

/// Appends a control frame. [`Control::Unknown`] is nothing.
pub fn put_control(out: &mut Vec<u8>, frame: &Control, deflater: &mut Deflater) {
    let flag = |fin: &bool| if *fin { FIN } else { 0 };
    match frame {
        Control::SynStream { stream, fin, unidirectional, headers } => {
            let flags = flag(fin) | if *unidirectional { UNIDIRECTIONAL } else { 0 };
            let block = deflater.deflate(headers);
            put(out, SYN_STREAM, flags, &[&stream.to_be_bytes(), &[0; 6], &block]);
        }
        Control::SynReply { stream, fin, headers } => {
            let block = deflater.deflate(headers);
            put(out, SYN_REPLY, flag(fin), &[&stream.to_be_bytes(), &block]);
        }
        Control::Headers { stream, fin, headers } => {
            let block = deflater.deflate(headers);
            put(out, HEADERS, flag(fin), &[&stream.to_be_bytes(), &block]);
        }
        Control::RstStream { stream, status } => put_numbers(out, RST_STREAM, &[*stream, *status]),
        Control::Settings { initial_window: None } => put_numbers(out, SETTINGS, &[0]),
        Control::Settings { initial_window: Some(size) } => {
            put_numbers(out, SETTINGS, &[1, SETTING_INITIAL_WINDOW, *size]);
        }
        Control::Ping { id } => put_numbers(out, PING, &[*id]),
        Control::GoAway { last, status } => put_numbers(out, GOAWAY, &[*last, *status]),
        Control::WindowUpdate { stream, delta } => {
            put_numbers(out, WINDOW_UPDATE, &[*stream, *delta]);
        }
        Control::Unknown { .. } => {}
    }
}

fn put_numbers(out: &mut Vec<u8>, kind: u16, numbers: &[u32]) {
    let payload: Vec<u8> = numbers.iter().flat_map(|number| number.to_be_bytes()).collect();
    put(out, kind, 0, &[&payload]);
}

fn put(out: &mut Vec<u8>, kind: u16, flags: u8, parts: &[&[u8]]) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    out.extend((0x8000 | VERSION).to_be_bytes());
    out.extend(kind.to_be_bytes());
    out.extend((u32::from(flags) << 24 | length as u32).to_be_bytes());
    for part in parts {
        out.extend(*part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every() -> Vec<Control> {
        let headers = Headers::default().with("streamType", "error");
        vec![
            Control::SynStream {
                stream: 1,
                fin: true,
                unidirectional: true,
                headers: headers.clone(),
            },
            Control::SynReply { stream: 1, fin: false, headers: Headers::default() },
            Control::Headers { stream: 3, fin: true, headers },
            Control::RstStream { stream: 5, status: Reset::Cancel as u32 },
            Control::Settings { initial_window: None },
            Control::Settings { initial_window: Some(MAX_WINDOW) },
            Control::Ping { id: u32::MAX },
            Control::GoAway { last: 7, status: GoAway::Protocol as u32 },
            Control::WindowUpdate { stream: 0, delta: MAX_WINDOW },
        ]
    }

    fn split(bytes: &[u8]) -> (Head, &[u8]) {
        let (first, rest) = bytes.split_first_chunk::<HEAD>().unwrap();
        (head(*first).unwrap(), rest)
    }

    fn read(bytes: &[u8], inflater: &mut Inflater) -> Result<Control, Error> {
        let (Head::Control { kind, flags, length }, rest) = split(bytes) else { panic!() };
        assert_eq!(length as usize, rest.len());
        control(kind, flags, rest, inflater)
    }

    #[test]
    fn frames_come_back_as_they_went() {
        let (mut deflater, mut inflater) = (Deflater::default(), Inflater::default());
        for frame in every() {
            let mut bytes = Vec::new();
            put_control(&mut bytes, &frame, &mut deflater);
            assert_eq!(read(&bytes, &mut inflater).unwrap(), frame);
        }
        let mut bytes = Vec::new();
        put_data_head(&mut bytes, 9, true, (1 << 24) - 1);
        assert_eq!(split(&bytes).0, Head::Data { stream: 9, fin: true, length: (1 << 24) - 1 });
    }

    #[test]
    fn frames_with_a_byte_less_or_more_are_refused() {
        for frame in every() {
            let mut bytes = Vec::new();
            put_control(&mut bytes, &frame, &mut Deflater::default());
            let (Head::Control { kind, flags, .. }, payload) = split(&bytes) else { panic!() };
            let fixed = !matches!(
                frame,
                Control::SynStream { .. } | Control::SynReply { .. } | Control::Headers { .. }
            );
            // A header block ends with its flush, whose bytes say nothing.
            let whole = payload.len() - if fixed { 0 } else { 7 };
            for end in 0..whole {
                let short = control(kind, flags, &payload[..end], &mut Inflater::default());
                assert!(short.is_err(), "{frame:?} of {end} bytes");
            }
            let long = [payload, &[1]].concat();
            let read = control(kind, flags, &long, &mut Inflater::default());
            assert!(!fixed || read.is_err(), "{frame:?}");
        }
    }

    #[test]
    fn heads_that_cannot_be_are_refused_by_name() {
        let error = |bytes: [u8; 8]| head(bytes).unwrap_err().to_string();
        assert_eq!(
            error([0x80, 2, 0, 1, 0, 0, 0, 0]),
            "the client's frame 0x0001 has version 2, not 3"
        );
        assert!(error([0x80, 3, 0, 1, 0, 0xff, 0xff, 0xff]).contains("16777215 bytes"));
        assert!(error([0; 8]).contains("stream 0"));
        // An HTTP/1.1 request in the place of a frame.
        assert!(head(*b"GET / HT").is_ok_and(|head| matches!(head, Head::Data { .. })));
        for (kind, flags, payload) in [
            (SYN_STREAM, 0x04, vec![0; 10]),
            (SYN_STREAM, 0, vec![0; 10]),
            (RST_STREAM, 0, vec![0, 0, 0, 0, 0, 0, 0, 1]),
            (PING, 1, vec![0, 0, 0, 1]),
            (SETTINGS, 0, vec![0xff; 12]),
            (SETTINGS, 0, vec![0, 0, 0, 1, 0, 0, 0, 7, 0x80, 0, 0, 0]),
        ] {
            let read = control(kind, flags, &payload, &mut Inflater::default());
            assert!(read.is_err(), "{kind} {flags} {payload:?}: {read:?}");
        }
    }

    #[test]
    fn kinds_from_elsewhere_are_skipped() {
        let read = control(10, 0xff, b"credentials", &mut Inflater::default());
        assert_eq!(read.unwrap(), Control::Unknown { kind: 10 });
    }

    #[test]
    fn any_bytes_are_a_frame_or_an_error() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let (mut frames, mut errors) = (0, 0);
        for _ in 0..20_000 {
            let length = (next() % 40) as usize;
            let payload: Vec<u8> = (0..length).map(|_| next() as u8).collect();
            let (kind, flags) = ((next() % 11) as u16, (next() % 4) as u8);
            match control(kind, flags, &payload, &mut Inflater::default()) {
                Ok(_) => frames += 1,
                Err(_) => errors += 1,
            }
        }
        assert!(frames > 1000 && errors > 1000, "{frames} {errors}");
    }
}
