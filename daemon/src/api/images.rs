//! `bosun.v1.Images`.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bosun_image::{Descriptor, Reference};
use bosun_proto::v1;
use bosun_proto::v1::images_server::Images;
use bosun_registry::{Credentials, Secret};
use futures::Stream;
use tokio::task::JoinHandle;
use tokio_stream::StreamExt;
use tonic::{Request, Response, Status, Streaming};

use super::convert;
use super::image_filter::ImageFilter;
use super::transfer::{chunks, receive};
use crate::container::Supervisor;
use crate::core::Core;
use crate::error::{Error, Result as CoreResult};
use crate::gc::Item;
use crate::images::{
    Board, Choice, Event, Found, Import, ImportKind, Part, Progress, Pruned, Pull, Push, Watcher,
};

/// The least time between two looks at what changes all the time.
const PACE: Duration = Duration::from_millis(20);

/// The service over the core.
#[derive(Debug)]
pub(super) struct Service {
    supervisor: Arc<Supervisor>,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Service {
    pub(super) fn new(supervisor: Arc<Supervisor>) -> Self {
        Self { supervisor }
    }

    fn core(&self) -> &Arc<Core> {
        self.supervisor.core()
    }

    async fn image(core: &Core, namespace: &str, name: &str) -> CoreResult<v1::Image> {
        let found = core.images.get(namespace, name, &Choice::parse("")?).await?;
        image_message(core, namespace, &found).await
    }
}

/// Tells of what a board shows until the work is done; its answer comes last. The work is a task of
/// its own: it goes on when its client goes away.
fn watched<T: Send + 'static>(
    mut task: JoinHandle<CoreResult<String>>,
    board: Board,
    tell: fn(Event) -> Option<T>,
    finish: impl FnOnce(String) -> Pin<Box<dyn Future<Output = CoreResult<T>> + Send>> + Send + 'static,
) -> Answers<T> {
    let mut watcher = board.watch();
    let look = move |watcher: &mut Watcher| -> Vec<T> {
        watcher.look().into_iter().filter_map(tell).collect()
    };
    Box::pin(async_stream::try_stream! {
        let answer = loop {
            tokio::select! {
                answer = &mut task => break answer.unwrap_or(Err(Error::Stopping)),
                () = watcher.changed() => {
                    for event in look(&mut watcher) {
                        yield event;
                    }
                    tokio::time::sleep(PACE).await;
                }
            }
        };
        for event in look(&mut watcher) {
            yield event;
        }
        yield finish(answer?).await?;
        // The board is known by its call until here.
        drop(board);
    })
}

#[tonic::async_trait]
impl Images for Service {
    type PullStream = Answers<v1::PullResponse>;
    type PushStream = Answers<v1::PushResponse>;
    type ExportStream = Answers<v1::ExportResponse>;

    async fn pull(
        &self,
        call: Request<v1::PullRequest>,
    ) -> Result<Response<Self::PullStream>, Status> {
        let message = call.get_ref();
        // Credentials make no other call of it, and nothing of them is stored.
        let known = v1::PullRequest { auth: None, ..message.clone() };
        let request = convert::request(call.metadata(), "Pull", &message.request_id, &known)?;
        let message = call.into_inner();
        let pull = Pull {
            reference: message.reference.parse().map_err(Error::from)?,
            choice: Choice::parse(&message.platform)?,
            all_platforms: message.all_platforms,
            credentials: message.auth.map(credentials).transpose()?.flatten(),
            labels: message.labels.into_iter().collect(),
            unpack: !message.no_unpack,
        };
        let (core, namespace) = (Arc::clone(self.core()), request.namespace.to_string());
        let board = core.images.board(&namespace, &request.id);
        let supervisor = Arc::clone(&self.supervisor);
        let shown = board.clone();
        let task = tokio::spawn(async move {
            let core = Arc::clone(supervisor.core());
            let owner = request.namespace.to_string();
            let work = async move {
                let pulled = core.images.pull(&owner, pull, &shown).await?;
                Ok(format!("{} {}", u8::from(pulled.up_to_date), pulled.name))
            };
            supervisor.once(&request, work).await
        });
        let finish = move |answer: String| -> Pin<Box<dyn Future<Output = _> + Send>> {
            Box::pin(async move {
                let (up_to_date, name) = answer.split_once(' ').unwrap_or_default();
                let image = Some(Self::image(&core, &namespace, name).await?);
                let done = v1::PullDone { image, up_to_date: up_to_date == "1" };
                let event = Some(v1::pull_response::Event::Done(done));
                Ok(v1::PullResponse { event })
            })
        };
        Ok(Response::new(watched(task, board, pull_event, finish)))
    }

    async fn push(
        &self,
        call: Request<v1::PushRequest>,
    ) -> Result<Response<Self::PushStream>, Status> {
        let message = call.get_ref();
        let known = v1::PushRequest { auth: None, ..message.clone() };
        let request = convert::request(call.metadata(), "Push", &message.request_id, &known)?;
        let message = call.into_inner();
        let reference = match message.reference.as_str() {
            "" => None,
            text => Some(text.parse::<Reference>().map_err(Error::from)?),
        };
        let push = Push {
            image: message.image,
            reference,
            choice: Choice::parse(&message.platform)?,
            credentials: message.auth.map(credentials).transpose()?.flatten(),
        };
        let namespace = request.namespace.to_string();
        let board = self.core().images.board(&namespace, &request.id);
        let supervisor = Arc::clone(&self.supervisor);
        let shown = board.clone();
        let task = tokio::spawn(async move {
            let core = Arc::clone(supervisor.core());
            let work = async move {
                let pushed = core.images.push(&namespace, push, &shown).await?;
                let target = serde_json::to_string(&pushed.target);
                Ok(format!("{} {}", pushed.name, target.map_err(crate::store::Error::from)?))
            };
            supervisor.once(&request, work).await
        });
        let finish = |answer: String| -> Pin<Box<dyn Future<Output = _> + Send>> {
            Box::pin(async move {
                let (name, target) = answer.split_once(' ').unwrap_or_default();
                let target: Descriptor =
                    serde_json::from_str(target).map_err(crate::store::Error::from)?;
                let done = v1::PushDone {
                    name: name.to_owned(),
                    target: Some(descriptor_message(&target)),
                };
                Ok(v1::PushResponse { event: Some(v1::push_response::Event::Done(done)) })
            })
        };
        Ok(Response::new(watched(task, board, push_event, finish)))
    }

    async fn import(
        &self,
        call: Request<Streaming<v1::ImportRequest>>,
    ) -> Result<Response<v1::ImportResponse>, Status> {
        use v1::import_request::Message;
        let (metadata, _, mut messages) = call.into_parts();
        let open = match messages.next().await.transpose()?.and_then(|first| first.message) {
            Some(Message::Open(open)) => open,
            Some(Message::Data(_)) | None => {
                return Err(Status::invalid_argument("the first message is `open`"));
            }
        };
        let request = convert::request(&metadata, "Import", &open.request_id, &open)?;
        let import = import(open)?;
        let received = receive(messages, |message| match message.message {
            Some(Message::Data(data)) => Some(data),
            Some(Message::Open(_)) | None => None,
        });
        let (core, namespace) = (self.core(), request.namespace.clone());
        let (images, supervisor) = (core.images.clone(), Arc::clone(&self.supervisor));
        // To its end, with its clean-up, also when the client goes away.
        let task = tokio::spawn(async move {
            let owner = request.namespace.to_string();
            let work = async {
                let read = |reader| images.import(&owner, import, reader);
                let imported = received.feed(read).await?;
                let answer = serde_json::to_string(&(imported.names, imported.warnings));
                Ok(answer.map_err(crate::store::Error::from)?)
            };
            supervisor.once(&request, work).await
        });
        let answer = task.await.unwrap_or(Err(Error::Stopping))?;
        let (names, warnings): (Vec<String>, Vec<String>) = serde_json::from_str(&answer)
            .map_err(|source| Error::from(crate::store::Error::from(source)))?;
        let mut images = Vec::with_capacity(names.len());
        for name in names {
            images.push(Self::image(core, namespace.as_str(), &name).await?);
        }
        Ok(Response::new(v1::ImportResponse { images, warnings }))
    }

    async fn export(
        &self,
        call: Request<v1::ExportRequest>,
    ) -> Result<Response<Self::ExportStream>, Status> {
        let namespace = convert::namespace(call.metadata())?;
        let message = call.get_ref();
        let choice = Choice::parse(&message.platform)?;
        let images = self.core().images.clone();
        let export = images.prepare_export(namespace.as_str(), &message.images, &choice).await?;
        Ok(Response::new(chunks(
            |to| async move { images.export(export, to).await },
            |data| v1::ExportResponse { data },
        )))
    }

    async fn list(
        &self,
        call: Request<v1::ListImagesRequest>,
    ) -> Result<Response<v1::ListImagesResponse>, Status> {
        let namespace = convert::namespace(call.metadata())?;
        let found = self.core().images.list(namespace.as_str()).await?;
        let filter = ImageFilter::parse(&call.get_ref().filters, &found)?;
        let mut images = Vec::new();
        for found in found.iter().filter(|found| filter.matches(found)) {
            images.push(image_message(self.core(), namespace.as_str(), found).await?);
        }
        Ok(Response::new(v1::ListImagesResponse { images }))
    }

    async fn get(&self, call: Request<v1::GetImageRequest>) -> Result<Response<v1::Image>, Status> {
        let namespace = convert::namespace(call.metadata())?;
        let message = call.get_ref();
        let choice = Choice::parse(&message.platform)?;
        let core = self.core();
        let found = core.images.get(namespace.as_str(), &message.image, &choice).await?;
        Ok(Response::new(image_message(core, namespace.as_str(), &found).await?))
    }

    async fn tag(
        &self,
        call: Request<v1::TagRequest>,
    ) -> Result<Response<v1::TagResponse>, Status> {
        let message = call.get_ref();
        let id = &message.request_id;
        let images = &self.core().images;
        super::change(&self.supervisor, &call, "Tag", id, |namespace| async move {
            images.tag(&namespace, &message.image, &message.reference).await
        })
        .await?;
        Ok(Response::new(v1::TagResponse {}))
    }

    async fn remove(
        &self,
        call: Request<v1::RemoveImageRequest>,
    ) -> Result<Response<v1::RemoveImageResponse>, Status> {
        let message = call.get_ref();
        let request =
            convert::request(call.metadata(), "RemoveImage", &message.request_id, message)?;
        let message = message.clone();
        let supervisor = Arc::clone(&self.supervisor);
        // To its end, also when the client goes away.
        let task = tokio::spawn(async move {
            let images = supervisor.core().images.clone();
            let namespace = request.namespace.to_string();
            let work = async move {
                let (force, prune) = (message.force, !message.no_prune);
                let removed = images.remove(&namespace, &message.image, force, prune).await?;
                let answer = serde_json::to_string(&(removed.untagged, removed.deleted));
                Ok(answer.map_err(crate::store::Error::from)?)
            };
            supervisor.once(&request, work).await
        });
        let answer = task.await.unwrap_or(Err(Error::Stopping))?;
        let (untagged, deleted) = serde_json::from_str(&answer)
            .map_err(|source| Error::from(crate::store::Error::from(source)))?;
        Ok(Response::new(v1::RemoveImageResponse { untagged, deleted }))
    }

    async fn prune(
        &self,
        call: Request<v1::PruneImagesRequest>,
    ) -> Result<Response<v1::PruneReport>, Status> {
        let namespace = convert::namespace(call.metadata())?;
        let message = call.get_ref();
        let found = self.core().images.list(namespace.as_str()).await?;
        let filter = ImageFilter::parse(&message.filters, &found)?;
        let wanted = found.iter().filter(|found| filter.matches(found));
        let wanted: BTreeSet<String> = wanted.map(|found| found.row.name.clone()).collect();
        let (all, dry_run) = (message.all, message.dry_run);
        let images = self.core().images.clone();
        let task = tokio::spawn(async move {
            images.prune(namespace.as_str(), all, dry_run, |row| !wanted.contains(&row.name)).await
        });
        let pruned = task.await.unwrap_or(Err(Error::Stopping))?;
        Ok(Response::new(prune_report(pruned)))
    }

    async fn commit(
        &self,
        call: Request<v1::CommitImageRequest>,
    ) -> Result<Response<v1::CommitImageResponse>, Status> {
        let message = call.get_ref();
        let request =
            convert::request(call.metadata(), "CommitImage", &message.request_id, message)?;
        let namespace = request.namespace.clone();
        let reference = match message.reference.as_str() {
            "" => None,
            text => Some(text.parse::<Reference>().map_err(Error::from)?),
        };
        let handle = self.supervisor.find(&namespace, &message.container)?;
        let message = message.clone();
        let supervisor = Arc::clone(&self.supervisor);
        // Its processes are let go again also when the client goes away.
        let task = tokio::spawn(async move {
            let core = Arc::clone(supervisor.core());
            let work = crate::files::commit(
                &core,
                &handle,
                crate::files::CommitRequest {
                    reference,
                    author: message.author,
                    message: message.message,
                    changes: message.changes,
                    pause: !message.no_pause,
                },
            );
            supervisor.once(&request, work).await
        });
        let name = task.await.unwrap_or(Err(Error::Stopping))?;
        let image = Some(Self::image(self.core(), namespace.as_str(), &name).await?);
        Ok(Response::new(v1::CommitImageResponse { image }))
    }

    async fn login(
        &self,
        call: Request<v1::LoginRequest>,
    ) -> Result<Response<v1::LoginResponse>, Status> {
        let auth = call.into_inner().auth.unwrap_or_default();
        let given = credentials(auth)?.ok_or_else(|| {
            Status::invalid_argument("no credentials: give a user name and a password, or a token")
        })?;
        let token = self.core().images.login(given).await?;
        Ok(Response::new(v1::LoginResponse { identity_token: token.unwrap_or_default() }))
    }
}

/// Credentials as they came, `None` when there are none.
fn credentials(auth: v1::RegistryAuth) -> CoreResult<Option<Credentials>> {
    let v1::RegistryAuth { host, username, password, identity_token, registry_token } = auth;
    if host.is_empty()
        && !(username.is_empty() && identity_token.is_empty() && registry_token.is_empty())
    {
        return Err(Error::InvalidArgument {
            what: "credentials",
            problem: "they name no host: say which registry they are for".to_owned(),
        });
    }
    let secret = if !registry_token.is_empty() {
        Secret::RegistryToken(registry_token)
    } else if !identity_token.is_empty() {
        Secret::IdentityToken(identity_token)
    } else if !username.is_empty() {
        Secret::Password { username, password }
    } else {
        return Ok(None);
    };
    Ok(Some(Credentials::new(&host, secret)))
}

fn import(open: v1::ImportOpen) -> CoreResult<Import> {
    let kind = match open.kind() {
        v1::import_open::Kind::Auto => ImportKind::Auto,
        v1::import_open::Kind::Images => ImportKind::Images,
        v1::import_open::Kind::Rootfs => ImportKind::Rootfs,
    };
    let reference = match open.reference.as_str() {
        "" => None,
        text => Some(text.parse::<Reference>()?),
    };
    Ok(Import {
        kind,
        reference,
        choice: Choice::parse(&open.platform)?,
        changes: open.changes,
        message: open.message,
        unpack: !open.no_unpack,
    })
}

fn pull_event(event: Event) -> Option<v1::PullResponse> {
    use v1::pull_response::Event as Is;
    let event = match event {
        Event::Resolved { name, target } => {
            Is::Resolved(v1::Resolved { name, target: Some(descriptor_message(&target)) })
        }
        Event::Progress(progress) => Is::Progress(progress_message(progress)),
    };
    Some(v1::PullResponse { event: Some(event) })
}

fn push_event(event: Event) -> Option<v1::PushResponse> {
    match event {
        Event::Resolved { .. } => None,
        Event::Progress(progress) => {
            let event = v1::push_response::Event::Progress(progress_message(progress));
            Some(v1::PushResponse { event: Some(event) })
        }
    }
}

fn progress_message(progress: Progress) -> v1::Progress {
    use v1::progress::{Kind, Status as Is};

    use crate::images::Status;
    let kind = match progress.part {
        Part::Manifest => Kind::Manifest,
        Part::Config => Kind::Config,
        Part::Layer => Kind::Layer,
    };
    let (status, message) = match progress.status {
        Status::Waiting => (Is::Waiting, String::new()),
        Status::Downloading => (Is::Downloading, String::new()),
        Status::Retrying(why) => (Is::Retrying, why),
        Status::Downloaded => (Is::Downloaded, String::new()),
        Status::Unpacking => (Is::Unpacking, String::new()),
        Status::Exists => (Is::Exists, String::new()),
        Status::Mounted => (Is::Mounted, String::new()),
        Status::Uploading => (Is::Uploading, String::new()),
        Status::Done => (Is::Done, String::new()),
    };
    v1::Progress {
        digest: progress.digest,
        kind: kind.into(),
        status: status.into(),
        current: progress.current,
        total: progress.total,
        message,
    }
}

fn descriptor_message(descriptor: &Descriptor) -> v1::Descriptor {
    v1::Descriptor {
        media_type: descriptor.media_type.clone(),
        digest: descriptor.digest.to_string(),
        size: descriptor.size,
    }
}

async fn image_message(core: &Core, namespace: &str, found: &Found) -> CoreResult<v1::Image> {
    let row = &found.row;
    let mut content = None;
    if let Some(image) = &found.image {
        let chain_id = image.chain_id().filter(|_| found.unpacked).map(|id| id.to_string());
        let unpacked_size = match &chain_id {
            // It may have gone since.
            Some(name) => core.snapshots.chain_size(namespace, name).await.unwrap_or(0),
            None => 0,
        };
        content = Some(v1::ImageContent {
            manifest: Some(descriptor_message(&image.descriptor)),
            config: Some(descriptor_message(&image.manifest.config)),
            platform: image.config.platform().to_string(),
            diff_ids: image.config.diff_ids.iter().map(ToString::to_string).collect(),
            layers: image.manifest.layers.iter().map(descriptor_message).collect(),
            config_json: image.config_json.clone(),
            size: image.size(),
            unpacked_size,
            snapshot: chain_id.unwrap_or_default(),
        });
    }
    let familiar_name =
        row.name.parse::<Reference>().map_or_else(|_| row.name.clone(), |name| name.familiar());
    Ok(v1::Image {
        name: row.name.clone(),
        target: Some(descriptor_message(&row.target)),
        created_at: Some(convert::time(row.created_at)),
        updated_at: Some(convert::time(row.updated_at)),
        labels: row.labels.clone().into_iter().collect(),
        content,
        containers: found.containers.clone(),
        familiar_name,
    })
}

/// What a prune did, or would.
pub(super) fn prune_report(pruned: Pruned) -> v1::PruneReport {
    use v1::pruned_item::Kind;
    let names = pruned.names.into_iter().map(|name| (Kind::Image, name, 0));
    let items = pruned.items.into_iter().map(|item| match item {
        Item::Image { name } => (Kind::Image, name, 0),
        Item::Blob { digest, size } => (Kind::Blob, digest, size),
        Item::Snapshot { key, size } => (Kind::Snapshot, key, size),
        Item::Ingest { reference, size } => (Kind::Ingest, reference, size),
    });
    let items: Vec<v1::PrunedItem> = names
        .chain(items)
        .map(|(kind, id, size)| v1::PrunedItem { kind: kind.into(), id, size })
        .collect();
    let reclaimed = items.iter().map(|item| item.size).sum();
    v1::PruneReport { items, reclaimed }
}
