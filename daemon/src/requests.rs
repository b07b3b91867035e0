//! Request ids: the same call made again, or at the same time, is done once.
//!
//! A call with an id that is under way is joined; one that was answered gets the stored answer; the
//! same id with another body is refused. An error is not an answer: the call may be made again.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::Future;
use std::sync::{Mutex, PoisonError};

use shim_wire::id::Id;
use tokio::sync::watch;

use crate::error::{Error, Result};
use crate::store::{Repeated, Store};

type Outcome = Option<Result<String>>;

/// A mutating call's identity.
#[derive(Clone, Debug)]
pub struct Request {
    pub namespace: Id,
    /// Made by the client; empty: the call is not repeatable.
    pub id: String,
    /// A digest of method and body.
    pub body: String,
}

/// The calls that are under way.
#[derive(Debug, Default)]
pub struct Requests {
    under_way: Mutex<HashMap<(Id, String), UnderWay>>,
}

#[derive(Debug)]
struct UnderWay {
    body: String,
    outcome: watch::Receiver<Outcome>,
}

enum Role {
    Alone,
    Leads(watch::Sender<Outcome>),
    Follows(watch::Receiver<Outcome>),
}

impl Requests {
    /// Does `work` unless it was done. `work` stores its answer itself when that must be in its own
    /// commit; otherwise it is stored here, soon.
    ///
    /// # Errors
    /// What `work` answered, or [`Error::RequestIdReused`].
    pub async fn once<F>(&self, store: &Store, request: &Request, work: F) -> Result<String>
    where
        F: Future<Output = Result<String>>,
    {
        let leader = match self.role(request)? {
            Role::Alone => return work.await,
            Role::Follows(outcome) => return follow(outcome).await,
            Role::Leads(outcome) => outcome,
        };
        let _leave = Leave { requests: self, key: (request.namespace.clone(), request.id.clone()) };
        let outcome = self.lead(store, request, work).await;
        leader.send_replace(Some(outcome.clone()));
        outcome
    }

    async fn lead<F>(&self, store: &Store, request: &Request, work: F) -> Result<String>
    where
        F: Future<Output = Result<String>>,
    {
        let asked = request.clone();
        let known: std::result::Result<Repeated, crate::store::Error> = store
            .read(move |tx| tx.request(asked.namespace.as_str(), &asked.id, &asked.body))
            .await;
        match known {
            Ok(Repeated::Same(answer)) => return Ok(answer),
            Ok(Repeated::Different) => return Err(reused(&request.id)),
            Ok(Repeated::New) => {}
            // What has to be stored fails by itself; what runs can be stopped all the same.
            Err(error) => {
                tracing::warn!(request = request.id, %error, "not known whether it was made before");
            }
        }
        let answer = work.await?;
        let (asked, stored) = (request.clone(), answer.clone());
        store.write_soon(move |tx| {
            tx.answered(asked.namespace.as_str(), &asked.id, &asked.body, &stored)
        });
        Ok(answer)
    }

    fn role(&self, request: &Request) -> Result<Role> {
        if request.id.is_empty() {
            return Ok(Role::Alone);
        }
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        match under_way.entry((request.namespace.clone(), request.id.clone())) {
            Entry::Occupied(entry) if entry.get().body != request.body => Err(reused(&request.id)),
            Entry::Occupied(entry) => Ok(Role::Follows(entry.get().outcome.clone())),
            Entry::Vacant(entry) => {
                let (sender, outcome) = watch::channel(None);
                entry.insert(UnderWay { body: request.body.clone(), outcome });
                Ok(Role::Leads(sender))
            }
        }
    }
}

fn reused(id: &str) -> Error {
    Error::RequestIdReused { request_id: id.to_owned() }
}

async fn follow(mut outcome: watch::Receiver<Outcome>) -> Result<String> {
    match outcome.wait_for(Option::is_some).await {
        Ok(outcome) => outcome.clone().unwrap_or(Err(Error::Stopping)),
        // The leader's client went away in the middle: its call may be made again.
        Err(_) => Err(Error::Stopping),
    }
}

/// Takes the call out of the table, whatever way it ended.
struct Leave<'a> {
    requests: &'a Requests,
    key: (Id, String),
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.requests.under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}
