//! The gRPC faces: one socket, one server, layers around every call.
//!
//! A service decodes, calls the core and encodes; it decides nothing. Conversions between messages
//! and the core's types, and from errors to statuses, are in `convert`, once.

mod connections;
mod containers;
mod content;
mod convert;
mod disk;
mod events;
mod files;
mod filter;
mod image_filter;
mod images;
mod intake;
mod io;
mod layers;
mod leases;
mod places;
mod sandboxes;
mod snapshots;
mod system;
mod transfer;

use std::future::Future;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bosun_proto::cri::image_service_server::ImageServiceServer;
use bosun_proto::cri::runtime_service_server::RuntimeServiceServer;
use bosun_proto::v1::containers_server::ContainersServer;
use bosun_proto::v1::content_server::ContentServer;
use bosun_proto::v1::events_server::EventsServer;
use bosun_proto::v1::files_server::FilesServer;
use bosun_proto::v1::images_server::ImagesServer;
use bosun_proto::v1::io_server::IoServer;
use bosun_proto::v1::leases_server::LeasesServer;
use bosun_proto::v1::sandboxes_server::SandboxesServer;
use bosun_proto::v1::snapshots_server::SnapshotsServer;
use bosun_proto::v1::system_server::SystemServer;
use prost::Message;
use tokio::net::UnixListener;
use tonic::transport::Server;
use tonic::{Request, Status};
use tower::ServiceBuilder;

pub use convert::sentence;
pub use system::About;

use crate::container::Supervisor;
use crate::cri;

/// The longest message, in both directions.
const MAX_MESSAGE: usize = 16 << 20;

/// Calls that may be under way at once on one connection.
const CALLS_PER_CONNECTION: usize = 1024;

/// How long calls under way have when the daemon is told to stop.
const DRAIN: Duration = Duration::from_secs(3);

/// A server that can't be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("socket {}: {source}", path.display())]
    Socket { path: std::path::PathBuf, source: std::io::Error },
    #[error("socket {}: it is a directory: move it away, or give bosund another --address", path.display())]
    Directory { path: std::path::PathBuf },
    #[error("group {group:?} of the socket: {problem}")]
    Group { group: String, problem: String },
    #[error("gRPC server: {0}")]
    Serve(#[from] tonic::transport::Error),
    #[error("gRPC reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// A mutating call without an answer of its own: done once, however often it is made.
async fn change<M: Message, F>(
    supervisor: &Supervisor,
    call: &Request<M>,
    method: &str,
    request_id: &str,
    work: impl FnOnce(String) -> F,
) -> Result<(), Status>
where
    F: Future<Output = crate::Result<()>> + Send,
{
    let request = convert::request(call.metadata(), method, request_id, call.get_ref())?;
    let work = work(request.namespace.to_string());
    let done = async {
        work.await?;
        Ok::<String, crate::Error>(String::new())
    };
    supervisor.once(&request, done).await?;
    Ok(())
}

/// Makes the socket: closed to everybody but root and the group before anybody can see it.
///
/// # Errors
/// Names the socket or the group.
pub fn bind(path: &Path, group: Option<&str>) -> Result<UnixListener, Error> {
    let failed = |source| Error::Socket { path: path.to_owned(), source };
    // The root's lock is ours: whoever left a socket here is gone.
    match std::fs::remove_file(path) {
        Err(source) if source.kind() == std::io::ErrorKind::IsADirectory => {
            return Err(Error::Directory { path: path.to_owned() });
        }
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            return Err(failed(source));
        }
        Ok(()) | Err(_) => {}
    }
    if let Some(parent) = path.parent()
        && !parent.exists()
    {
        std::fs::create_dir_all(parent).map_err(failed)?;
    }
    // The daemon's umask is 077: nobody gets in between bind and chmod.
    let listener = UnixListener::bind(path).map_err(failed)?;
    if let Some(gid) = socket_group(group)? {
        std::os::unix::fs::chown(path, None, Some(gid)).map_err(failed)?;
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).map_err(failed)?;
    Ok(listener)
}

/// The group of the socket: the one that was named, else `bosun` if there is one.
fn socket_group(named: Option<&str>) -> Result<Option<u32>, Error> {
    let name = named.unwrap_or("bosun");
    let failed = |problem: String| Error::Group { group: name.to_owned(), problem };
    let found = nix::unistd::Group::from_name(name)
        .map_err(|errno| failed(errno.to_string()))?
        .map(|group| group.gid.as_raw());
    match (found, named) {
        (None, Some(_)) => Err(failed("no such group: make it with `groupadd`".to_owned())),
        (found, _) => Ok(found),
    }
}

/// Serves all faces until `stop` is done, then lets the calls under way come to their end: those that
/// do work, within [`DRAIN`]; streams and waits are cut, and their clients come back.
///
/// # Errors
/// The transport's.
pub async fn serve(
    supervisor: Arc<Supervisor>,
    about: About,
    listener: UnixListener,
    stop: impl Future<Output = ()>,
) -> Result<(), Error> {
    let timeout = supervisor.core().config.call_timeout;
    let memory = supervisor.core().cgroups.own_memory_limit().unwrap_or_else(|error| {
        tracing::warn!(%error, "how much memory the daemon may have is not known");
        None
    });
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<ContainersServer<containers::Service>>().await;
    health.set_serving::<SandboxesServer<sandboxes::Service>>().await;
    health.set_serving::<IoServer<io::Service>>().await;
    health.set_serving::<SnapshotsServer<snapshots::Service>>().await;
    health.set_serving::<ContentServer<content::Service>>().await;
    health.set_serving::<LeasesServer<leases::Service>>().await;
    health.set_serving::<ImagesServer<images::Service>>().await;
    health.set_serving::<FilesServer<files::Service>>().await;
    health.set_serving::<EventsServer<events::Service>>().await;
    health.set_serving::<SystemServer<system::Service>>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(bosun_proto::FILE_DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let containers = containers::Service::new(Arc::clone(&supervisor));
    let sandboxes = sandboxes::Service::new(Arc::clone(&supervisor));
    let io = io::Service::new(Arc::clone(&supervisor));
    let snapshots = snapshots::Service::new(Arc::clone(&supervisor));
    let content = content::Service::new(Arc::clone(&supervisor));
    let leases = leases::Service::new(Arc::clone(&supervisor));
    let images = images::Service::new(Arc::clone(&supervisor));
    let files = files::Service::new(Arc::clone(&supervisor));
    let events = events::Service::new(Arc::clone(&supervisor));
    let (cri_runtime, cri_images, guests) = cri::services(&supervisor).await;
    let system = system::Service::new(supervisor, about);
    let layers = ServiceBuilder::new()
        .layer(layers::Trace)
        .layer(layers::Deadline::new(timeout))
        .layer(intake::Intake::new(memory))
        .into_inner();
    let (stopping, stopped) = tokio::sync::oneshot::channel();
    let stop = async move {
        stop.await;
        // Nobody listens when the server has ended by itself.
        let _ = stopping.send(());
    };
    let drained = async move {
        match stopped.await {
            Ok(()) => tokio::time::sleep(DRAIN).await,
            Err(_) => std::future::pending().await,
        }
    };
    let serving = Server::builder()
        .layer(layers)
        .concurrency_limit_per_connection(CALLS_PER_CONNECTION)
        .max_concurrent_streams(1024)
        .add_service(health_service)
        .add_service(reflection)
        .add_service(ContainersServer::new(containers).max_decoding_message_size(MAX_MESSAGE))
        .add_service(SandboxesServer::new(sandboxes).max_decoding_message_size(MAX_MESSAGE))
        .add_service(IoServer::new(io).max_decoding_message_size(MAX_MESSAGE))
        .add_service(SnapshotsServer::new(snapshots).max_decoding_message_size(MAX_MESSAGE))
        .add_service(ContentServer::new(content).max_decoding_message_size(MAX_MESSAGE))
        .add_service(LeasesServer::new(leases).max_decoding_message_size(MAX_MESSAGE))
        .add_service(ImagesServer::new(images).max_decoding_message_size(MAX_MESSAGE))
        .add_service(FilesServer::new(files).max_decoding_message_size(MAX_MESSAGE))
        .add_service(EventsServer::new(events).max_decoding_message_size(MAX_MESSAGE))
        .add_service(SystemServer::new(system).max_decoding_message_size(MAX_MESSAGE))
        .add_service(RuntimeServiceServer::new(cri_runtime).max_decoding_message_size(MAX_MESSAGE))
        .add_service(ImageServiceServer::new(cri_images).max_decoding_message_size(MAX_MESSAGE))
        .serve_with_incoming_shutdown(connections::incoming(listener), stop);
    let outcome = tokio::select! {
        outcome = serving => outcome,
        () = drained => Ok(()),
    };
    guests.leave().await;
    Ok(outcome?)
}
