//! `ctl pause`.

use bosun_proto::v1::PauseRequest;

use crate::cli::container::PauseArgs;
use crate::client::{self, Client, Deadline};
use crate::error::Error;

pub(super) async fn run(client: &Client, args: PauseArgs) -> Result<u8, Error> {
    super::each(&args.containers, |name| async move {
        let request =
            PauseRequest { request_id: client::request_id()?, container: name.to_owned() };
        let done = client.call(Deadline::Long, request, |channel, request| async move {
            client::containers(channel).pause(request).await
        });
        done.await.map(|_| name.to_owned())
    })
    .await
}
