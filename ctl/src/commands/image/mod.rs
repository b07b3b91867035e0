//! The verbs on images.

mod history;
pub(crate) mod images;
pub(super) mod inspect;
mod load;
mod prune;
pub(super) mod pull;
mod push;
mod rmi;
mod save;
mod tag;

use bosun_image::Reference;
use bosun_proto::v1::{GetImageRequest, Image, ListImagesRequest, RegistryAuth};

pub(super) use prune::{confirmed, report};

use crate::cli::image::{ImageNoun, ImageVerb};
use crate::client::{self, Client, Deadline};
use crate::credentials::{CredentialError, Credentials};
use crate::error::Error;
use crate::output;

pub(super) async fn run(client: &Client, verb: ImageNoun) -> Result<u8, Error> {
    match verb {
        ImageNoun::Short(verb) => match verb {
            ImageVerb::Pull(args) => pull::run(client, args).await,
            ImageVerb::Push(args) => push::run(client, args).await,
            ImageVerb::Images(args) => images::run(client, args).await,
            ImageVerb::Rmi(args) => rmi::run(client, args).await,
            ImageVerb::Tag(args) => tag::run(client, args).await,
            ImageVerb::History(args) => history::run(client, args).await,
            ImageVerb::Load(args) => load::load(client, args).await,
            ImageVerb::Import(args) => load::import(client, args).await,
            ImageVerb::Save(args) => save::run(client, args).await,
        },
        ImageNoun::Inspect(args) => inspect::run(client, args).await,
        ImageNoun::Prune(args) => prune::run(client, args).await,
    }
}

async fn get(client: &Client, image: &str, platform: &str) -> Result<Image, Error> {
    let request = GetImageRequest { image: image.to_owned(), platform: platform.to_owned() };
    client
        .call(Deadline::Short, request, |channel, request| async move {
            client::images(channel).get(request).await
        })
        .await
}

pub(super) async fn list(client: &Client, filters: Vec<String>) -> Result<Vec<Image>, Error> {
    let request = ListImagesRequest { filters };
    let answer = client.call(Deadline::Short, request, |channel, request| async move {
        client::images(channel).list(request).await
    });
    Ok(answer.await?.images)
}

/// The credentials for the registry of an image's name, and for no other. What is no name is the
/// daemon's to refuse. Most images are public: a store that can't be read is a warning.
async fn auth(image: &str) -> Option<RegistryAuth> {
    let reference: Reference = image.parse().ok()?;
    let found = match Credentials::open() {
        Ok(credentials) => credentials.find(reference.domain()).await,
        Err(error) => Err(error),
    };
    match found {
        Ok(found) => found,
        // A service without a home has no credentials to lose.
        Err(CredentialError::NoHome) => None,
        Err(error) => {
            output::warn(&format!("going on without credentials: {error}"));
            None
        }
    }
}
