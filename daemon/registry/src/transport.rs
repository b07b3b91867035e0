//! One request on its way: redirects, time, and the error that an answer is.
//!
//! Credentials, a host's own headers and a client's certificate go to one origin (scheme, host,
//! port), the home of the request, and nowhere else. Once a redirect has left it, nothing brings
//! them back.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::{self, HeaderMap};
use reqwest::{Method, Response, Url};
use serde::Deserialize;

use crate::body::Body;
use crate::clients::Tls;
use crate::error::{Detail, Stall, root_cause};
use crate::hosts::same_origin;
use crate::{At, Error, Registry, Result};

/// Redirects that are followed for one request.
const MOST_REDIRECTS: usize = 5;
/// Bytes of an error's body that are read.
const LONGEST_ERROR: u64 = 64 << 10;

/// A request as it goes out, and what of it stays at home.
pub(crate) struct Outgoing<'a> {
    pub(crate) method: Method,
    pub(crate) url: Url,
    /// The origin that may see the headers below and the client's certificate.
    pub(crate) home: &'a Url,
    pub(crate) tls: &'a Tls,
    pub(crate) headers: HeaderMap,
    pub(crate) home_headers: HeaderMap,
    pub(crate) body: Option<&'a Upload<'a>>,
    pub(crate) at: &'a At,
}

/// A body that can be begun again.
pub(crate) struct Upload<'a> {
    pub(crate) open: &'a (dyn Fn() -> reqwest::Body + Send + Sync),
    /// Bytes taken from it so far.
    pub(crate) sent: Arc<AtomicU64>,
}

impl Registry {
    /// Follows the redirects of a request that reads. Says whether the answer is the home's own.
    pub(crate) async fn follow(&self, mut outgoing: Outgoing<'_>) -> Result<(Response, bool)> {
        let reads = matches!(outgoing.method, Method::GET | Method::HEAD);
        let mut at_home = same_origin(outgoing.home, &outgoing.url);
        let mut seen = vec![outgoing.url.clone()];
        loop {
            let response = self.execute(&outgoing, at_home).await?;
            let moved = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
            if !reads || !moved {
                return Ok((response, at_home));
            }
            let next = location(&response, outgoing.at)?;
            // The rest of a small body, so that the connection can be used again.
            let _ = self.body(response, outgoing.at, LONGEST_ERROR).await;
            check_hop(&outgoing.url, &next, outgoing.at)?;
            if seen.contains(&next) || seen.len() > MOST_REDIRECTS {
                let (at, limit) = (outgoing.at.clone(), MOST_REDIRECTS);
                return Err(Error::RedirectLoop { at, limit });
            }
            at_home &= same_origin(outgoing.home, &next);
            seen.push(next.clone());
            outgoing.url = next;
        }
    }

    async fn execute(&self, outgoing: &Outgoing<'_>, at_home: bool) -> Result<Response> {
        let away;
        let tls = if at_home {
            outgoing.tls
        } else {
            away = outgoing.tls.without_identity();
            &away
        };
        let client = self.clients.get(tls, &outgoing.url)?;
        let mut request = client.request(outgoing.method.clone(), outgoing.url.clone());
        request = request.headers(outgoing.headers.clone());
        if at_home {
            request = request.headers(outgoing.home_headers.clone());
        }
        if let Some(upload) = outgoing.body {
            upload.sent.store(0, Ordering::Relaxed);
            request = request.body((upload.open)());
        }
        let at = outgoing.at;
        let answered = match outgoing.body {
            None => tokio::time::timeout(self.options.response_timeout, request.send())
                .await
                .map_err(|_| Stall::Response(self.options.response_timeout)),
            Some(upload) => {
                let pause = self.options.response_timeout.max(self.options.idle_timeout);
                while_it_goes_on(request.send(), &upload.sent, pause).await
            }
        };
        match answered {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => {
                let source = error.without_url();
                Err(Error::Unreachable { at: at.clone(), problem: root_cause(&source), source })
            }
            Err(stall) => Err(Error::Stalled { at: at.clone(), received: 0, stall }),
        }
    }

    /// The answer, when it is a success, or the error that it is.
    pub(crate) async fn success(&self, response: Response, at: &At) -> Result<Response> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let retry_after = retry_after(response.headers());
        let read = self.body(response, at, LONGEST_ERROR).await;
        let detail = read.map(|body| message(&body)).unwrap_or_default();
        let at = at.clone();
        Err(match status.as_u16() {
            401 => Error::Unauthorized { at, detail },
            403 => Error::Denied { at, detail },
            404 => Error::NotFound { at },
            429 => Error::TooManyRequests { at, detail, retry_after },
            status @ 500..=599 => Error::Unavailable { at, status, detail, retry_after },
            status => Error::Status { at, status, detail },
        })
    }

    /// A whole body of at most so many bytes.
    pub(crate) async fn body(&self, response: Response, at: &At, limit: u64) -> Result<Bytes> {
        let too_large = || Error::TooLarge { at: at.clone(), limit };
        if response.content_length().is_some_and(|length| length > limit) {
            return Err(too_large());
        }
        let mut body = Body::new(response, Arc::clone(&self.options));
        let mut whole = BytesMut::new();
        loop {
            let received = whole.len() as u64;
            match body.chunk().await {
                Ok(Some(bytes)) if received + bytes.len() as u64 > limit => return Err(too_large()),
                Ok(Some(bytes)) => whole.extend_from_slice(&bytes),
                Ok(None) => return Ok(whole.freeze()),
                Err(end) => return Err(end.at(at.clone(), received)),
            }
        }
    }
}

/// Where a registry says to go, resolved against where it said so.
pub(crate) fn location(response: &Response, at: &At) -> Result<Url> {
    let problem = |problem| Error::BadRedirect { at: at.clone(), problem };
    let value = response.headers().get(header::LOCATION).ok_or(problem("it does not say where"))?;
    let text = value.to_str().map_err(|_| problem("the address is not ASCII"))?;
    let mut url = response.url().join(text).map_err(|_| problem("the address is unusable"))?;
    let _ = (url.set_username(""), url.set_password(None));
    url.set_fragment(None);
    Ok(url)
}

/// Whether one may be sent from here to there.
pub(crate) fn check_hop(from: &Url, to: &Url, at: &At) -> Result<()> {
    let problem = |problem| Err(Error::BadRedirect { at: at.clone(), problem });
    match to.scheme() {
        "http" | "https" => {}
        _ => return problem("neither http nor https"),
    }
    if is_inner(to) && !is_inner(from) {
        return problem("this machine's own services");
    }
    Ok(())
}

/// Addresses that mean something else to everybody who asks: this machine, its link, its cloud's
/// metadata. A registry elsewhere has no business there.
pub(crate) fn is_inner(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || address.parse::<IpAddr>().is_ok_and(|address| match address.to_canonical() {
            IpAddr::V4(v4) => v4.is_loopback() || v4.is_unspecified() || v4.is_link_local(),
            IpAddr::V6(v6) => v6.is_loopback() || v6.is_unspecified() || v6.is_unicast_link_local(),
        })
}

/// In seconds; a date is not understood, and the usual pause serves.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}

/// What the registry says of an error (distribution specification, error codes).
fn message(body: &[u8]) -> Detail {
    #[derive(Deserialize)]
    struct Errors {
        #[serde(default)]
        errors: Vec<One>,
        #[serde(default)]
        details: String,
    }
    #[derive(Deserialize)]
    struct One {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let Ok(errors) = serde_json::from_slice::<Errors>(body) else { return Detail::default() };
    match errors.errors.into_iter().next() {
        Some(One { code, message }) if message.is_empty() => Detail::new(&code),
        Some(One { message, .. }) => Detail::new(&message),
        None => Detail::new(&errors.details),
    }
}

/// Waits for an answer as long as bytes of the body go out.
async fn while_it_goes_on<T>(
    answer: impl Future<Output = T>,
    sent: &AtomicU64,
    pause: Duration,
) -> Result<T, Stall> {
    let mut answer = std::pin::pin!(answer);
    let mut before = u64::MAX;
    loop {
        match tokio::time::timeout(pause, &mut answer).await {
            Ok(answered) => return Ok(answered),
            Err(_) if sent.load(Ordering::Relaxed) == before => return Err(Stall::Response(pause)),
            Err(_) => before = sent.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_sent_to_this_machines_own_services_from_outside() {
        let at = At { what: "x".into(), registry: "y".into(), tried: Vec::new() };
        let hop = |from: &str, to: &str| {
            check_hop(&Url::parse(from).unwrap(), &Url::parse(to).unwrap(), &at).is_ok()
        };
        let inner = [
            "http://127.0.0.1:2375/",
            "http://localhost/",
            "http://LOCALHOST/",
            "https://127.1/",
            "http://2130706433/",
            "http://[::1]/",
            "http://[::ffff:127.0.0.1]/",
            "http://0.0.0.0/",
            "http://169.254.169.254/latest/meta-data",
            "http://[fe80::1]/",
        ];
        for to in inner {
            assert!(!hop("https://registry.example/v2/", to), "{to}");
            assert!(hop("http://127.0.0.1:5000/v2/", to), "{to}");
        }
        for to in ["https://cdn.example/x", "http://10.0.0.1/x", "https://registry.example/y"] {
            assert!(hop("https://registry.example/v2/", to), "{to}");
        }
        assert!(!hop("https://registry.example/", "file:///etc/passwd"));
    }

    #[test]
    fn what_a_registry_says_of_an_error_is_found() {
        let table = [
            (r#"{"errors":[{"code":"A","message":"b c"},{"message":"d"}]}"#, ": b c"),
            (r#"{"errors":[{"code":"A","detail":{}}]}"#, ": A"),
            (r#"{"details":"incorrect"}"#, ": incorrect"),
            ("<html>", ""),
            (r#"{"errors":null}"#, ""),
            ("", ""),
        ];
        for (body, wanted) in table {
            assert_eq!(message(body.as_bytes()).to_string(), wanted, "{body}");
        }
        let long = format!(r#"{{"details":"{}"}}"#, "x".repeat(9999));
        assert!(message(long.as_bytes()).to_string().len() < 500);
    }
}
