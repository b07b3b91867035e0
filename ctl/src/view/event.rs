//! Events as `docker events` shows them.

use std::collections::BTreeMap;

use bosun_proto::v1::Event;

use super::moment::local;
use crate::template::{Value, hidden, record};

/// `TIME TYPE ACTION ID (name=web, …)`.
pub(crate) fn line(event: &Event) -> String {
    let attributes: BTreeMap<_, _> = event.attributes.iter().collect();
    let words: Vec<String> =
        attributes.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let attributes =
        if words.is_empty() { String::new() } else { format!(" ({})", words.join(", ")) };
    let at = local(event.time.as_ref());
    format!("{at} {} {} {}{attributes}", event.r#type, event.action, event.id)
}

/// docker's JSON of an event, and the names that its templates have for the same; the number and the namespace stand under `Bosun`.
pub(crate) fn value(event: &Event) -> Value {
    let time = event.time.unwrap_or_default();
    let nanos = time.seconds.saturating_mul(1_000_000_000).saturating_add(time.nanos.into());
    let from = event.attributes.get("image").cloned().unwrap_or_default();
    record([
        ("status", event.action.as_str().into()),
        ("id", event.id.as_str().into()),
        ("from", from.into()),
        ("Type", event.r#type.as_str().into()),
        ("Action", event.action.as_str().into()),
        (
            "Actor",
            record([("ID", event.id.as_str().into()), ("Attributes", (&event.attributes).into())]),
        ),
        ("scope", "local".into()),
        ("time", time.seconds.into()),
        ("timeNano", nanos.into()),
        ("Status", hidden(event.action.as_str())),
        ("ID", hidden(event.id.as_str())),
        ("Scope", hidden("local")),
        ("Time", hidden(time.seconds)),
        ("TimeNano", hidden(nanos)),
        (
            "Bosun",
            record([
                ("Sequence", event.sequence.into()),
                ("Namespace", event.namespace.as_str().into()),
            ]),
        ),
    ])
}

/// What a reader of a stream of JSON is told of events that are no longer stored.
pub(crate) fn gap(first: u64, last: u64) -> Value {
    record([("Bosun", record([("Gap", record([("First", first.into()), ("Last", last.into())]))]))])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn die() -> Event {
        Event {
            sequence: 7,
            time: Some(prost_types::Timestamp { seconds: 1_767_366_245, nanos: 5 }),
            namespace: "default".to_owned(),
            r#type: "container".to_owned(),
            action: "die".to_owned(),
            id: "abc".to_owned(),
            attributes: [("name", "web"), ("exitCode", "42")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
            gap: None,
        }
    }

    #[test]
    fn a_line_has_its_attributes_in_order() {
        let line = line(&die());
        assert!(line.ends_with(" container die abc (exitCode=42, name=web)"), "{line}");
        let bare = Event { attributes: [].into(), ..die() };
        assert!(super::line(&bare).ends_with(" container die abc"));
    }

    #[test]
    fn json_is_dockers() {
        assert_eq!(
            value(&die()).json(),
            "{\"status\":\"die\",\"id\":\"abc\",\"from\":\"\",\"Type\":\"container\",\
             \"Action\":\"die\",\"Actor\":{\"ID\":\"abc\",\"Attributes\":{\"exitCode\":\"42\",\
             \"name\":\"web\"}},\"scope\":\"local\",\"time\":1767366245,\
             \"timeNano\":1767366245000000005,\"Bosun\":{\"Sequence\":7,\
             \"Namespace\":\"default\"}}"
        );
        assert_eq!(gap(3, 5).json(), r#"{"Bosun":{"Gap":{"First":3,"Last":5}}}"#);
    }
}
