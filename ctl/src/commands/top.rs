//! `ctl top`.

use bosun_proto::v1::TopRequest;

use crate::cli::container::TopArgs;
use crate::client::{self, Client, Deadline};
use crate::error::Error;
use crate::output;
use crate::view::align;

pub(super) async fn run(client: &Client, args: TopArgs) -> Result<u8, Error> {
    let request = TopRequest { container: args.container, ps_options: args.options };
    let answer = client.call(Deadline::Short, request, |channel, request| async move {
        client::containers(channel).top(request).await
    });
    let answer = answer.await?;
    let rows = answer.processes.iter().map(|process| process.values.join("\t"));
    let lines: Vec<String> = std::iter::once(answer.titles.join("\t")).chain(rows).collect();
    output::print(&output::escaped_lines(&align(&lines)))?;
    Ok(0)
}
