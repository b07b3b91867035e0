//! What templates and JSON output are filled with.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};

/// A value as Go's templates see it: with the difference between a struct, whose fields are known
/// and ordered, and a map, whose keys are data.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Value>),
    Map(BTreeMap<String, Value>),
    Record(Vec<(&'static str, Value)>),
    /// A method that takes a key, such as `.Label "x"`. Not part of JSON.
    Lookup(Lookup),
    /// A field that templates can name and JSON does not have: docker's structs have other names
    /// than its JSON here and there, and fields that JSON leaves out.
    Hidden(Box<Value>),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Lookup {
    /// The value of a key, or nothing.
    In(BTreeMap<String, String>),
    /// A column's heading made of the key.
    Heading,
}

impl Lookup {
    pub(super) fn get(&self, key: &str) -> String {
        match self {
            Self::In(map) => map.get(key).cloned().unwrap_or_default(),
            Self::Heading => {
                let last = key.rsplit('.').next().unwrap_or(key);
                last.replace(['-', '_'], " ").to_uppercase()
            }
        }
    }
}

/// A struct of these fields, in this order.
pub(crate) fn record<const N: usize>(fields: [(&'static str, Value); N]) -> Value {
    Value::Record(fields.into())
}

/// A field for templates only.
pub(crate) fn hidden(value: impl Into<Value>) -> Value {
    Value::Hidden(Box::new(value.into()))
}

impl Value {
    /// The value of a field, whether JSON has it or not.
    pub(super) fn shown(&self) -> &Self {
        if let Self::Hidden(value) = self { value.shown() } else { self }
    }

    /// A field of JSON and of what a struct prints.
    fn is_plain(&self) -> bool {
        !matches!(self, Self::Hidden(_) | Self::Lookup(_))
    }

    /// What Go calls it in an error.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nil",
            Self::Bool(_) => "a bool",
            Self::Int(_) => "an integer",
            Self::Float(_) => "a float",
            Self::Text(_) => "a string",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
            Self::Record(_) => "a struct",
            Self::Lookup(_) => "a method",
            Self::Hidden(value) => value.kind(),
        }
    }

    /// Go's truth: neither zero nor empty.
    pub(super) fn is_true(&self) -> bool {
        match self {
            Self::Null => false,
            Self::Bool(truth) => *truth,
            Self::Int(number) => *number != 0,
            Self::Float(number) => *number != 0.0,
            Self::Text(text) => !text.is_empty(),
            Self::List(items) => !items.is_empty(),
            Self::Map(map) => !map.is_empty(),
            Self::Record(_) | Self::Lookup(_) => true,
            Self::Hidden(value) => value.is_true(),
        }
    }

    /// As Go's `%v` prints it, nested; a template's own output of nothing is `<no value>`.
    pub(super) fn print(&self, out: &mut String) {
        match self {
            Self::Null => out.push_str("<nil>"),
            Self::Bool(truth) => out.push_str(if *truth { "true" } else { "false" }),
            Self::Int(number) => push(out, number),
            Self::Float(number) => push(out, number),
            Self::Text(text) => out.push_str(text),
            Self::List(items) => spaced(out, "[", items.iter(), "]"),
            Self::Map(map) => {
                out.push_str("map[");
                for (index, (key, value)) in map.iter().enumerate() {
                    out.push_str(if index > 0 { " " } else { "" });
                    push(out, format_args!("{key}:"));
                    value.print(out);
                }
                out.push(']');
            }
            Self::Record(fields) => {
                let values = fields.iter().map(|(_, value)| value);
                spaced(out, "{", values.filter(|value| value.is_plain()), "}");
            }
            Self::Lookup(_) => out.push_str("<method>"),
            Self::Hidden(value) => value.print(out),
        }
    }

    /// As JSON in one line.
    pub(crate) fn json(&self) -> String {
        // A tree of plain values always serializes, and so does writing to memory.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// As JSON with docker's four spaces.
    pub(crate) fn json_pretty(&self) -> String {
        let mut out = Vec::new();
        let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
        let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
        match self.serialize(&mut serializer) {
            Ok(()) => String::from_utf8_lossy(&out).into_owned(),
            Err(_) => self.json(),
        }
    }
}

fn push(out: &mut String, value: impl std::fmt::Display) {
    // Writing to a String can't fail.
    let _ = write!(out, "{value}");
}

fn spaced<'a>(out: &mut String, open: &str, items: impl Iterator<Item = &'a Value>, close: &str) {
    out.push_str(open);
    for (index, item) in items.enumerate() {
        out.push_str(if index > 0 { " " } else { "" });
        item.print(out);
    }
    out.push_str(close);
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null | Self::Lookup(_) => serializer.serialize_unit(),
            Self::Hidden(value) => value.serialize(serializer),
            Self::Bool(truth) => serializer.serialize_bool(*truth),
            Self::Int(number) => serializer.serialize_i64(*number),
            Self::Float(number) => serializer.serialize_f64(*number),
            Self::Text(text) => serializer.serialize_str(text),
            Self::List(items) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                for item in items {
                    list.serialize_element(item)?;
                }
                list.end()
            }
            Self::Map(map) => serializer.collect_map(map),
            Self::Record(fields) => {
                let mut map = serializer.serialize_map(None)?;
                for (name, value) in fields {
                    if value.is_plain() {
                        map.serialize_entry(name, value)?;
                    }
                }
                map.end()
            }
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<bool> for Value {
    fn from(truth: bool) -> Self {
        Self::Bool(truth)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Int(number.into())
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<&serde_json::Value> for Value {
    fn from(value: &serde_json::Value) -> Self {
        use serde_json::Value as Json;
        match value {
            Json::Null => Self::Null,
            Json::Bool(truth) => Self::Bool(*truth),
            Json::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(number), _) => Self::Int(number),
                (None, Some(number)) => Self::Float(number),
                (None, None) => Self::Null,
            },
            Json::String(text) => Self::Text(text.clone()),
            Json::Array(items) => Self::List(items.iter().map(Into::into).collect()),
            Json::Object(map) => {
                Self::Map(map.iter().map(|(key, value)| (key.clone(), value.into())).collect())
            }
        }
    }
}

impl<T: Into<Value>> From<Vec<T>> for Value {
    fn from(items: Vec<T>) -> Self {
        Self::List(items.into_iter().map(Into::into).collect())
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl<T: Clone + Into<Value>> From<&std::collections::HashMap<String, T>> for Value {
    fn from(map: &std::collections::HashMap<String, T>) -> Self {
        Self::Map(map.iter().map(|(key, value)| (key.clone(), value.clone().into())).collect())
    }
}
