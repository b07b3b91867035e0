//! The body of an answer, read in time: neither silence nor a byte a second is waited for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::Response;

use crate::error::{Stall, root_cause};
use crate::{At, Error, Options, Result};

/// The body of an answer, and the time it may take.
#[derive(Debug)]
pub(crate) struct Body {
    response: Response,
    options: Arc<Options>,
    /// Time waited for bytes, and the bytes that came in it. What the reader does with them in
    /// between is not the registry's fault.
    waited: Duration,
    came: u64,
}

/// How a body ended before its end.
#[derive(Debug)]
pub(crate) enum Break {
    Broken(String),
    Stalled(Stall),
}

impl Body {
    pub(crate) fn new(response: Response, options: Arc<Options>) -> Self {
        Self { response, options, waited: Duration::ZERO, came: 0 }
    }

    /// The next bytes as the connection gives them; nothing at the end.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, Break> {
        let Options { idle_timeout, rate_window, minimum_rate, .. } = *self.options;
        let start = Instant::now();
        let read = tokio::time::timeout(idle_timeout, self.response.chunk()).await;
        let chunk = read
            .map_err(|_| Break::Stalled(Stall::Idle(idle_timeout)))?
            .map_err(|error| Break::Broken(root_cause(&error)))?;
        self.waited += start.elapsed();
        self.came += chunk.as_ref().map_or(0, |bytes| bytes.len() as u64);
        if chunk.is_some() && self.waited >= rate_window {
            let seconds = self.waited.as_secs_f64();
            // A rate in whole bytes is exact enough.
            let rate = (self.came as f64 / seconds) as u64;
            if rate < minimum_rate {
                return Err(Break::Stalled(Stall::Slow { rate, minimum: minimum_rate }));
            }
            (self.waited, self.came) = (Duration::ZERO, 0);
        }
        Ok(chunk)
    }
}

impl Break {
    pub(crate) fn at(self, at: At, received: u64) -> Error {
        match self {
            Self::Broken(problem) => Error::Broken { at, received, problem },
            Self::Stalled(stall) => Error::Stalled { at, received, stall },
        }
    }
}
