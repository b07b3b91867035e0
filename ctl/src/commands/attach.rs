//! `ctl attach`.

use std::sync::Arc;

use crate::cli::container::AttachArgs;
use crate::client::Client;
use crate::error::Error;
use crate::session::attached::{Attached, check_terminal};

pub(super) async fn run(client: &Arc<Client>, args: AttachArgs) -> Result<u8, Error> {
    let container = client.get(&args.container).await?;
    let options = container.options.unwrap_or_default();
    // A container without -i has no input to send.
    let stdin = options.stdin && !args.no_stdin;
    check_terminal(stdin, options.tty)?;
    let attached = Attached {
        container: container.id,
        name: args.container,
        stdin,
        start: false,
        keys: args.keys,
    };
    attached.run(client).await
}
