//! What happens to pods and containers, for a kubelet that listens instead of asking.
//!
//! | event of the core | told as |
//! |---|---|
//! | of a sandbox that is not ready | nothing: nobody has seen it |
//! | `ready` of a sandbox | created, started |
//! | `create`, `start`, `die`, `destroy` | created, started, stopped, deleted |
//!
//! All that is told of the past is in the stored events, so whoever comes late, or after another
//! daemon, is told the same. What is told with an event is how things are at that time. Of a container
//! that is deleted there is nothing more; of a pod there is its metadata, which its events and those of
//! its containers carry: kubelets pass over an event without, and say so as an error.
//!
//! A kubelet forgets all that it knows of a pod by the deletion of the sandbox that it is told of with
//! it. Where the pod has another sandbox by then, that one is told.

use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use tonic::Status;
use wire::ContainerEventType as Type;

use super::pods::is_half_made;
use super::{Cri, convert, wire};
use crate::container::{Handle, POD, UNREADY};
use crate::events::{Followed, follow};
use crate::store::Event;

/// How long an event waits for what it tells of to be seen.
const SEEN: Duration = Duration::from_secs(2);

/// Between two looks for a container that is made.
const LOOK: Duration = Duration::from_millis(2);

/// How many seconds of the past are told.
const REPLAYED: i64 = 60;

impl Cri {
    /// Every event from now on. What came in the last minute is told again: a kubelet whose stream
    /// broke has missed it, and the others lose nothing by it, for an event tells of what is.
    pub(super) fn container_events(
        self: &Arc<Self>,
    ) -> impl Stream<Item = Result<wire::ContainerEventResponse, Status>> + use<> {
        let this = Arc::clone(self);
        async_stream::try_stream! {
            let store = this.supervisor.store().clone();
            let since = crate::time::Time::now().seconds - REPLAYED;
            let first = store
                .read(move |tx| tx.first_event_since(since))
                .await
                .map_err(crate::Error::from)?;
            for await followed in follow(store, first, None) {
                let event = match followed? {
                    Followed::Event(event) => event,
                    // What is missing is found by the list that the kubelet makes now and then.
                    Followed::Gap { .. } => continue,
                };
                if event.namespace != this.namespace.as_str() {
                    continue;
                }
                for kind in kinds(&event) {
                    yield this.told(&event, *kind).await;
                }
            }
        }
    }

    /// The event as a kubelet is told of it.
    async fn told(&self, event: &Event, kind: Type) -> wire::ContainerEventResponse {
        let seen = tokio::time::timeout(SEEN, self.until_seen(event, kind)).await;
        let pod = match is_pod(event) {
            true => Some(event.id.clone()),
            false => event.attributes.get(POD).cloned().or_else(|| {
                // One that an earlier bosund told of.
                let record = seen.ok().flatten()?.record().ok()?;
                Some(convert::pod_of(&record).to_owned())
            }),
        };
        let (pod_sandbox_status, mut containers_statuses) = match pod {
            Some(pod) => self.status_with(event, &pod, kind).await,
            None => (None, Vec::new()),
        };
        if kind == Type::ContainerDeletedEvent {
            // Its end is stored before it is let go of.
            containers_statuses.retain(|container| container.id != event.id);
        }
        wire::ContainerEventResponse {
            container_id: event.id.clone(),
            container_event_type: kind.into(),
            created_at: convert::nanos(event.time),
            pod_sandbox_status,
            containers_statuses,
        }
    }

    /// The pod of an event as it is told with it, and its containers.
    async fn status_with(
        &self,
        event: &Event,
        pod: &str,
        kind: Type,
    ) -> (Option<wire::PodSandboxStatus>, Vec<wire::ContainerStatus>) {
        let is_gone = is_pod(event) && kind == Type::ContainerDeletedEvent;
        let told = match is_gone {
            true => self.successor(event),
            false => Some(pod.to_owned()),
        };
        let status = match told {
            Some(pod) => self.pod_status(&pod, false).await.ok(),
            None => None,
        };
        match status {
            Some(status) => (status.status, status.containers_statuses),
            None => (convert::gone_pod(pod, event), Vec::new()),
        }
    }

    /// The newest other sandbox of the pod whose sandbox an event is of.
    fn successor(&self, event: &Event) -> Option<String> {
        let uid = convert::uid(&event.attributes)?;
        let others = self.supervisor.sandboxes(&self.namespace).into_iter();
        let records = others.filter_map(|pod| pod.record().ok()).filter(|record| {
            record.id != event.id
                && convert::uid(&record.options.event_attributes) == Some(uid)
                && !is_half_made(record)
                && !self.is_on_its_way(record)
        });
        records.max_by_key(|record| record.created_at).map(|record| record.id.clone())
    }

    /// Waits for what happened to be seen, for it is told once it is stored, which is before that; who
    /// it happened to, as long as it is there.
    async fn until_seen(&self, event: &Event, kind: Type) -> Option<Handle> {
        if kind == Type::ContainerCreatedEvent {
            while self.supervisor.is_being_made(&self.namespace, &event.id) {
                tokio::time::sleep(LOOK).await;
            }
        }
        if is_pod(event)
            && let Some(name) = event.attributes.get("name")
        {
            self.until_it_is_there(name).await;
        }
        let handle = self.supervisor.find(&self.namespace, &event.id).ok()?;
        if kind == Type::ContainerStoppedEvent {
            handle.ended().await;
        }
        Some(handle)
    }
}

fn is_pod(event: &Event) -> bool {
    event.kind == "sandbox"
}

/// What a kubelet is told of an event.
fn kinds(event: &Event) -> &'static [Type] {
    if event.attributes.contains_key(UNREADY) {
        return &[];
    }
    match (event.kind.as_str(), event.action.as_str()) {
        ("sandbox", "ready") => &[Type::ContainerCreatedEvent, Type::ContainerStartedEvent],
        ("sandbox" | "container", "create") => &[Type::ContainerCreatedEvent],
        ("sandbox" | "container", "start") => &[Type::ContainerStartedEvent],
        ("sandbox" | "container", "die") => &[Type::ContainerStoppedEvent],
        ("sandbox" | "container", "destroy") => &[Type::ContainerDeletedEvent],
        _ => &[],
    }
}
