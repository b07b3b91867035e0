//! `ctl restore`.

use bosun_proto::v1::RestoreRequest;

use super::checkpoint::TIME_OUT;
use crate::cli::container::RestoreArgs;
use crate::client::{self, Client, Deadline};
use crate::error::Error;
use crate::flags::absolute;
use crate::output;

pub(super) async fn run(client: &Client, args: RestoreArgs) -> Result<u8, Error> {
    let request = RestoreRequest {
        request_id: client::request_id()?,
        location: absolute(&args.archive, std::env::current_dir)?,
        name: args.name,
        tcp_established: args.tcp_established,
        file_locks: args.file_locks,
    };
    let done = client.call(Deadline::LongAfter(TIME_OUT), request, |channel, request| async move {
        client::containers(channel).restore(request).await
    });
    let answer = done.await?;
    answer.warnings.iter().for_each(|warning| output::warn(warning));
    output::print(&(answer.id + "\n"))?;
    Ok(0)
}
