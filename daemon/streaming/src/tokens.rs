//! Requests that wait for their client, each behind a name that can't be guessed and works once.

use std::collections::{HashMap, VecDeque};

use tokio::time::Instant;

use crate::limits::{MAX_OUTSTANDING, TOKEN_LIFE};
use crate::request::{Kind, Request};

/// Bytes of a token: 128 bits of the kernel's randomness, in hexadecimal.
const BYTES: usize = 16;

/// There are as many as there may be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full;

/// The requests. Who takes one has it alone.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    waiting: HashMap<String, Request>,
    /// All that were given away and may not have expired, oldest first.
    order: VecDeque<(Instant, String)>,
}

impl Tokens {
    /// Keeps a request for its client. What is older than its life makes room first.
    pub(crate) fn put(&mut self, request: Request, now: Instant) -> Result<String, Full> {
        self.expire(now);
        if self.waiting.len() >= MAX_OUTSTANDING {
            return Err(Full);
        }
        let token = random();
        self.order.push_back((now, token.clone()));
        self.waiting.insert(token.clone(), request);
        Ok(token)
    }

    /// The request of a token, which works no more. One of another kind stays where it is.
    pub(crate) fn take(&mut self, token: &str, kind: Kind, now: Instant) -> Option<Request> {
        self.expire(now);
        if self.waiting.get(token)?.kind() != kind {
            return None;
        }
        self.waiting.remove(token)
    }

    fn expire(&mut self, now: Instant) {
        let waiting = &mut self.waiting;
        // Those that have been taken leave the order as well, or it would grow with every request.
        while let Some((born, token)) = self.order.front()
            && (now.duration_since(*born) >= TOKEN_LIFE || !waiting.contains_key(token))
        {
            waiting.remove(token);
            self.order.pop_front();
        }
        if self.order.len() > 2 * MAX_OUTSTANDING {
            self.order.retain(|(_, token)| waiting.contains_key(token));
        }
    }
}

fn random() -> String {
    use rustix::rand::{GetRandomFlags, getrandom};
    let mut bytes = [0u8; BYTES];
    // As few bytes as these come whole, once the kernel has any.
    while getrandom(&mut bytes, GetRandomFlags::empty()) != Ok(BYTES) {}
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::request::PortForward;

    fn request(sandbox: &str) -> Request {
        Request::PortForward(PortForward { sandbox: sandbox.to_owned(), ports: Vec::new() })
    }

    #[test]
    fn a_token_works_once_for_its_kind_within_its_life() {
        let now = Instant::now();
        let mut tokens = Tokens::default();
        let token = tokens.put(request("a"), now).unwrap();
        let other = tokens.put(request("b"), now).unwrap();
        assert_eq!(token.len(), 32);
        assert_ne!(token, other);
        assert_eq!(tokens.take(&token, Kind::Exec, now), None);
        let last = now + TOKEN_LIFE - Duration::from_nanos(1);
        assert_eq!(tokens.take(&token, Kind::PortForward, last), Some(request("a")));
        assert_eq!(tokens.take(&token, Kind::PortForward, last), None);
        assert_eq!(tokens.take(&other, Kind::PortForward, now + TOKEN_LIFE), None);
        assert!(tokens.order.is_empty());
    }

    #[test]
    fn the_thousand_and_first_is_refused_until_one_goes() {
        let now = Instant::now();
        let mut tokens = Tokens::default();
        let first = tokens.put(request("first"), now).unwrap();
        for _ in 1..MAX_OUTSTANDING {
            tokens.put(request("more"), now + Duration::from_secs(1)).unwrap();
        }
        assert_eq!(tokens.put(request("one"), now + Duration::from_secs(1)), Err(Full));
        assert!(tokens.take(&first, Kind::PortForward, now).is_some());
        tokens.put(request("one"), now + Duration::from_secs(2)).unwrap();
        assert_eq!(tokens.put(request("two"), now + Duration::from_secs(2)), Err(Full));
        tokens.put(request("two"), now + Duration::from_secs(61)).unwrap();
        assert_eq!(tokens.waiting.len(), 2);
    }

    #[test]
    fn those_that_were_taken_are_forgotten() {
        let now = Instant::now();
        let mut tokens = Tokens::default();
        let _first = tokens.put(request("first"), now).unwrap();
        for _ in 0..5 * MAX_OUTSTANDING {
            let token = tokens.put(request("next"), now).unwrap();
            tokens.take(&token, Kind::PortForward, now).unwrap();
        }
        assert!(tokens.order.len() <= 2 * MAX_OUTSTANDING + 1, "{}", tokens.order.len());
    }
}
