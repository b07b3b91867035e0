//! `ctl kill`.

use bosun_proto::v1::KillRequest;

use crate::cli::container::KillArgs;
use crate::client::{self, Client, Deadline};
use crate::error::Error;

pub(super) async fn run(client: &Client, args: KillArgs) -> Result<u8, Error> {
    let signal = &args.signal;
    super::each(&args.containers, |name| async move {
        let request = KillRequest {
            request_id: client::request_id()?,
            container: name.to_owned(),
            signal: signal.clone(),
        };
        let killed = client.call(Deadline::Long, request, |channel, request| async move {
            client::containers(channel).kill(request).await
        });
        killed.await.map(|_| name.to_owned())
    })
    .await
}
