//! `runtime.v1.ImageService`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bosun_image::Reference;
use bosun_proto::cri::image_service_server::ImageService;
use tonic::{Request, Response, Status};

use super::runtime::{Answers, pieces};
use super::{Cri, convert, wire};
use crate::error::{Error, Result as CoreResult};
use crate::images::{Board, Choice, Named, Pull};

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

#[tonic::async_trait]
impl ImageService for Service {
    type StreamImagesStream = Answers<wire::StreamImagesResponse>;

    async fn list_images(
        &self,
        call: Request<wire::ListImagesRequest>,
    ) -> Result<Response<wire::ListImagesResponse>, Status> {
        let images = self.cri.images(call.into_inner().filter).await?;
        Ok(Response::new(wire::ListImagesResponse { images }))
    }

    async fn stream_images(
        &self,
        call: Request<wire::StreamImagesRequest>,
    ) -> Result<Response<Self::StreamImagesStream>, Status> {
        let images = self.cri.images(call.into_inner().filter).await?;
        Ok(pieces(images, |images| wire::StreamImagesResponse { images }))
    }

    async fn image_status(
        &self,
        call: Request<wire::ImageStatusRequest>,
    ) -> Result<Response<wire::ImageStatusResponse>, Status> {
        let message = call.into_inner();
        let text = convert::reference_text(message.image.as_ref())?;
        let found = self.cri.image(&text).await?;
        let info = match (&found, message.verbose) {
            (Some(found), true) => info(found),
            (_, _) => HashMap::new(),
        };
        let image = found.map(|found| convert::images(&found).pop());
        Ok(Response::new(wire::ImageStatusResponse { image: image.flatten(), info }))
    }

    async fn pull_image(
        &self,
        call: Request<wire::PullImageRequest>,
    ) -> Result<Response<wire::PullImageResponse>, Status> {
        let image_ref = self.cri.pull(call.into_inner()).await?;
        Ok(Response::new(wire::PullImageResponse { image_ref }))
    }

    async fn remove_image(
        &self,
        call: Request<wire::RemoveImageRequest>,
    ) -> Result<Response<wire::RemoveImageResponse>, Status> {
        let text = convert::reference_text(call.get_ref().image.as_ref())?;
        self.cri.remove_image(&text).await?;
        Ok(Response::new(wire::RemoveImageResponse {}))
    }

    async fn image_fs_info(
        &self,
        _: Request<wire::ImageFsInfoRequest>,
    ) -> Result<Response<wire::ImageFsInfoResponse>, Status> {
        Ok(Response::new(self.cri.image_file_systems().await?))
    }
}

impl Cri {
    async fn images(&self, filter: Option<wire::ImageFilter>) -> CoreResult<Vec<wire::Image>> {
        let wanted = filter.and_then(|filter| filter.image).map(|image| image.image);
        match wanted.filter(|text| !text.is_empty()) {
            None => Ok(convert::images(&self.core().images.named(self.namespace.as_str()).await?)),
            Some(text) => {
                let found = self.image(&text).await?;
                Ok(found.map(|found| convert::images(&found)).unwrap_or_default())
            }
        }
    }

    /// All names of the image that a text means; `None` when it is not here.
    async fn image(&self, text: &str) -> CoreResult<Option<Vec<Named>>> {
        match self.core().images.names_of(self.namespace.as_str(), text).await {
            Ok(named) => Ok(Some(named).filter(|named| !named.is_empty())),
            Err(Error::NoSuchImage { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Answers the image's id.
    async fn pull(&self, request: wire::PullImageRequest) -> CoreResult<String> {
        let text = convert::reference_text(request.image.as_ref())?;
        let reference: Reference = text.parse().map_err(Error::from)?;
        let credentials = convert::credentials(request.auth, &reference)?;
        let namespace = self.namespace.as_str();
        let choice = Choice::parse("")?;
        let pull = Pull {
            reference,
            choice: choice.clone(),
            all_platforms: false,
            credentials,
            labels: BTreeMap::new(),
            unpack: true,
        };
        let pulled = self.core().images.pull(namespace, pull, &Board::default()).await?;
        let found = self.core().images.get(namespace, &pulled.name, &choice).await?;
        let image = found.image.ok_or(Error::NoSuchImage { reference: text, similar: None })?;
        Ok(image.manifest.config.digest.to_string())
    }

    /// Removes an image with all its names. One that is not there is removed.
    async fn remove_image(&self, text: &str) -> CoreResult<()> {
        let Some(found) = self.image(text).await? else { return Ok(()) };
        let Some(image) = found.first().and_then(|found| found.image.as_ref()) else {
            return Ok(());
        };
        let id = image.manifest.config.digest.to_string();
        let images = &self.core().images;
        match images.remove(self.namespace.as_str(), &id, true, true).await {
            // Somebody else was faster.
            Ok(_) | Err(Error::NoSuchImage { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn info(found: &[Named]) -> HashMap<String, String> {
    let Some(image) = found.first().and_then(|found| found.image.as_ref()) else {
        return HashMap::new();
    };
    let config: serde_json::Value = serde_json::from_slice(&image.config_json).unwrap_or_default();
    let info = serde_json::json!({
        "chainID": image.chain_id().map(|chain_id| chain_id.to_string()),
        "imageSpec": config,
    });
    HashMap::from([("info".to_owned(), info.to_string())])
}
