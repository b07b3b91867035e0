//! A command in a container whose output is waited for.

use std::sync::Arc;
use std::time::Duration;

use shim_wire::attach::Hello;
use tokio::sync::oneshot;

use super::{Cri, invalid, wire};
use crate::container::{Handle, Running, Supervisor};
use crate::error::{Error, Result};
use crate::shim::{self, Attached, Exited, Output};
use crate::spec::{ExecRequest, Signal};

/// What a message can carry: 16 MiB, with room for the rest of it.
const OUTPUT_MAX: usize = (16 << 20) - (64 << 10);

/// What a process said.
#[derive(Debug, Default)]
struct Said {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Cri {
    /// Runs it to its end. With a time-out of more than 0 seconds it is killed when that is over; the
    /// answer is an error then, after the process has ended. A client that goes away ends what it
    /// began, at whatever point that is.
    pub(super) async fn exec_sync(
        &self,
        request: wire::ExecSyncRequest,
    ) -> Result<wire::ExecSyncResponse> {
        let container = self.container(&request.container_id)?;
        if request.cmd.is_empty() {
            return Err(invalid("cmd", "it is empty"));
        }
        let timeout = u64::try_from(request.timeout).ok().filter(|seconds| *seconds > 0);
        let exec = ExecRequest { command: request.cmd, ..ExecRequest::default() };
        let (_client, gone) = oneshot::channel();
        // A task of its own, so that it sees the client's going, which ends this one.
        let task = tokio::spawn(run(Arc::clone(&self.supervisor), container, exec, timeout, gone));
        task.await.unwrap_or(Err(Error::Stopping))
    }
}

/// Why a command is not waited for any longer.
enum Broken {
    TimedOut(u64),
    ClientGone,
}

/// `gone` ends with the client.
async fn run(
    supervisor: Arc<Supervisor>,
    container: Handle,
    exec: ExecRequest,
    timeout: Option<u64>,
    gone: oneshot::Receiver<()>,
) -> Result<wire::ExecSyncResponse> {
    let hello = Hello { exec_id: String::new(), stdin: false, paced: true, no_output: false };
    let (running, exec_id, attached) = supervisor.exec(&container, &exec, Some(hello)).await?;
    let attached = attached.ok_or(Error::Stopping)?;
    let work = async {
        let said = gather(attached).await;
        (said, supervisor.exec_ended(&container, &running, &exec_id).await)
    };
    let over = async {
        match timeout {
            Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
            None => std::future::pending().await,
        }
    };
    let broken = tokio::select! {
        (said, exited) = work => {
            let exit_code = exit_code(&exited?);
            let Said { stdout, stderr } = said;
            return Ok(wire::ExecSyncResponse { stdout, stderr, exit_code });
        }
        () = over => Broken::TimedOut(timeout.unwrap_or_default()),
        _ = gone => Broken::ClientGone,
    };
    kill(&running, &exec_id).await;
    let _ = supervisor.exec_ended(&container, &running, &exec_id).await;
    Err(match broken {
        Broken::TimedOut(seconds) => Error::ExecTimedOut { id: container.label(), seconds },
        // Nobody hears it.
        Broken::ClientGone => Error::Stopping,
    })
}

/// How an exec ended, in the number that clients are told.
pub(super) fn exit_code(exited: &Exited) -> i32 {
    i32::try_from(exited.status).unwrap_or(255)
}

/// All output, up to what a message can carry; what is beyond is read and left away.
async fn gather(attached: Attached) -> Said {
    let Attached { mut reader, writer } = attached;
    let mut said = Said::default();
    let add = |to: &mut Vec<u8>, bytes: &[u8], room: usize| {
        to.extend_from_slice(&bytes[..bytes.len().min(room)]);
    };
    loop {
        let room = OUTPUT_MAX.saturating_sub(said.stdout.len() + said.stderr.len());
        match reader.next().await {
            Ok(Output::Stdout(bytes)) => add(&mut said.stdout, &bytes, room),
            Ok(Output::Stderr(bytes)) => add(&mut said.stderr, &bytes, room),
            Ok(Output::Lagged | Output::End) | Err(_) => break,
        }
    }
    // Its being dropped would read as the client's going.
    drop(writer);
    said
}

async fn kill(running: &Running, exec_id: &str) {
    match running.shim.client.kill(exec_id, Signal::KILL.number(), false).await {
        Ok(()) | Err(shim::Error::Gone { .. } | shim::Error::Refused { .. }) => {}
        Err(error) => tracing::warn!(exec = exec_id, %error, "not killed"),
    }
}
