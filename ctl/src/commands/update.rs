//! `ctl update`.

use bosun_proto::v1::{Limits, UpdateRequest};

use crate::cli::container::UpdateArgs;
use crate::client::{self, Client, Deadline};
use crate::error::Error;
use crate::flags::FlagError;
use crate::request::updated_limits;

pub(super) async fn run(client: &Client, args: UpdateArgs) -> Result<u8, Error> {
    let limits = updated_limits(args.limits);
    if limits == Limits::default() {
        return Err(FlagError::NothingToUpdate.into());
    }
    let limits = &limits;
    super::each(&args.containers, |name| async move {
        let request = UpdateRequest {
            request_id: client::request_id()?,
            container: name.to_owned(),
            limits: Some(limits.clone()),
        };
        let updated = client.call(Deadline::Long, request, |channel, request| async move {
            client::containers(channel).update(request).await
        });
        updated.await.map(|_| name.to_owned())
    })
    .await
}
