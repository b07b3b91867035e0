//! Nodes and a value to text.

use std::ops::ControlFlow;

use super::TemplateError;
use super::functions;
use super::parser::{Command, Keep, Node, Operand, Pipeline, Start};
use super::value::Value;

/// A template that prints more than this is a mistake.
const OUTPUT_MAX_LEN: usize = 64 << 20;

pub(super) fn render(nodes: &[Node], value: &Value) -> Result<String, TemplateError> {
    let mut state = State { out: String::new(), variables: vec![("$".to_owned(), value.clone())] };
    // A break outside of a range does not parse.
    let _ = state.walk(nodes, value)?;
    Ok(state.out)
}

/// What ended a round of a range early.
enum Jump {
    Break,
    Continue,
}

type Flow = ControlFlow<Jump>;

struct State {
    out: String,
    /// Innermost last; a block forgets its own at its end.
    variables: Vec<(String, Value)>,
}

impl State {
    fn walk(&mut self, nodes: &[Node], dot: &Value) -> Result<Flow, TemplateError> {
        for node in nodes {
            let flow = self.node(node, dot)?;
            if flow.is_break() {
                return Ok(flow);
            }
        }
        Ok(Flow::Continue(()))
    }

    fn node(&mut self, node: &Node, dot: &Value) -> Result<Flow, TemplateError> {
        match node {
            Node::Text(text) => self.out.push_str(text),
            Node::Action(pipeline) => {
                let value = self.pipeline(pipeline, dot)?;
                match (&pipeline.keep, value) {
                    (Keep::Nothing, Value::Null) => self.out.push_str("<no value>"),
                    (Keep::Nothing, value) => value.print(&mut self.out),
                    (Keep::Declare(_) | Keep::Assign(_), _) => {}
                }
            }
            Node::If { condition, then, otherwise } => {
                let scope = self.variables.len();
                let truth = self.pipeline(condition, dot)?.is_true();
                let flow = self.walk(if truth { then } else { otherwise }, dot);
                self.variables.truncate(scope);
                return flow;
            }
            Node::With { value, then, otherwise } => {
                let scope = self.variables.len();
                let value = self.pipeline(value, dot)?;
                let flow = if value.is_true() {
                    self.walk(then, &value)
                } else {
                    self.walk(otherwise, dot)
                };
                self.variables.truncate(scope);
                return flow;
            }
            Node::Range { items, body, otherwise } => {
                let scope = self.variables.len();
                let flow = self.range(items, body, otherwise, dot);
                self.variables.truncate(scope);
                return flow;
            }
            Node::Break => return Ok(Flow::Break(Jump::Break)),
            Node::Continue => return Ok(Flow::Break(Jump::Continue)),
        }
        if self.out.len() > OUTPUT_MAX_LEN {
            return Err(TemplateError::TooLong(OUTPUT_MAX_LEN));
        }
        Ok(Flow::Continue(()))
    }

    fn range(
        &mut self,
        items: &Pipeline,
        body: &[Node],
        otherwise: &[Node],
        dot: &Value,
    ) -> Result<Flow, TemplateError> {
        let numbered = |(index, item)| (Value::Int(i64::try_from(index).unwrap_or(i64::MAX)), item);
        let pairs: Vec<(Value, Value)> = match self.commands(&items.commands, dot)? {
            Value::Null => Vec::new(),
            Value::List(items) => items.into_iter().enumerate().map(numbered).collect(),
            Value::Map(map) => {
                map.into_iter().map(|(key, item)| (Value::Text(key), item)).collect()
            }
            Value::Int(end) => (0..end).map(|at| (Value::Int(at), Value::Int(at))).collect(),
            value @ (Value::Bool(_)
            | Value::Float(_)
            | Value::Text(_)
            | Value::Record(_)
            | Value::Lookup(_)
            | Value::Hidden(_)) => return Err(TemplateError::Range(value.kind())),
        };
        if pairs.is_empty() {
            return self.walk(otherwise, dot);
        }
        for (key, item) in pairs {
            let scope = self.variables.len();
            if let Keep::Declare(names) = &items.keep {
                match names.as_slice() {
                    [one] => self.variables.push((one.clone(), item.clone())),
                    [first, second] => {
                        self.variables.push((first.clone(), key));
                        self.variables.push((second.clone(), item.clone()));
                    }
                    _ => {}
                }
            }
            let flow = self.walk(body, &item)?;
            self.variables.truncate(scope);
            match flow {
                Flow::Continue(()) | Flow::Break(Jump::Continue) => {}
                Flow::Break(Jump::Break) => break,
            }
        }
        Ok(Flow::Continue(()))
    }

    fn pipeline(&mut self, pipeline: &Pipeline, dot: &Value) -> Result<Value, TemplateError> {
        let value = self.commands(&pipeline.commands, dot)?;
        match &pipeline.keep {
            Keep::Nothing => {}
            Keep::Declare(names) => {
                let all = names.iter().map(|name| (name.clone(), value.clone()));
                self.variables.extend(all);
            }
            Keep::Assign(name) => match self.variables.iter_mut().rfind(|(own, _)| own == name) {
                Some((_, slot)) => *slot = value.clone(),
                None => return Err(TemplateError::Variable(name.clone())),
            },
        }
        Ok(value)
    }

    fn commands(&mut self, commands: &[Command], dot: &Value) -> Result<Value, TemplateError> {
        let mut fed = None;
        for command in commands {
            fed = Some(self.command(command, dot, fed)?);
        }
        Ok(fed.unwrap_or(Value::Null))
    }

    fn command(
        &mut self,
        command: &Command,
        dot: &Value,
        fed: Option<Value>,
    ) -> Result<Value, TemplateError> {
        if let Operand::Function(name) = &command.first {
            if name == "and" || name == "or" {
                return self.short_circuit(name == "or", &command.arguments, dot, fed);
            }
            let arguments = self.arguments(command, dot, fed)?;
            return functions::call(name, &arguments);
        }
        let first = self.operand(&command.first, dot)?;
        let arguments = self.arguments(command, dot, fed)?;
        match (first, arguments.as_slice()) {
            (Value::Lookup(lookup), [Value::Text(key)]) => Ok(Value::Text(lookup.get(key))),
            (Value::Lookup(_), _) => {
                Err(TemplateError::Arguments { function: "method", want: "one string" })
            }
            (first, []) => Ok(first),
            (first, _) => Err(TemplateError::NotCallable(first.kind().to_owned())),
        }
    }

    fn arguments(
        &mut self,
        command: &Command,
        dot: &Value,
        fed: Option<Value>,
    ) -> Result<Vec<Value>, TemplateError> {
        let own = command.arguments.iter().map(|operand| self.operand(operand, dot));
        let mut all = own.collect::<Result<Vec<_>, _>>()?;
        all.extend(fed);
        Ok(all)
    }

    /// `or` stops at the first true argument, `and` at the first false one.
    fn short_circuit(
        &mut self,
        stop_at: bool,
        arguments: &[Operand],
        dot: &Value,
        fed: Option<Value>,
    ) -> Result<Value, TemplateError> {
        let mut last = None;
        for operand in arguments {
            let value = self.operand(operand, dot)?;
            if value.is_true() == stop_at {
                return Ok(value);
            }
            last = Some(value);
        }
        fed.or(last)
            .ok_or(TemplateError::Arguments { function: "and/or", want: "at least one value" })
    }

    fn operand(&mut self, operand: &Operand, dot: &Value) -> Result<Value, TemplateError> {
        match operand {
            Operand::Literal(value) => Ok(value.clone()),
            Operand::Function(name) => functions::call(name, &[]),
            Operand::Path(Start::Dot, fields) => walk_fields(dot, fields).cloned(),
            Operand::Path(Start::Variable(name), fields) => {
                let known = self.variables.iter().rfind(|(own, _)| own == name);
                let (_, value) = known.ok_or_else(|| TemplateError::Variable(name.clone()))?;
                walk_fields(value, fields).cloned()
            }
            Operand::Path(Start::Group(inner), fields) => {
                let value = self.pipeline(inner, dot)?;
                walk_fields(&value, fields).cloned()
            }
        }
    }
}

fn walk_fields<'a>(value: &'a Value, fields: &[String]) -> Result<&'a Value, TemplateError> {
    fields.iter().try_fold(value, |value, field| match value {
        Value::Record(known) => {
            known.iter().find(|(name, _)| name == field).map(|(_, value)| value.shown()).ok_or_else(
                || TemplateError::Field {
                    field: field.clone(),
                    known: known.iter().map(|(name, _)| format!(".{name}")).collect(),
                },
            )
        }
        Value::Map(map) => Ok(map.get(field).unwrap_or(&Value::Null)),
        Value::Null
        | Value::Bool(_)
        | Value::Int(_)
        | Value::Float(_)
        | Value::Text(_)
        | Value::List(_)
        | Value::Lookup(_)
        | Value::Hidden(_) => {
            Err(TemplateError::NoFields { field: field.clone(), of: value.kind() })
        }
    })
}
