//! `ctl save`.

use bosun_proto::v1::ExportRequest;
use tokio_stream::StreamExt;

use crate::cli::image::SaveArgs;
use crate::client::{self, Client};
use crate::commands::archive::Target;
use crate::error::Error;

pub(super) async fn run(client: &Client, args: SaveArgs) -> Result<u8, Error> {
    let target = Target::open(args.output.as_deref())?;
    let request = ExportRequest { images: args.images, platform: args.platform };
    let chunks = client.transfer(request, |channel, request| async move {
        client::images(channel).export(request).await
    });
    let data = chunks.await?.map(|chunk| match chunk {
        Ok(chunk) => Ok(chunk.data),
        Err(status) => Err(client.stream_failed("the archive", status)),
    });
    target.take(data).await
}
