//! `ctl commit`: an image of a container's files.

use bosun_proto::v1::CommitImageRequest;

use crate::cli::files::CommitArgs;
use crate::client::{self, Client, Deadline};
use crate::error::Error;
use crate::output;
use crate::view::image::id;

pub(super) async fn run(client: &Client, args: CommitArgs) -> Result<u8, Error> {
    let request = CommitImageRequest {
        request_id: client::request_id()?,
        container: args.container,
        reference: args.image,
        author: args.author,
        message: args.message,
        changes: args.change,
        no_pause: !args.pause,
    };
    // As long as its files take to be read.
    let answer = client.call(Deadline::Never, request, |channel, request| async move {
        client::images(channel).commit(request).await
    });
    let image = answer.await?.image.ok_or_else(|| client.bad_answer("the image"))?;
    output::print(&format!("{}\n", id(&image)))?;
    Ok(0)
}
