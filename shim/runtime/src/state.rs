//! A container's state as JSON (runtime-spec, `runtime.md`), written by hand: a JSON library would
//! cost every shim its memory.

use std::fmt::Write as _;

use shim_wire::hooks::State;

/// Where in its life a container is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Creating,
    Created,
    Running,
    Stopped,
}

impl Status {
    /// As the specification names it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Stopped => "stopped",
        }
    }
}

/// `pid` as the reader's pid namespace counts.
#[must_use]
pub fn json(state: &State, status: Status, pid: Option<i32>) -> String {
    let mut text = String::from("{\"ociVersion\":");
    string(&mut text, &state.oci_version);
    text.push_str(",\"id\":");
    string(&mut text, &state.id);
    text.push_str(",\"status\":");
    string(&mut text, status.name());
    if let Some(pid) = pid {
        // Writing to a string can't fail.
        let _ = write!(text, ",\"pid\":{pid}");
    }
    text.push_str(",\"bundle\":");
    string(&mut text, &state.bundle);
    text.push_str(",\"annotations\":{");
    for (index, (name, value)) in state.annotations.iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        string(&mut text, name);
        text.push(':');
        string(&mut text, value);
    }
    text.push_str("}}");
    text
}

/// A string of RFC 8259, section 7.
pub(crate) fn string(to: &mut String, text: &str) {
    to.push('"');
    for char in text.chars() {
        match char {
            '"' => to.push_str("\\\""),
            '\\' => to.push_str("\\\\"),
            '\n' => to.push_str("\\n"),
            '\r' => to.push_str("\\r"),
            '\t' => to.push_str("\\t"),
            control if u32::from(control) < 0x20 => {
                // Writing to a string can't fail.
                let _ = write!(to, "\\u{:04x}", u32::from(control));
            }
            other => to.push(other),
        }
    }
    to.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_is_json_whatever_is_in_it() {
        let state = State {
            oci_version: "1.3.0".to_owned(),
            id: "web".to_owned(),
            bundle: "/b \"q\" \\ \u{1}\u{7f}é\n".to_owned(),
            annotations: [("a\t".to_owned(), "\"".to_owned()), ("b".to_owned(), String::new())]
                .into(),
        };
        assert_eq!(
            json(&state, Status::Created, Some(7)),
            concat!(
                r#"{"ociVersion":"1.3.0","id":"web","status":"created","pid":7,"#,
                "\"bundle\":\"/b \\\"q\\\" \\\\ \\u0001\u{7f}é\\n\",",
                r#""annotations":{"a\t":"\"","b":""}}"#
            )
        );
        let empty = json(&State::default(), Status::Stopped, None);
        let expected =
            r#"{"ociVersion":"","id":"","status":"stopped","bundle":"","annotations":{}}"#;
        assert_eq!(empty, expected);
    }
}
