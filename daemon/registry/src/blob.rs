//! Blobs as they come: in order, resumed after a break, never more than was promised.

use std::sync::Arc;

use bosun_image::Descriptor;
use bytes::Bytes;
use reqwest::{Response, StatusCode, header};

use crate::body::{Body, Break};
use crate::retry::Attempts;
use crate::{At, Error, Repository, Result};

/// After so many bytes without a break, earlier breaks are forgotten.
const GOOD_WHILE: u64 = 1 << 20;

/// A blob being downloaded. Its digest is for its keeper to check.
#[derive(Debug)]
pub struct Blob {
    repository: Repository,
    descriptor: Descriptor,
    what: String,
    /// Of the next byte that is given.
    position: u64,
    body: Option<Body>,
    /// Bytes that a server without ranges sends again.
    skip: u64,
    attempts: Attempts,
    /// Where the last attempt began.
    begun_at: u64,
}

impl Blob {
    pub(crate) fn new(repository: Repository, descriptor: Descriptor, position: u64) -> Self {
        let what = repository.what("blob", &descriptor.digest);
        let (body, skip, attempts, begun_at) = (None, 0, Attempts::new(), position);
        Self { repository, descriptor, what, position, body, skip, attempts, begun_at }
    }

    /// Bytes of the blob before the next one.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Opens the connection, as `next` would.
    pub(crate) async fn open(mut self) -> Result<Self> {
        while self.body.is_none() && self.position < self.descriptor.size {
            if let Err(error) = self.reopen().await {
                self.pause(error).await?;
            }
        }
        Ok(self)
    }

    /// The next bytes; nothing after the last. Breaks are mended in here, as often as
    /// [`Options::attempts`](crate::Options::attempts) has it.
    ///
    /// # Errors
    /// It can't be had, or has another length than the descriptor says.
    pub async fn next(&mut self) -> Option<Result<Bytes>> {
        loop {
            if self.position == self.descriptor.size {
                return self.end().await.err().map(Err);
            }
            let error = match self.advance().await {
                Ok(Some(bytes)) => return Some(Ok(bytes)),
                Ok(None) => continue,
                Err(error) => error,
            };
            self.body = None;
            if let Err(error) = self.pause(error).await {
                return Some(Err(error));
            }
        }
    }

    /// Some bytes; none when there were only such as are known already.
    async fn advance(&mut self) -> Result<Option<Bytes>> {
        let Some(body) = &mut self.body else {
            self.reopen().await?;
            return Ok(None);
        };
        let read = match body.chunk().await {
            Ok(Some(bytes)) => Ok(bytes),
            Ok(None) => Err(Break::Broken("it ended early".to_owned())),
            Err(end) => Err(end),
        };
        let mut bytes = read.map_err(|end| end.at(self.at(), self.position))?;
        let known = self.skip.min(bytes.len() as u64);
        self.skip -= known;
        // Never more than the length of a slice.
        let bytes = bytes.split_off(usize::try_from(known).unwrap_or(usize::MAX));
        if bytes.is_empty() {
            return Ok(None);
        }
        let got = self.position + bytes.len() as u64;
        if got > self.descriptor.size {
            return Err(Error::BadLength { at: self.at(), wanted: self.descriptor.size, got });
        }
        self.position = got;
        Ok(Some(bytes))
    }

    /// Reads to the end of the body, where nothing may come any more.
    async fn end(&mut self) -> Result<()> {
        let Some(mut body) = self.body.take() else { return Ok(()) };
        match body.chunk().await {
            Ok(Some(more)) if !more.is_empty() => {
                let got = self.position + more.len() as u64;
                Err(Error::BadLength { at: self.at(), wanted: self.descriptor.size, got })
            }
            // All that was promised is here; how the connection ends is nobody's loss.
            Ok(Some(_) | None) | Err(_) => Ok(()),
        }
    }

    async fn reopen(&mut self) -> Result<()> {
        self.begun_at = self.position;
        let (response, skip) =
            self.repository.open_blob(&self.descriptor, self.position, &self.what).await?;
        self.skip = skip;
        self.body = Some(Body::new(response, Arc::clone(self.repository.options())));
        Ok(())
    }

    async fn pause(&mut self, error: Error) -> Result<()> {
        if self.position - self.begun_at >= GOOD_WHILE {
            self.attempts.forget();
        }
        let Self { attempts, repository, what, .. } = self;
        attempts.pause(repository.options(), what, error, repository.listener()).await
    }

    fn at(&self) -> At {
        self.repository.at(&self.what)
    }
}

/// Where the body of an answer begins, when a blob was asked for from a position on: how many of its
/// bytes are known already.
pub(crate) fn known_bytes(
    response: &Response,
    descriptor: &Descriptor,
    position: u64,
    at: &At,
) -> Result<u64> {
    let ranged = response.status() == StatusCode::PARTIAL_CONTENT;
    let first = if ranged { position } else { 0 };
    if ranged {
        let range = response.headers().get(header::CONTENT_RANGE);
        let range = range.and_then(|value| value.to_str().ok()).and_then(content_range);
        let fits = range.is_some_and(|(first, total)| {
            first == position && total.is_none_or(|total| total == descriptor.size)
        });
        if !fits {
            let problem = "another range than was asked for";
            return Err(Error::BadAnswer { at: at.clone(), problem });
        }
    }
    if let Some(length) = response.content_length() {
        let (wanted, got) = (descriptor.size, first.saturating_add(length));
        if wanted != got {
            return Err(Error::BadLength { at: at.clone(), wanted, got });
        }
    }
    Ok(position - first)
}

/// The first byte and the whole length of `bytes 5-9/10`.
fn content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, _) = range.split_once('-')?;
    let total = if total == "*" { None } else { Some(total.parse().ok()?) };
    Some((first.trim().parse().ok()?, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_range_says_where_it_begins() {
        let table = [
            ("bytes 5-9/10", Some((5, Some(10)))),
            ("bytes 5-9/*", Some((5, None))),
            ("bytes */10", None),
            ("bytes 5-9", None),
            ("items 5-9/10", None),
            ("bytes -5-9/10", None),
            ("bytes 5-9/ten", None),
            ("", None),
        ];
        for (text, wanted) in table {
            assert_eq!(content_range(text), wanted, "{text}");
        }
    }
}
