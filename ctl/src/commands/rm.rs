//! `ctl rm`.

use bosun_proto::v1::RemoveRequest;

use crate::cli::container::RmArgs;
use crate::client::{self, Client, Deadline};
use crate::error::Error;

pub(super) async fn run(client: &Client, args: RmArgs) -> Result<u8, Error> {
    super::each(&args.containers, |name| async move {
        let request = RemoveRequest {
            request_id: client::request_id()?,
            container: name.to_owned(),
            force: args.force,
        };
        let removed = client.call(Deadline::Long, request, |channel, request| async move {
            client::containers(channel).remove(request).await
        });
        removed.await.map(|_| name.to_owned())
    })
    .await
}
