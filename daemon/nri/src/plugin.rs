//! A plugin: who it is, what it wants to hear of, and how it is asked.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prost::Message as _;
use shim_wire::ttrpc::{self, Code, Response};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use crate::call::{Call, Events, PLUGIN, RUNTIME};
use crate::connection::{CallError, Connection, Incoming};
use crate::error::{Error, Result};
use crate::launch::{Launched, Program};
use crate::name::{Name, NameError};
use crate::runtime::Settings;
use crate::wire::{
    ConfigureRequest, ConfigureResponse, Container, ContainerUpdate, Empty, PodSandbox,
    RegisterPluginRequest, SynchronizeRequest, SynchronizeResponse,
};

/// The version of the interface whose messages these are.
const VERSION: &str = "v0.13.0";

/// What a message of a synchronization may have; the rest is the envelope's.
const MOST: usize = ttrpc::MAX_MESSAGE - 4096;

/// Why there is no plugin.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    #[error("it did not register within {} ms", .0.as_millis())]
    Silent(Duration),
    #[error("it closed its connection before it had registered")]
    Gone,
    #[error(transparent)]
    Name(#[from] NameError),
    #[error("{method}: {source}")]
    Call { method: &'static str, source: CallError },
    #[error("it subscribes to events that there are none: {0:#x}")]
    Events(i32),
    #[error("it does not take what there is in several messages")]
    Split,
    #[error("{id} is too long for a message: {length} bytes")]
    TooLong { id: String, length: usize },
    #[error("it can't be started: {0}")]
    Start(std::io::Error),
}

#[derive(Debug)]
pub(crate) struct Plugin {
    pub(crate) name: Name,
    events: Events,
    connection: Arc<Connection>,
    launched: Option<Launched>,
    /// Methods that it has not; it is not asked again.
    lacks: Mutex<BTreeSet<&'static str>>,
}

impl Plugin {
    /// Starts a program that is installed, and takes its registration.
    pub(crate) async fn launch(
        program: &Program,
        settings: &Settings,
    ) -> Result<(Arc<Self>, mpsc::Receiver<Incoming>), Problem> {
        let (launched, socket) = Launched::start(program).map_err(Problem::Start)?;
        Self::welcome(socket, Some((launched, program)), settings).await
    }

    /// Takes the registration of who has connected: name, configuration, events.
    pub(crate) async fn welcome(
        socket: UnixStream,
        launched: Option<(Launched, &Program)>,
        settings: &Settings,
    ) -> Result<(Arc<Self>, mpsc::Receiver<Incoming>), Problem> {
        let (connection, mut incoming) = Connection::open(socket);
        let registered = async {
            let named = register(&connection, &mut incoming, launched.is_none());
            let limit = settings.registration_timeout;
            let named = tokio::time::timeout(limit, named).await;
            let named = named.unwrap_or(Err(Problem::Silent(limit)))?;
            let (name, config) = match &launched {
                Some((_, program)) => (program.name.clone(), program.config.clone()),
                None => (named, String::new()),
            };
            Ok((name, configure(&connection, config, settings).await?))
        };
        let registered = registered.await;
        let launched = launched.map(|(launched, _)| launched);
        match registered {
            Ok((name, events)) => {
                let lacks = Mutex::default();
                Ok((Arc::new(Self { name, events, connection, launched, lacks }), incoming))
            }
            Err(problem) => {
                connection.close();
                if let Some(launched) = launched {
                    launched.end(Duration::ZERO).await;
                }
                Err(problem)
            }
        }
    }

    pub(crate) fn wants<C: Call>(&self) -> bool {
        self.events.has(C::EVENT)
    }

    /// Asks; `None` when it does not want to hear of it, does not know of it, or is of no more use, which
    /// it is from then on.
    ///
    /// # Errors
    /// It said no.
    pub(crate) async fn ask<C: Call>(
        &self,
        call: &C,
        limit: Duration,
    ) -> Result<Option<C::Answer>> {
        if !self.wants::<C>() {
            return Ok(None);
        }
        match self.try_ask(call, limit).await {
            Ok(answer) => Ok(answer),
            Err(error) if error.is_fatal() => {
                tracing::error!(plugin = %self.name, call = C::METHOD, %error, "closing an NRI plugin");
                self.close();
                Ok(None)
            }
            Err(error) => Err(Error::Refused {
                plugin: self.name.to_string(),
                call: C::METHOD,
                message: error.to_string(),
            }),
        }
    }

    /// As [`Plugin::ask`], whatever the answer.
    pub(crate) async fn try_ask<C: Call>(
        &self,
        call: &C,
        limit: Duration,
    ) -> Result<Option<C::Answer>, CallError> {
        let lacking = |method: &'static str| {
            self.lacks.lock().unwrap_or_else(PoisonError::into_inner).contains(method)
        };
        if !lacking(C::METHOD) {
            match self.connection.call(PLUGIN, C::METHOD, call, limit).await {
                Err(CallError::Refused { code: Code::Unimplemented, .. }) => {
                    self.lacks.lock().unwrap_or_else(PoisonError::into_inner).insert(C::METHOD);
                }
                answered => return answered.map(Some),
            }
        }
        let Some(event) = call.state_change() else { return Ok(None) };
        match self.connection.call(PLUGIN, "StateChange", &event, limit).await {
            Ok(Empty {}) => Ok(Some(C::Answer::default())),
            Err(CallError::Refused { code: Code::Unimplemented, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Tells it what there is; answers what it wants to be changed.
    pub(crate) async fn synchronize(
        &self,
        pods: Vec<PodSandbox>,
        containers: Vec<Container>,
        limit: Duration,
    ) -> Result<Vec<ContainerUpdate>, Problem> {
        const METHOD: &str = "Synchronize";
        for request in split(pods, containers, MOST)? {
            let answer = self.connection.call(PLUGIN, METHOD, &request, limit).await;
            let answer: SynchronizeResponse =
                answer.map_err(|source| Problem::Call { method: METHOD, source })?;
            if !request.more {
                return Ok(answer.update);
            }
            if !answer.more || !answer.update.is_empty() {
                return Err(Problem::Split);
            }
        }
        Ok(Vec::new())
    }

    /// Lets it know that the runtime goes, then lets it go.
    pub(crate) async fn shut_down(&self, limit: Duration) {
        let told: Result<Empty, CallError> =
            self.connection.call(PLUGIN, "Shutdown", &Empty {}, limit).await;
        if let Err(error) = told {
            tracing::debug!(plugin = %self.name, %error, "not told of the end");
        }
        self.close();
        self.end(limit).await;
    }

    pub(crate) fn close(&self) {
        self.connection.close();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.connection.is_closed()
    }

    pub(crate) async fn closed(&self) {
        self.connection.closed().await;
    }

    /// Waits for the end of the process that was started for it, and kills it after that time.
    pub(crate) async fn end(&self, limit: Duration) {
        if let Some(launched) = &self.launched {
            launched.end(limit).await;
        }
    }

    pub(crate) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    pub(crate) fn kind(&self) -> &'static str {
        if self.launched.is_some() { "installed" } else { "external" }
    }
}

/// Waits for the first call. Only who has connected by itself has to have a name.
async fn register(
    connection: &Connection,
    incoming: &mut mpsc::Receiver<Incoming>,
    named: bool,
) -> Result<Name, Problem> {
    loop {
        let call = incoming.recv().await.ok_or(Problem::Gone)?;
        if call.service != RUNTIME || call.method != "RegisterPlugin" {
            let problem = format!("{}: register first", call.method);
            let refused = Response::error(Code::FailedPrecondition, problem);
            connection.answer(&call, &refused).await;
            continue;
        }
        let parsed = RegisterPluginRequest::decode(call.payload.as_slice());
        let request = match parsed {
            Ok(request) => request,
            Err(error) => {
                let refused = Response::error(Code::InvalidArgument, error.to_string());
                connection.answer(&call, &refused).await;
                continue;
            }
        };
        let name = Name::new(&request.plugin_idx, &request.plugin_name);
        if named && let Err(error) = &name {
            let refused = Response::error(Code::InvalidArgument, error.to_string());
            connection.answer(&call, &refused).await;
        } else {
            connection.answer(&call, &Response::ok(&Empty {})).await;
        }
        return match (name, named) {
            (Ok(name), _) => Ok(name),
            // It has one already.
            (Err(_), false) => Ok(Name::default()),
            (Err(error), true) => Err(error.into()),
        };
    }
}

async fn configure(
    connection: &Connection,
    config: String,
    settings: &Settings,
) -> Result<Events, Problem> {
    const METHOD: &str = "Configure";
    let milliseconds = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    let request = ConfigureRequest {
        config,
        runtime_name: settings.runtime_name.clone(),
        runtime_version: settings.runtime_version.clone(),
        registration_timeout: milliseconds(settings.registration_timeout),
        request_timeout: milliseconds(settings.request_timeout),
        nri_version: VERSION.to_owned(),
    };
    let answer = connection.call(PLUGIN, METHOD, &request, settings.request_timeout).await;
    let answer: ConfigureResponse =
        answer.map_err(|source| Problem::Call { method: METHOD, source })?;
    Events::of(answer.events).map_err(Problem::Events)
}

/// As few messages as possible, none of which is longer than `most` bytes; at least one.
fn split(
    pods: Vec<PodSandbox>,
    containers: Vec<Container>,
    most: usize,
) -> Result<Vec<SynchronizeRequest>, Problem> {
    let mut requests: Vec<SynchronizeRequest> = vec![SynchronizeRequest::default()];
    let mut length = 0;
    // Tag, length and the bit for more.
    let size = |bytes: usize| bytes + 10;
    let mut place = |requests: &mut Vec<SynchronizeRequest>, id: &str, bytes: usize| {
        if bytes > most {
            return Err(Problem::TooLong { id: id.to_owned(), length: bytes });
        }
        if length + bytes > most {
            if let Some(last) = requests.last_mut() {
                last.more = true;
            }
            requests.push(SynchronizeRequest::default());
            length = 0;
        }
        length += bytes;
        Ok(())
    };
    for pod in pods {
        place(&mut requests, &pod.id, size(pod.encoded_len()))?;
        requests.last_mut().into_iter().for_each(|last| last.pods.push(pod.clone()));
    }
    for container in containers {
        place(&mut requests, &container.id, size(container.encoded_len()))?;
        requests.last_mut().into_iter().for_each(|last| last.containers.push(container.clone()));
    }
    Ok(requests)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_there_is_goes_into_as_few_messages_as_it_takes() {
        let pods: Vec<PodSandbox> =
            (0..5).map(|n| PodSandbox { id: format!("p{n}"), ..PodSandbox::default() }).collect();
        let containers: Vec<Container> =
            (0..5).map(|n| Container { id: "c".repeat(n), ..Container::default() }).collect();
        let one = split(pods.clone(), containers.clone(), 1 << 20).unwrap();
        assert_eq!(one.len(), 1);
        assert!(!one[0].more);
        let several = split(pods.clone(), containers.clone(), 40).unwrap();
        assert!(several.len() > 2);
        let (last, others) = several.split_last().unwrap();
        assert!(!last.more && others.iter().all(|request| request.more));
        assert!(several.iter().all(|request| request.encoded_len() <= 40));
        let all: Vec<_> = several.iter().flat_map(|request| request.pods.clone()).collect();
        assert_eq!(all, pods);
        let all: Vec<_> = several.iter().flat_map(|request| request.containers.clone()).collect();
        assert_eq!(all, containers);
        assert_eq!(split(Vec::new(), Vec::new(), 40).unwrap().len(), 1, "nothing is told as well");
        assert!(matches!(split(pods, containers, 10), Err(Problem::TooLong { .. })));
    }
}
