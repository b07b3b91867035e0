//! Files: a container whose root has what the book says.

use std::pin::Pin;

use bosun_proto::v1::files_server::Files;
use bosun_proto::v1::*;
use tokio_stream::Stream;
use tonic::{Code, Request, Response, Status, Streaming};

use super::images::all;
use super::{Fake, broken_after, refusal};

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send + 'static>>;

pub(crate) const DIRECTORY: u32 = 0o040_755;
pub(crate) const FILE: u32 = 0o100_644;
pub(crate) const LINK: u32 = 0o120_777;

/// A file of the container: its mode, what it leads to, and the archive that a copy of it is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Inside {
    pub(crate) mode: u32,
    pub(crate) leads_to: String,
    pub(crate) archive: Vec<u8>,
}

impl Fake {
    fn inside(&self, path: &str, follow: bool) -> Result<(PathStat, Inside), Status> {
        let book = self.book();
        let path = if path == "/" { path } else { path.trim_end_matches('/') };
        let found = book.inside.get(path).filter(|file| !follow || file.mode != LINK);
        let Some(file) = found else {
            let sentence = format!("no such path: {path}");
            return Err(refusal(Code::NotFound, "NO_SUCH_PATH", &sentence));
        };
        let stat = PathStat {
            name: path.rsplit('/').next().unwrap_or_default().to_owned(),
            mode: file.mode,
            link_target: file.leads_to.clone(),
            ..PathStat::default()
        };
        Ok((stat, file.clone()))
    }
}

#[tonic::async_trait]
impl Files for Fake {
    type ExportStream = Answers<FilesChunk>;
    type CopyFromStream = Answers<CopyFromResponse>;

    async fn diff(&self, request: Request<DiffRequest>) -> Result<Response<DiffResponse>, Status> {
        self.find(&request.into_inner().container)?;
        let change =
            |kind: change::Kind, path: &str| Change { kind: kind.into(), path: path.to_owned() };
        Ok(Response::new(DiffResponse {
            changes: vec![
                change(change::Kind::Modified, "/etc"),
                change(change::Kind::Added, "/etc/a\u{1b}b"),
                change(change::Kind::Deleted, "/tmp/x"),
            ],
        }))
    }

    async fn export(
        &self,
        request: Request<ExportFilesRequest>,
    ) -> Result<Response<Answers<FilesChunk>>, Status> {
        self.find(&request.into_inner().container)?;
        let book = self.book();
        let chunks = book.exported.iter().map(|data| FilesChunk { data: data.clone() });
        Ok(Response::new(broken_after(chunks.collect(), book.export_breaks)))
    }

    async fn stat(&self, request: Request<StatPathRequest>) -> Result<Response<PathStat>, Status> {
        let request = request.into_inner();
        self.find(&request.container)?;
        Ok(Response::new(self.inside(&request.path, request.follow)?.0))
    }

    async fn copy_from(
        &self,
        request: Request<CopyFromRequest>,
    ) -> Result<Response<Answers<CopyFromResponse>>, Status> {
        use copy_from_response::Message;
        let request = request.into_inner();
        self.find(&request.container)?;
        self.note(format!("copy from {} {}", request.path, request.follow), "");
        let (stat, file) = self.inside(&request.path, false)?;
        // In pieces that fit no block.
        let data = file.archive.chunks(1000).map(|data| Message::Data(data.to_vec()));
        let messages = std::iter::once(Message::Stat(stat)).chain(data);
        let messages = messages.map(|message| CopyFromResponse { message: Some(message) });
        Ok(Response::new(broken_after(messages.collect(), self.book().export_breaks)))
    }

    async fn copy_to(
        &self,
        request: Request<Streaming<CopyToRequest>>,
    ) -> Result<Response<CopyToResponse>, Status> {
        use copy_to_request::Message;
        let mut messages = all(request.into_inner()).await?.into_iter().map(|one| one.message);
        let Some(Some(Message::Open(open))) = messages.next() else { panic!("not opened") };
        self.find(&open.container)?;
        let (path, keep, owners) = (open.path, open.keep_kinds, open.archive_owners);
        self.note(format!("copy to {path} {keep} {owners}"), "");
        let archive = messages.flat_map(|message| match message {
            Some(Message::Data(data)) => data,
            Some(Message::Open(_)) | None => panic!("opened twice"),
        });
        self.book().archives.push(archive.collect());
        Ok(Response::new(CopyToResponse { entries: 1 }))
    }
}
