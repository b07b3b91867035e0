//! Runtime handlers: who runs the containers of a pod, as the pod names it (a RuntimeClass), and what
//! each can do.
//!
//! Every runtime that joins the namespaces of bosun's pods is one ([`crate::runtimes`]). What runc and
//! its like can do, they say themselves (`runc features`, of the OCI's runtime-spec, features.md); a
//! program is asked once, and again when its file has changed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use serde::Deserialize;

use super::{Cri, invalid, lock, wire};
use crate::error::Result;
use crate::runtimes::{Handler, HandlerKind};

/// How long a program has to say what it can do.
const SAY: Duration = Duration::from_secs(5);

/// The option of a mount that is read-only with all that is mounted below it.
const RECURSIVE: &str = "rro";

/// What programs have said, by their paths.
#[derive(Debug, Default)]
pub(super) struct Handlers {
    said: Mutex<BTreeMap<PathBuf, Said>>,
}

#[derive(Clone, Copy, Debug)]
struct Said {
    changed: Option<SystemTime>,
    recursive: bool,
}

/// The part that is asked about.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Features {
    #[serde(default)]
    mount_options: Vec<String>,
}

impl Handlers {
    async fn mounts_recursively(&self, program: &Path) -> bool {
        let changed = program.metadata().and_then(|found| found.modified()).ok();
        let known = lock(&self.said).get(program).copied();
        if let Some(said) = known.filter(|said| said.changed == changed) {
            return said.recursive;
        }
        let recursive = recursive_by_its_own_words(program).await;
        lock(&self.said).insert(program.to_owned(), Said { changed, recursive });
        recursive
    }
}

/// One that does not know the verb is older than these mounts, or not to be relied on.
async fn recursive_by_its_own_words(program: &Path) -> bool {
    let mut command = tokio::process::Command::new(program);
    command.arg("features").stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let Ok(Ok(output)) = tokio::time::timeout(SAY, command.output()).await else { return false };
    let features = serde_json::from_slice::<Features>(&output.stdout);
    output.status.success()
        && features.is_ok_and(|said| said.mount_options.iter().any(|option| option == RECURSIVE))
}

impl Cri {
    /// All handlers; the first is the one of pods that do not choose.
    pub(super) async fn handlers(&self) -> Vec<wire::RuntimeHandler> {
        let handlers = self.core().config.runtimes.handlers();
        let mut all = Vec::with_capacity(handlers.len() + 1);
        for Handler { name, kind } in handlers {
            let features = self.features(&kind).await;
            all.push(wire::RuntimeHandler { name, features: Some(features) });
        }
        if let Some(own) = all.first() {
            let unnamed = wire::RuntimeHandler { name: String::new(), features: own.features };
            all.insert(0, unnamed);
        }
        all
    }

    async fn features(&self, kind: &HandlerKind) -> wire::RuntimeHandlerFeatures {
        let by_kernel = shim_rootfs::overlay::version() >= (5, 12);
        let recursive_read_only_mounts = match kind {
            HandlerKind::Own => by_kernel,
            HandlerKind::Oci(Some(program)) => {
                by_kernel && self.handlers.mounts_recursively(program).await
            }
            HandlerKind::Oci(None) | HandlerKind::Other => false,
        };
        // Others are given the rootfs as the host has it, and no mount of ids.
        let user_namespaces = *kind == HandlerKind::Own;
        wire::RuntimeHandlerFeatures { recursive_read_only_mounts, user_namespaces }
    }

    /// Refuses a pod that its handler can't hold.
    ///
    /// # Errors
    /// There is no such handler; the pod wants what it has not.
    pub(super) fn check_handler(&self, request: &wire::RunPodSandboxRequest) -> Result<()> {
        let handler = self.core().config.runtimes.handler(&request.runtime_handler)?;
        let linux = request.config.as_ref().and_then(|config| config.linux.as_ref());
        let context = linux.and_then(|linux| linux.security_context.as_ref());
        let options = context.and_then(|context| context.namespace_options.as_ref());
        let users = options.and_then(|options| options.userns_options.as_ref());
        let of_its_own = users.is_some_and(|users| users.mode() == wire::NamespaceMode::Pod);
        if of_its_own && handler.kind != HandlerKind::Own {
            let problem = format!("runtime handler {:?} has no user namespaces", handler.name);
            return Err(invalid("userns_options", problem));
        }
        Ok(())
    }

    /// Refuses a container that the handler of its pod can't make.
    ///
    /// # Errors
    /// Names the mount.
    pub(super) async fn check_mounts(
        &self,
        handler: &str,
        config: &wire::ContainerConfig,
    ) -> Result<()> {
        let recursive = config.mounts.iter().find(|mount| mount.recursive_read_only);
        let Some(mount) = recursive else { return Ok(()) };
        let handler = self.core().config.runtimes.handler(handler)?;
        match self.features(&handler.kind).await.recursive_read_only_mounts {
            true => Ok(()),
            false => Err(invalid(
                "config.mounts",
                format!(
                    "{}: runtime handler {:?} has no recursively read-only mounts",
                    mount.container_path, handler.name
                ),
            )),
        }
    }
}
