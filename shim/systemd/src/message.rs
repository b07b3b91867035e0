//! D-Bus messages as bytes (the D-Bus specification, "Message Protocol"): what systemd's few methods
//! need of it, little-endian.
//!
//! ```text
//!   'l' type flags version | body length | serial | fields a(yv) | padding to 8 | body
//! ```

/// The largest message that is read; systemd's answers have some hundred bytes.
const MAX_LEN: usize = 1 << 20;
/// Of the header up to the length of its fields.
const FIXED: usize = 16;

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Call = 1,
    Answer = 2,
    Error = 3,
    Signal = 4,
}

/// An argument, or the value of a property.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Flag(bool),
    Number(u64),
    Numbers(Vec<u32>),
    Bytes(Vec<u8>),
    Text(String),
    /// Pairs of texts: `a(ss)`.
    Pairs(Vec<(String, String)>),
    /// `a(sv)`
    Properties(Vec<(&'static str, Value)>),
    /// An empty array of the signature, whose elements are structs.
    Nothing(&'static str),
}

/// An empty array of structs of the signature `element`.
pub(crate) fn array_of_structs(element: &'static str) -> Value {
    Value::Nothing(element)
}

impl Value {
    fn signature(&self) -> String {
        match self {
            Self::Flag(_) => "b".to_owned(),
            Self::Number(_) => "t".to_owned(),
            Self::Numbers(_) => "au".to_owned(),
            Self::Bytes(_) => "ay".to_owned(),
            Self::Text(_) => "s".to_owned(),
            Self::Pairs(_) => "a(ss)".to_owned(),
            Self::Properties(_) => "a(sv)".to_owned(),
            Self::Nothing(element) => format!("a{element}"),
        }
    }
}

/// A body under construction. Alignment counts from its start, which is aligned to 8.
#[derive(Debug, Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn number(&mut self, value: usize) {
        self.align(4);
        // Lengths are bounded by the messages that they are in.
        self.0.extend(u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.number(text.len());
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    fn signature(&mut self, signature: &str) {
        self.0.push(u8::try_from(signature.len()).unwrap_or(u8::MAX));
        self.0.extend(signature.as_bytes());
        self.0.push(0);
    }

    /// An array: its length in bytes, without the padding before its first element.
    fn array(&mut self, alignment: usize, elements: impl FnOnce(&mut Self)) {
        self.number(0);
        let length_at = self.0.len() - 4;
        self.align(alignment);
        let start = self.0.len();
        elements(self);
        let length = u32::try_from(self.0.len() - start).unwrap_or(u32::MAX);
        self.0[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Flag(flag) => self.number((*flag).into()),
            Value::Number(number) => {
                self.align(8);
                self.0.extend(number.to_le_bytes());
            }
            Value::Numbers(numbers) => self.array(4, |array| {
                numbers.iter().for_each(|number| array.0.extend(number.to_le_bytes()));
            }),
            Value::Bytes(bytes) => self.array(1, |array| array.0.extend(bytes)),
            Value::Text(text) => self.text(text),
            Value::Pairs(pairs) => self.array(8, |array| {
                for (one, other) in pairs {
                    array.align(8);
                    array.text(one);
                    array.text(other);
                }
            }),
            Value::Properties(properties) => self.array(8, |array| {
                for (name, value) in properties {
                    array.align(8);
                    array.text(name);
                    array.variant(value);
                }
            }),
            Value::Nothing(_) => self.array(8, |_| {}),
        }
    }

    fn variant(&mut self, value: &Value) {
        self.signature(&value.signature());
        self.value(value);
    }
}

/// Where a call goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target<'a> {
    /// On a bus.
    pub(crate) destination: Option<&'a str>,
    pub(crate) path: &'a str,
    pub(crate) interface: &'a str,
    pub(crate) member: &'a str,
}

/// A call as bytes.
pub(crate) fn call(serial: u32, target: Target<'_>, arguments: &[Value]) -> Vec<u8> {
    let mut body = Writer::default();
    arguments.iter().for_each(|argument| body.value(argument));
    let signature: String = arguments.iter().map(Value::signature).collect();
    // Little-endian, a call, no flags, version 1.
    let mut message = Writer(vec![b'l', Kind::Call as u8, 0, 1]);
    message.number(body.0.len());
    message.number(serial as usize);
    message.array(8, |fields| {
        let mut field = |code: u8, kind: &str, text: Option<&str>| {
            let Some(text) = text else { return };
            fields.align(8);
            fields.0.push(code);
            fields.signature(kind);
            match kind {
                "g" => fields.signature(text),
                _ => fields.text(text),
            }
        };
        field(1, "o", Some(target.path));
        field(2, "s", Some(target.interface));
        field(3, "s", Some(target.member));
        field(6, "s", target.destination);
        field(8, "g", Some(signature.as_str()).filter(|signature| !signature.is_empty()));
    });
    message.align(8);
    message.0.extend(body.0);
    message.0
}

/// A message that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) kind: Kind,
    /// The serial of the call that it answers; 0 of a signal.
    pub(crate) answers: u32,
    pub(crate) member: String,
    /// Of an error.
    pub(crate) error: String,
    pub(crate) body: Vec<u8>,
}

impl Message {
    /// Reads the message at the start of `bytes`, and how long it is. `None` when it is not all there
    /// yet.
    ///
    /// # Errors
    /// Says what no message can be.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Option<(Self, usize)>, &'static str> {
        let Some(fixed) = bytes.get(..FIXED) else { return Ok(None) };
        if fixed[0] != b'l' || fixed[3] != 1 {
            return Err("not a little-endian message of version 1");
        }
        let word = |at: usize| {
            let bytes = [fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]];
            u32::from_le_bytes(bytes) as usize
        };
        let (body_len, fields_len) = (word(4), word(12));
        let body_at = FIXED
            .checked_add(fields_len)
            .filter(|end| *end <= MAX_LEN && body_len <= MAX_LEN)
            .ok_or("a message that is too long")?
            .next_multiple_of(8);
        let Some(whole) = bytes.get(..body_at + body_len) else { return Ok(None) };
        let kind = match fixed[1] {
            1 => Kind::Call,
            2 => Kind::Answer,
            3 => Kind::Error,
            4 => Kind::Signal,
            _ => return Err("a message of no known type"),
        };
        let mut message = Self {
            kind,
            answers: 0,
            member: String::new(),
            error: String::new(),
            body: whole[body_at..].to_vec(),
        };
        let mut fields = Reader { bytes: &whole[..FIXED + fields_len], at: FIXED };
        while fields.at < fields.bytes.len() {
            message.field(&mut fields).ok_or("a header that can't be read")?;
        }
        Ok(Some((message, body_at + body_len)))
    }

    fn field(&mut self, fields: &mut Reader<'_>) -> Option<()> {
        fields.align(8);
        let code = fields.byte()?;
        let text = match fields.signature()?.as_str() {
            "u" => {
                let number = fields.number()?;
                if code == 5 {
                    self.answers = number;
                }
                String::new()
            }
            "s" | "o" => fields.text()?,
            "g" => fields.signature()?,
            _ => return None,
        };
        match code {
            3 => self.member = text,
            4 => self.error = text,
            _ => {}
        }
        Some(())
    }

    /// Reads the body from its start.
    pub(crate) fn reader(&self) -> Reader<'_> {
        Reader { bytes: &self.body, at: 0 }
    }
}

/// Reads values one after the other; `None` when they are not there.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn take(&mut self, len: usize) -> Option<&[u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(len)?)?;
        self.at += len;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|byte| byte[0])
    }

    pub(crate) fn number(&mut self) -> Option<u32> {
        self.align(4);
        self.take(4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes)
    }

    /// A text, or the path of an object.
    pub(crate) fn text(&mut self) -> Option<String> {
        let len = usize::try_from(self.number()?).ok()?;
        let text = String::from_utf8(self.take(len)?.to_vec()).ok()?;
        self.take(1).map(|_| text)
    }

    fn signature(&mut self) -> Option<String> {
        let len = self.byte()?.into();
        let text = String::from_utf8(self.take(len)?.to_vec()).ok()?;
        self.take(1).map(|_| text)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Any message, for a peer in a test.
    pub(crate) fn message(
        kind: Kind,
        answers: u32,
        member: &str,
        error: &str,
        arguments: &[Value],
    ) -> Vec<u8> {
        let mut body = Writer::default();
        arguments.iter().for_each(|argument| body.value(argument));
        let mut message = Writer(vec![b'l', kind as u8, 0, 1]);
        message.number(body.0.len());
        message.number(1);
        message.array(8, |fields| {
            for (code, text) in [(3, member), (4, error)] {
                if !text.is_empty() {
                    fields.align(8);
                    fields.0.extend([code, 1, b's', 0]);
                    fields.text(text);
                }
            }
            if answers != 0 {
                fields.align(8);
                fields.0.extend([5, 1, b'u', 0]);
                fields.number(answers as usize);
            }
        });
        message.align(8);
        message.0.extend(body.0);
        message.0
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn values_are_laid_out_as_the_specification_says() {
        let layout = |value: &Value| {
            let mut writer = Writer::default();
            writer.value(value);
            (value.signature(), hex(&writer.0))
        };
        for (value, signature, bytes) in [
            (Value::Flag(true), "b", "01000000"),
            (Value::Number(258), "t", "0201000000000000"),
            (Value::Text("ab".to_owned()), "s", "02000000616200"),
            (Value::Numbers(vec![1, 2]), "au", "080000000100000002000000"),
            (Value::Bytes(vec![7]), "ay", "0100000007"),
            (
                Value::Pairs(vec![("a".to_owned(), "b".to_owned())]),
                "a(ss)",
                "0e000000000000000100000061000000010000006200",
            ),
            (
                Value::Properties(vec![("X", Value::Number(9))]),
                "a(sv)",
                "180000000000000001000000580001740000000000000000",
            ),
            (Value::Nothing("(sa(sv))"), "a(sa(sv))", "0000000000000000"),
        ] {
            let (found, laid) = layout(&value);
            assert_eq!(found, signature, "{value:?}");
            assert!(laid.starts_with(bytes), "{value:?}: {laid}");
        }
    }

    /// An answer as systemd writes one.
    fn answer() -> Vec<u8> {
        let mut message = Writer(vec![b'l', Kind::Answer as u8, 1, 1]);
        let mut body = Writer::default();
        body.text("/job/7");
        message.number(body.0.len());
        message.number(3);
        message.array(8, |fields| {
            fields.0.extend([5, 1, b'u', 0]);
            fields.number(42);
            fields.align(8);
            fields.0.extend([8, 1, b'g', 0]);
            fields.signature("o");
        });
        message.align(8);
        message.0.extend(body.0);
        message.0
    }

    #[test]
    fn a_message_is_read_once_it_is_all_there() {
        let bytes = answer();
        for len in 0..bytes.len() {
            assert_eq!(Message::decode(&bytes[..len]), Ok(None), "{len}");
        }
        let two = [bytes.as_slice(), &bytes].concat();
        let (message, len) = Message::decode(&two).unwrap().unwrap();
        assert_eq!(len, bytes.len());
        assert_eq!((message.kind, message.answers), (Kind::Answer, 42));
        assert_eq!(message.reader().text().as_deref(), Some("/job/7"));
        assert_eq!(message.reader().number(), Some(6));
    }

    #[test]
    fn what_is_no_message_is_refused_and_never_waited_for() {
        let mut bytes = answer();
        bytes[0] = b'B';
        assert!(Message::decode(&bytes).is_err(), "big-endian");
        for at in [4, 12] {
            let mut bytes = answer();
            bytes[at..at + 4].fill(0xff);
            assert!(Message::decode(&bytes).is_err(), "a length of 4 GiB");
        }
        let mut bytes = answer();
        bytes[17] = 200;
        assert!(Message::decode(&bytes).is_err(), "a signature beyond the header");
    }

    #[test]
    fn our_own_calls_can_be_read() {
        let target = Target { destination: Some("a.b"), path: "/p", interface: "i", member: "M" };
        let bytes = call(7, target, &[Value::Text("x".to_owned()), Value::Flag(true)]);
        let (message, len) = Message::decode(&bytes).unwrap().unwrap();
        assert_eq!((len, message.kind), (bytes.len(), Kind::Call));
        assert_eq!(message.member, "M");
        let mut reader = message.reader();
        assert_eq!((reader.text().as_deref(), reader.number()), (Some("x"), Some(1)));
    }
}
