//! The part of Go's text/template that `--format` is used with.
//!
//! Actions, pipelines, variables, `if`, `else if`, `with`, `range`, `break`, `continue`, comments,
//! trim markers, and the functions that Go and docker give (see [`functions`]). Deliberately
//! absent: `define`, `template` and `block`, and methods other than [`Value::Lookup`].
//!
//! ```text
//! text ──lexer──▶ tokens ──parser──▶ nodes ──eval (with a Value)──▶ text
//! ```

mod eval;
mod functions;
mod lexer;
mod parser;
mod value;

pub(crate) use value::{Lookup, Value, hidden, record};

/// A template that can't be used, or can't be filled with what it was given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TemplateError {
    #[error("template: {{{{ without }}}}")]
    Unclosed,
    #[error("template: {0} without an end")]
    NoEnd(&'static str),
    #[error("template: unexpected {found}: want {want}")]
    Unexpected { found: String, want: &'static str },
    #[error("template: a quoted text does not end")]
    UnclosedText,
    #[error("template: unknown escape \\{0}")]
    Escape(char),
    #[error("template: unexpected character '{0}'")]
    Character(char),
    #[error("template: \"{0}\" is not a number")]
    Number(String),
    #[error("template: there is no function \"{0}\"")]
    Function(String),
    #[error("template: there is no variable \"{0}\"")]
    Variable(String),
    #[error("template: there is no field .{field}: there are {}", .known.join(", "))]
    Field { field: String, known: Vec<String> },
    #[error("template: .{field} is asked of {of}, which has no fields")]
    NoFields { field: String, of: &'static str },
    #[error("template: {0} takes no arguments")]
    NotCallable(String),
    #[error("template: {function}: want {want}")]
    Arguments { function: &'static str, want: &'static str },
    #[error("template: {function}: {index} is out of range: there are {len}")]
    OutOfRange { function: &'static str, index: i64, len: usize },
    #[error("template: {left} can't be compared with {right}")]
    Comparison { left: &'static str, right: &'static str },
    #[error("template: can't range over {0}")]
    Range(&'static str),
    #[error("template: {0} outside of range")]
    OutsideRange(&'static str),
    #[error("template: printf: the verb %{0} is not supported")]
    PrintfVerb(char),
    #[error("template: the result is longer than {0} bytes")]
    TooLong(usize),
}

/// A template, parsed.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    nodes: Vec<parser::Node>,
}

impl Template {
    pub(crate) fn parse(text: &str) -> Result<Self, TemplateError> {
        Ok(Self { nodes: parser::parse(lexer::lex(text)?)? })
    }

    /// Fills it with a value.
    pub(crate) fn render(&self, value: &Value) -> Result<String, TemplateError> {
        eval::render(&self.nodes, value)
    }
}

#[cfg(test)]
mod tests;
