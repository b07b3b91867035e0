//! `ctl run`: make a container, start it, and stay with it unless told otherwise.
//!
//! In the foreground it is created first and started by the attaching, so that no output is missed.

use std::sync::Arc;

use bosun_proto::v1::RemoveRequest;
use bosun_proto::v1::state::Status;

use super::create::{Pulling, create, options, with_image, write_id};
use crate::cli::create::RunArgs;
use crate::client::{self, Client, Deadline};
use crate::error::Error;
use crate::output;
use crate::session::attached::{Attached, check_terminal};

pub(super) async fn run(client: &Arc<Client>, args: RunArgs) -> Result<u8, Error> {
    let RunArgs { detach, rm, keys, container } = args;
    let id_file = container.cidfile.clone();
    let pulling = Pulling::of(&container);
    let options = options(container, rm)?;
    let (stdin, tty) = (options.stdin, options.tty);
    if detach {
        let method =
            |channel, request| async move { client::containers(channel).run(request).await };
        let answer = with_image(client, options, pulling, method).await?;
        answer.warnings.iter().for_each(|warning| output::warn(warning));
        write_id(id_file.as_deref(), &answer.id)?;
        output::print(&format!("{}\n", answer.id))?;
        return Ok(0);
    }
    check_terminal(stdin, tty)?;
    let name = options.name.clone();
    let id = create(client, options, pulling, id_file.as_deref()).await?;
    let name = if name.is_empty() { id.chars().take(12).collect() } else { name };
    let attached = Attached { container: id.clone(), name, stdin, start: true, keys };
    let outcome = attached.run(client).await;
    if matches!(outcome, Err(Error::Refused(_))) {
        remove_unstarted(client, &id).await;
    }
    outcome
}

/// A `run` whose start was refused changes nothing, as `run -d`: what never ran is removed. Why it
/// could not run is what the user is told.
async fn remove_unstarted(client: &Client, id: &str) {
    let never_ran = client.get(id).await.is_ok_and(|container| {
        container.state.is_some_and(|state| state.status() == Status::Created)
    });
    let Ok(request_id) = client::request_id() else { return };
    if !never_ran {
        return;
    }
    let request = RemoveRequest { request_id, container: id.to_owned(), force: false };
    let removed = client.call(Deadline::Long, request, |channel, request| async move {
        client::containers(channel).remove(request).await
    });
    if let Err(error) = removed.await
        && !error.is_not_found()
    {
        output::warn(&format!("could not remove {id}: {error}"));
    }
}
