//! `ctl restart`.

use bosun_proto::v1::StopRequest;

use crate::cli::container::RestartArgs;
use crate::client::{self, Client};
use crate::error::Error;

pub(super) async fn run(client: &Client, args: RestartArgs) -> Result<u8, Error> {
    super::each(&args.containers, |name| async move {
        let deadline = super::stop_deadline(client, name, args.time).await?;
        let request = StopRequest {
            request_id: client::request_id()?,
            container: name.to_owned(),
            timeout_seconds: args.time,
        };
        let started = client.call(deadline, request, |channel, request| async move {
            client::containers(channel).restart(request).await
        });
        started.await.map(|_| name.to_owned())
    })
    .await
}
