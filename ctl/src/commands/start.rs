//! `ctl start`: start what was created or has ended, and stay with it on demand.

use std::sync::Arc;

use bosun_proto::v1::StartRequest;

use crate::cli::container::StartArgs;
use crate::client::{self, Client, Deadline};
use crate::error::Error;
use crate::flags::FlagError;
use crate::session::attached::{Attached, check_terminal};

pub(super) async fn run(client: &Arc<Client>, args: StartArgs) -> Result<u8, Error> {
    if args.attach || args.interactive {
        return attach(client, args).await;
    }
    super::each(&args.containers, |name| async move {
        let request =
            StartRequest { request_id: client::request_id()?, container: name.to_owned() };
        let started = client.call(Deadline::Long, request, |channel, request| async move {
            client::containers(channel).start(request).await
        });
        match started.await {
            Ok(_) => Ok(name.to_owned()),
            // As docker has it: what runs already is what was asked for.
            Err(error) if error.reason() == Some("ALREADY_RUNNING") => Ok(name.to_owned()),
            Err(error) => Err(error),
        }
    })
    .await
}

async fn attach(client: &Arc<Client>, args: StartArgs) -> Result<u8, Error> {
    let [name] = args.containers.as_slice() else {
        return Err(FlagError::OneContainer("ctl start").into());
    };
    let container = client.get(name).await?;
    let options = container.options.unwrap_or_default();
    let stdin = args.interactive && options.stdin;
    check_terminal(stdin, options.tty)?;
    let attached = Attached {
        container: container.id,
        name: name.clone(),
        stdin,
        start: true,
        keys: args.keys,
    };
    attached.run(client).await
}
