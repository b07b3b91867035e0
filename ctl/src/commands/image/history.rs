//! `ctl history`.

use jiff::Timestamp;

use crate::cli::image::HistoryArgs;
use crate::client::Client;
use crate::error::Error;
use crate::output;
use crate::view::Listing;
use crate::view::history::{COLUMNS, rows};

const TABLE: &str = "table {{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}";
/// `--human=false`: the moment itself.
const EXACT: &str = "table {{.ID}}\t{{.CreatedAt}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}";

pub(super) async fn run(client: &Client, args: HistoryArgs) -> Result<u8, Error> {
    let format = match (args.quiet, args.format.as_deref()) {
        (true, None | Some("table")) => Some("{{.ID}}"),
        (_, format) => format,
    };
    let listing = Listing::new(format, if args.human { TABLE } else { EXACT }, &COLUMNS)?;
    let image = super::get(client, &args.image, &args.platform).await?;
    let content = image.content.ok_or_else(|| super::inspect::absent(client))?;
    let rows = rows(&content, Timestamp::now(), args.human, args.no_trunc)
        .ok_or(Error::ImageConfig(args.image))?;
    output::print(&listing.render(&rows)?)?;
    Ok(0)
}
