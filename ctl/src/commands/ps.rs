//! `ctl ps`.

use bosun_proto::v1::ListRequest;
use jiff::Timestamp;

use crate::cli::container::PsArgs;
use crate::client::{self, Client, Deadline};
use crate::error::Error;
use crate::output;
use crate::view::{COLUMNS, Listing, container_row};

/// docker's table.
pub(crate) const TABLE: &str =
    "table {{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}";

/// docker's, too, unless it is told to add them up.
const NO_SIZE: &str = "0B";

pub(super) async fn run(client: &Client, args: PsArgs) -> Result<u8, Error> {
    let format = match (args.quiet, args.format.as_deref()) {
        (true, None | Some("table")) => Some("{{.ID}}"),
        (_, format) => format,
    };
    let listing = Listing::new(format, TABLE, &COLUMNS)?;
    let last = if args.latest { Some(1) } else { args.last.filter(|last| *last >= 0) };
    let request = ListRequest { all: args.all || last.is_some(), filters: args.filter };
    let answer = client.call(Deadline::Short, request, |channel, request| async move {
        client::containers(channel).list(request).await
    });
    // The newest first, whatever the clock was.
    let containers = answer.await?.containers;
    let count = last.map_or(usize::MAX, |last| usize::try_from(last).unwrap_or(usize::MAX));
    let now = Timestamp::now();
    let rows: Vec<_> = containers
        .iter()
        .take(count)
        .map(|container| container_row(container, NO_SIZE, now, args.no_trunc))
        .collect();
    output::print(&listing.render(&rows)?)?;
    Ok(0)
}
