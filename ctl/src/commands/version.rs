//! `ctl version`: its own is shown even when bosund can't be asked.

use bosun_proto::v1::{VersionRequest, VersionResponse};

use crate::cli::VersionArgs;
use crate::client::{self, Client, Deadline};
use crate::error::Error;
use crate::output;
use crate::template::Template;
use crate::view::system::{version, version_text};

pub(super) async fn run(client: &Client, args: VersionArgs) -> Result<u8, Error> {
    let template = match args.format.as_deref() {
        None | Some("" | "json") => None,
        Some(template) => Some(Template::parse(template)?),
    };
    let asked = client.call(Deadline::Short, VersionRequest {}, |channel, request| async move {
        client::system(channel).version(request).await
    });
    let (server, failure): (Option<VersionResponse>, _) = match asked.await {
        Ok(server) => (Some(server), None),
        Err(error) => (None, Some(error)),
    };
    let text = match (template, args.format.as_deref()) {
        // What asks for the server's fields can't do without them.
        (Some(template), _) => match failure {
            Some(failure) => return Err(failure),
            None => template.render(&version(server.as_ref()))? + "\n",
        },
        (None, Some("json")) => version(server.as_ref()).json() + "\n",
        (None, _) => version_text(server.as_ref()),
    };
    output::print(&text)?;
    failure.map_or(Ok(0), Err)
}
