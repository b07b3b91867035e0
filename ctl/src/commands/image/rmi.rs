//! `ctl rmi`. One after the other: what one removal keeps, the next may free.

use bosun_proto::v1::RemoveImageRequest;

use crate::cli::image::RmiArgs;
use crate::client::{self, Client, Deadline};
use crate::error::Error;
use crate::output;
use crate::view::image::familiar;

pub(super) async fn run(client: &Client, args: RmiArgs) -> Result<u8, Error> {
    let mut code = 0;
    for image in args.images {
        let request = RemoveImageRequest {
            request_id: client::request_id()?,
            image,
            force: args.force,
            no_prune: args.no_prune,
        };
        let removed = client.call(Deadline::Long, request, |channel, request| async move {
            client::images(channel).remove(request).await
        });
        match removed.await {
            Ok(removed) => {
                let untagged =
                    removed.untagged.iter().map(|name| format!("Untagged: {}\n", familiar(name)));
                let deleted = removed.deleted.iter().map(|digest| format!("Deleted: {digest}\n"));
                output::print(&untagged.chain(deleted).collect::<String>())?;
            }
            Err(error @ Error::Refused(_)) => {
                output::complain(&error);
                // As docker has it: with --force, what is not there is as it should be.
                code |= u8::from(!(args.force && error.is_not_found()));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(code)
}
