//! `ctl events`. Goes on after the last event seen when the daemon restarts.

use std::time::Instant;

use bosun_proto::v1::{Event, SubscribeRequest};
use jiff::Timestamp;
use tonic::Status;

use crate::cli::EventsArgs;
use crate::client::{self, Client};
use crate::error::Error;
use crate::output;
use crate::template::Template;
use crate::view::event;

/// How an event is shown.
enum Shape {
    Words,
    Json,
    Template(Template),
}

pub(super) async fn run(client: &Client, args: EventsArgs) -> Result<u8, Error> {
    let shape = match args.format.as_deref() {
        None | Some("") => Shape::Words,
        Some("json" | "{{json .}}") => Shape::Json,
        Some(template) => Shape::Template(Template::parse(template)?),
    };
    let mut request = SubscribeRequest {
        since_sequence: args.since_sequence,
        since: args.since.map(Into::into),
        until: args.until.map(Into::into),
        filters: args.filter,
        all_namespaces: args.all_namespaces,
    };
    let ends = request.until.is_some();
    let started = Timestamp::now();
    loop {
        let status = match follow(client, &mut request, &shape).await? {
            None if ends => return Ok(0),
            None => Status::unavailable("the stream ended"),
            Some(status) => client.stream_broke(status)?,
        };
        if request.since_sequence.is_none() && request.since.is_none() {
            request.since = Some(prost_types::Timestamp {
                seconds: started.as_second(),
                nanos: started.subsec_nanosecond().max(0),
            });
        }
        client.reconnect(Instant::now(), status).await?;
    }
}

/// Shows events until the stream ends or breaks; the request then asks for what is missing.
async fn follow(
    client: &Client,
    request: &mut SubscribeRequest,
    shape: &Shape,
) -> Result<Option<Status>, Error> {
    let events = client.stream(request.clone(), |channel, request| async move {
        client::events(channel).subscribe(request).await
    });
    let mut events = events.await?;
    loop {
        let event = match events.message().await {
            Ok(Some(event)) => event,
            Ok(None) => return Ok(None),
            Err(status) => return Ok(Some(status)),
        };
        show(&event, shape)?;
        let last = event.gap.as_ref().map_or(event.sequence, |gap| gap.last);
        request.since_sequence = Some(last + 1);
        request.since = None;
    }
}

fn show(event: &Event, shape: &Shape) -> Result<(), Error> {
    let line = match (&event.gap, shape) {
        (Some(gap), Shape::Json) => event::gap(gap.first, gap.last).json(),
        (Some(gap), Shape::Words | Shape::Template(_)) => {
            let (first, last) = (gap.first, gap.last);
            output::warn(&format!("the events {first} to {last} are no longer stored"));
            return Ok(());
        }
        (None, Shape::Words) => event::line(event),
        (None, Shape::Json) => event::value(event).json(),
        (None, Shape::Template(template)) => template.render(&event::value(event))?,
    };
    output::print(&(line + "\n"))
}
