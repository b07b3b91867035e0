//! `ctl wait`: prints the exit code of each container; its own is that of the last one.

use std::sync::atomic::{AtomicU8, Ordering};

use bosun_proto::v1::WaitRequest;

use crate::cli::container::WaitArgs;
use crate::client::{self, Client, Deadline};
use crate::error::Error;
use crate::session::exit_code;

pub(super) async fn run(client: &Client, args: WaitArgs) -> Result<u8, Error> {
    let last = AtomicU8::new(0);
    let (names, last_ref) = (&args.containers, &last);
    let failed = super::each(names, |name| async move {
        let request = WaitRequest { container: name.to_owned() };
        let answer = client.call(Deadline::Never, request, |channel, request| async move {
            client::containers(channel).wait(request).await
        });
        let exit = answer.await?.exit.ok_or_else(|| client.bad_answer("an exit status"))?;
        let code = exit_code(name, &exit);
        if names.last().is_some_and(|last| last == name) {
            last_ref.store(code, Ordering::Relaxed);
        }
        Ok(if exit.unknown { "unknown".to_owned() } else { exit.status.to_string() })
    })
    .await?;
    Ok(if failed == 0 { last.into_inner() } else { failed })
}
