//! The gRPC API over a daemon's socket, for what the client can't ask.

use std::future::Future;
use std::path::Path;
use std::time::Duration;

use bosun_proto::v1;
use bosun_proto::v1::containers_client::ContainersClient;
use bosun_proto::v1::content_client::ContentClient;
use bosun_proto::v1::events_client::EventsClient;
use bosun_proto::v1::files_client::FilesClient;
use bosun_proto::v1::images_client::ImagesClient;
use bosun_proto::v1::io_client::IoClient;
use bosun_proto::v1::snapshots_client::SnapshotsClient;
use bosun_proto::v1::system_client::SystemClient;
use tokio::runtime::Runtime;
use tonic::Status;
use tonic::transport::{Channel, Endpoint, Error};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::wait;

const LIMIT: Duration = Duration::from_secs(60);

/// A connection, with the runtime that drives it.
#[derive(Debug)]
pub struct Api {
    runtime: Runtime,
    channel: Channel,
}

impl Api {
    /// # Errors
    /// When nobody answers on the socket.
    ///
    /// # Panics
    /// When the machine has no thread left.
    pub fn connect(socket: &Path) -> Result<Self, Error> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display()))?
            .timeout(wait::patiently(LIMIT));
        let channel = runtime.block_on(endpoint.connect())?;
        Ok(Self { runtime, channel })
    }

    /// Runs a call to its end.
    pub fn wait<T>(&self, call: impl Future<Output = T>) -> T {
        self.runtime.block_on(call)
    }

    #[must_use]
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    #[must_use]
    pub fn containers(&self) -> ContainersClient<Channel> {
        ContainersClient::new(self.channel())
    }

    #[must_use]
    pub fn io(&self) -> IoClient<Channel> {
        IoClient::new(self.channel())
    }

    #[must_use]
    pub fn snapshots(&self) -> SnapshotsClient<Channel> {
        SnapshotsClient::new(self.channel())
    }

    #[must_use]
    pub fn content(&self) -> ContentClient<Channel> {
        ContentClient::new(self.channel())
    }

    #[must_use]
    pub fn images(&self) -> ImagesClient<Channel> {
        ImagesClient::new(self.channel())
    }

    #[must_use]
    pub fn files(&self) -> FilesClient<Channel> {
        FilesClient::new(self.channel())
    }

    #[must_use]
    pub fn events(&self) -> EventsClient<Channel> {
        EventsClient::new(self.channel())
    }

    #[must_use]
    pub fn system(&self) -> SystemClient<Channel> {
        SystemClient::new(self.channel())
    }

    /// Does `grpc.health.v1` say SERVING for the whole daemon?
    #[must_use]
    pub fn is_serving(&self) -> bool {
        let request = tonic_health::pb::HealthCheckRequest { service: String::new() };
        let answer = self.wait(async { HealthClient::new(self.channel()).check(request).await });
        answer.is_ok_and(|answer| answer.get_ref().status() == ServingStatus::Serving)
    }

    /// A container's record.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    #[must_use]
    pub fn get(&self, container: &str) -> v1::Container {
        let request = v1::GetRequest { container: container.to_owned() };
        self.wait(async { self.containers().get(request).await })
            .unwrap_or_else(|status| panic!("Get {container}: {status}"))
            .into_inner()
    }

    /// Every container's record.
    ///
    /// # Panics
    /// When the daemon can't say.
    #[track_caller]
    #[must_use]
    pub fn list(&self) -> Vec<v1::Container> {
        let request = v1::ListRequest { all: true, filters: Vec::new() };
        self.wait(async { self.containers().list(request).await })
            .unwrap_or_else(|status| panic!("List: {status}"))
            .into_inner()
            .containers
    }

    /// An image's record by its name.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    #[must_use]
    pub fn image(&self, name: &str) -> v1::Image {
        let request = v1::GetImageRequest { image: name.to_owned(), platform: String::new() };
        self.wait(async { self.images().get(request).await })
            .unwrap_or_else(|status| panic!("Get {name}: {status}"))
            .into_inner()
    }

    /// Names of all images.
    ///
    /// # Panics
    /// When the daemon can't say.
    #[track_caller]
    #[must_use]
    pub fn image_names(&self) -> Vec<String> {
        let request = v1::ListImagesRequest { filters: Vec::new() };
        let answer = self.wait(async { self.images().list(request).await });
        let images = answer.unwrap_or_else(|status| panic!("List: {status}")).into_inner().images;
        images.into_iter().map(|image| image.name).collect()
    }

    /// Creates a container.
    ///
    /// # Errors
    /// What the daemon answered.
    pub fn create(
        &self,
        request_id: &str,
        options: v1::ContainerOptions,
    ) -> Result<String, Status> {
        let request =
            v1::CreateRequest { request_id: request_id.to_owned(), options: Some(options) };
        let answer = self.wait(async { self.containers().create(request).await })?;
        Ok(answer.into_inner().id)
    }
}

/// Options of a container over the host's own tree, without a network.
#[must_use]
pub fn options(name: &str, command: &[&str]) -> v1::ContainerOptions {
    v1::ContainerOptions {
        name: name.to_owned(),
        base: Some(v1::container_options::Base::Rootfs("/".to_owned())),
        command: command.iter().map(|&word| word.to_owned()).collect(),
        network: Some(v1::Network {
            mode: v1::network::Mode::None.into(),
            container: String::new(),
        }),
        ..v1::ContainerOptions::default()
    }
}

/// The reason that the daemon attached to an error.
#[must_use]
pub fn reason(status: &Status) -> String {
    status
        .metadata()
        .get(bosun_proto::REASON_KEY)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .to_owned()
}
