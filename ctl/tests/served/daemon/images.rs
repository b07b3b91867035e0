//! Images: a registry that has what the book says, and archives that are kept to be looked at.

use std::pin::Pin;

use bosun_proto::v1::images_server::Images;
use bosun_proto::v1::*;
use tokio_stream::{Stream, StreamExt};
use tonic::{Code, Request, Response, Status, Streaming};

use super::{Fake, broken_after, refusal};

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send + 'static>>;

/// A digest of one digit.
pub(crate) fn digest(digit: &str) -> String {
    format!("sha256:{}", digit.repeat(64))
}

/// An image by this whole name.
pub(crate) fn image(name: &str) -> Image {
    let one = |digit: &str, size| Descriptor {
        media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
        digest: digest(digit),
        size,
    };
    Image {
        name: name.to_owned(),
        target: Some(one("b", 500)),
        content: Some(ImageContent {
            config: Some(one("c", 700)),
            config_json:
                br#"{"os":"linux","config":{"Cmd":["sh"]},"history":[{"created_by":"ADD"}]}"#
                    .to_vec(),
            layers: vec![one("d", 2048)],
            size: 2_000_000,
            ..ImageContent::default()
        }),
        ..Image::default()
    }
}

pub(crate) fn layer(digit: &str, status: progress::Status, current: u64) -> Progress {
    Progress {
        digest: digest(digit),
        kind: progress::Kind::Layer.into(),
        status: status.into(),
        current,
        total: 100,
        ..Progress::default()
    }
}

impl Fake {
    pub(super) fn find_image(&self, name: &str) -> Result<Image, Status> {
        let book = self.book();
        let whole = format!("docker.io/library/{name}:latest");
        let known = |image: &&Image| image.name == name || image.name == whole;
        book.images.iter().find(known).cloned().ok_or_else(|| {
            refusal(Code::NotFound, "NO_SUCH_IMAGE", &format!("no such image: {name}"))
        })
    }
}

#[tonic::async_trait]
impl Images for Fake {
    type PullStream = Answers<PullResponse>;
    type PushStream = Answers<PushResponse>;
    type ExportStream = Answers<ExportResponse>;

    async fn pull(
        &self,
        request: Request<PullRequest>,
    ) -> Result<Response<Answers<PullResponse>>, Status> {
        use pull_response::Event;
        let request = request.into_inner();
        self.note(
            format!("pull {} {:?}", request.reference, request.platform),
            &request.request_id,
        );
        let mut book = self.book();
        book.auths.push(request.auth);
        if let Some(failure) = book.pull_failures.pop_front() {
            return Err(failure);
        }
        let name = request.reference;
        let whole =
            if name.contains('/') { name } else { format!("docker.io/library/{name}:latest") };
        let target = image(&whole).target;
        let mut events = vec![Event::Resolved(Resolved { name: whole.clone(), target })];
        events
            .extend(book.progress.pop_front().unwrap_or_default().into_iter().map(Event::Progress));
        // What is not the last of the story breaks off.
        let breaks = !book.progress.is_empty();
        if !breaks {
            let up_to_date = book.images.iter().any(|image| image.name == whole);
            book.images.push(image(&whole));
            let image = Some(image(&whole));
            events.push(Event::Done(PullDone { image, up_to_date }));
        }
        let responses = events.into_iter().map(|event| PullResponse { event: Some(event) });
        Ok(Response::new(broken_after(responses.collect(), breaks)))
    }

    async fn push(
        &self,
        request: Request<PushRequest>,
    ) -> Result<Response<Answers<PushResponse>>, Status> {
        use push_response::Event;
        let request = request.into_inner();
        self.note(format!("push {} {:?}", request.image, request.reference), &request.request_id);
        let mut book = self.book();
        book.auths.push(request.auth);
        let name = if request.reference.is_empty() { request.image } else { request.reference };
        let mut events: Vec<Event> = book
            .progress
            .pop_front()
            .unwrap_or_default()
            .into_iter()
            .map(Event::Progress)
            .collect();
        let breaks = !book.progress.is_empty();
        if !breaks {
            events.push(Event::Done(PushDone { target: image(&name).target, name }));
        }
        let responses = events.into_iter().map(|event| PushResponse { event: Some(event) });
        Ok(Response::new(broken_after(responses.collect(), breaks)))
    }

    async fn import(
        &self,
        request: Request<Streaming<ImportRequest>>,
    ) -> Result<Response<ImportResponse>, Status> {
        use import_request::Message;
        let mut requests = request.into_inner();
        let Some(Message::Open(open)) = requests.message().await?.unwrap().message else {
            return Err(Status::invalid_argument("not opened"));
        };
        self.note(format!("import {:?} {:?}", open.kind(), open.reference), &open.request_id);
        if self.book().refuses_archives {
            return Err(refusal(Code::InvalidArgument, "BAD_IMAGE", "that is no archive"));
        }
        let mut archive = Vec::new();
        while let Some(request) = requests.message().await? {
            let Some(Message::Data(data)) = request.message else { panic!("opened twice") };
            archive.extend(data);
        }
        let mut book = self.book();
        book.archives.push(archive);
        let name =
            if open.reference.is_empty() { "docker.io/library/loaded:1" } else { &open.reference };
        let warnings = vec!["an unknown file was passed over".to_owned()];
        Ok(Response::new(ImportResponse { images: vec![image(name)], warnings }))
    }

    async fn export(
        &self,
        request: Request<ExportRequest>,
    ) -> Result<Response<Answers<ExportResponse>>, Status> {
        for image in request.into_inner().images {
            self.find_image(&image)?;
        }
        let book = self.book();
        let chunks = book.exported.iter().map(|data| ExportResponse { data: data.clone() });
        Ok(Response::new(broken_after(chunks.collect(), book.export_breaks)))
    }

    async fn list(
        &self,
        request: Request<ListImagesRequest>,
    ) -> Result<Response<ListImagesResponse>, Status> {
        let filters = request.into_inner().filters;
        if !filters.is_empty() {
            self.note(format!("images {filters:?}"), "");
        }
        Ok(Response::new(ListImagesResponse { images: self.book().images.clone() }))
    }

    async fn get(&self, request: Request<GetImageRequest>) -> Result<Response<Image>, Status> {
        self.find_image(&request.into_inner().image).map(Response::new)
    }

    async fn tag(&self, request: Request<TagRequest>) -> Result<Response<TagResponse>, Status> {
        let request = request.into_inner();
        self.find_image(&request.image)?;
        self.note(format!("tag {} {}", request.image, request.reference), &request.request_id);
        Ok(Response::new(TagResponse {}))
    }

    async fn remove(
        &self,
        request: Request<RemoveImageRequest>,
    ) -> Result<Response<RemoveImageResponse>, Status> {
        let request = request.into_inner();
        let image = self.find_image(&request.image)?;
        self.note(format!("rmi {} {}", request.image, request.force), &request.request_id);
        self.book().images.retain(|one| one.name != image.name);
        Ok(Response::new(RemoveImageResponse {
            untagged: vec![image.name],
            deleted: vec![digest("c")],
        }))
    }

    async fn prune(
        &self,
        request: Request<PruneImagesRequest>,
    ) -> Result<Response<PruneReport>, Status> {
        let request = request.into_inner();
        let what = format!("prune images {} {}", request.all, request.dry_run);
        self.note(what, &request.request_id);
        Ok(Response::new(report()))
    }

    async fn commit(
        &self,
        request: Request<CommitImageRequest>,
    ) -> Result<Response<CommitImageResponse>, Status> {
        let request = request.into_inner();
        self.find(&request.container)?;
        let CommitImageRequest { container, reference, changes, no_pause, .. } = &request;
        self.note(
            format!("commit {container} {reference} {changes:?} {no_pause}"),
            &request.request_id,
        );
        Ok(Response::new(CommitImageResponse { image: Some(image(reference)) }))
    }

    async fn login(
        &self,
        request: Request<LoginRequest>,
    ) -> Result<Response<LoginResponse>, Status> {
        let auth = request.into_inner().auth.unwrap();
        let accepted = auth.password == "secret" || auth.identity_token == "token";
        let host = auth.host.clone();
        let mut book = self.book();
        book.auths.push(Some(auth));
        if !accepted {
            let sentence = format!("registry {host}: the name or the password is wrong");
            return Err(refusal(Code::Unauthenticated, "UNAUTHORIZED", &sentence));
        }
        Ok(Response::new(LoginResponse { identity_token: book.identity_token.clone() }))
    }
}

/// What every prune answers.
pub(super) fn report() -> PruneReport {
    let item = |kind: pruned_item::Kind, id: &str, size| PrunedItem {
        kind: kind.into(),
        id: id.to_owned(),
        size,
    };
    PruneReport {
        items: vec![item(pruned_item::Kind::Image, "docker.io/library/old:1", 1000)],
        reclaimed: 1000,
    }
}

/// Reads all of a stream of messages, for the calls that take one.
pub(super) async fn all<T>(mut requests: Streaming<T>) -> Result<Vec<T>, Status> {
    let mut messages = Vec::new();
    while let Some(message) = requests.next().await {
        messages.push(message?);
    }
    Ok(messages)
}
