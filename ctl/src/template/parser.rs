//! Tokens to nodes, by recursive descent.

use super::TemplateError;
use super::lexer::Token;
use super::value::Value;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    Text(String),
    Action(Pipeline),
    If { condition: Pipeline, then: Vec<Node>, otherwise: Vec<Node> },
    With { value: Pipeline, then: Vec<Node>, otherwise: Vec<Node> },
    Range { items: Pipeline, body: Vec<Node>, otherwise: Vec<Node> },
    Break,
    Continue,
}

/// Commands, each fed the result of the one before, perhaps kept in variables.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pipeline {
    pub(super) keep: Keep,
    pub(super) commands: Vec<Command>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Keep {
    Nothing,
    /// `$x :=`, or `$i, $x :=` in a range.
    Declare(Vec<String>),
    /// `$x =`.
    Assign(String),
}

/// A function, method or value, and its arguments.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Command {
    pub(super) first: Operand,
    pub(super) arguments: Vec<Operand>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Operand {
    Literal(Value),
    Function(String),
    /// A start and the fields asked of it, one after the other.
    Path(Start, Vec<String>),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Start {
    Dot,
    Variable(String),
    Group(Box<Pipeline>),
}

pub(super) fn parse(tokens: Vec<Token>) -> Result<Vec<Node>, TemplateError> {
    let mut parser = Parser { tokens: tokens.into_iter().peekable(), range_depth: 0 };
    let (nodes, ending) = parser.nodes()?;
    match ending {
        Ending::Text => Ok(nodes),
        Ending::End => Err(unexpected("end", "text or an action")),
        Ending::Else => Err(unexpected("else", "text or an action")),
    }
}

/// What ended a list of nodes. After `Else`, the action is still open.
#[derive(PartialEq)]
enum Ending {
    Text,
    End,
    Else,
}

struct Parser {
    tokens: std::iter::Peekable<std::vec::IntoIter<Token>>,
    range_depth: usize,
}

fn unexpected(found: &str, want: &'static str) -> TemplateError {
    TemplateError::Unexpected { found: found.to_owned(), want }
}

fn shown(token: Option<Token>) -> String {
    match token {
        None => "end of the template".to_owned(),
        Some(Token::Close) => "}}".to_owned(),
        Some(Token::Word(word)) => word,
        Some(Token::Field { name, .. }) => format!(".{name}"),
        Some(Token::Variable(name)) => name,
        Some(Token::Quoted(text)) => format!("{text:?}"),
        Some(token) => format!("{token:?}").to_lowercase(),
    }
}

impl Parser {
    fn nodes(&mut self) -> Result<(Vec<Node>, Ending), TemplateError> {
        let mut nodes = Vec::new();
        loop {
            match self.tokens.next() {
                None => return Ok((nodes, Ending::Text)),
                Some(Token::Text(text)) => nodes.push(Node::Text(text)),
                Some(Token::Open) => {
                    let keyword = match self.tokens.peek() {
                        Some(Token::Word(word)) => word.clone(),
                        _ => String::new(),
                    };
                    match keyword.as_str() {
                        "end" => {
                            self.tokens.next();
                            self.close()?;
                            return Ok((nodes, Ending::End));
                        }
                        "else" => {
                            self.tokens.next();
                            return Ok((nodes, Ending::Else));
                        }
                        _ => nodes.push(self.action(&keyword)?),
                    }
                }
                token => return Err(unexpected(&shown(token), "text or an action")),
            }
        }
    }

    fn action(&mut self, keyword: &str) -> Result<Node, TemplateError> {
        match keyword {
            "if" | "with" | "range" => {
                self.tokens.next();
                self.block(keyword)
            }
            "break" | "continue" => {
                self.tokens.next();
                self.close()?;
                let (node, name) = if keyword == "break" {
                    (Node::Break, "break")
                } else {
                    (Node::Continue, "continue")
                };
                if self.range_depth == 0 {
                    return Err(TemplateError::OutsideRange(name));
                }
                Ok(node)
            }
            "define" | "template" | "block" => {
                Err(unexpected(keyword, "an action that is supported here"))
            }
            _ => {
                let pipeline = self.pipeline(1)?;
                self.close()?;
                Ok(Node::Action(pipeline))
            }
        }
    }

    /// `if`, `with` or `range`, its word taken already.
    fn block(&mut self, keyword: &str) -> Result<Node, TemplateError> {
        let ranges = keyword == "range";
        let name = match keyword {
            "if" => "if",
            "with" => "with",
            _ => "range",
        };
        let head = self.pipeline(if ranges { 2 } else { 1 })?;
        self.close()?;
        self.range_depth += usize::from(ranges);
        let body = self.nodes();
        self.range_depth -= usize::from(ranges);
        let (body, ending) = body?;
        let otherwise = match ending {
            Ending::Text => return Err(TemplateError::NoEnd(name)),
            Ending::End => Vec::new(),
            Ending::Else => self.otherwise(name)?,
        };
        Ok(match name {
            "if" => Node::If { condition: head, then: body, otherwise },
            "with" => Node::With { value: head, then: body, otherwise },
            _ => Node::Range { items: head, body, otherwise },
        })
    }

    /// After `else`: its own nodes, or an `if` or `with` that shares the `end`.
    fn otherwise(&mut self, name: &'static str) -> Result<Vec<Node>, TemplateError> {
        if let Some(Token::Word(word)) = self.tokens.peek()
            && word == name
            && name != "range"
        {
            self.tokens.next();
            return Ok(vec![self.block(name)?]);
        }
        self.close()?;
        match self.nodes()? {
            (nodes, Ending::End) => Ok(nodes),
            (_, Ending::Text) => Err(TemplateError::NoEnd("else")),
            (_, Ending::Else) => Err(unexpected("else", "end")),
        }
    }

    fn close(&mut self) -> Result<(), TemplateError> {
        match self.tokens.next() {
            Some(Token::Close) => Ok(()),
            token => Err(unexpected(&shown(token), "}}")),
        }
    }

    fn pipeline(&mut self, variables: usize) -> Result<Pipeline, TemplateError> {
        let mut keep = Keep::Nothing;
        let mut first = None;
        if let Some(Token::Variable(name)) = self.tokens.peek().cloned() {
            self.tokens.next();
            match self.tokens.peek() {
                Some(Token::Declare) => {
                    self.tokens.next();
                    keep = Keep::Declare(vec![name]);
                }
                Some(Token::Assign) => {
                    self.tokens.next();
                    keep = Keep::Assign(name);
                }
                Some(Token::Comma) if variables == 2 => {
                    self.tokens.next();
                    keep = Keep::Declare(vec![name, self.second_variable()?]);
                }
                _ => first = Some(self.path(Start::Variable(name))),
            }
        }
        let mut commands = vec![self.command(first)?];
        while self.tokens.next_if_eq(&Token::Pipe).is_some() {
            commands.push(self.command(None)?);
        }
        Ok(Pipeline { keep, commands })
    }

    fn second_variable(&mut self) -> Result<String, TemplateError> {
        match (self.tokens.next(), self.tokens.next()) {
            (Some(Token::Variable(name)), Some(Token::Declare)) => Ok(name),
            (token, _) => Err(unexpected(&shown(token), "$NAME :=")),
        }
    }

    fn command(&mut self, first: Option<Operand>) -> Result<Command, TemplateError> {
        let first = match first {
            Some(first) => first,
            None => match self.operand()? {
                Some(first) => first,
                None => {
                    let found = shown(self.tokens.next());
                    return Err(unexpected(&found, "a value or a function"));
                }
            },
        };
        let mut arguments = Vec::new();
        while let Some(operand) = self.operand()? {
            arguments.push(operand);
        }
        Ok(Command { first, arguments })
    }

    /// The next operand, if the command has one more.
    fn operand(&mut self) -> Result<Option<Operand>, TemplateError> {
        let ends =
            matches!(self.tokens.peek(), None | Some(Token::Close | Token::Right | Token::Pipe));
        if ends {
            return Ok(None);
        }
        Ok(Some(match self.tokens.next() {
            Some(Token::Word(word)) => match word.as_str() {
                "true" => Operand::Literal(Value::Bool(true)),
                "false" => Operand::Literal(Value::Bool(false)),
                "nil" => Operand::Literal(Value::Null),
                _ => Operand::Function(word),
            },
            Some(Token::Quoted(text)) => Operand::Literal(Value::Text(text)),
            Some(Token::Int(number)) => Operand::Literal(Value::Int(number)),
            Some(Token::Float(number)) => Operand::Literal(Value::Float(number)),
            Some(Token::Dot) => Operand::Path(Start::Dot, Vec::new()),
            Some(Token::Field { name, .. }) => self.path_from(Start::Dot, vec![name]),
            Some(Token::Variable(name)) => self.path(Start::Variable(name)),
            Some(Token::Left) => {
                let inner = self.pipeline(1)?;
                match self.tokens.next() {
                    Some(Token::Right) => self.path(Start::Group(Box::new(inner))),
                    token => return Err(unexpected(&shown(token), ")")),
                }
            }
            token => return Err(unexpected(&shown(token), "a value or a function")),
        }))
    }

    fn path(&mut self, start: Start) -> Operand {
        self.path_from(start, Vec::new())
    }

    fn path_from(&mut self, start: Start, mut fields: Vec<String>) -> Operand {
        while let Some(Token::Field { name, glued: true }) = self.tokens.peek() {
            fields.push(name.clone());
            self.tokens.next();
        }
        Operand::Path(start, fields)
    }
}
