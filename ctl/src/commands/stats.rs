//! `ctl stats`.
//!
//! The daemon tells counters of one moment. What happened between two of them is worked out here, so
//! that nobody keeps a stream open for it.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::time::Duration;

use bosun_proto::v1::state::Status;
use bosun_proto::v1::{Container, ListRequest, StatsRequest, StatsResponse};
use futures::StreamExt;

use super::AT_ONCE;
use crate::cli::container::StatsArgs;
use crate::client::{self, Client, Deadline};
use crate::error::{Error, reason};
use crate::output;
use crate::view::Listing;
use crate::view::stats::{COLUMNS, row};

/// docker's table.
pub(crate) const TABLE: &str = "table {{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}";

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(1);

/// Clears a terminal and goes to its first line.
const CLEAR: &str = "\x1b[2J\x1b[H";

/// By the ids of containers.
type Samples = HashMap<String, StatsResponse>;

pub(super) async fn run(client: &Client, args: StatsArgs) -> Result<u8, Error> {
    let listing = Listing::new(args.format.as_deref(), TABLE, &COLUMNS)?;
    let clear = !args.no_stream && std::io::stdout().is_terminal();
    let mut before = samples(client, &containers(client, &args).await?).await?;
    loop {
        tokio::time::sleep(INTERVAL).await;
        let shown = containers(client, &args).await?;
        let now = samples(client, &shown).await?;
        let rows: Vec<_> = shown
            .iter()
            .map(|one| row(one, before.get(&one.id), now.get(&one.id), args.no_trunc))
            .collect();
        let text = listing.render(&rows)?;
        output::print(&if clear { format!("{CLEAR}{text}") } else { text })?;
        if args.no_stream {
            return Ok(0);
        }
        before = now;
    }
}

/// Those that are named, or those that run.
async fn containers(client: &Client, args: &StatsArgs) -> Result<Vec<Container>, Error> {
    if args.containers.is_empty() {
        let request = ListRequest { all: args.all, filters: Vec::new() };
        let answer = client.call(Deadline::Short, request, |channel, request| async move {
            client::containers(channel).list(request).await
        });
        return Ok(answer.await?.containers);
    }
    let mut named = Vec::with_capacity(args.containers.len());
    for name in &args.containers {
        named.push(client.get(name).await?);
    }
    Ok(named)
}

async fn samples(client: &Client, containers: &[Container]) -> Result<Samples, Error> {
    let running = containers.iter().filter(|one| {
        let status = one.state.as_ref().map_or(Status::Unspecified, |state| state.status());
        matches!(status, Status::Running | Status::Paused)
    });
    let works = running.map(|one| async move {
        let request = StatsRequest { container: one.id.clone() };
        let answer = client.call(Deadline::Short, request, |channel, request| async move {
            client::containers(channel).stats(request).await
        });
        (one.id.clone(), answer.await)
    });
    let mut found = futures::stream::iter(works).buffered(AT_ONCE);
    let mut samples = Samples::new();
    while let Some((id, answer)) = found.next().await {
        match answer {
            Ok(sample) => drop(samples.insert(id, sample)),
            // It has ended meanwhile.
            Err(Error::Refused(status))
                if matches!(reason(&status), Some("NOT_RUNNING" | "NO_SUCH_CONTAINER")) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(samples)
}
