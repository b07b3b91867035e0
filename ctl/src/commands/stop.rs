//! `ctl stop`.

use bosun_proto::v1::StopRequest;

use crate::cli::container::StopArgs;
use crate::client::{self, Client};
use crate::error::Error;

pub(super) async fn run(client: &Client, args: StopArgs) -> Result<u8, Error> {
    super::each(&args.containers, |name| async move {
        let deadline = super::stop_deadline(client, name, args.time).await?;
        let request = StopRequest {
            request_id: client::request_id()?,
            container: name.to_owned(),
            timeout_seconds: args.time,
        };
        let stopped = client.call(deadline, request, |channel, request| async move {
            client::containers(channel).stop(request).await
        });
        stopped.await.map(|_| name.to_owned())
    })
    .await
}
