//! `ctl info`.

use bosun_proto::v1::InfoRequest;

use crate::cli::InfoArgs;
use crate::client::{self, Client, Deadline};
use crate::error::Error;
use crate::output;
use crate::template::Template;
use crate::view::system::{info, info_text};

pub(super) async fn run(client: &Client, args: InfoArgs) -> Result<u8, Error> {
    let template = match args.format.as_deref() {
        None | Some("" | "json") => None,
        Some(template) => Some(Template::parse(template)?),
    };
    let asked = client.call(Deadline::Short, InfoRequest {}, |channel, request| async move {
        client::system(channel).info(request).await
    });
    let answer = asked.await?;
    let text = match (template, args.format.as_deref()) {
        (Some(template), _) => template.render(&info(&answer))? + "\n",
        (None, Some("json")) => info(&answer).json() + "\n",
        (None, _) => {
            answer.warnings.iter().for_each(|warning| output::warn(warning));
            info_text(&answer)
        }
    };
    output::print(&text)?;
    Ok(0)
}
