//! Template text to tokens. Trim markers and comments end here.

use super::TemplateError;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// What stands outside of actions.
    Text(String),
    /// `{{` and `}}`.
    Open,
    Close,
    /// A keyword or a function.
    Word(String),
    /// `.Name`; the flag tells whether a space or an opening stands before it, so that `f .A` and
    /// `(f).A` differ.
    Field {
        name: String,
        glued: bool,
    },
    /// `.` alone.
    Dot,
    /// `$name`, the name with its dollar.
    Variable(String),
    Quoted(String),
    Int(i64),
    Float(f64),
    Pipe,
    Comma,
    Declare,
    Assign,
    Left,
    Right,
}

pub(super) fn lex(text: &str) -> Result<Vec<Token>, TemplateError> {
    let mut tokens = Vec::new();
    let mut rest = text;
    let mut trim_next = false;
    loop {
        let start = rest.find("{{");
        let (mut plain, action) = match start {
            Some(at) => (&rest[..at], Some(&rest[at + 2..])),
            None => (rest, None),
        };
        if trim_next {
            plain = plain.trim_start();
        }
        let Some(mut action) = action else {
            push_text(&mut tokens, plain);
            return Ok(tokens);
        };
        // `{{- ` trims, `{{-3}}` is a number.
        if let Some(trimmed) = action.strip_prefix('-')
            && trimmed.starts_with(char::is_whitespace)
        {
            action = trimmed;
            plain = plain.trim_end();
        }
        push_text(&mut tokens, plain);
        (rest, trim_next) = match comment_end(action)? {
            Some(end) => end,
            None => lex_action(action, &mut tokens)?,
        };
    }
}

fn push_text(tokens: &mut Vec<Token>, text: &str) {
    if !text.is_empty() {
        tokens.push(Token::Text(text.to_owned()));
    }
}

/// What follows a comment, when the action is one, and whether it trims what follows.
fn comment_end(action: &str) -> Result<Option<(&str, bool)>, TemplateError> {
    let Some(body) = action.trim_start().strip_prefix("/*") else { return Ok(None) };
    let (_, after) = body.split_once("*/").ok_or(TemplateError::Unclosed)?;
    if let Some(rest) = after.strip_prefix("}}") {
        return Ok(Some((rest, false)));
    }
    let rest = after.trim_start().strip_prefix("-}}").ok_or(TemplateError::Unclosed)?;
    Ok(Some((rest, true)))
}

/// The tokens of one action; what follows it, and whether it trims that.
fn lex_action<'a>(
    action: &'a str,
    tokens: &mut Vec<Token>,
) -> Result<(&'a str, bool), TemplateError> {
    tokens.push(Token::Open);
    let mut rest = action;
    let mut spaced = true;
    loop {
        if let Some(after) = rest.strip_prefix("}}") {
            tokens.push(Token::Close);
            return Ok((after, false));
        }
        if spaced && let Some(after) = rest.strip_prefix("-}}") {
            tokens.push(Token::Close);
            return Ok((after, true));
        }
        let first = rest.chars().next().ok_or(TemplateError::Unclosed)?;
        if first.is_whitespace() {
            rest = rest.trim_start();
            spaced = true;
            continue;
        }
        let (token, len) = token(rest, first, spaced)?;
        spaced = matches!(token, Token::Left | Token::Pipe | Token::Comma);
        tokens.push(token);
        rest = &rest[len..];
    }
}

/// The token at the start, and its length in bytes.
fn token(rest: &str, first: char, spaced: bool) -> Result<(Token, usize), TemplateError> {
    if rest.starts_with(":=") {
        return Ok((Token::Declare, 2));
    }
    match first {
        '|' => Ok((Token::Pipe, 1)),
        ',' => Ok((Token::Comma, 1)),
        '=' => Ok((Token::Assign, 1)),
        '(' => Ok((Token::Left, 1)),
        ')' => Ok((Token::Right, 1)),
        '"' => quoted(rest),
        '`' => {
            let end = rest[1..].find('`').ok_or(TemplateError::UnclosedText)?;
            Ok((Token::Quoted(rest[1..=end].to_owned()), end + 2))
        }
        '.' => {
            let name = word(&rest[1..]);
            if !name.is_empty() {
                return Ok((
                    Token::Field { name: name.to_owned(), glued: !spaced },
                    1 + name.len(),
                ));
            }
            if rest[1..].starts_with(|c: char| c.is_ascii_digit()) {
                return number(rest);
            }
            Ok((Token::Dot, 1))
        }
        '$' => {
            let name = word(&rest[1..]);
            Ok((Token::Variable(format!("${name}")), 1 + name.len()))
        }
        '+' | '-' | '0'..='9' => number(rest),
        c if c.is_alphabetic() || c == '_' => {
            let name = word(rest);
            Ok((Token::Word(name.to_owned()), name.len()))
        }
        c => Err(TemplateError::Character(c)),
    }
}

/// The name at the start, perhaps empty.
fn word(text: &str) -> &str {
    let starts = text.starts_with(|c: char| c.is_alphabetic() || c == '_');
    let len = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    if starts { &text[..len] } else { "" }
}

fn number(text: &str) -> Result<(Token, usize), TemplateError> {
    let len = text
        .char_indices()
        .find(|(at, c)| !(c.is_alphanumeric() || *c == '.' || (*at == 0 && matches!(c, '+' | '-'))))
        .map_or(text.len(), |(at, _)| at);
    let digits = &text[..len];
    if let Ok(number) = digits.parse() {
        return Ok((Token::Int(number), len));
    }
    let number = digits.parse().map_err(|_| TemplateError::Number(digits.to_owned()))?;
    Ok((Token::Float(number), len))
}

fn quoted(text: &str) -> Result<(Token, usize), TemplateError> {
    let mut value = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((Token::Quoted(value), at + 1)),
            '\\' => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, 't')) => value.push('\t'),
                Some((_, 'r')) => value.push('\r'),
                Some((_, c @ ('"' | '\\' | '\''))) => value.push(c),
                Some((_, c)) => return Err(TemplateError::Escape(c)),
                None => return Err(TemplateError::UnclosedText),
            },
            c => value.push(c),
        }
    }
    Err(TemplateError::UnclosedText)
}
