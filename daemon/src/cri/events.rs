//! What happens to pods and containers, for a kubelet that listens instead of asking.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use tonic::Status;

use super::{Cri, convert, wire};
use crate::container::Handle;
use crate::events::{Followed, follow};
use crate::store::Event;

/// How long an event waits for what it tells of to be seen.
const SEEN: Duration = Duration::from_secs(2);

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
            // Whose pod a container was is not known any more when it is gone.
            let mut pods: HashMap<String, String> = this.pods_of_containers();
            for await followed in follow(store, first, None) {
                let event = match followed? {
                    Followed::Event(event) => event,
                    // What is missing is found by the list that the kubelet makes now and then.
                    Followed::Gap { .. } => continue,
                };
                if let Some(told) = this.told(&event, &mut pods).await {
                    yield told;
                }
            }
        }
    }

    fn pods_of_containers(&self) -> HashMap<String, String> {
        let containers = self.supervisor.list(&self.namespace);
        let pod = |handle: &Handle| {
            let record = handle.record().ok()?;
            Some((record.id.clone(), convert::pod_of(&record).to_owned()))
        };
        containers.iter().filter_map(pod).collect()
    }

    /// The event as a kubelet is told of it; `None` when it is none of a kubelet's.
    async fn told(
        &self,
        event: &Event,
        pods: &mut HashMap<String, String>,
    ) -> Option<wire::ContainerEventResponse> {
        use wire::ContainerEventType as Type;
        if event.namespace != self.namespace.as_str() {
            return None;
        }
        let is_pod = match event.kind.as_str() {
            "sandbox" => true,
            "container" => false,
            _ => return None,
        };
        let kind = match event.action.as_str() {
            "create" => Type::ContainerCreatedEvent,
            "start" => Type::ContainerStartedEvent,
            "die" => Type::ContainerStoppedEvent,
            "destroy" => Type::ContainerDeletedEvent,
            _ => return None,
        };
        let handle = self.supervisor.find(&self.namespace, &event.id).ok();
        if let (Some(handle), Type::ContainerStoppedEvent) = (&handle, kind) {
            // It is told once it is stored, which is before it is seen.
            let _ = tokio::time::timeout(SEEN, handle.ended()).await;
        }
        if let Some(record) = handle.as_ref().and_then(|handle| handle.record().ok()) {
            pods.insert(event.id.clone(), convert::pod_of(&record).to_owned());
        }
        let pod = match is_pod {
            true => event.id.clone(),
            false if kind == Type::ContainerDeletedEvent => {
                pods.remove(&event.id).unwrap_or_default()
            }
            false => pods.get(&event.id).cloned().unwrap_or_default(),
        };
        let status = self.pod_status(&pod, false).await.ok();
        let (pod_sandbox_status, containers_statuses) = match status {
            Some(status) => (status.status, status.containers_statuses),
            None => (None, Vec::new()),
        };
        Some(wire::ContainerEventResponse {
            container_id: event.id.clone(),
            container_event_type: kind.into(),
            created_at: convert::nanos(event.time),
            pod_sandbox_status,
            containers_statuses,
        })
    }
}
