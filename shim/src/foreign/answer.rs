//! What `start` of a stock shim says of the socket it listens on, in its three generations.
//!
//! | begins with | generation | is |
//! |---|---|---|
//! | `{` | containerd 1.7 to 2.2 | JSON: version, address, protocol |
//! | a protobuf tag | 2.3 and later | [`BootstrapResult`] |
//! | anything else | 1.6 | the address, and version 2 |

use std::fmt;
use std::path::PathBuf;

use prost::Message;
use shim_wire::containerd::BootstrapResult;

/// The tags of `version` and `address`, one of which comes first.
const TAGS: [u8; 2] = [0x08, 0x12];

/// Where a stock shim listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) socket: PathBuf,
    /// Of the task API: 2 or 3.
    pub(super) version: u32,
}

/// An answer that leads to no shim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unusable {
    Malformed,
    Version(String),
    Protocol(String),
    Address(String),
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("its answer can't be read"),
            Self::Version(version) => write!(f, "task API version {version} is not known"),
            Self::Protocol(protocol) => write!(f, "it speaks {protocol:?}, not ttrpc"),
            Self::Address(address) => {
                write!(f, "address {address:?} is not a unix socket's path")
            }
        }
    }
}

/// # Errors
/// [`Unusable`] says why there is no way to that shim.
pub(super) fn parse(bytes: &[u8]) -> Result<Answer, Unusable> {
    match bytes.first() {
        None => Err(Unusable::Malformed),
        Some(b'{') => {
            let text = std::str::from_utf8(bytes).map_err(|_| Unusable::Malformed)?;
            let object = members(text.trim()).ok_or(Unusable::Malformed)?;
            let member = |name: &str| {
                let found = object.iter().find(|(key, _)| key == name);
                found.map(|(_, value)| value.as_str()).unwrap_or_default()
            };
            checked(member("version"), member("address"), member("protocol"))
        }
        Some(tag) if TAGS.contains(tag) => {
            let result = BootstrapResult::decode(bytes).map_err(|_| Unusable::Malformed)?;
            checked(&result.version.to_string(), &result.address, &result.protocol)
        }
        Some(_) => {
            let text = std::str::from_utf8(bytes).map_err(|_| Unusable::Malformed)?;
            checked("2", text.trim(), "ttrpc")
        }
    }
}

fn checked(version: &str, address: &str, protocol: &str) -> Result<Answer, Unusable> {
    let version = match version {
        "2" => 2,
        "3" => 3,
        other => return Err(Unusable::Version(other.to_owned())),
    };
    if protocol != "ttrpc" {
        return Err(Unusable::Protocol(protocol.to_owned()));
    }
    // Abstract sockets, of shims before 1.5, are anybody's to take.
    let socket = PathBuf::from(address.strip_prefix("unix://").unwrap_or(address));
    if !socket.is_absolute() || address.contains('\0') {
        return Err(Unusable::Address(address.to_owned()));
    }
    Ok(Answer { socket, version })
}

/// The members of a flat JSON object whose values are strings or numbers; `None` when it is anything
/// else.
fn members(text: &str) -> Option<Vec<(String, String)>> {
    let mut rest = text.strip_prefix('{')?.trim_start();
    let mut found = Vec::new();
    loop {
        if rest == "}" {
            return Some(found);
        }
        let (key, after) = string(rest)?;
        rest = after.trim_start().strip_prefix(':')?.trim_start();
        let (value, after) = match rest.starts_with('"') {
            true => string(rest)?,
            false => {
                let end = rest.find(|char: char| !char.is_ascii_digit()).filter(|end| *end > 0)?;
                (rest[..end].to_owned(), &rest[end..])
            }
        };
        found.push((key, value));
        rest = after.trim_start();
        match rest.strip_prefix(',') {
            Some(after) => rest = after.trim_start(),
            None if rest == "}" => {}
            None => return None,
        }
    }
}

/// A string and what follows it. Of the escapes, those that a path or a word may need.
fn string(text: &str) -> Option<(String, &str)> {
    let mut plain = String::new();
    let mut chars = text.strip_prefix('"')?.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return Some((plain, &text[at + 2..])),
            '\\' => match chars.next()?.1 {
                escaped @ ('"' | '\\' | '/') => plain.push(escaped),
                _ => return None,
            },
            char => plain.push(char),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(path: &str, version: u32) -> Result<Answer, Unusable> {
        Ok(Answer { socket: PathBuf::from(path), version })
    }

    #[test]
    fn every_generation_is_understood() {
        let result = BootstrapResult {
            version: 3,
            address: "unix:///run/s".to_owned(),
            protocol: "ttrpc".to_owned(),
        };
        assert_eq!(parse(&result.encode_to_vec()), at("/run/s", 3));
        let json = br#"{"version":3,"address":"unix:///run/s","protocol":"ttrpc"}"#;
        assert_eq!(parse(json), at("/run/s", 3));
        let json = br#"{ "protocol": "ttrpc", "address": "unix:\/\/\/run\/s", "version": 2 } "#;
        assert_eq!(parse(json), at("/run/s", 2));
        assert_eq!(parse(b"unix:///run/containerd/s/abc\n"), at("/run/containerd/s/abc", 2));
        assert_eq!(parse(b"/run/s"), at("/run/s", 2));
    }

    #[test]
    fn what_leads_nowhere_is_named() {
        let json = |text: &str| parse(text.as_bytes()).unwrap_err();
        assert_eq!(parse(b""), Err(Unusable::Malformed));
        assert_eq!(json("{"), Unusable::Malformed);
        assert_eq!(json("{\"version\":3,}x"), Unusable::Malformed);
        assert_eq!(json("{\"a\":[1]}"), Unusable::Malformed);
        assert_eq!(json("{\"a\":\"\\u0041\"}"), Unusable::Malformed);
        assert_eq!(json("{\"a\":\"b"), Unusable::Malformed);
        assert_eq!(json("{}"), Unusable::Version(String::new()));
        assert_eq!(
            json(r#"{"version":9,"address":"unix:///s","protocol":"ttrpc"}"#),
            Unusable::Version("9".to_owned())
        );
        assert_eq!(
            json(r#"{"version":3,"address":"unix:///s","protocol":"grpc"}"#),
            Unusable::Protocol("grpc".to_owned())
        );
        assert_eq!(parse(b"vsock://3:1024"), Err(Unusable::Address("vsock://3:1024".to_owned())));
        assert!(matches!(parse(b"unix://\0/containerd-shim"), Err(Unusable::Address(_))));
        assert_eq!(parse(&[0x08, 0xff]), Err(Unusable::Malformed));
    }
}
