//! The functions of templates: Go's own (print, printf, println, len, index, slice, comparisons,
//! not) and docker's (json, join, split, lower, upper, title, pad, truncate, println). `and` and
//! `or` do not evaluate all their arguments and so live in [`super::eval`].

use std::cmp::Ordering;

use super::TemplateError;
use super::value::Value;

/// docker's `pad` makes at most this many spaces; a number in a template is not trusted.
const PAD_MAX: i64 = 10_000;

pub(super) fn call(name: &str, arguments: &[Value]) -> Result<Value, TemplateError> {
    match (name, arguments) {
        ("json", [value]) => Ok(Value::Text(value.json())),
        ("json", _) => wrong("json", "one value"),
        ("print", all) => Ok(Value::Text(print(all))),
        ("println", all) => Ok(Value::Text(println(all))),
        ("printf", [Value::Text(format), rest @ ..]) => printf(format, rest).map(Value::Text),
        ("printf", _) => wrong("printf", "a format, then values"),
        ("len", [value]) => len(value),
        ("len", _) => wrong("len", "one value"),
        ("index", [value, keys @ ..]) => keys.iter().try_fold(value.clone(), index),
        ("index", _) => wrong("index", "a list or a map, then indices"),
        ("slice", [value, bounds @ ..]) => slice(value, bounds),
        ("slice", _) => wrong("slice", "a list or a string, then bounds"),
        ("not", [value]) => Ok(Value::Bool(!value.is_true())),
        ("not", _) => wrong("not", "one value"),
        ("eq", [first, others @ ..]) if !others.is_empty() => equal_to_any(first, others),
        ("eq", _) => wrong("eq", "at least two values"),
        ("ne", [left, right]) => Ok(Value::Bool(compare(left, right)? != Ordering::Equal)),
        ("lt", [left, right]) => Ok(Value::Bool(order(left, right)?.is_lt())),
        ("le", [left, right]) => Ok(Value::Bool(order(left, right)?.is_le())),
        ("gt", [left, right]) => Ok(Value::Bool(order(left, right)?.is_gt())),
        ("ge", [left, right]) => Ok(Value::Bool(order(left, right)?.is_ge())),
        ("ne" | "lt" | "le" | "gt" | "ge", _) => wrong("comparison", "two values"),
        ("join", [Value::List(items), Value::Text(separator)]) => {
            let items: Vec<String> = items.iter().map(printed).collect();
            Ok(Value::Text(items.join(separator)))
        }
        ("join", _) => wrong("join", "a list and a string"),
        ("split", [Value::Text(text), Value::Text(separator)]) => {
            Ok(text.split(separator.as_str()).map(str::to_owned).collect::<Vec<_>>().into())
        }
        ("split", _) => wrong("split", "two strings"),
        ("lower", [Value::Text(text)]) => Ok(Value::Text(text.to_lowercase())),
        ("lower", _) => wrong("lower", "a string"),
        ("upper", [Value::Text(text)]) => Ok(Value::Text(text.to_uppercase())),
        ("upper", _) => wrong("upper", "a string"),
        ("title", [Value::Text(text)]) => Ok(Value::Text(title(text))),
        ("title", _) => wrong("title", "a string"),
        ("pad", [Value::Text(text), Value::Int(before), Value::Int(after)]) => {
            Ok(Value::Text(pad(text, *before, *after)))
        }
        ("pad", _) => wrong("pad", "a string and two numbers"),
        ("truncate", [Value::Text(text), Value::Int(len)]) => {
            let len = usize::try_from(*len).unwrap_or(0);
            Ok(Value::Text(text.chars().take(len).collect()))
        }
        ("truncate", _) => wrong("truncate", "a string and a number"),
        _ => Err(TemplateError::Function(name.to_owned())),
    }
}

fn wrong(function: &'static str, want: &'static str) -> Result<Value, TemplateError> {
    Err(TemplateError::Arguments { function, want })
}

fn printed(value: &Value) -> String {
    let mut out = String::new();
    value.print(&mut out);
    out
}

/// Go's Print: a space between two values of which neither is a string.
fn print(values: &[Value]) -> String {
    let mut out = String::new();
    let mut was_text = true;
    for value in values {
        let is_text = matches!(value, Value::Text(_));
        if !was_text && !is_text {
            out.push(' ');
        }
        value.print(&mut out);
        was_text = is_text;
    }
    out
}

fn println(values: &[Value]) -> String {
    let mut line = values.iter().map(printed).collect::<Vec<_>>().join(" ");
    line.push('\n');
    line
}

/// Go's Printf with %v %s %d %q %t %f %x %%, flags `-` and `0`, width and precision.
fn printf(format: &str, values: &[Value]) -> Result<String, TemplateError> {
    let mut out = String::new();
    let mut values = values.iter();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let (mut left, mut zeros) = (false, false);
        while let Some(flag) = chars.next_if(|c| matches!(c, '-' | '0' | '+' | '#')) {
            left |= flag == '-';
            zeros |= flag == '0';
        }
        let mut number = || {
            let mut digits = String::new();
            while let Some(digit) = chars.next_if(char::is_ascii_digit) {
                digits.push(digit);
            }
            digits.parse::<usize>().ok().map(|width| width.min(10_000))
        };
        let width = number().unwrap_or(0);
        let precision =
            if chars.next_if_eq(&'.').is_some() { Some(number_at(&mut chars)) } else { None };
        let verb = chars.next().ok_or(TemplateError::PrintfVerb(' '))?;
        if verb == '%' {
            out.push('%');
            continue;
        }
        let text = match values.next() {
            Some(value) => formatted(verb, precision, value)?,
            None => format!("%!{verb}(MISSING)"),
        };
        let fill = width.saturating_sub(text.chars().count());
        let numeric = matches!(verb, 'd' | 'f' | 'x');
        match (left, zeros && numeric) {
            (true, _) => out.extend([text.as_str(), &" ".repeat(fill)]),
            (false, true) => out.extend(["0".repeat(fill).as_str(), &text]),
            (false, false) => out.extend([" ".repeat(fill).as_str(), &text]),
        }
    }
    Ok(out)
}

fn number_at(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> usize {
    let mut number = 0_usize;
    while let Some(digit) = chars.next_if(char::is_ascii_digit) {
        number = (number * 10 + usize::try_from(digit.to_digit(10).unwrap_or(0)).unwrap_or(0))
            .min(10_000);
    }
    number
}

fn formatted(verb: char, precision: Option<usize>, value: &Value) -> Result<String, TemplateError> {
    let cut = |text: String| match precision {
        Some(len) => text.chars().take(len).collect(),
        None => text,
    };
    Ok(match (verb, value) {
        ('v' | 's', value) => cut(printed(value)),
        ('d', Value::Int(number)) => number.to_string(),
        ('x', Value::Int(number)) => format!("{number:x}"),
        ('q', value) => format!("{:?}", printed(value)),
        ('t', Value::Bool(truth)) => truth.to_string(),
        ('f', Value::Float(number)) => format!("{number:.*}", precision.unwrap_or(6)),
        ('d' | 'x' | 't' | 'f', value) => format!("%!{verb}({}={})", value.kind(), printed(value)),
        _ => return Err(TemplateError::PrintfVerb(verb)),
    })
}

fn len(value: &Value) -> Result<Value, TemplateError> {
    let len = match value {
        Value::Null => 0,
        Value::Text(text) => text.len(),
        Value::List(items) => items.len(),
        Value::Map(map) => map.len(),
        Value::Bool(_)
        | Value::Int(_)
        | Value::Float(_)
        | Value::Record(_)
        | Value::Lookup(_)
        | Value::Hidden(_) => {
            return wrong("len", "a list, a map or a string");
        }
    };
    Ok(Value::Int(i64::try_from(len).unwrap_or(i64::MAX)))
}

fn index(value: Value, key: &Value) -> Result<Value, TemplateError> {
    match (value, key) {
        (Value::List(items), Value::Int(at)) => {
            let found = usize::try_from(*at).ok().and_then(|at| items.get(at)).cloned();
            found.ok_or(TemplateError::OutOfRange {
                function: "index",
                index: *at,
                len: items.len(),
            })
        }
        (Value::Map(map), Value::Text(key)) => Ok(match map.get(key) {
            Some(value) => value.clone(),
            // The zero value: of a map of strings, an empty one.
            None if map.values().any(|value| matches!(value, Value::Text(_))) => "".into(),
            None => Value::Null,
        }),
        (Value::Record(fields), Value::Text(key)) => {
            let found = fields.iter().find(|(name, _)| name == key);
            Ok(found.map_or(Value::Null, |(_, value)| value.shown().clone()))
        }
        (Value::Text(text), Value::Int(at)) => {
            let byte = usize::try_from(*at).ok().and_then(|at| text.as_bytes().get(at));
            byte.map(|byte| Value::Int((*byte).into())).ok_or(TemplateError::OutOfRange {
                function: "index",
                index: *at,
                len: text.len(),
            })
        }
        (Value::Null, _) => Ok(Value::Null),
        _ => wrong("index", "a list and numbers, or a map and strings"),
    }
}

fn slice(value: &Value, bounds: &[Value]) -> Result<Value, TemplateError> {
    let len = match value {
        Value::Text(text) => text.len(),
        Value::List(items) => items.len(),
        Value::Null
        | Value::Bool(_)
        | Value::Int(_)
        | Value::Float(_)
        | Value::Map(_)
        | Value::Record(_)
        | Value::Lookup(_)
        | Value::Hidden(_) => return wrong("slice", "a list or a string, then bounds"),
    };
    let bound = |at: usize, default: usize| match bounds.get(at) {
        None => Ok(default),
        Some(Value::Int(bound)) => usize::try_from(*bound)
            .ok()
            .filter(|bound| *bound <= len)
            .ok_or(TemplateError::OutOfRange { function: "slice", index: *bound, len }),
        Some(_) => Err(TemplateError::Arguments { function: "slice", want: "numbers as bounds" }),
    };
    let (from, to) = (bound(0, 0)?, bound(1, len)?);
    let out_of_range = TemplateError::OutOfRange {
        function: "slice",
        index: i64::try_from(from).unwrap_or(i64::MAX),
        len: to,
    };
    if bounds.len() > 2 || from > to {
        return Err(out_of_range);
    }
    match value {
        Value::Text(text) => text.get(from..to).map(Value::from).ok_or(out_of_range),
        Value::List(items) => Ok(Value::List(items[from..to].to_vec())),
        Value::Null
        | Value::Bool(_)
        | Value::Int(_)
        | Value::Float(_)
        | Value::Map(_)
        | Value::Record(_)
        | Value::Lookup(_)
        | Value::Hidden(_) => wrong("slice", "a list or a string, then bounds"),
    }
}

fn equal_to_any(first: &Value, others: &[Value]) -> Result<Value, TemplateError> {
    for other in others {
        if compare(first, other)? == Ordering::Equal {
            return Ok(Value::Bool(true));
        }
    }
    Ok(Value::Bool(false))
}

/// Equality, as an ordering that tells only equal from unequal for what has no order.
fn compare(left: &Value, right: &Value) -> Result<Ordering, TemplateError> {
    match (left, right) {
        (Value::Bool(left), Value::Bool(right)) => Ok(left.cmp(right)),
        (Value::Null, Value::Null) => Ok(Ordering::Equal),
        (Value::Null, _) | (_, Value::Null) => Ok(Ordering::Less),
        _ => order(left, right),
    }
}

fn order(left: &Value, right: &Value) -> Result<Ordering, TemplateError> {
    let mixed = TemplateError::Comparison { left: left.kind(), right: right.kind() };
    match (left, right) {
        (Value::Int(left), Value::Int(right)) => Ok(left.cmp(right)),
        (Value::Float(left), Value::Float(right)) => left.partial_cmp(right).ok_or(mixed),
        (Value::Text(left), Value::Text(right)) => Ok(left.cmp(right)),
        _ => Err(mixed),
    }
}

fn title(text: &str) -> String {
    let mut start = true;
    text.chars()
        .flat_map(|c| {
            let upper = start && c.is_alphabetic();
            start = c.is_whitespace();
            if upper { c.to_uppercase().collect::<Vec<_>>() } else { vec![c] }
        })
        .collect()
}

fn pad(text: &str, before: i64, after: i64) -> String {
    if text.is_empty() {
        return String::new();
    }
    let spaces = |count: i64| " ".repeat(usize::try_from(count.clamp(0, PAD_MAX)).unwrap_or(0));
    format!("{}{text}{}", spaces(before), spaces(after))
}
