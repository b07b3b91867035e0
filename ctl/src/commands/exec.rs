//! `ctl exec`: a further process in a running container.
//!
//! Signals are not forwarded (docker's rule): they end the session. An exec can't be attached to
//! again, so a connection that breaks ends it as well.

use bosun_proto::v1::ExecOpen;

use crate::cli::container::ExecArgs;
use crate::client::{self, Client, Deadline};
use crate::error::Error;
use crate::flags::environment;
use crate::output;
use crate::session::attached::check_terminal;
use crate::session::{Console, End, Input, SignalsGo, Wire, exit_code};
use crate::signals::Signals;
use crate::terminal;

pub(super) async fn run(client: &Client, args: ExecArgs) -> Result<u8, Error> {
    let mut words = args.words.into_iter();
    let name = words.next().unwrap_or_default();
    let open = ExecOpen {
        request_id: client::request_id()?,
        container: name.clone(),
        command: words.collect(),
        env: environment(&args.env_file, &args.env, |name| std::env::var_os(name))?,
        working_dir: args.workdir.unwrap_or_default(),
        user: args.user.unwrap_or_default(),
        tty: args.tty,
        stdin: args.interactive && !args.detach,
        privileged: args.privileged,
        window: if args.tty { terminal::window_size() } else { None },
    };
    if args.detach {
        let started = client.call(Deadline::Long, open, |channel, open| async move {
            client::io(channel).exec_detached(open).await
        });
        return started.await.map(|_| 0);
    }
    check_terminal(open.stdin, open.tty)?;
    let (stdin, tty) = (open.stdin, open.tty);
    let mut wire = Wire::exec(client, open).await?;
    let signals = Signals::catch(false)?;
    let keys = tty.then_some(&args.detach_keys);
    let input = if stdin { Some(Input::stdin(keys)?) } else { None };
    let mut console = Console::new(signals, SignalsGo::Here, input, tty)?;
    match console.pump(&mut wire, false).await? {
        End::Exited(exit) => {
            console.finish().await?;
            Ok(exit_code(&format!("the process in {name}"), &exit))
        }
        End::Detached => {
            console.finish().await?;
            output::complain_raw("read escape sequence\n");
            Ok(0)
        }
        End::Terminated(signal) => Ok(signal.exit_code()),
        End::Lagged => {
            let status = tonic::Status::unavailable("this client read too slowly");
            Err(lost(&name, status))
        }
        End::Broken(status) => Err(lost(&name, client.stream_broke(status)?)),
    }
}

fn lost(name: &str, status: tonic::Status) -> Error {
    Error::StreamLost { what: format!("the process in {name}"), status: Box::new(status) }
}
