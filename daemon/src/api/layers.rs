//! What surrounds every call: a line of trace with the caller's credentials, and a deadline.
//!
//! The deadline is the client's (`grpc-timeout`) or the configured one. Calls whose nature is to
//! wait, and streams, have none of ours.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::transport::server::UdsConnectInfo;
use tower::{Layer, Service};

/// Paths of calls that end when something happens, not when work is done.
const WAITING: [&str; 34] = [
    "/bosun.v1.Containers/Wait",
    "/bosun.v1.Containers/Stop",
    "/bosun.v1.Containers/Restart",
    "/bosun.v1.Io/Attach",
    "/bosun.v1.Io/Exec",
    "/bosun.v1.Io/Logs",
    "/bosun.v1.Containers/Checkpoint",
    "/bosun.v1.Containers/Restore",
    "/bosun.v1.Content/Write",
    "/bosun.v1.Content/Read",
    "/bosun.v1.Images/Pull",
    "/bosun.v1.Images/Push",
    "/bosun.v1.Images/Import",
    "/bosun.v1.Images/Export",
    "/bosun.v1.Images/Commit",
    "/bosun.v1.Files/Export",
    "/bosun.v1.Files/CopyFrom",
    "/bosun.v1.Files/CopyTo",
    "/bosun.v1.Events/Subscribe",
    "/runtime.v1.RuntimeService/ExecSync",
    "/runtime.v1.RuntimeService/GetContainerEvents",
    "/runtime.v1.RuntimeService/StopContainer",
    "/runtime.v1.RuntimeService/StreamContainerStats",
    "/runtime.v1.RuntimeService/StreamContainers",
    "/runtime.v1.RuntimeService/StreamPodSandboxMetrics",
    "/runtime.v1.RuntimeService/StreamPodSandboxStats",
    "/runtime.v1.RuntimeService/StreamPodSandboxes",
    "/runtime.v1.RuntimeService/CheckpointContainer",
    "/runtime.v1.RuntimeService/CheckpointPod",
    "/runtime.v1.RuntimeService/RestorePod",
    "/runtime.v1.ImageService/PullImage",
    "/runtime.v1.ImageService/StreamImages",
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
];

/// Traces every call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trace;

/// Ends calls that take too long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline {
    longest: Duration,
}

impl Deadline {
    pub(super) fn new(longest: Duration) -> Self {
        Self { longest }
    }
}

/// [`Trace`] around a service.
#[derive(Clone, Debug)]
pub(super) struct Traced<S>(S);

/// [`Deadline`] around a service.
#[derive(Clone, Debug)]
pub(super) struct Limited<S> {
    inner: S,
    longest: Duration,
}

impl<S> Layer<S> for Trace {
    type Service = Traced<S>;

    fn layer(&self, inner: S) -> Traced<S> {
        Traced(inner)
    }
}

impl<S> Layer<S> for Deadline {
    type Service = Limited<S>;

    fn layer(&self, inner: S) -> Limited<S> {
        Limited { inner, longest: self.longest }
    }
}

/// What a layer's service answers with.
pub(super) type Answer<E> = Pin<Box<dyn Future<Output = Result<Response<Body>, E>> + Send>>;

impl<S> Service<Request<Body>> for Traced<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Answer<S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let path = request.uri().path().to_owned();
        let peer = request.extensions().get::<UdsConnectInfo>().and_then(|info| info.peer_cred);
        let (pid, uid) = peer.map_or((None, None), |cred| (cred.pid(), Some(cred.uid())));
        let begun = Instant::now();
        let answer = self.0.call(request);
        Box::pin(async move {
            let answer = answer.await;
            // The status of a stream, and of a call that succeeded, is in its trailers.
            let code = answer
                .as_ref()
                .ok()
                .and_then(|answer| answer.headers().get("grpc-status"))
                .and_then(|code| code.to_str().ok())
                .unwrap_or("0")
                .to_owned();
            tracing::debug!(path, pid, uid, code, took = ?begun.elapsed(), "call");
            answer
        })
    }
}

impl<S> Service<Request<Body>> for Limited<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Answer<S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let asked = request
            .headers()
            .get("grpc-timeout")
            .and_then(|value| value.to_str().ok())
            .and_then(parse_timeout);
        let waits = WAITING.contains(&request.uri().path());
        let deadline = match (asked, waits) {
            (Some(asked), _) => Some(asked),
            (None, true) => None,
            (None, false) => Some(self.longest),
        };
        let answer = self.inner.call(request);
        Box::pin(async move {
            let Some(deadline) = deadline else { return answer.await };
            match tokio::time::timeout(deadline, answer).await {
                Ok(answer) => answer,
                Err(_) => Ok(Status::deadline_exceeded(format!(
                    "not done within {deadline:?}; what was begun goes on: ask again with the same request id"
                ))
                .into_http()),
            }
        })
    }
}

/// The value of `grpc-timeout` (gRPC over HTTP/2: at most 8 digits and a unit).
fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let value: u64 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
    match unit {
        "H" => Some(Duration::from_secs(value * 3600)),
        "M" => Some(Duration::from_secs(value * 60)),
        "S" => Some(Duration::from_secs(value)),
        "m" => Some(Duration::from_millis(value)),
        "u" => Some(Duration::from_micros(value)),
        "n" => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_grpc_writes_them() {
        assert_eq!(parse_timeout("5S"), Some(Duration::from_secs(5)));
        assert_eq!(parse_timeout("250m"), Some(Duration::from_millis(250)));
        for text in ["", "S", "5", "5x", "-5S", "123456789S", "é"] {
            assert_eq!(parse_timeout(text), None, "{text:?}");
        }
    }
}
