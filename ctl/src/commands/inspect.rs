//! `ctl inspect`: containers, or else images. Shows those that exist, then complains about those that don't.

use super::image;
use crate::cli::container::{InspectArgs, Kind};
use crate::client::Client;
use crate::error::Error;
use crate::output;
use crate::template::{Template, Value};
use crate::view::inspection;

pub(super) async fn run(client: &Client, args: InspectArgs) -> Result<u8, Error> {
    let shape = Shape::new(args.format.as_deref())?;
    let mut found = Vec::new();
    let mut missing = Vec::new();
    for name in &args.names {
        match one(client, name, args.kind).await {
            Ok(value) => found.push(value),
            Err(error @ (Error::Refused(_) | Error::NoSuchObject(_) | Error::ImageConfig(_))) => {
                missing.push(error);
            }
            Err(error) => return Err(error),
        }
    }
    output::print(&shape.render(found)?)?;
    missing.iter().for_each(|error| output::complain(error));
    Ok(u8::from(!missing.is_empty()))
}

/// A container, or the image of this name when no container has it.
async fn one(client: &Client, name: &str, kind: Option<Kind>) -> Result<Value, Error> {
    if kind != Some(Kind::Image) {
        match client.get(name).await {
            Ok(container) => return Ok(inspection(&container)),
            Err(error) if kind == Some(Kind::Container) || !error.is_not_found() => {
                return Err(error);
            }
            Err(_) => {}
        }
    }
    let image = image::inspect::named(client, name).await?;
    image.ok_or_else(|| Error::NoSuchObject(name.to_owned()))
}

/// The form of an inspection: `--format`, docker's way.
#[derive(Debug)]
pub(super) enum Shape {
    /// An array over many lines.
    Pretty,
    /// An array in one line.
    Json,
    /// A line for each.
    Lines(Template),
}

impl Shape {
    pub(super) fn new(format: Option<&str>) -> Result<Self, Error> {
        Ok(match format {
            None | Some("") => Self::Pretty,
            Some("json") => Self::Json,
            Some(template) => Self::Lines(Template::parse(template)?),
        })
    }

    pub(super) fn render(&self, values: Vec<Value>) -> Result<String, Error> {
        match self {
            Self::Pretty => Ok(Value::List(values).json_pretty() + "\n"),
            Self::Json => Ok(Value::List(values).json() + "\n"),
            Self::Lines(template) => {
                let mut out = String::new();
                for value in &values {
                    out += &template.render(value)?;
                    out.push('\n');
                }
                Ok(out)
            }
        }
    }
}
