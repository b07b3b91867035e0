//! How a client learns how it ended: the message on the error stream.

use serde::Serialize;

use crate::handshake::Version;
use crate::runtime::Failure;

/// `metav1.Status`, as far as it is used here.
#[derive(Serialize)]
struct Status<'a> {
    metadata: Metadata,
    status: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Details>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u16>,
}

#[derive(Serialize)]
struct Metadata {}

#[derive(Serialize)]
struct Details {
    causes: [Cause; 1],
}

#[derive(Serialize)]
struct Cause {
    reason: &'static str,
    message: String,
}

/// What is sent on the error stream at the end; nothing where success goes without saying.
pub(crate) fn message(version: Version, end: &Result<i32, Failure>) -> Vec<u8> {
    let plain = Status {
        metadata: Metadata {},
        status: "Failure",
        message: None,
        reason: None,
        details: None,
        code: None,
    };
    match end {
        Ok(0) if version >= Version::V4 => json(&Status { status: "Success", ..plain }),
        Ok(0) => Vec::new(),
        Ok(code) => {
            let text = format!("command terminated with exit code {code}");
            if version < Version::V4 {
                return text.into_bytes();
            }
            let cause = Cause { reason: "ExitCode", message: code.to_string() };
            json(&Status {
                message: Some(&text),
                reason: Some("NonZeroExitCode"),
                details: Some(Details { causes: [cause] }),
                ..plain
            })
        }
        Err(failure) => {
            let text = failure.to_string();
            if version < Version::V4 {
                return text.into_bytes();
            }
            json(&Status {
                message: Some(&text),
                reason: Some("InternalError"),
                code: Some(500),
                ..plain
            })
        }
    }
}

fn json(status: &Status<'_>) -> Vec<u8> {
    // Strings and numbers alone: there is nothing that could fail.
    serde_json::to_vec(status).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_said_in_the_clients_way() {
        let text = |version, end| String::from_utf8(message(version, &end)).unwrap();
        assert_eq!(text(Version::V5, Ok(0)), r#"{"metadata":{},"status":"Success"}"#);
        assert_eq!(text(Version::V3, Ok(0)), "");
        assert_eq!(
            text(Version::V4, Ok(7)),
            r#"{"metadata":{},"status":"Failure","message":"command terminated with exit code 7","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"7"}]}}"#
        );
        assert_eq!(text(Version::V1, Ok(7)), "command terminated with exit code 7");
        assert_eq!(
            text(Version::V4, Err("no \"such\" container".into())),
            r#"{"metadata":{},"status":"Failure","message":"no \"such\" container","reason":"InternalError","code":500}"#
        );
        assert_eq!(text(Version::V2, Err("no container".into())), "no container");
    }
}
