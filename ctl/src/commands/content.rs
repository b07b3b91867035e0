//! `ctl content`: blobs in and out of bosund.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bosun_proto::v1::write_request::Message;
use bosun_proto::v1::{
    AbortRequest, DeleteBlobRequest, IngestRequest, ListBlobsRequest, ListIngestsRequest,
    ReadRequest, WriteCommit, WriteOpen, WriteRequest,
};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use crate::cli::content::{AbortArgs, ContentVerb, GetArgs, IngestsArgs, LsArgs, PutArgs, RmArgs};
use crate::client::{self, Client, Deadline};
use crate::error::Error;
use crate::output;
use crate::view::Listing;
use crate::view::content::{COLUMNS, blob, ingest};

const TABLE: &str = "table {{.Digest}}\t{{.Size}}\t{{.Created}}";
const INGESTS: &str = "table {{.Reference}}\t{{.Received}}\t{{.Size}}\t{{.Started}}";

/// Bytes of one message, and how many may be on their way.
const CHUNK: usize = 512 << 10;
const IN_FLIGHT: usize = 4;

pub(super) async fn run(client: &Client, verb: ContentVerb) -> Result<u8, Error> {
    match verb {
        ContentVerb::Ls(args) => ls(client, &args).await,
        ContentVerb::Get(args) => get(client, args).await,
        ContentVerb::Put(args) => put(client, args).await,
        ContentVerb::Rm(args) => rm(client, args).await,
        ContentVerb::Ingests(args) => ingests(client, &args).await,
        ContentVerb::Abort(args) => abort(client, args).await,
    }
}

async fn ls(client: &Client, args: &LsArgs) -> Result<u8, Error> {
    let format = if args.quiet { Some("{{.Digest}}") } else { args.format.as_deref() };
    let listing = Listing::new(format, TABLE, &COLUMNS)?;
    let answer = client.call(Deadline::Short, ListBlobsRequest {}, |channel, request| async move {
        client::content(channel).list(request).await
    });
    let rows: Vec<_> = answer.await?.blobs.iter().map(blob).collect();
    output::print(&listing.render(&rows)?)?;
    Ok(0)
}

async fn get(client: &Client, args: GetArgs) -> Result<u8, Error> {
    let what = format!("blob {}", args.digest);
    let request = ReadRequest { digest: args.digest, offset: args.offset, size: args.size };
    let chunks = client.stream(request, |channel, request| async move {
        client::content(channel).read(request).await
    });
    let mut chunks = chunks.await?;
    while let Some(chunk) = chunks.next().await {
        match chunk {
            Ok(chunk) => output::write(&chunk.data)?,
            Err(status) => {
                let status = Box::new(client.stream_broke(status)?);
                return Err(Error::StreamLost { what, status });
            }
        }
    }
    Ok(0)
}

async fn put(client: &Client, args: PutArgs) -> Result<u8, Error> {
    let mut input = Input::open(args.file.as_deref())?;
    let request_id = client::request_id()?;
    let resumable = args.reference.is_some();
    let (reference, offset) = match args.reference {
        None => (format!("put-{request_id}"), 0),
        Some(reference) => {
            let offset = received(client, &reference).await?;
            (reference, offset)
        }
    };
    input.skip(offset)?;
    let open = WriteOpen {
        request_id,
        reference: reference.clone(),
        expected_size: input.size,
        expected_digest: args.digest.unwrap_or_default(),
        offset: Some(offset),
        labels: super::rooted(client, args.label),
    };
    let (messages, receiver) = mpsc::channel(IN_FLIGHT);
    let reading = tokio::task::spawn_blocking(move || input.send(open, &messages));
    let written = client
        .transfer(ReceiverStream::new(receiver), |channel, request| async move {
            client::content(channel).write(request).await
        })
        .await;
    let read = reading.await.map_err(|error| Error::Input(io::Error::other(error)))?;
    // An input that failed is the cause of a write without an end; a write that was refused is the
    // cause of an input that was not read on.
    match read.and(written) {
        Ok(written) => {
            output::print(&(written.digest + "\n"))?;
            Ok(0)
        }
        Err(error) => {
            if !resumable {
                // Nobody knows its name; when it can't be dropped now it is listed.
                let _ = drop_ingest(client, &reference).await;
            }
            Err(error)
        }
    }
}

/// How many bytes of an ingest bosund has.
async fn received(client: &Client, reference: &str) -> Result<u64, Error> {
    let request = IngestRequest { reference: reference.to_owned() };
    let status = client.call(Deadline::Short, request, |channel, request| async move {
        client::content(channel).status(request).await
    });
    match status.await {
        Ok(ingest) => Ok(ingest.offset),
        Err(Error::Refused(status)) if status.code() == Code::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

async fn rm(client: &Client, args: RmArgs) -> Result<u8, Error> {
    super::each(&args.digests, |digest| async move {
        let request =
            DeleteBlobRequest { request_id: client::request_id()?, digest: digest.to_owned() };
        let removed = client.call(Deadline::Long, request, |channel, request| async move {
            client::content(channel).delete(request).await
        });
        removed.await.map(|_| digest.to_owned())
    })
    .await
}

async fn ingests(client: &Client, args: &IngestsArgs) -> Result<u8, Error> {
    let listing = Listing::new(args.format.as_deref(), INGESTS, &COLUMNS)?;
    let request = ListIngestsRequest {};
    let answer = client.call(Deadline::Short, request, |channel, request| async move {
        client::content(channel).list_ingests(request).await
    });
    let rows: Vec<_> = answer.await?.ingests.iter().map(ingest).collect();
    output::print(&listing.render(&rows)?)?;
    Ok(0)
}

async fn abort(client: &Client, args: AbortArgs) -> Result<u8, Error> {
    super::each(&args.references, |reference| async move {
        drop_ingest(client, reference).await.map(|()| reference.to_owned())
    })
    .await
}

async fn drop_ingest(client: &Client, reference: &str) -> Result<(), Error> {
    let request =
        AbortRequest { request_id: client::request_id()?, reference: reference.to_owned() };
    let aborted = client.call(Deadline::Short, request, |channel, request| async move {
        client::content(channel).abort(request).await
    });
    aborted.await.map(|_| ())
}

/// Where a blob comes from.
struct Input {
    reader: Box<dyn Read + Send>,
    path: Option<PathBuf>,
    /// Known of a regular file.
    size: Option<u64>,
}

impl Input {
    fn open(path: Option<&Path>) -> Result<Self, Error> {
        let Some(path) = path.filter(|path| *path != Path::new("-")) else {
            return Ok(Self { reader: Box::new(io::stdin()), path: None, size: None });
        };
        let failed = |source| Error::File { step: "read", path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        let size = metadata.is_file().then_some(metadata.len());
        Ok(Self { reader: Box::new(file), path: Some(path.to_owned()), size })
    }

    /// Passes over what bosund has already. An input that is shorter is found out by its size or
    /// its digest.
    fn skip(&mut self, count: u64) -> Result<(), Error> {
        let skipped = io::copy(&mut self.reader.by_ref().take(count), &mut io::sink());
        skipped.map(|_| ()).map_err(|source| self.failed(source))
    }

    /// Sends all of it. Ends early when nobody takes it any more: the answer says why.
    fn send(mut self, open: WriteOpen, messages: &mpsc::Sender<WriteRequest>) -> Result<(), Error> {
        let send =
            |message| messages.blocking_send(WriteRequest { message: Some(message) }).is_ok();
        if !send(Message::Open(open)) {
            return Ok(());
        }
        loop {
            let mut data = Vec::with_capacity(CHUNK);
            let read = self.reader.by_ref().take(CHUNK as u64).read_to_end(&mut data);
            let count = read.map_err(|source| self.failed(source))?;
            if count == 0 {
                send(Message::Commit(WriteCommit {}));
                return Ok(());
            }
            if !send(Message::Data(data)) {
                return Ok(());
            }
        }
    }

    fn failed(&self, source: io::Error) -> Error {
        match &self.path {
            Some(path) => Error::File { step: "read", path: path.clone(), source },
            None => Error::Input(source),
        }
    }
}
