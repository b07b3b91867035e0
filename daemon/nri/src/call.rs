//! The calls of a pod's and a container's life: method, event, and what becomes of each with a plugin that
//! does not know it.

use prost::Message;

use crate::wire::{self, Event, StateChangeEvent};

/// The full name of the plugin's service.
pub(crate) const PLUGIN: &str = "nri.pkg.api.v1alpha1.Plugin";

/// The full name of the runtime's.
pub(crate) const RUNTIME: &str = "nri.pkg.api.v1alpha1.Runtime";

/// A call that plugins subscribe to.
pub(crate) trait Call: Message {
    type Answer: Message + Default;
    const METHOD: &'static str;
    const EVENT: Event;

    /// What it was before it had a method of its own; `None` for one that always had.
    fn state_change(&self) -> Option<StateChangeEvent>;
}

macro_rules! calls {
    ($($name:literal $request:ident $answer:ident $event:ident $old:tt;)*) => {$(
        impl Call for wire::$request {
            type Answer = wire::$answer;
            const METHOD: &'static str = $name;
            const EVENT: Event = Event::$event;

            fn state_change(&self) -> Option<StateChangeEvent> {
                calls!(@ $old self $event)
            }
        }
    )*};
    (@ own $self:ident $event:ident) => { None };
    (@ pod $self:ident $event:ident) => {
        Some(StateChangeEvent {
            event: Event::$event.into(),
            pod: $self.pod.clone(),
            container: None,
        })
    };
    (@ container $self:ident $event:ident) => {
        Some(StateChangeEvent {
            event: Event::$event.into(),
            pod: $self.pod.clone(),
            container: $self.container.clone(),
        })
    };
}

calls! {
    "RunPodSandbox" RunPodSandboxRequest RunPodSandboxResponse RunPodSandbox pod;
    "UpdatePodSandbox" UpdatePodSandboxRequest UpdatePodSandboxResponse UpdatePodSandbox own;
    "PostUpdatePodSandbox" PostUpdatePodSandboxRequest PostUpdatePodSandboxResponse PostUpdatePodSandbox pod;
    "StopPodSandbox" StopPodSandboxRequest StopPodSandboxResponse StopPodSandbox pod;
    "RemovePodSandbox" RemovePodSandboxRequest RemovePodSandboxResponse RemovePodSandbox pod;
    "CreateContainer" CreateContainerRequest CreateContainerResponse CreateContainer own;
    "PostCreateContainer" PostCreateContainerRequest PostCreateContainerResponse PostCreateContainer container;
    "StartContainer" StartContainerRequest StartContainerResponse StartContainer container;
    "PostStartContainer" PostStartContainerRequest PostStartContainerResponse PostStartContainer container;
    "UpdateContainer" UpdateContainerRequest UpdateContainerResponse UpdateContainer own;
    "PostUpdateContainer" PostUpdateContainerRequest PostUpdateContainerResponse PostUpdateContainer container;
    "StopContainer" StopContainerRequest StopContainerResponse StopContainer own;
    "RemoveContainer" RemoveContainerRequest RemoveContainerResponse RemoveContainer container;
    "ValidateContainerAdjustment" ValidateContainerAdjustmentRequest ValidateContainerAdjustmentResponse ValidateContainerAdjustment own;
}

/// The events that a plugin wants: the bit of event N is `1 << (N - 1)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Events(i32);

impl Events {
    const ALL: i32 = (1 << (Event::Last as i32 - 1)) - 1;

    /// None at all is every one.
    ///
    /// # Errors
    /// The bits that are no event's.
    pub(crate) fn of(mask: i32) -> Result<Self, i32> {
        match (mask, mask & !Self::ALL) {
            (0, _) => Ok(Self(Self::ALL)),
            (mask, 0) => Ok(Self(mask)),
            (_, odd) => Err(odd),
        }
    }

    pub(crate) fn has(self, event: Event) -> bool {
        let number = event as i32;
        number > 0 && self.0 & (1 << (number - 1)) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_has_a_bit_for_each_event() {
        let some = Events::of(1 << 3 | 1).unwrap();
        assert!(some.has(Event::CreateContainer) && some.has(Event::RunPodSandbox));
        assert!(!some.has(Event::StopPodSandbox) && !some.has(Event::Unknown));
        let all = Events::of(0).unwrap();
        assert!((1..15).all(|number| all.has(Event::try_from(number).unwrap())));
        assert_eq!(Events::of(1 << 14 | 1), Err(1 << 14));
        assert_eq!(Events::of(-1), Err(!0x3fff));
    }
}
