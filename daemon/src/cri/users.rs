//! Who containers run as: looked up in the files of each once, and kept while it is there.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use shim_rootfs::user::Identity;

use super::{Cri, convert, lock, wire};
use crate::container::{Handle, Record};
use crate::files;

/// How long a status waits for it: files of a container that ends are not to be had for a while.
const LOOKED: Duration = Duration::from_millis(500);

/// What was looked up, by the ids of containers.
#[derive(Debug, Default)]
pub(super) struct Users(Mutex<HashMap<String, Identity>>);

impl Users {
    fn of(&self, id: &str) -> Option<Identity> {
        lock(&self.0).get(id).cloned()
    }

    fn keep(&self, id: &str, identity: Identity) {
        lock(&self.0).insert(id.to_owned(), identity);
    }

    pub(super) fn forget(&self, id: &str) {
        lock(&self.0).remove(id);
    }
}

impl Cri {
    /// A container as it is, with who it runs as.
    pub(super) async fn status_of(
        &self,
        container: &Handle,
        record: &Record,
    ) -> wire::ContainerStatus {
        let mut status = convert::container_status(container, record);
        let identity = self.identity(container, record).await;
        status.user = identity.map(|identity| convert::container_user(&identity, record));
        status
    }

    /// Looks up who a new container will run as, beside other work: nothing has written to its files
    /// yet, and its start waits for whoever reads them.
    pub(super) fn look_up(self: &Arc<Self>, id: &str) {
        let (this, id) = (Arc::clone(self), id.to_owned());
        tokio::spawn(async move {
            let Ok(container) = this.container(&id) else { return };
            if let Ok(record) = container.record() {
                this.identity(&container, &record).await;
            }
        });
    }

    /// `None` for a user that is not in the container's files, and for one that can't be looked up just
    /// now, because the container is coming to its end.
    async fn identity(&self, container: &Handle, record: &Record) -> Option<Identity> {
        let id = record.id.as_str();
        if let Some(known) = self.users.of(id) {
            return Some(known);
        }
        let wanted = match record.options.user.as_str() {
            "" => "0:0",
            user => user,
        };
        let looked = files::identity(self.core(), container, wanted);
        let identity = tokio::time::timeout(LOOKED, looked).await.ok()?;
        let identity = identity
            .inspect_err(|error| tracing::debug!(container = id, %error, "no user"))
            .ok()?;
        self.users.keep(id, identity.clone());
        Some(identity)
    }
}
