//! `bosun.v1.Events`: the stored sequence, then what comes, without a hole that is not said.
//!
//! A reader that is slow does not make the daemon remember for it: when it falls behind the
//! broadcast, what it missed is read from the store; when the store has let go of it, the stream
//! says which numbers are missing.

use std::pin::Pin;
use std::sync::Arc;

use bosun_proto::v1;
use bosun_proto::v1::events_server::Events;
use futures::Stream;
use tokio::sync::broadcast::error::RecvError;
use tonic::{Request, Response, Status};

use super::{convert, filter};
use crate::container::Supervisor;
use crate::error::Result as CoreResult;
use crate::store::{self, Event, Store, Stored};
use crate::time::Time;

/// Events read from the store at once.
const PAGE: u32 = 256;

/// The service over the core.
#[derive(Debug)]
pub(super) struct Service {
    supervisor: Arc<Supervisor>,
}

impl Service {
    pub(super) fn new(supervisor: Arc<Supervisor>) -> Self {
        Self { supervisor }
    }
}

type EventStream = Pin<Box<dyn Stream<Item = Result<v1::Event, Status>> + Send>>;

#[tonic::async_trait]
impl Events for Service {
    type SubscribeStream = EventStream;

    async fn subscribe(
        &self,
        call: Request<v1::SubscribeRequest>,
    ) -> Result<Response<EventStream>, Status> {
        let namespace = convert::namespace(call.metadata())?.to_string();
        let message = call.into_inner();
        let wanted = Wanted {
            namespace: (!message.all_namespaces).then_some(namespace),
            since: message.since.map(convert::time_from),
            until: message.until.map(convert::time_from),
            filters: parse(&message.filters)?,
        };
        let store = self.supervisor.store().clone();
        let newest = store.read(|tx| tx.newest_event()).await.map_err(crate::Error::from)?;
        let first = match (message.since_sequence, wanted.since) {
            (Some(first), _) => first.max(1),
            (None, Some(_)) => 1,
            (None, None) => newest + 1,
        };
        Ok(Response::new(Box::pin(follow(store, wanted, first))))
    }
}

/// What a subscriber wants to see.
#[derive(Debug)]
struct Wanted {
    /// `None` is every one.
    namespace: Option<String>,
    since: Option<Time>,
    until: Option<Time>,
    filters: Vec<(Key, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Container,
    Action,
    Kind,
    Label,
}

const KEYS: [(&str, Key); 4] = [
    ("container", Key::Container),
    ("event", Key::Action),
    ("type", Key::Kind),
    ("label", Key::Label),
];

fn parse(filters: &[String]) -> CoreResult<Vec<(Key, String)>> {
    filters
        .iter()
        .map(|text| {
            let (name, value) = filter::split(text)?;
            let known = KEYS.iter().find(|(known, _)| *known == name);
            let key = known.ok_or_else(|| filter::unknown(name, &KEYS.map(|(name, _)| name)))?.1;
            Ok((key, value.to_owned()))
        })
        .collect()
}

impl Wanted {
    fn shows(&self, event: &Event) -> bool {
        self.namespace.as_ref().is_none_or(|namespace| *namespace == event.namespace)
            && self.since.is_none_or(|since| event.time >= since)
            && KEYS.iter().all(|(_, key)| {
                let mut values = self.filters.iter().filter(|(other, _)| other == key).peekable();
                values.peek().is_none()
                    || values.any(|(key, value)| matches_one(event, *key, value))
            })
    }

    fn is_over(&self, time: Time) -> bool {
        self.until.is_some_and(|until| time > until)
    }
}

fn matches_one(event: &Event, key: Key, value: &str) -> bool {
    match key {
        Key::Container => {
            event.kind == "container"
                && (event.id.starts_with(value)
                    || event.attributes.get("name").is_some_and(|name| name == value))
        }
        Key::Action => event.action == value,
        Key::Kind => event.kind == value,
        Key::Label => match value.split_once('=') {
            Some((name, value)) => event.attributes.get(name).is_some_and(|own| own == value),
            None => event.attributes.contains_key(value),
        },
    }
}

/// Stored events from `first` on, then those that come.
fn follow(
    store: Store,
    wanted: Wanted,
    first: u64,
) -> impl Stream<Item = Result<v1::Event, Status>> {
    async_stream::try_stream! {
        // Subscribed before the store is read: what is made meanwhile is in one of the two.
        let mut live = store.subscribe();
        let mut next = first;
        let mut behind = true;
        loop {
            while behind {
                let from = next;
                let stored: Result<Stored, store::Error> =
                    store.read(move |tx| tx.events_since(from, PAGE)).await;
                let stored = stored.map_err(crate::Error::from)?;
                if let Some(gap) = gap(next, &stored) {
                    next = gap.last + 1;
                    yield v1::Event { gap: Some(gap), ..v1::Event::default() };
                }
                behind = stored.events.len() == PAGE as usize;
                for event in stored.events {
                    next = event.sequence + 1;
                    if wanted.is_over(event.time) {
                        return;
                    }
                    if wanted.shows(&event) {
                        yield message(&event);
                    }
                }
            }
            let event = match (wanted.until, live.recv()) {
                (None, event) => event.await,
                (Some(until), event) => {
                    let left = until.as_nanos() - Time::now().as_nanos();
                    let left = u64::try_from(left).unwrap_or(0);
                    match tokio::time::timeout(std::time::Duration::from_nanos(left), event).await {
                        Ok(event) => event,
                        Err(_) => return,
                    }
                }
            };
            match event {
                Ok(event) if event.sequence < next => {}
                Ok(event) => {
                    next = event.sequence + 1;
                    if wanted.shows(&event) {
                        yield message(&event);
                    }
                }
                Err(RecvError::Lagged(_)) => behind = true,
                Err(RecvError::Closed) => return,
            }
        }
    }
}

/// The numbers from `next` on that are no longer stored.
fn gap(next: u64, stored: &Stored) -> Option<v1::Gap> {
    let last = match stored.oldest {
        Some(oldest) => oldest.checked_sub(1)?,
        None => stored.newest,
    };
    (next <= last).then_some(v1::Gap { first: next, last })
}

fn message(event: &Event) -> v1::Event {
    v1::Event {
        sequence: event.sequence,
        time: Some(convert::time(event.time)),
        namespace: event.namespace.clone(),
        r#type: event.kind.clone(),
        action: event.action.clone(),
        id: event.id.clone(),
        attributes: event.attributes.clone().into_iter().collect(),
        gap: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_what_was_asked_for_and_is_no_longer_stored() {
        let stored = |oldest, newest| Stored { events: Vec::new(), oldest, newest };
        assert_eq!(gap(1, &stored(Some(1), 5)), None);
        assert_eq!(gap(3, &stored(Some(1), 5)), None);
        assert_eq!(gap(1, &stored(Some(4), 5)), Some(v1::Gap { first: 1, last: 3 }));
        assert_eq!(gap(2, &stored(None, 5)), Some(v1::Gap { first: 2, last: 5 }));
        assert_eq!(gap(6, &stored(None, 5)), None);
    }
}
