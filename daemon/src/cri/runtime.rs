//! `runtime.v1.RuntimeService`: each call is decoded, made and answered here; what it means is said in
//! the modules beside.

use std::pin::Pin;
use std::sync::Arc;

use bosun_proto::cri::runtime_service_server::RuntimeService;
use futures::Stream;
use tonic::{Request, Response, Status};

use super::{Cri, wire};

/// The service over the core.
#[derive(Debug)]
pub(crate) struct Service {
    cri: Arc<Cri>,
}

impl Service {
    pub(super) fn new(cri: Arc<Cri>) -> Self {
        Self { cri }
    }
}

/// What a streaming call answers.
pub(super) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// How many entries one message of a streamed list has.
pub(super) const PIECE: usize = 100;

/// A list in pieces.
pub(super) fn pieces<T, M>(list: Vec<T>, message: fn(Vec<T>) -> M) -> Response<Answers<M>>
where
    T: Send + 'static,
    M: Send + 'static,
{
    let mut list = list.into_iter();
    let pieces = std::iter::from_fn(move || {
        let piece: Vec<T> = list.by_ref().take(PIECE).collect();
        (!piece.is_empty()).then(|| Ok(message(piece)))
    });
    Response::new(Box::pin(tokio_stream::iter(pieces)))
}

#[tonic::async_trait]
impl RuntimeService for Service {
    type StreamPodSandboxesStream = Answers<wire::StreamPodSandboxesResponse>;
    type StreamContainersStream = Answers<wire::StreamContainersResponse>;
    type StreamContainerStatsStream = Answers<wire::StreamContainerStatsResponse>;
    type StreamPodSandboxStatsStream = Answers<wire::StreamPodSandboxStatsResponse>;
    type StreamPodSandboxMetricsStream = Answers<wire::StreamPodSandboxMetricsResponse>;
    type GetContainerEventsStream = Answers<wire::ContainerEventResponse>;

    async fn version(
        &self,
        _: Request<wire::VersionRequest>,
    ) -> Result<Response<wire::VersionResponse>, Status> {
        Ok(Response::new(self.cri.version()))
    }

    async fn run_pod_sandbox(
        &self,
        call: Request<wire::RunPodSandboxRequest>,
    ) -> Result<Response<wire::RunPodSandboxResponse>, Status> {
        Ok(Response::new(self.cri.run_pod(call.into_inner()).await?))
    }

    async fn stop_pod_sandbox(
        &self,
        call: Request<wire::StopPodSandboxRequest>,
    ) -> Result<Response<wire::StopPodSandboxResponse>, Status> {
        self.cri.stop_pod(&call.get_ref().pod_sandbox_id).await?;
        Ok(Response::new(wire::StopPodSandboxResponse {}))
    }

    async fn remove_pod_sandbox(
        &self,
        call: Request<wire::RemovePodSandboxRequest>,
    ) -> Result<Response<wire::RemovePodSandboxResponse>, Status> {
        self.cri.remove_pod(&call.get_ref().pod_sandbox_id).await?;
        Ok(Response::new(wire::RemovePodSandboxResponse {}))
    }

    async fn start_container(
        &self,
        call: Request<wire::StartContainerRequest>,
    ) -> Result<Response<wire::StartContainerResponse>, Status> {
        self.cri.start_container(&call.get_ref().container_id).await?;
        Ok(Response::new(wire::StartContainerResponse {}))
    }

    async fn remove_container(
        &self,
        call: Request<wire::RemoveContainerRequest>,
    ) -> Result<Response<wire::RemoveContainerResponse>, Status> {
        self.cri.remove_container(&call.get_ref().container_id).await?;
        Ok(Response::new(wire::RemoveContainerResponse {}))
    }

    async fn pod_sandbox_status(
        &self,
        call: Request<wire::PodSandboxStatusRequest>,
    ) -> Result<Response<wire::PodSandboxStatusResponse>, Status> {
        let message = call.get_ref();
        Ok(Response::new(self.cri.pod_status(&message.pod_sandbox_id, message.verbose).await?))
    }

    async fn list_pod_sandbox(
        &self,
        call: Request<wire::ListPodSandboxRequest>,
    ) -> Result<Response<wire::ListPodSandboxResponse>, Status> {
        let items = self.cri.pods(call.into_inner().filter).await;
        Ok(Response::new(wire::ListPodSandboxResponse { items }))
    }

    async fn stream_pod_sandboxes(
        &self,
        call: Request<wire::StreamPodSandboxesRequest>,
    ) -> Result<Response<Self::StreamPodSandboxesStream>, Status> {
        let pods = self.cri.pods(call.into_inner().filter).await;
        Ok(pieces(pods, |pod_sandboxes| wire::StreamPodSandboxesResponse { pod_sandboxes }))
    }

    async fn create_container(
        &self,
        call: Request<wire::CreateContainerRequest>,
    ) -> Result<Response<wire::CreateContainerResponse>, Status> {
        Ok(Response::new(self.cri.create_container(call.into_inner()).await?))
    }

    async fn stop_container(
        &self,
        call: Request<wire::StopContainerRequest>,
    ) -> Result<Response<wire::StopContainerResponse>, Status> {
        let message = call.get_ref();
        self.cri.stop_container(&message.container_id, message.timeout).await?;
        Ok(Response::new(wire::StopContainerResponse {}))
    }

    async fn list_containers(
        &self,
        call: Request<wire::ListContainersRequest>,
    ) -> Result<Response<wire::ListContainersResponse>, Status> {
        let containers = self.cri.containers(call.into_inner().filter);
        Ok(Response::new(wire::ListContainersResponse { containers }))
    }

    async fn stream_containers(
        &self,
        call: Request<wire::StreamContainersRequest>,
    ) -> Result<Response<Self::StreamContainersStream>, Status> {
        let containers = self.cri.containers(call.into_inner().filter);
        Ok(pieces(containers, |containers| wire::StreamContainersResponse { containers }))
    }

    async fn container_status(
        &self,
        call: Request<wire::ContainerStatusRequest>,
    ) -> Result<Response<wire::ContainerStatusResponse>, Status> {
        let message = call.get_ref();
        Ok(Response::new(self.cri.container_status(&message.container_id, message.verbose).await?))
    }

    async fn update_container_resources(
        &self,
        call: Request<wire::UpdateContainerResourcesRequest>,
    ) -> Result<Response<wire::UpdateContainerResourcesResponse>, Status> {
        self.cri.update_container(call.get_ref()).await?;
        Ok(Response::new(wire::UpdateContainerResourcesResponse {}))
    }

    async fn reopen_container_log(
        &self,
        call: Request<wire::ReopenContainerLogRequest>,
    ) -> Result<Response<wire::ReopenContainerLogResponse>, Status> {
        self.cri.reopen_log(&call.get_ref().container_id).await?;
        Ok(Response::new(wire::ReopenContainerLogResponse {}))
    }

    async fn exec_sync(
        &self,
        call: Request<wire::ExecSyncRequest>,
    ) -> Result<Response<wire::ExecSyncResponse>, Status> {
        Ok(Response::new(self.cri.exec_sync(call.into_inner()).await?))
    }

    async fn exec(
        &self,
        call: Request<wire::ExecRequest>,
    ) -> Result<Response<wire::ExecResponse>, Status> {
        Ok(Response::new(self.cri.exec(call.into_inner()).await?))
    }

    async fn attach(
        &self,
        call: Request<wire::AttachRequest>,
    ) -> Result<Response<wire::AttachResponse>, Status> {
        Ok(Response::new(self.cri.attach_to(call.into_inner()).await?))
    }

    async fn port_forward(
        &self,
        call: Request<wire::PortForwardRequest>,
    ) -> Result<Response<wire::PortForwardResponse>, Status> {
        Ok(Response::new(self.cri.port_forward(call.into_inner()).await?))
    }

    async fn container_stats(
        &self,
        call: Request<wire::ContainerStatsRequest>,
    ) -> Result<Response<wire::ContainerStatsResponse>, Status> {
        let stats = self.cri.container_stats(&call.get_ref().container_id).await?;
        Ok(Response::new(wire::ContainerStatsResponse { stats: Some(stats) }))
    }

    async fn list_container_stats(
        &self,
        call: Request<wire::ListContainerStatsRequest>,
    ) -> Result<Response<wire::ListContainerStatsResponse>, Status> {
        let stats = self.cri.all_container_stats(call.into_inner().filter).await;
        Ok(Response::new(wire::ListContainerStatsResponse { stats }))
    }

    async fn stream_container_stats(
        &self,
        call: Request<wire::StreamContainerStatsRequest>,
    ) -> Result<Response<Self::StreamContainerStatsStream>, Status> {
        let stats = self.cri.all_container_stats(call.into_inner().filter).await;
        Ok(pieces(stats, |container_stats| wire::StreamContainerStatsResponse { container_stats }))
    }

    async fn pod_sandbox_stats(
        &self,
        call: Request<wire::PodSandboxStatsRequest>,
    ) -> Result<Response<wire::PodSandboxStatsResponse>, Status> {
        let stats = self.cri.pod_stats(&call.get_ref().pod_sandbox_id).await?;
        Ok(Response::new(wire::PodSandboxStatsResponse { stats: Some(stats) }))
    }

    async fn list_pod_sandbox_stats(
        &self,
        call: Request<wire::ListPodSandboxStatsRequest>,
    ) -> Result<Response<wire::ListPodSandboxStatsResponse>, Status> {
        let stats = self.cri.all_pod_stats(call.into_inner().filter).await;
        Ok(Response::new(wire::ListPodSandboxStatsResponse { stats }))
    }

    async fn stream_pod_sandbox_stats(
        &self,
        call: Request<wire::StreamPodSandboxStatsRequest>,
    ) -> Result<Response<Self::StreamPodSandboxStatsStream>, Status> {
        let stats = self.cri.all_pod_stats(call.into_inner().filter).await;
        Ok(pieces(stats, |pod_sandbox_stats| wire::StreamPodSandboxStatsResponse {
            pod_sandbox_stats,
        }))
    }

    async fn update_runtime_config(
        &self,
        call: Request<wire::UpdateRuntimeConfigRequest>,
    ) -> Result<Response<wire::UpdateRuntimeConfigResponse>, Status> {
        self.cri.update_runtime_config(call.into_inner()).await?;
        Ok(Response::new(wire::UpdateRuntimeConfigResponse {}))
    }

    async fn status(
        &self,
        call: Request<wire::StatusRequest>,
    ) -> Result<Response<wire::StatusResponse>, Status> {
        Ok(Response::new(self.cri.status(call.get_ref().verbose).await))
    }

    async fn checkpoint_container(
        &self,
        call: Request<wire::CheckpointContainerRequest>,
    ) -> Result<Response<wire::CheckpointContainerResponse>, Status> {
        self.cri.checkpoint_container(call.get_ref()).await?;
        Ok(Response::new(wire::CheckpointContainerResponse {}))
    }

    async fn checkpoint_pod(
        &self,
        call: Request<wire::CheckpointPodRequest>,
    ) -> Result<Response<wire::CheckpointPodResponse>, Status> {
        self.cri.checkpoint_pod(call.into_inner()).await?;
        Ok(Response::new(wire::CheckpointPodResponse {}))
    }

    async fn restore_pod(
        &self,
        call: Request<wire::RestorePodRequest>,
    ) -> Result<Response<wire::RestorePodResponse>, Status> {
        Ok(Response::new(self.cri.restore_pod(call.into_inner()).await?))
    }

    async fn get_container_events(
        &self,
        _: Request<wire::GetEventsRequest>,
    ) -> Result<Response<Self::GetContainerEventsStream>, Status> {
        Ok(Response::new(Box::pin(self.cri.container_events())))
    }

    async fn list_metric_descriptors(
        &self,
        _: Request<wire::ListMetricDescriptorsRequest>,
    ) -> Result<Response<wire::ListMetricDescriptorsResponse>, Status> {
        let descriptors = Cri::metric_descriptors();
        Ok(Response::new(wire::ListMetricDescriptorsResponse { descriptors }))
    }

    async fn list_pod_sandbox_metrics(
        &self,
        _: Request<wire::ListPodSandboxMetricsRequest>,
    ) -> Result<Response<wire::ListPodSandboxMetricsResponse>, Status> {
        let pod_metrics = self.cri.pod_metrics().await;
        Ok(Response::new(wire::ListPodSandboxMetricsResponse { pod_metrics }))
    }

    async fn stream_pod_sandbox_metrics(
        &self,
        _: Request<wire::StreamPodSandboxMetricsRequest>,
    ) -> Result<Response<Self::StreamPodSandboxMetricsStream>, Status> {
        let metrics = self.cri.pod_metrics().await;
        Ok(pieces(metrics, |pod_sandbox_metrics| wire::StreamPodSandboxMetricsResponse {
            pod_sandbox_metrics,
        }))
    }

    async fn runtime_config(
        &self,
        _: Request<wire::RuntimeConfigRequest>,
    ) -> Result<Response<wire::RuntimeConfigResponse>, Status> {
        Ok(Response::new(self.cri.runtime_config()))
    }

    async fn update_pod_sandbox_resources(
        &self,
        call: Request<wire::UpdatePodSandboxResourcesRequest>,
    ) -> Result<Response<wire::UpdatePodSandboxResourcesResponse>, Status> {
        self.cri.update_pod(call.into_inner()).await?;
        Ok(Response::new(wire::UpdatePodSandboxResourcesResponse {}))
    }
}
