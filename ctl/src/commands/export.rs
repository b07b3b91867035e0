//! `ctl export`: a container's files as a tar.

use bosun_proto::v1::ExportFilesRequest;
use tokio_stream::StreamExt;

use super::archive::Target;
use crate::cli::files::ExportArgs;
use crate::client::{self, Client};
use crate::error::Error;

pub(super) async fn run(client: &Client, args: ExportArgs) -> Result<u8, Error> {
    let target = Target::open(args.output.as_deref())?;
    let what = format!("the files of {}", args.container);
    let request = ExportFilesRequest { container: args.container };
    let chunks = client.transfer(request, |channel, request| async move {
        client::files(channel).export(request).await
    });
    let data = chunks.await?.map(|chunk| match chunk {
        Ok(chunk) => Ok(chunk.data),
        Err(status) => Err(client.stream_failed(&what, status)),
    });
    target.take(data).await
}
