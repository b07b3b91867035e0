//! `ctl checkpoint`.

use std::time::Duration;

use bosun_proto::v1::CheckpointRequest;

use crate::cli::container::CheckpointArgs;
use crate::client::{self, Client, Deadline};
use crate::error::Error;
use crate::flags::absolute;
use crate::output;

/// How long criu has.
pub(super) const TIME_OUT: Duration = Duration::from_secs(600);

pub(super) async fn run(client: &Client, args: CheckpointArgs) -> Result<u8, Error> {
    let request = CheckpointRequest {
        request_id: client::request_id()?,
        container: args.container.clone(),
        location: absolute(&args.export, std::env::current_dir)?,
        leave_running: args.leave_running,
        tcp_established: args.tcp_established,
        file_locks: args.file_locks,
        without_files: args.ignore_rootfs,
    };
    let done = client.call(Deadline::LongAfter(TIME_OUT), request, |channel, request| async move {
        client::containers(channel).checkpoint(request).await
    });
    done.await?;
    output::print(&(args.container + "\n"))?;
    Ok(0)
}
