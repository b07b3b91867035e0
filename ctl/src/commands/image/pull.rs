//! `ctl pull`, and what `run` and `create` do about an image that is missing.

use bosun_image::Reference;
use bosun_proto::v1::pull_response::Event;
use bosun_proto::v1::{PullDone, PullRequest, Resolved};

use crate::cli::image::PullArgs;
use crate::client::{self, Client};
use crate::error::Error;
use crate::output;
use crate::progress::{Channel, Direction, Display};
use crate::view::image::familiar;

pub(super) async fn run(client: &Client, args: PullArgs) -> Result<u8, Error> {
    let PullArgs { quiet, platform, all_platforms, image } = args;
    let request = PullRequest {
        request_id: client::request_id()?,
        auth: super::auth(&image).await,
        reference: image,
        platform,
        all_platforms,
        ..PullRequest::default()
    };
    let reference = request.reference.clone();
    let done = pull(client, request, Channel::Stdout, quiet).await?;
    let name = done.image.map_or(reference, |image| image.name);
    output::print(&format!("{name}\n"))?;
    Ok(0)
}

/// Pulls what a container is to be made of, beside its output.
pub(in crate::commands) async fn for_container(
    client: &Client,
    image: &str,
    platform: &str,
    quiet: bool,
) -> Result<(), Error> {
    let request = PullRequest {
        request_id: client::request_id()?,
        reference: image.to_owned(),
        platform: platform.to_owned(),
        auth: super::auth(image).await,
        ..PullRequest::default()
    };
    pull(client, request, Channel::Stderr, quiet).await.map(|_| ())
}

async fn pull(
    client: &Client,
    request: PullRequest,
    channel: Channel,
    quiet: bool,
) -> Result<PullDone, Error> {
    let mut display = Display::new(Direction::Pull, channel, quiet);
    let asked: Option<Reference> = request.reference.parse().ok();
    let is_bare = |asked: &Reference| {
        asked.digest().is_none() && !request.reference.ends_with(&tag_suffix(asked))
    };
    if asked.as_ref().is_some_and(is_bare) {
        display.say("Using default tag: latest")?;
    }
    let mut resolved = false;
    let method = |channel, request| async move { client::images(channel).pull(request).await };
    let done = client.joined(request.clone(), method, |response| {
        match response.event {
            // Said once, however often the pull is joined.
            Some(Event::Resolved(found)) if !resolved => {
                resolved = true;
                display.say(&pulling_from(&found))?;
            }
            Some(Event::Progress(progress)) => display.update(&progress)?,
            Some(Event::Done(done)) => return Ok(Some(done)),
            Some(Event::Resolved(_)) | None => {}
        }
        Ok(None)
    });
    let done = done.await;
    display.finish()?;
    let done = done?;
    let image = done.image.clone().unwrap_or_default();
    let name = familiar(if image.name.is_empty() { &request.reference } else { &image.name });
    if let Some(target) = &image.target {
        display.say(&format!("Digest: {}", target.digest))?;
    }
    display.say(&if done.up_to_date {
        format!("Status: Image is up to date for {name}")
    } else {
        format!("Status: Downloaded newer image for {name}")
    })?;
    Ok(done)
}

fn tag_suffix(reference: &Reference) -> String {
    reference.tag().map(|tag| format!(":{tag}")).unwrap_or_default()
}

/// `12: Pulling from library/debian`
fn pulling_from(resolved: &Resolved) -> String {
    let Ok(name) = resolved.name.parse::<Reference>() else {
        return format!("Pulling {}", output::escaped(&resolved.name));
    };
    let digest = name.digest().map(ToString::to_string);
    let version = name.tag().map(str::to_owned).or(digest).unwrap_or_default();
    format!("{version}: Pulling from {}", name.path())
}
