//! `ctl tag`.

use bosun_proto::v1::TagRequest;

use crate::cli::image::TagArgs;
use crate::client::{self, Client, Deadline};
use crate::error::Error;

pub(super) async fn run(client: &Client, args: TagArgs) -> Result<u8, Error> {
    let TagArgs { image, name } = args;
    let request = TagRequest { request_id: client::request_id()?, image, reference: name };
    let tagged = client.call(Deadline::Short, request, |channel, request| async move {
        client::images(channel).tag(request).await
    });
    tagged.await.map(|_| 0)
}
