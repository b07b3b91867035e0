//! A command in a container whose output is waited for.

use std::time::Duration;

use shim_wire::attach::Hello;

use super::{Cri, invalid, wire};
use crate::container::Running;
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
    /// answer is an error then, after the process has ended.
    pub(super) async fn exec_sync(
        &self,
        request: wire::ExecSyncRequest,
    ) -> Result<wire::ExecSyncResponse> {
        let container = self.container(&request.container_id)?;
        if request.cmd.is_empty() {
            return Err(invalid("cmd", "it is empty"));
        }
        let exec = ExecRequest { command: request.cmd, ..ExecRequest::default() };
        let hello = Hello { exec_id: String::new(), stdin: false, paced: true, no_output: false };
        let (running, exec_id, attached) =
            self.supervisor.exec(&container, &exec, Some(hello)).await?;
        let attached = attached.ok_or(Error::Stopping)?;
        // A client that goes away ends what it began.
        let guard = Kill { running: &running, exec_id: &exec_id, armed: true };
        let work = async {
            let said = gather(attached).await;
            (said, self.supervisor.exec_ended(&container, &running, &exec_id).await)
        };
        let timeout = u64::try_from(request.timeout).ok().filter(|seconds| *seconds > 0);
        let (said, exited) = match timeout {
            None => work.await,
            Some(seconds) => match tokio::time::timeout(Duration::from_secs(seconds), work).await {
                Ok(done) => done,
                Err(_) => {
                    kill(&running, &exec_id).await;
                    let _ = self.supervisor.exec_ended(&container, &running, &exec_id).await;
                    guard.disarm();
                    return Err(Error::ExecTimedOut { id: container.label(), seconds });
                }
            },
        };
        guard.disarm();
        let exit_code = exit_code(&exited?);
        Ok(wire::ExecSyncResponse { stdout: said.stdout, stderr: said.stderr, exit_code })
    }
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

/// Kills a process whose caller is gone.
struct Kill<'a> {
    running: &'a std::sync::Arc<Running>,
    exec_id: &'a str,
    armed: bool,
}

impl Kill<'_> {
    fn disarm(mut self) {
        self.armed = false;
    }
}

impl Drop for Kill<'_> {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        let (running, exec_id) = (std::sync::Arc::clone(self.running), self.exec_id.to_owned());
        tokio::spawn(async move {
            kill(&running, &exec_id).await;
            // Nobody else forgets it.
            let _ = running.shim.client.wait(&exec_id).await;
            let _ = running.shim.client.delete_exec(&exec_id).await;
        });
    }
}
