//! `ctl image inspect`.

use tonic::Code;

use crate::cli::image::InspectArgs;
use crate::client::Client;
use crate::commands::inspect::Shape;
use crate::error::Error;
use crate::output;
use crate::template::Value;
use crate::view::image::inspection;

pub(super) async fn run(client: &Client, args: InspectArgs) -> Result<u8, Error> {
    let shape = Shape::new(args.format.as_deref())?;
    let mut found = Vec::new();
    let mut missing = Vec::new();
    for name in &args.images {
        match one(client, name, &args.platform).await {
            Ok(image) => found.push(image),
            Err(error @ (Error::Refused(_) | Error::ImageConfig(_))) => missing.push(error),
            Err(error) => return Err(error),
        }
    }
    output::print(&shape.render(found)?)?;
    missing.iter().for_each(|error| output::complain(error));
    Ok(u8::from(!missing.is_empty()))
}

/// An image with all its names.
async fn one(client: &Client, name: &str, platform: &str) -> Result<Value, Error> {
    let image = super::get(client, name, platform).await?;
    let namesakes = super::list(client, Vec::new()).await?;
    inspection(&image, &namesakes).ok_or_else(|| Error::ImageConfig(name.to_owned()))
}

/// What `ctl inspect` shows when no container has the name: an image, or nothing when there is none
/// either.
pub(in crate::commands) async fn named(
    client: &Client,
    name: &str,
) -> Result<Option<Value>, Error> {
    match one(client, name, "").await {
        Ok(image) => Ok(Some(image)),
        // A container's name need not be one that an image could have.
        Err(Error::Refused(status))
            if matches!(
                status.code(),
                Code::NotFound | Code::InvalidArgument | Code::Unimplemented
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The daemon answered without the part of the image that was asked for.
pub(super) fn absent(client: &Client) -> Error {
    client.bad_answer("the image's content")
}
