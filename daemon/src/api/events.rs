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
use tonic::{Request, Response, Status};

use super::{convert, filter};
use crate::container::Supervisor;
use crate::error::Result as CoreResult;
use crate::events::{Followed, follow};
use crate::store::{Event, Store};
use crate::time::Time;

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
        Ok(Response::new(Box::pin(shown(store, wanted, first))))
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

/// What is wanted of what is followed.
fn shown(
    store: Store,
    wanted: Wanted,
    first: u64,
) -> impl Stream<Item = Result<v1::Event, Status>> {
    async_stream::try_stream! {
        for await followed in follow(store, first, wanted.until) {
            match followed? {
                Followed::Gap { first, last } => {
                    let gap = Some(v1::Gap { first, last });
                    yield v1::Event { gap, ..v1::Event::default() };
                }
                Followed::Event(event) => {
                    if wanted.shows(&event) {
                        yield message(&event);
                    }
                }
            }
        }
    }
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
