//! Which protocol a request is for: a pure function of its headers.

use hyper::header::{CONNECTION, HeaderMap, HeaderName, HeaderValue, UPGRADE};
use hyper::{Method, StatusCode, header};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::request::Kind;
use crate::websocket::Encoding;

/// Versions that a client of SPDY can speak, in the order of its wishes.
const PROTOCOLS: HeaderName = HeaderName::from_static("x-stream-protocol-version");
/// What it could have had, for one with which there is no agreement.
const ACCEPTED: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");
const SPDY: &str = "SPDY/3.1";

/// The version of the protocol of exec and attach, in what differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Version {
    /// Errors are text on the error stream.
    V1,
    V2,
    /// With a stream for sizes of the terminal.
    V3,
    /// The end is a status in JSON.
    V4,
    /// The client can end a channel of a WebSocket.
    V5,
}

/// What was agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    SpdyRemote(Version),
    WebSocketRemote(Version, Encoding),
    SpdyForward,
    TunnelForward,
    WebSocketForward(Encoding),
}

type Name = (&'static str, Protocol);

const SPDY_REMOTE: [Name; 4] = [
    ("v4.channel.k8s.io", Protocol::SpdyRemote(Version::V4)),
    ("v3.channel.k8s.io", Protocol::SpdyRemote(Version::V3)),
    ("v2.channel.k8s.io", Protocol::SpdyRemote(Version::V2)),
    ("channel.k8s.io", Protocol::SpdyRemote(Version::V1)),
];
const WEBSOCKET_REMOTE: [Name; 5] = [
    ("v5.channel.k8s.io", Protocol::WebSocketRemote(Version::V5, Encoding::Binary)),
    ("v4.channel.k8s.io", Protocol::WebSocketRemote(Version::V4, Encoding::Binary)),
    ("v4.base64.channel.k8s.io", Protocol::WebSocketRemote(Version::V4, Encoding::Base64)),
    ("channel.k8s.io", Protocol::WebSocketRemote(Version::V1, Encoding::Binary)),
    ("base64.channel.k8s.io", Protocol::WebSocketRemote(Version::V1, Encoding::Base64)),
];
const SPDY_FORWARD: [Name; 1] = [("portforward.k8s.io", Protocol::SpdyForward)];
const WEBSOCKET_FORWARD: [Name; 3] = [
    ("SPDY/3.1+portforward.k8s.io", Protocol::TunnelForward),
    ("v4.channel.k8s.io", Protocol::WebSocketForward(Encoding::Binary)),
    ("v4.base64.channel.k8s.io", Protocol::WebSocketForward(Encoding::Base64)),
];

/// The agreement, and the headers that say it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Agreed {
    pub(crate) protocol: Protocol,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
}

/// Why there is none. Nothing has happened.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) status: StatusCode,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) message: String,
}

/// Finds the protocol for a request of that kind.
pub(crate) fn agree(kind: Kind, method: &Method, headers: &HeaderMap) -> Result<Agreed, Refused> {
    let upgrades = tokens(headers, &UPGRADE);
    let asked = tokens(headers, &CONNECTION).iter().any(|token| is(token, "upgrade"));
    if asked && upgrades.iter().any(|token| is(token, "websocket")) {
        web_socket(kind, method, headers)
    } else if asked && upgrades.iter().any(|token| is(token, SPDY)) {
        spdy(kind, headers)
    } else {
        Err(refused(
            StatusCode::BAD_REQUEST,
            "this needs an upgrade of the connection: `Upgrade: SPDY/3.1` or `Upgrade: websocket`",
        ))
    }
}

fn spdy(kind: Kind, headers: &HeaderMap) -> Result<Agreed, Refused> {
    let known: &[Name] = match kind {
        Kind::Exec | Kind::Attach => &SPDY_REMOTE,
        Kind::PortForward => &SPDY_FORWARD,
    };
    let wanted = tokens(headers, &PROTOCOLS);
    if wanted.is_empty() {
        let message = "the header X-Stream-Protocol-Version is missing";
        return Err(refused(StatusCode::BAD_REQUEST, message));
    }
    let Some((name, protocol)) = choose(&wanted, known) else {
        return Err(no_agreement(&wanted, known));
    };
    let headers = vec![
        (CONNECTION, HeaderValue::from_static("Upgrade")),
        (UPGRADE, HeaderValue::from_static(SPDY)),
        (PROTOCOLS, HeaderValue::from_static(name)),
    ];
    Ok(Agreed { protocol, headers })
}

/// RFC 6455, section 4.2.
fn web_socket(kind: Kind, method: &Method, headers: &HeaderMap) -> Result<Agreed, Refused> {
    let known: &[Name] = match kind {
        Kind::Exec | Kind::Attach => &WEBSOCKET_REMOTE,
        Kind::PortForward => &WEBSOCKET_FORWARD,
    };
    if method != Method::GET {
        return Err(refused(StatusCode::METHOD_NOT_ALLOWED, "a WebSocket is asked for with GET"));
    }
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        let mut refused = refused(StatusCode::UPGRADE_REQUIRED, "this speaks WebSocket version 13");
        let version = (header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        refused.headers.push(version);
        return Err(refused);
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY);
    let accept = key.and_then(|key| HeaderValue::from_str(&derive_accept_key(key.as_bytes())).ok());
    let Some(accept) = accept else {
        return Err(refused(StatusCode::BAD_REQUEST, "the header Sec-WebSocket-Key is missing"));
    };
    let mut answer = vec![
        (CONNECTION, HeaderValue::from_static("Upgrade")),
        (UPGRADE, HeaderValue::from_static("websocket")),
        (header::SEC_WEBSOCKET_ACCEPT, accept),
    ];
    let wanted = tokens(headers, &header::SEC_WEBSOCKET_PROTOCOL);
    let protocol = if wanted.is_empty() {
        // Before there were names, there was this.
        match kind {
            Kind::Exec | Kind::Attach => Protocol::WebSocketRemote(Version::V1, Encoding::Binary),
            Kind::PortForward => Protocol::WebSocketForward(Encoding::Binary),
        }
    } else {
        let Some((name, protocol)) = choose(&wanted, known) else {
            return Err(no_agreement(&wanted, known));
        };
        answer.push((header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(name)));
        protocol
    };
    Ok(Agreed { protocol, headers: answer })
}

/// The first of the client's wishes that can be fulfilled.
fn choose(wanted: &[&str], known: &[Name]) -> Option<Name> {
    wanted.iter().find_map(|name| known.iter().find(|(is, _)| is == name)).copied()
}

fn no_agreement(wanted: &[&str], known: &[Name]) -> Refused {
    let accepted = known.iter().map(|(name, _)| (ACCEPTED, HeaderValue::from_static(name)));
    let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
    let message =
        format!("no protocol of {} is known here; {} are", wanted.join(", "), names.join(", "));
    Refused { status: StatusCode::FORBIDDEN, headers: accepted.collect(), message }
}

fn refused(status: StatusCode, message: &str) -> Refused {
    Refused { status, headers: Vec::new(), message: message.to_owned() }
}

/// Of a header that is a list, be it in one line or in several.
fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Vec<&'a str> {
    let lines = headers.get_all(name).iter().filter_map(|line| line.to_str().ok());
    let tokens = lines.flat_map(|line| line.split(','));
    tokens.map(str::trim).filter(|token| !token.is_empty()).collect()
}

fn is(token: &str, name: &str) -> bool {
    token.eq_ignore_ascii_case(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn of(kind: Kind, lines: &[(&'static str, &'static str)]) -> Result<Protocol, StatusCode> {
        let agreed = agree(kind, &Method::GET, &headers(lines));
        agreed.map(|agreed| agreed.protocol).map_err(|refused| refused.status)
    }

    const SPDY_UPGRADE: [(&str, &str); 2] = [("connection", "Upgrade"), ("upgrade", "SPDY/3.1")];
    const WS_UPGRADE: [(&str, &str); 4] = [
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];

    #[test]
    fn the_first_wish_that_is_known_is_fulfilled() {
        let spdy = |kind, names: &[(&'static str, &'static str)]| {
            of(kind, &[SPDY_UPGRADE.as_slice(), names].concat())
        };
        let web = |kind, names: &[(&'static str, &'static str)]| {
            of(kind, &[WS_UPGRADE.as_slice(), names].concat())
        };
        let name = "x-stream-protocol-version";
        let list = [(name, "v5.channel.k8s.io"), (name, "v4.channel.k8s.io, v3.channel.k8s.io")];
        assert_eq!(spdy(Kind::Exec, &list), Ok(Protocol::SpdyRemote(Version::V4)));
        let old = [(name, "channel.k8s.io,v2.channel.k8s.io")];
        assert_eq!(spdy(Kind::Attach, &old), Ok(Protocol::SpdyRemote(Version::V1)));
        assert_eq!(spdy(Kind::Exec, &[]), Err(StatusCode::BAD_REQUEST));
        assert_eq!(spdy(Kind::Exec, &[(name, "v9.channel.k8s.io")]), Err(StatusCode::FORBIDDEN));
        let forward = [(name, "portforward.k8s.io")];
        assert_eq!(spdy(Kind::PortForward, &forward), Ok(Protocol::SpdyForward));
        assert_eq!(spdy(Kind::Exec, &forward), Err(StatusCode::FORBIDDEN));

        let name = "sec-websocket-protocol";
        let new = [(name, "v5.channel.k8s.io")];
        let binary = |version| Ok(Protocol::WebSocketRemote(version, Encoding::Binary));
        assert_eq!(web(Kind::Exec, &new), binary(Version::V5));
        assert_eq!(web(Kind::Exec, &[]), binary(Version::V1));
        let text = [(name, "x, v4.base64.channel.k8s.io")];
        let base64 = Protocol::WebSocketRemote(Version::V4, Encoding::Base64);
        assert_eq!(web(Kind::Exec, &text), Ok(base64));
        let tunnel = [(name, "SPDY/3.1+portforward.k8s.io")];
        assert_eq!(web(Kind::PortForward, &tunnel), Ok(Protocol::TunnelForward));
        assert_eq!(web(Kind::PortForward, &new), Err(StatusCode::FORBIDDEN));
    }

    #[test]
    fn who_does_not_ask_for_an_upgrade_is_told_how() {
        assert_eq!(of(Kind::Exec, &[]), Err(StatusCode::BAD_REQUEST));
        assert_eq!(of(Kind::Exec, &[("upgrade", "SPDY/3.1")]), Err(StatusCode::BAD_REQUEST));
        let h2 = [("connection", "upgrade"), ("upgrade", "h2c")];
        assert_eq!(of(Kind::Exec, &h2), Err(StatusCode::BAD_REQUEST));
        assert_eq!(of(Kind::Exec, &WS_UPGRADE[..2]), Err(StatusCode::UPGRADE_REQUIRED));
        assert_eq!(of(Kind::Exec, &WS_UPGRADE[..3]), Err(StatusCode::BAD_REQUEST));
        let post = agree(Kind::Exec, &Method::POST, &headers(&WS_UPGRADE)).unwrap_err();
        assert_eq!(post.status, StatusCode::METHOD_NOT_ALLOWED);
    }

    #[test]
    fn the_answer_to_a_key_is_the_one_of_the_rfc() {
        let agreed = agree(Kind::Exec, &Method::GET, &headers(&WS_UPGRADE)).unwrap();
        let accept = HeaderValue::from_static("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert!(agreed.headers.contains(&(header::SEC_WEBSOCKET_ACCEPT, accept)));
    }
}
