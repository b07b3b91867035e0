//! `ctl push`.

use bosun_image::Reference;
use bosun_proto::v1::push_response::Event;
use bosun_proto::v1::{PushDone, PushRequest};

use crate::cli::image::PushArgs;
use crate::client::{self, Client};
use crate::error::Error;
use crate::output;
use crate::progress::{Channel, Direction, Display};

pub(super) async fn run(client: &Client, args: PushArgs) -> Result<u8, Error> {
    let PushArgs { quiet, platform, image, target } = args;
    let destination = if target.is_empty() { image.clone() } else { target.clone() };
    let request = PushRequest {
        request_id: client::request_id()?,
        auth: super::auth(&destination).await,
        image,
        reference: target,
        platform,
    };
    let mut display = Display::new(Direction::Push, Channel::Stdout, quiet);
    let reference: Option<Reference> = destination.parse().ok();
    if let Some(reference) = &reference {
        let repository = reference.repository();
        display.say(&format!("The push refers to repository [{repository}]"))?;
    }
    let method = |channel, request| async move { client::images(channel).push(request).await };
    let done = client.joined(request, method, |response| {
        match response.event {
            Some(Event::Progress(progress)) => display.update(&progress)?,
            Some(Event::Done(done)) => return Ok(Some(done)),
            None => {}
        }
        Ok(None)
    });
    let done = done.await;
    display.finish()?;
    let PushDone { name, target } = done?;
    if quiet {
        output::print(&format!("{name}\n"))?;
        return Ok(0);
    }
    let target = target.unwrap_or_default();
    let pushed: Option<Reference> = name.parse().ok();
    let tag = pushed.as_ref().and_then(Reference::tag).unwrap_or(&name);
    display.say(&format!("{tag}: digest: {} size: {}", target.digest, target.size))?;
    Ok(0)
}
