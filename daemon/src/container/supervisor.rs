//! The use cases of containers, and the only place that combines store, registry and actors.
//!
//! What a client asked for and then did not wait for is done to its end all the same: the steps run
//! in tasks of their own, not in the call.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bosun_cdi::DeviceName;
use bosun_image::Platform;
use futures::future::BoxFuture;
use shim_wire::attach::Hello;
use shim_wire::id::Id;

use super::actor::{Actor, Begin, Command, Started, container_event};
use super::handle::{Handle, Phase};
use super::peer::Peer;
use super::record::{Exit, FromImage, Record, Run};
use super::registry::Registry;
use super::run::{self, Running, Start};
use super::top::{self, Processes};
use super::usage::{Measures, Usage};
use super::{Key, execs, foreign, image_mounts, recover, sandbox, short};
use crate::blocking::off_the_loop;
use crate::checkpoint::restore::{Drafted, Taken};
use crate::checkpoint::{self, CheckpointRequest};
use crate::core::Core;
use crate::error::{Error, Result};
use crate::files;
use crate::images::Choice;
use crate::network::PortOwner;
use crate::requests::{Request, Requests};
use crate::shim::{self, Attached, boot_id};
use crate::snapshots::{Base, Snapshots};
use crate::spec::{
    self, Change, ContainerOptions, ExecRequest, NetworkMode, PidMode, Restore, Role, Seccomp,
};
use crate::store::Store;

/// How long Stop waits when neither its caller nor the container says.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a killed container has to end before the answer is that it hangs.
const KILLED: Duration = Duration::from_secs(10);

/// A container that was made.
#[derive(Clone, Debug)]
pub struct Created {
    pub id: String,
}

/// A container that is not there yet.
#[derive(Clone, Copy, Debug)]
pub struct Draft<'a> {
    pub key: &'a Key,
    pub options: &'a ContainerOptions,
    pub image: Option<&'a FromImage>,
    pub spec: &'a oci_spec::runtime::Spec,
}

/// Who has a say in a container before it is made. Its name is taken by then.
pub trait Adjuster: Send + Sync {
    /// The options that it shall be made of instead; its name is not changed by them.
    fn adjust<'a>(&'a self, draft: Draft<'a>) -> BoxFuture<'a, Result<ContainerOptions>>;
}

/// A container that is asked for.
struct Wish {
    options: ContainerOptions,
    /// The commit that makes it is the intent to run it as well.
    start: bool,
    /// From where it is to go on.
    taken: Option<Taken>,
}

impl Wish {
    fn of(options: ContainerOptions) -> Self {
        Self { options, start: false, taken: None }
    }
}

/// All containers of this daemon.
#[derive(Debug)]
pub struct Supervisor {
    pub(super) core: Arc<Core>,
    pub(super) registry: Arc<Registry>,
    requests: Requests,
}

impl Supervisor {
    /// Takes up what an earlier daemon left, to its end where something was half done.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn recover(core: Arc<Core>) -> Result<Arc<Self>> {
        let registry = Arc::new(Registry::default());
        recover::recover(&core, &registry).await?;
        Ok(Arc::new(Self { core, registry, requests: Requests::default() }))
    }

    #[must_use]
    pub fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// Runs `work` once for a request id; see [`Requests`].
    ///
    /// # Errors
    /// What `work` answers.
    pub async fn once(
        &self,
        request: &Request,
        work: impl Future<Output = Result<String>> + Send,
    ) -> Result<String> {
        // Boxed: what callers have in there would be part of their own types otherwise, and those
        // of calls within calls take the compiler minutes.
        let work: BoxFuture<'_, Result<String>> = Box::pin(work);
        self.requests.once(&self.core.store, request, work).await
    }

    /// Makes a container; nothing runs.
    ///
    /// # Errors
    /// The options can't be met, or the name is in use; nothing is changed.
    pub async fn create(
        self: &Arc<Self>,
        request: Request,
        options: ContainerOptions,
    ) -> Result<Created> {
        self.detached(request, move |this, request| async move {
            Ok(this.make(&request, Wish::of(options), None).await?.0.key.id.to_string())
        })
        .await
    }

    /// As [`Supervisor::create`], after somebody else had a say in it.
    ///
    /// # Errors
    /// As well what that answers.
    pub async fn create_with(
        self: &Arc<Self>,
        request: Request,
        options: ContainerOptions,
        adjuster: Arc<dyn Adjuster>,
    ) -> Result<Created> {
        self.detached(request, move |this, request| async move {
            let made = this.make(&request, Wish::of(options), Some(&*adjuster)).await?;
            Ok(made.0.key.id.to_string())
        })
        .await
    }

    /// As [`Supervisor::create`], and as [`Supervisor::create_with`] where somebody has a say in it, of a
    /// container that goes on from a checkpoint at its first start.
    ///
    /// # Errors
    /// As well what does not fit the container that was written down; nothing is left then.
    pub async fn create_restored(
        self: &Arc<Self>,
        request: Request,
        options: ContainerOptions,
        taken: Taken,
        adjuster: Option<Arc<dyn Adjuster>>,
    ) -> Result<Created> {
        self.detached(request, move |this, request| async move {
            let wish = Wish { taken: Some(taken), ..Wish::of(options) };
            let made = this.make(&request, wish, adjuster.as_deref()).await?;
            Ok(made.0.key.id.to_string())
        })
        .await
    }

    /// Makes a container of the archive of a checkpoint as it was, and lets it go on from there. When
    /// that fails nothing is left.
    ///
    /// # Errors
    /// The archive is none, or of a container of a pod; as [`Supervisor::run`]; criu can't, in its own
    /// words.
    pub async fn restore(
        self: &Arc<Self>,
        request: Request,
        name: String,
        how: Restore,
    ) -> Result<Created> {
        let again = request.clone();
        let created = self
            .detached(request, move |this, request| async move {
                let taken = Taken::read(&this.core, &how.archive).await?;
                let options = taken.options(name, how)?;
                let wish = Wish { options, start: true, taken: Some(taken) };
                this.make_and_start(&request, wish).await
            })
            .await?;
        self.finish_interrupted(&again, &created.id).await?;
        Ok(created)
    }

    /// Makes a container and starts it. When the start fails nothing is left.
    ///
    /// # Errors
    /// As [`Supervisor::create`] and [`Supervisor::start`].
    pub async fn run(
        self: &Arc<Self>,
        request: Request,
        options: ContainerOptions,
    ) -> Result<Created> {
        let again = request.clone();
        let created = self
            .detached(request, move |this, request| async move {
                let wish = Wish { start: true, ..Wish::of(options) };
                this.make_and_start(&request, wish).await
            })
            .await?;
        self.finish_interrupted(&again, &created.id).await?;
        Ok(created)
    }

    async fn make_and_start(&self, request: &Request, wish: Wish) -> Result<String> {
        let (handle, start) = self.make(request, wish, None).await?;
        if let Err(error) = self.begin(&handle, start, None).await {
            self.unmake(&handle, request).await;
            return Err(error);
        }
        Ok(handle.key.id.to_string())
    }

    /// A run that was asked for before, answered, and then undone because the daemon ended in the
    /// middle of its start, is started when it is asked for again.
    async fn finish_interrupted(&self, request: &Request, id: &str) -> Result<()> {
        let Ok(handle) = self.registry.find(&request.namespace, id) else { return Ok(()) };
        let undone = handle
            .record()
            .is_ok_and(|record| matches!(record.run, Run::Created { error: Some(_), .. }));
        if !undone {
            return Ok(());
        }
        match self.begin(&handle, None, None).await {
            // The same request, made twice at once.
            Ok(_) | Err(Error::AlreadyRunning { .. }) => Ok(()),
            Err(error) => {
                self.unmake(&handle, request).await;
                Err(error)
            }
        }
    }

    /// Runs a creation in a task of its own, so that a client that goes away leaves nothing half
    /// made.
    async fn detached<F>(
        self: &Arc<Self>,
        request: Request,
        work: impl FnOnce(Arc<Self>, Request) -> F + Send + 'static,
    ) -> Result<Created>
    where
        F: Future<Output = Result<String>> + Send + 'static,
    {
        let this = Arc::clone(self);
        let task = tokio::spawn(async move {
            let work = work(Arc::clone(&this), request.clone());
            this.once(&request, work).await
        });
        let id = task.await.unwrap_or(Err(Error::Stopping))?;
        Ok(Created { id })
    }

    async fn make(
        &self,
        request: &Request,
        wish: Wish,
        adjuster: Option<&dyn Adjuster>,
    ) -> Result<(Handle, Option<Start>)> {
        let Wish { mut options, start, taken } = wish;
        let namespace = request.namespace.clone();
        let id: Id = random_id().parse().map_err(|source| Error::InvalidNamespace {
            namespace: namespace.to_string(),
            source,
        })?;
        if options.name.is_empty() {
            options.name = spec::generated_name(id.as_str());
        }
        check_name(&options.name)?;
        let mut shares_processes = matches!(options.pid, PidMode::Container(_));
        if let Role::Member(sandbox) = &options.role {
            let sandbox = self.sandbox(&namespace, sandbox)?;
            if let Role::Sandbox(shared) = &sandbox.record()?.options.role {
                shares_processes |= shared.share_pid && options.pid == PidMode::Shared;
            }
            sandbox::enter(&self.core, &sandbox, &mut options)?;
        }
        if let PidMode::Container(target) = &options.pid {
            let target = self.fellow(&namespace, &options.role, target)?;
            options.pid = PidMode::Container(target.key.id.to_string());
        }
        if let NetworkMode::Container(other) = &options.network {
            let other = self.registry.find(&namespace, other)?;
            options.network = NetworkMode::Container(other.key.id.to_string());
        }
        let key = Key { namespace, id };
        let runtimes = &self.core.config.runtimes;
        let stock = runtimes.find(&options.runtime)?;
        if let Some(stock) = &stock {
            if taken.is_some() {
                let problem = format!("{} has it not: only bosun's own runtime", options.runtime);
                return Err(Error::InvalidArgument { what: "restore", problem });
            }
            spec::check_foreign(&options, &options.runtime, stock.joins_pods)?;
        }
        options.no_host_devices = !runtimes.gives_host_devices(&options.runtime);
        self.take_devices(&mut options).await?;
        let (image, warnings) = self.take_image(&key.namespace, &mut options).await?;
        self.take_image_mounts(&key, &mut options).await?;
        let mut generated = run::generate(&self.core, &key, &options)?;
        generated.warnings.extend(warnings);
        if let Some(taken) = &taken {
            taken.check(Drafted {
                options: &options,
                image: image.as_ref(),
                spec: &generated.spec,
                shares_processes,
            })?;
        }
        if stock.is_none() && matches!(options.security.seccomp, Seccomp::Profile(_)) {
            generated.warnings.extend(generated.rules_without_effect()?);
        }
        if options.rootfs.as_deref() == Some(Path::new("/")) {
            generated.warnings.push(HOST_TREE.to_owned());
        }
        for warning in &generated.warnings {
            tracing::warn!(container = key.id.as_str(), "{warning}");
        }
        self.registry.reserve(&key.namespace, &options.name, key.id.as_str())?;
        if let Some(adjuster) = adjuster {
            let name = options.name.clone();
            let draft = Draft {
                key: &key,
                options: &options,
                image: image.as_ref(),
                spec: &generated.spec,
            };
            let adjusted = async {
                let mut changed = adjuster.adjust(draft).await?;
                if changed.cdi_devices != options.cdi_devices {
                    self.take_devices(&mut changed).await?;
                }
                let again = match changed == options {
                    true => None,
                    false => Some(run::generate(&self.core, &key, &changed)?),
                };
                Ok((changed, again))
            };
            match adjusted.await {
                Ok((changed, again)) => {
                    options = changed;
                    if let Some(again) = again {
                        (generated.json, generated.args) = (again.json, again.args);
                    }
                }
                Err(error) => {
                    self.registry.release(&key.namespace, &name, key.id.as_str());
                    return Err(error);
                }
            }
        }
        let record = Record {
            id: key.id.to_string(),
            name: options.name.clone(),
            created_at: self.registry.moment(),
            args: generated.args,
            snapshot: 0,
            started_at: None,
            run: Run::Created { attempts: 0, error: None },
            options,
            warnings: generated.warnings,
            image,
        };
        let made = self.commit_new(request, &key, record, generated.json, start).await;
        match made {
            Err(error) => {
                self.registry.release(&key.namespace, &error.1, key.id.as_str());
                Err(error.0)
            }
            Ok((record, start)) => {
                let name = record.name.clone();
                let handle = Actor::spawn(&self.core, &self.registry, key, name, Ok(record));
                if let Some(taken) = taken
                    && let Err(error) = self.install(&handle, taken).await
                {
                    if let Some(start) = start {
                        start.prepared.abandon(&self.core);
                    }
                    self.unmake(&handle, request).await;
                    return Err(error);
                }
                Ok((handle, start))
            }
        }
    }

    /// Gives a new container what was written down of the one that it is to go on from.
    async fn install(&self, handle: &Handle, taken: Taken) -> Result<()> {
        let key = &handle.key;
        let _turn = self.core.trees.wait(key.clone()).await;
        let layers = run::layers(&self.core, &*handle.record()?).await?;
        taken.install(layers, &self.core.layout.container_dir(&key.namespace, &key.id)).await
    }

    /// What the image brings into a container, when it stands on one. Its layers are unpacked when
    /// they are not yet.
    async fn take_image(
        &self,
        namespace: &Id,
        options: &mut ContainerOptions,
    ) -> Result<(Option<FromImage>, Vec<String>)> {
        let Some(name) = options.image.clone() else { return Ok((None, Vec::new())) };
        let choice = Choice::parse(&options.platform)?;
        let base = self.core.images.base(namespace.as_str(), &name, &choice).await?;
        let execution = &base.image.config.config;
        let mut warnings = spec::merge_image(options, &base.name, execution)?;
        let platform = base.image.config.platform();
        if !Platform::host().matches(&platform) {
            warnings
                .push(format!("image {}: it is for {platform}, not for this machine", base.name));
        }
        options.image = Some(base.name);
        let from = FromImage {
            id: base.image.manifest.config.digest.to_string(),
            manifest: base.image.descriptor.digest.to_string(),
            target: base.target,
            snapshot: base.snapshot,
            exposed_ports: execution.exposed_ports.clone(),
        };
        Ok((Some(from), warnings))
    }

    /// What its CDI devices bring, as their specifications have it now.
    async fn take_devices(&self, options: &mut ContainerOptions) -> Result<()> {
        if options.cdi_devices.is_empty() {
            return Ok(());
        }
        let (names, directories) = (options.cdi_devices.clone(), self.core.config.cdi_dirs.clone());
        let edits = off_the_loop(move || {
            let names: Vec<DeviceName> =
                names.iter().map(|name| name.parse()).collect::<std::result::Result<_, _>>()?;
            Ok(bosun_cdi::Registry::read(&directories).edits(&names)?)
        });
        options.edits = Some(edits.await?);
        Ok(())
    }

    /// What images are mounted as volumes, found and unpacked.
    async fn take_image_mounts(&self, key: &Key, options: &mut ContainerOptions) -> Result<()> {
        let choice = Choice::parse("")?;
        for mount in &mut options.image_mounts {
            let namespace = key.namespace.as_str();
            let base = self.core.images.base(namespace, &mount.image, &choice).await?;
            mount.image = base.image.manifest.config.digest.to_string();
            mount.snapshot = base.snapshot;
            image_mounts::check(&self.core, key, mount).await?;
        }
        Ok(())
    }

    /// The commit that makes a container; with `start` it is the intent to run it as well.
    async fn commit_new(
        &self,
        request: &Request,
        key: &Key,
        mut record: Record,
        text: String,
        start: bool,
    ) -> std::result::Result<(Record, Option<Start>), (Error, String)> {
        if let Err(error) = self.core.store.expect_room() {
            return Err((error.into(), record.name));
        }
        let name = record.name.clone();
        let prepared = match start {
            false => None,
            true => {
                let prepared = run::prepare(&self.core, &record, &self.port_owners());
                Some(prepared.map_err(|error| (error, name.clone()))?)
            }
        };
        if let Some(prepared) = &prepared {
            record.run = Run::Intent {
                attempt: 1,
                boot_id: boot_id().to_owned(),
                lease: prepared.lease.clone(),
            };
        }
        shim_failpoints::step!("daemon.create.before_intent");
        let event = container_event(key, &record, "create", Vec::new());
        let (request, stored, spec) = (request.clone(), record.clone(), text.clone());
        let committed = self
            .core
            .store
            .write(move |tx| -> Result<i64> {
                let mut stored = stored;
                let namespace = request.namespace.as_str();
                let base = match (&stored.options.rootfs, &stored.image) {
                    (Some(directory), _) => Base::Directory(directory.clone()),
                    // An image without layers is an empty tree.
                    (None, Some(image)) if image.snapshot.is_empty() => Base::Nothing,
                    (None, Some(image)) => Base::Parent(image.snapshot.clone()),
                    (None, None) => Base::Nothing,
                };
                if let Some(image) = &stored.image {
                    // It may have been removed since it was looked at.
                    for digest in [&image.manifest, &image.id] {
                        if tx.blob(namespace, digest)?.is_none() {
                            let reference = stored.options.image.clone().unwrap_or_default();
                            return Err(Error::NoSuchImage { reference, similar: None });
                        }
                    }
                }
                let labels = image_mounts::labels(&stored.options.image_mounts);
                stored.snapshot =
                    Snapshots::prepare_held(tx, namespace, &stored.id, &base, labels)?;
                tx.insert_container(namespace, &stored, &spec)?;
                tx.answered(namespace, &request.id, &request.body, &stored.id)?;
                tx.event(event)?;
                Ok(stored.snapshot)
            })
            .await;
        shim_failpoints::step!("daemon.create.after_intent");
        match committed {
            Ok(snapshot) => {
                record.snapshot = snapshot;
                let start = prepared.map(|prepared| Start {
                    prepared,
                    spec: text,
                    peer: None,
                    hello: None,
                });
                Ok((record, start))
            }
            Err(error) => {
                if let Some(prepared) = prepared {
                    prepared.abandon(&self.core);
                }
                Err((error, name))
            }
        }
    }

    /// A container of the same sandbox: only among these processes are shared.
    fn fellow(&self, namespace: &Id, role: &Role, reference: &str) -> Result<Handle> {
        let other = self.registry.find(namespace, reference)?;
        let record = other.record()?;
        let problem = match (role, &record.options.role) {
            (Role::Member(own), Role::Member(pod)) if own == pod => return Ok(other),
            (Role::Member(own), Role::Member(_) | Role::Alone | Role::Sandbox(_)) => {
                format!(
                    "{} does not belong to pod {own}: name one of its containers",
                    other.label()
                )
            }
            (Role::Alone | Role::Sandbox(_), _) => "only containers of a pod share it".to_owned(),
        };
        Err(Error::InvalidArgument { what: "pid namespace", problem })
    }

    async fn begin(
        &self,
        handle: &Handle,
        committed: Option<Start>,
        hello: Option<Hello>,
    ) -> Result<Started> {
        let peer = self.peer(handle).await?;
        let owners = self.port_owners();
        let begin = Begin { committed, peer, hello, owners };
        handle.ask(|answer| Command::Start { begin, answer }).await
    }

    /// The running container whose namespaces are joined.
    async fn peer(&self, handle: &Handle) -> Result<Option<Peer>> {
        let record = handle.record()?;
        let other = match (&record.options.role, &record.options.network) {
            (Role::Member(sandbox), _) => sandbox,
            (Role::Alone | Role::Sandbox(_), NetworkMode::Container(other)) => other,
            (
                Role::Alone | Role::Sandbox(_),
                NetworkMode::Bridge | NetworkMode::Host | NetworkMode::None,
            ) => return Ok(None),
        };
        let other = self.registry.find(&handle.key.namespace, other)?;
        let running = other.running()?;
        if !other.is_sandbox() {
            return Ok(Some(Peer::container(running)));
        }
        let peer = Peer::sandbox(running)
            .await
            .map_err(|source| Error::Shim { id: other.label(), source: source.into() })?;
        Ok(Some(match &record.options.pid {
            PidMode::Shared => peer,
            PidMode::Own | PidMode::Host => peer.with_processes_of(None),
            PidMode::Container(target) => {
                let target = self.registry.find(&handle.key.namespace, target)?;
                peer.with_processes_of(Some(target.running()?))
            }
        }))
    }

    /// Undoes a creation whose start failed, so that the same request may be made again.
    async fn unmake(&self, handle: &Handle, request: &Request) {
        let forget = Some(request.clone());
        let removed = handle.ask(|answer| Command::Remove { force: true, forget, answer }).await;
        if let Err(error) = removed {
            tracing::warn!(container = %handle.key, %error, "not undone");
        }
        // Once more, for one that was removed at its end.
        let request = request.clone();
        let forgotten: Result<()> = self
            .core
            .store
            .write(move |tx| Ok(tx.forget_request(request.namespace.as_str(), &request.id)?))
            .await;
        if let Err(error) = forgotten {
            tracing::warn!(container = %handle.key, %error, "request not forgotten");
        }
    }

    /// Starts a container, with a client attached when one asks.
    ///
    /// # Errors
    /// It runs already; its command can't be found or executed; a port is in use.
    pub async fn start(
        self: &Arc<Self>,
        namespace: &Id,
        reference: &str,
        hello: Option<Hello>,
    ) -> Result<(Handle, u32, Option<Attached>)> {
        let handle = self.registry.find(namespace, reference)?;
        let (this, starting) = (Arc::clone(self), handle.clone());
        let task = tokio::spawn(async move { this.begin(&starting, None, hello).await });
        let started = task.await.unwrap_or(Err(Error::Stopping))?;
        Ok((handle, started.pid, started.attached))
    }

    /// The stop signal, then KILL after the time-out. Answers when the container has ended and its
    /// ports are free; without effect on one that does not run.
    ///
    /// # Errors
    /// It hangs even after KILL, or is quarantined.
    pub async fn stop(
        self: &Arc<Self>,
        namespace: &Id,
        reference: &str,
        timeout: Option<Duration>,
    ) -> Result<Handle> {
        let handle = self.registry.find(namespace, reference)?;
        // Of one that is quarantined it is not known whether it runs.
        let record = handle.record()?;
        let Ok(running) = handle.running() else { return Ok(handle) };
        let own = record.options.stop_timeout.map(|seconds| Duration::from_secs(seconds.into()));
        let timeout = timeout.or(own).unwrap_or(STOP_TIMEOUT);
        let signal = record.options.stop_signal.unwrap_or(spec::Signal::TERM).number();
        let stopping = handle.clone();
        let task = tokio::spawn(async move {
            signal_and_wait(&stopping, signal, timeout).await?;
            if stopping.running().is_ok_and(|now| now.attempt == running.attempt) {
                signal_and_wait(&stopping, spec::Signal::KILL.number(), KILLED).await?;
            }
            if stopping.running().is_ok_and(|now| now.attempt == running.attempt) {
                return Err(Error::StillHeld { id: stopping.label(), seconds: KILLED.as_secs() });
            }
            Ok(())
        });
        task.await.unwrap_or(Err(Error::Stopping))?;
        let event = container_event(&handle.key, &record, "stop", Vec::new());
        self.core.store.write_soon(move |tx| tx.event(event).map(|_| ()));
        Ok(handle)
    }

    /// Sends a signal to process 1.
    ///
    /// # Errors
    /// It does not run.
    pub async fn kill(&self, namespace: &Id, reference: &str, signal: u32) -> Result<()> {
        let handle = self.registry.find(namespace, reference)?;
        handle.ask(|answer| Command::Kill { signal, answer }).await
    }

    /// Holds a running container still.
    ///
    /// # Errors
    /// It does not run, or is paused already.
    pub async fn pause(&self, namespace: &Id, reference: &str) -> Result<()> {
        let handle = self.registry.find(namespace, reference)?;
        handle.ask(|answer| Command::Pause { answer }).await
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// It is not paused.
    pub async fn unpause(&self, namespace: &Id, reference: &str) -> Result<()> {
        let handle = self.registry.find(namespace, reference)?;
        handle.ask(|answer| Command::Unpause { answer }).await
    }

    /// Writes a running container down to an archive, to the end, whoever waits for it.
    ///
    /// # Errors
    /// As [`checkpoint`](crate::checkpoint::checkpoint); it takes longer than the request allows, and is
    /// given up once criu is done.
    pub async fn checkpoint(
        self: &Arc<Self>,
        namespace: &Id,
        reference: &str,
        request: CheckpointRequest,
    ) -> Result<()> {
        let handle = self.registry.find(namespace, reference)?;
        let this = Arc::clone(self);
        let (decision, timeout) = (checkpoint::Decision::default(), request.timeout);
        let (theirs, label) = (decision.clone(), handle.label());
        let mut task = tokio::spawn(async move {
            checkpoint::checkpoint(&this.core, &handle, &request, theirs).await?;
            this.note_checkpoint(&handle);
            Ok(())
        });
        let ended = match timeout {
            None => task.await,
            Some(timeout) => match tokio::time::timeout(timeout, &mut task).await {
                Ok(ended) => ended,
                Err(_) if decision.take() => {
                    let seconds = timeout.as_secs();
                    return Err(Error::CheckpointTimedOut { id: label, seconds });
                }
                // It is about to have its name.
                Err(_) => task.await,
            },
        };
        ended.unwrap_or(Err(Error::Stopping))
    }

    /// Notes that a container was written down.
    pub fn note_checkpoint(&self, handle: &Handle) {
        if let Ok(record) = handle.record() {
            let event = container_event(&handle.key, &record, "checkpoint", Vec::new());
            self.core.store.write_soon(move |tx| tx.event(event).map(|_| ()));
        }
    }

    /// Changes what `change` names.
    ///
    /// # Errors
    /// It can't be met, together with the limits that stay; nothing is changed.
    pub async fn update(
        &self,
        namespace: &Id,
        reference: &str,
        change: impl Into<Change>,
    ) -> Result<()> {
        let (handle, change) = (self.registry.find(namespace, reference)?, change.into());
        handle.ask(|answer| Command::Update { change, answer }).await
    }

    /// Puts another text in the place of what a face keeps with a container.
    ///
    /// # Errors
    /// It is being removed; the store's own.
    pub async fn keep(&self, handle: &Handle, face: &'static str, text: String) -> Result<()> {
        handle.ask(|answer| Command::Keep { face, text, answer }).await
    }

    /// A sandbox that was made unready is what was asked for: that is an event, and its record says so.
    ///
    /// # Errors
    /// It does not run any more; the store's own.
    pub async fn ready(&self, sandbox: &Handle) -> Result<()> {
        sandbox.ask(|answer| Command::Ready { answer }).await
    }

    /// Whether a container of this id is committed, or about to be, and can't be found yet.
    pub(crate) fn is_being_made(&self, namespace: &Id, id: &str) -> bool {
        self.registry.is_being_made(namespace, id)
    }

    /// What a running container uses.
    ///
    /// # Errors
    /// It does not run.
    pub async fn usage(&self, namespace: &Id, reference: &str) -> Result<Usage> {
        let handle = self.registry.find(namespace, reference)?;
        let running = handle.running()?;
        let metrics =
            running.shim.client.stats().await.map_err(|source| failed(&handle, source))?;
        let mut usage = Usage::new(&metrics);
        if handle.record()?.options.network != NetworkMode::Host {
            // A process that has just ended has no traffic any more.
            let path = format!("/proc/{}/net/dev", running.pid);
            usage.add_network(&std::fs::read_to_string(path).unwrap_or_default());
        }
        Ok(usage)
    }

    /// Everything that can be measured of a running container, but for its network.
    ///
    /// # Errors
    /// It does not run.
    pub async fn measures(&self, handle: &Handle) -> Result<Measures> {
        let running = handle.running()?;
        let client = &running.shim.client;
        let metrics = client.stats().await.map_err(|source| failed(handle, source))?;
        let processes = client.pids().await.map_err(|source| failed(handle, source))?;
        Ok(Measures::new(&metrics, processes))
    }

    /// The control group of a container, as a path below the root of each hierarchy; of one that does not
    /// run, or of a sandbox, where it would be.
    #[must_use]
    pub fn cgroup(&self, handle: &Handle) -> String {
        run::container_cgroup(&self.core, handle.key())
    }

    /// Opens the log of a running container by its path again, after its file was moved away.
    ///
    /// # Errors
    /// It does not run; the path can't be opened.
    pub async fn reopen_log(&self, namespace: &Id, reference: &str) -> Result<()> {
        let handle = self.registry.find(namespace, reference)?;
        let running = handle.running()?;
        running.shim.client.reopen_log().await.map_err(|source| failed(&handle, source))
    }

    /// The processes of a running container, as ps(1) shows them.
    ///
    /// # Errors
    /// It does not run; ps does not know the options.
    pub async fn processes(
        &self,
        namespace: &Id,
        reference: &str,
        options: &[String],
    ) -> Result<Processes> {
        let handle = self.registry.find(namespace, reference)?;
        let running = handle.running()?;
        let pids = running.shim.client.pids().await.map_err(|source| failed(&handle, source))?;
        top::processes(options, &pids.into_iter().collect()).await
    }

    /// Removes a container; with `force`, one that runs as well.
    ///
    /// # Errors
    /// It runs and `force` is not set.
    pub async fn remove(&self, namespace: &Id, reference: &str, force: bool) -> Result<String> {
        let handle = self.registry.find(namespace, reference)?;
        let id = handle.key.id.to_string();
        match handle.ask(|answer| Command::Remove { force, forget: None, answer }).await {
            // Somebody else was faster.
            Ok(()) | Err(Error::Removing { .. }) => Ok(id),
            Err(error) => Err(error),
        }
    }

    /// Waits for the end of a container's run. Answers from the history for one that was removed;
    /// `None` for one that never ran.
    ///
    /// # Errors
    /// It never existed.
    pub async fn wait(&self, namespace: &Id, reference: &str) -> Result<Option<Exit>> {
        match self.registry.find(namespace, reference) {
            Ok(handle) => Ok(handle.ended().await),
            Err(missing @ Error::NoSuchContainer { .. }) => {
                let (namespace, reference) = (namespace.to_string(), reference.to_owned());
                let removed: Option<Record> = self
                    .core
                    .store
                    .write(move |tx| tx.find_removed(&namespace, &reference))
                    .await?;
                match removed.map(|record| record.run) {
                    Some(Run::Ended { exit, .. }) => Ok(Some(exit)),
                    Some(Run::Created { .. } | Run::Intent { .. }) | None => Err(missing),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// # Errors
    /// It does not exist.
    pub fn find(&self, namespace: &Id, reference: &str) -> Result<Handle> {
        self.registry.find(namespace, reference)
    }

    /// The containers of a namespace.
    #[must_use]
    pub fn list(&self, namespace: &Id) -> Vec<Handle> {
        self.registry.list(namespace).into_iter().filter(|handle| !handle.is_sandbox()).collect()
    }

    /// The containers of all namespaces.
    #[must_use]
    pub fn all(&self) -> Vec<Handle> {
        self.registry.all().into_iter().filter(|handle| !handle.is_sandbox()).collect()
    }

    /// Adds a process to a running container, with a client attached to it; it waits for
    /// [`shim::Client::start`].
    ///
    /// # Errors
    /// The container does not run, or the process can't be set up.
    pub async fn exec(
        &self,
        handle: &Handle,
        request: &ExecRequest,
        hello: Option<Hello>,
    ) -> Result<(Arc<Running>, String, Option<Attached>)> {
        // A process that came into a group that stands still would keep its shim from all else.
        let _turn = self.core.processes.share(handle.key.clone()).await;
        let running = handle.running()?;
        if let Phase::Paused(_) = handle.view().phase {
            return Err(Error::Paused { id: handle.label() });
        }
        let container_dir = self.core.layout.container_dir(&handle.key.namespace, &handle.key.id);
        let record = handle.record()?;
        // What runs it was decided by its start, whatever the configuration says by now.
        let run_dir = self.core.layout.run_dir(&handle.key.namespace, &handle.key.id);
        let identity = match run_dir.bundle().config().exists() {
            false => None,
            true => {
                let wanted = spec::exec_user(&record.options, request);
                let mut identity = files::identity(&self.core, handle, wanted).await?;
                foreign::groups(&mut identity, &record.options);
                Some(identity)
            }
        };
        let options =
            spec::exec_options(&record.options, &container_dir, request, identity.as_ref())?;
        let exec_id = random_id();
        let failed =
            |source| Error::Shim { id: handle.key.id.to_string(), source: Arc::new(source) };
        shim_failpoints::step!("daemon.exec.before_exec", error);
        running.shim.client.exec(&exec_id, &options).await.map_err(failed)?;
        shim_failpoints::step!("daemon.exec.after_exec");
        let attached = match hello {
            None => None,
            Some(hello) => {
                let hello = Hello { exec_id: exec_id.clone(), ..hello };
                Some(shim::attach(&running.shim.sockets, &hello).await.map_err(failed)?)
            }
        };
        execs::event(&self.core, handle, "exec_create", vec![("execID", exec_id.clone())]);
        if let Err(source) = running.shim.client.start(&exec_id, Duration::ZERO).await {
            // Its place is given back; a shim that is gone has none.
            let _ = running.shim.client.delete_exec(&exec_id).await;
            return Err(failed(source));
        }
        shim_failpoints::step!("daemon.exec.after_start");
        execs::event(&self.core, handle, "exec_start", vec![("execID", exec_id.clone())]);
        Ok((running, exec_id, attached))
    }

    /// Waits for the end of an exec and forgets it. Answers the code, or 128 + the signal.
    ///
    /// # Errors
    /// The shim went first.
    pub async fn exec_ended(
        &self,
        handle: &Handle,
        running: &Running,
        exec_id: &str,
    ) -> Result<shim::Exited> {
        execs::ended(&self.core, handle, running, exec_id).await
    }

    /// The ports that our containers hold.
    fn port_owners(&self) -> Vec<PortOwner> {
        let mut owners = Vec::new();
        for handle in self.registry.all() {
            let Ok(running) = handle.running() else { continue };
            for published in running.lease.iter().flat_map(|lease| &lease.ports) {
                owners.push(PortOwner { container: handle.name.clone(), published: *published });
            }
        }
        owners
    }

    /// What the maker of a container was told.
    #[must_use]
    pub fn warnings(&self, namespace: &Id, id: &str) -> Vec<String> {
        self.registry
            .find(namespace, id)
            .and_then(|handle| handle.record())
            .map(|record| record.warnings.clone())
            .unwrap_or_default()
    }

    /// Notes a restart, which is a stop and a start.
    pub fn note_restart(&self, handle: &Handle) {
        if let Ok(record) = handle.record() {
            let event = container_event(&handle.key, &record, "restart", Vec::new());
            self.core.store.write_soon(move |tx| tx.event(event).map(|_| ()));
        }
    }

    /// The store, for faces that read events.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.core.store
    }
}

/// What a user of `--rootfs /` is told.
const HOST_TREE: &str = "--rootfs / runs over this machine's own tree: its files become readable inside (changes stay in the container)";

fn failed(handle: &Handle, source: shim::Error) -> Error {
    let id = handle.label();
    // Its exit is on the way.
    if let shim::Error::Gone { .. } = source {
        return Error::NotRunning { id };
    }
    Error::Shim { id, source: Arc::new(source) }
}

async fn signal_and_wait(handle: &Handle, signal: u32, timeout: Duration) -> Result<()> {
    match handle.ask(|answer| Command::Kill { signal, answer }).await {
        Ok(()) => {}
        Err(Error::NotRunning { .. } | Error::Removing { .. }) => return Ok(()),
        // A shim that hangs has the time-out to wake up; then comes the KILL.
        Err(Error::Shim { source, .. }) if matches!(*source, shim::Error::TimedOut { .. }) => {}
        Err(error) => return Err(error),
    }
    // Whether it ended is seen by the caller.
    let _ = tokio::time::timeout(timeout, handle.ended()).await;
    Ok(())
}

/// 64 hex digits, as docker's ids are. Never only digits in the first twelve, which would read as a
/// number.
pub(crate) fn random_id() -> String {
    loop {
        let mut bytes = [0u8; 32];
        // The kernel's random source never fails once the system is up (getrandom(2)).
        let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
        let id = crate::config::hex(&bytes);
        if !short(&id).chars().all(|c| c.is_ascii_digit()) {
            return id;
        }
    }
}

fn check_name(name: &str) -> Result<()> {
    let mut chars = name.chars();
    let first = chars.next().is_some_and(|c| c.is_ascii_alphanumeric());
    let rest = chars.all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
    if first && rest && (2..=76).contains(&name.len()) {
        Ok(())
    } else {
        Err(Error::InvalidName { name: name.to_owned() })
    }
}
