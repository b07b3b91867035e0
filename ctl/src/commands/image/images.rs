//! `ctl images`.

use jiff::Timestamp;

use crate::cli::image::ImagesArgs;
use crate::client::Client;
use crate::error::Error;
use crate::output;
use crate::view::Listing;
use crate::view::image::{COLUMNS, rows};

/// docker's table, and the one with `--digests`.
pub(crate) const TABLE: &str =
    "table {{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}";
const WITH_DIGESTS: &str =
    "table {{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}";

pub(super) async fn run(client: &Client, args: ImagesArgs) -> Result<u8, Error> {
    let format = match (args.quiet, args.format.as_deref()) {
        (true, None | Some("table")) => Some("{{.ID}}"),
        (_, format) => format,
    };
    let table = if args.digests { WITH_DIGESTS } else { TABLE };
    let listing = Listing::new(format, table, &COLUMNS)?;
    let mut filters = args.filter;
    filters.extend(args.reference.map(|reference| format!("reference={reference}")));
    let images = super::list(client, filters).await?;
    let rows = rows(images, Timestamp::now(), args.digests, args.no_trunc);
    output::print(&listing.render(&rows)?)?;
    Ok(0)
}
