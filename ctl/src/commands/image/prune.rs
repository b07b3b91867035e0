//! `ctl image prune`, and what it shares with `ctl system prune`: the question and the report.

use std::io::{self, BufRead};

use bosun_proto::v1::PruneImagesRequest;

use crate::cli::image::PruneArgs;
use crate::client::{self, Client, Deadline};
use crate::error::Error;
use crate::output;
use crate::view::prune::text;

pub(super) async fn run(client: &Client, args: PruneArgs) -> Result<u8, Error> {
    let what = if args.all {
        "This will remove all images without at least one container made from them."
    } else {
        "This will remove all dangling images."
    };
    if !args.dry_run && !args.force && !confirmed(what)? {
        return Ok(0);
    }
    let request = PruneImagesRequest {
        request_id: client::request_id()?,
        all: args.all,
        dry_run: args.dry_run,
        filters: args.filter,
    };
    let pruned = client.call(Deadline::Never, request, |channel, request| async move {
        client::images(channel).prune(request).await
    });
    report(&pruned.await?, args.dry_run)
}

/// Asks on stdin, whatever that is, as docker does; no answer is a no.
pub(in crate::commands) fn confirmed(what: &str) -> Result<bool, Error> {
    output::complain_raw(&format!("WARNING! {what}\nAre you sure you want to continue? [y/N] "));
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(Error::Input)?;
    let yes = matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes");
    if !yes {
        output::complain(&"nothing was removed: answer y, or say --force");
    }
    Ok(yes)
}

pub(in crate::commands) fn report(
    report: &bosun_proto::v1::PruneReport,
    dry_run: bool,
) -> Result<u8, Error> {
    output::print(&text(report, dry_run))?;
    Ok(0)
}
