//! `ctl cp`: files between a container and here, by docker's rules.

use std::cell::Cell;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bosun_proto::v1::copy_from_response::Message as Received;
use bosun_proto::v1::copy_to_request::Message as Sent;
use bosun_proto::v1::{
    CopyFromRequest, CopyFromResponse, CopyToOpen, CopyToRequest, PathStat, StatPathRequest,
};
use rustix::fs::FileType;
use tokio_stream::StreamExt;
use tonic::Streaming;

use super::archive::Target;
use crate::cli::files::CpArgs;
use crate::client::{self, Client, Deadline};
use crate::copy::{
    Copy, CopyError, Found, Here, Landing, Origin, Pack, There, Unpack, landing, pack, unpack,
};
use crate::error::Error;
use crate::flags::FlagError;
use crate::output;
use crate::terminal;
use crate::transfer;
use crate::view::decimal_size;

/// Significant digits of a size.
const DIGITS: u32 = 3;

pub(super) async fn run(client: &Client, args: CpArgs) -> Result<u8, Error> {
    match Copy::parse(&args.source, &args.destination)? {
        Copy::Out { from, to: Here::Stream } => {
            let target = Target::open(None)?;
            let (_, stream) =
                open(client, &from, &Origin::new(&from.path), args.follow_link).await?;
            target.take(data(client, &from, stream)).await
        }
        Copy::Out { from, to: Here::Path(path) } => copy_out(client, &args, &from, &path).await,
        Copy::In { from: Here::Stream, to } => {
            if terminal::stdin_is_terminal() {
                return Err(Error::InputIsTerminal(""));
            }
            let (path, found) = look(client, &to).await?;
            if found != Found::Directory {
                return Err(CopyError::StreamToFile(args.destination).into());
            }
            let directory = There { path, ..to };
            let copied = copy_in(client, &args, &directory, |sink| {
                transfer::copy(&mut io::stdin().lock(), sink, Error::Input)
            });
            copied.await
        }
        Copy::In { from: Here::Path(path), to } => {
            let origin = Origin::new(&absolute(&path)?);
            let follow = args.follow_link || origin.is_directory;
            let is_directory = is_directory(&origin.path, follow)?;
            let (destination, found) = look(client, &to).await?;
            let Landing { directory, name } = landing(&origin, is_directory, &destination, found)?;
            let directory = There { path: directory, ..to };
            let copied = copy_in(client, &args, &directory, move |sink| {
                let path = Path::new(&origin.path);
                Ok(pack(&Pack { path, name: name.as_deref(), follow }, sink)?)
            });
            copied.await
        }
    }
}

/// From a container into a directory here.
async fn copy_out(client: &Client, args: &CpArgs, from: &There, to: &str) -> Result<u8, Error> {
    let origin = Origin::new(&from.path);
    let mut destination = absolute(to)?;
    let found = match std::fs::metadata(&destination) {
        Ok(metadata) if metadata.is_dir() => Found::Directory,
        // A link to a file: the file is what is replaced.
        Ok(_) => {
            destination = text(&Path::new(&destination).canonicalize().map_err(unreadable(to))?)?;
            Found::File
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Found::Nothing,
        Err(error) => return Err(unreadable(to)(error)),
    };
    let (stat, stream) = open(client, from, &origin, args.follow_link).await?;
    let is_directory = FileType::from_raw_mode(stat.mode) == FileType::Directory;
    let Landing { directory, name } = landing(&origin, is_directory, &destination, found)?;
    let had = match stat.name.as_str() {
        "/" | "." => String::new(),
        name => name.to_owned(),
    };
    let owners = args.archive;
    let count = Cell::new(0);
    let data = data(client, from, stream)
        .map(|data| data.inspect(|data| count.set(count.get() + data.len() as u64)));
    let unpacked = transfer::receive(data, move |source| {
        let directory = Path::new(&directory);
        Ok(unpack(source, &Unpack { directory, had: &had, name: name.as_deref(), owners })?)
    });
    let left_out = unpacked.await?;
    if left_out > 0 {
        output::warn(&format!("left out {left_out} devices: copy them with --archive"));
    }
    copied(args, count.get());
    Ok(0)
}

/// From here into a directory of a container.
async fn copy_in(
    client: &Client,
    args: &CpArgs,
    to: &There,
    produce: impl FnOnce(&mut transfer::Sink) -> Result<(), Error> + Send + 'static,
) -> Result<u8, Error> {
    let open = CopyToOpen {
        container: to.container.clone(),
        path: to.path.clone(),
        keep_kinds: true,
        archive_owners: args.archive,
    };
    let open = CopyToRequest { message: Some(Sent::Open(open)) };
    let message = |data| CopyToRequest { message: Some(Sent::Data(data)) };
    let count = Arc::new(AtomicU64::new(0));
    let total = Arc::clone(&count);
    let produce = move |sink: &mut transfer::Sink| {
        let done = produce(sink);
        total.store(sink.count(), Ordering::Relaxed);
        done
    };
    let sent = transfer::send(client, open, message, produce, |channel, request| async move {
        client::files(channel).copy_to(request).await
    });
    sent.await?;
    copied(args, count.load(Ordering::Relaxed));
    Ok(0)
}

/// As docker says it, beside the output.
fn copied(args: &CpArgs, bytes: u64) {
    if !args.quiet {
        let size = decimal_size(bytes, DIGITS);
        output::complain_raw(&format!(
            "Successfully copied {size} to {}\n",
            output::escaped(&args.destination)
        ));
    }
}

/// Begins a copy out of a container: what it is, then its bytes.
async fn open(
    client: &Client,
    from: &There,
    origin: &Origin,
    follow: bool,
) -> Result<(PathStat, Streaming<CopyFromResponse>), Error> {
    let request = CopyFromRequest {
        container: from.container.clone(),
        path: origin.path.clone(),
        follow: follow || origin.is_directory,
    };
    let stream = client.transfer(request, |channel, request| async move {
        client::files(channel).copy_from(request).await
    });
    let mut stream = stream.await?;
    match stream.message().await {
        Ok(Some(CopyFromResponse { message: Some(Received::Stat(stat)) })) => Ok((stat, stream)),
        Ok(_) => Err(client.bad_answer("saying what it copies")),
        Err(status) => Err(client.stream_failed(&of(from), status)),
    }
}

fn data<'a>(
    client: &'a Client,
    from: &'a There,
    stream: Streaming<CopyFromResponse>,
) -> impl tokio_stream::Stream<Item = Result<Vec<u8>, Error>> + Unpin + 'a {
    stream.map(move |response| match response {
        Ok(CopyFromResponse { message: Some(Received::Data(data)) }) => Ok(data),
        Ok(_) => Err(client.bad_answer("the files")),
        Err(status) => Err(client.stream_failed(&of(from), status)),
    })
}

fn of(there: &There) -> String {
    format!("{}:{}", there.container, there.path)
}

/// What is at a destination in a container. A link at its end is followed one step, as docker does,
/// so that a file that it leads to is replaced and not the link.
async fn look(client: &Client, at: &There) -> Result<(String, Found), Error> {
    let mut path = at.path.clone();
    if let Some(link) = stat(client, at, &path, false).await?
        && FileType::from_raw_mode(link.mode) == FileType::Symlink
    {
        path = beside(&path, &link.link_target);
    }
    let found = match stat(client, at, &path, true).await? {
        None => Found::Nothing,
        Some(stat) if FileType::from_raw_mode(stat.mode) == FileType::Directory => Found::Directory,
        Some(_) => Found::File,
    };
    Ok((path, found))
}

async fn stat(
    client: &Client,
    at: &There,
    path: &str,
    follow: bool,
) -> Result<Option<PathStat>, Error> {
    let request =
        StatPathRequest { container: at.container.clone(), path: path.to_owned(), follow };
    let stat = client.call(Deadline::Short, request, |channel, request| async move {
        client::files(channel).stat(request).await
    });
    match stat.await {
        Ok(stat) => Ok(Some(stat)),
        Err(error) if error.reason() == Some("NO_SUCH_PATH") => Ok(None),
        Err(error) => Err(error),
    }
}

/// A link's target, seen from the link.
fn beside(link: &str, target: &str) -> String {
    let slash = if link.ends_with('/') && !target.ends_with('/') { "/" } else { "" };
    if target.starts_with('/') {
        return format!("{target}{slash}");
    }
    let parent = link.trim_end_matches('/').rsplit_once('/').map_or("", |(parent, _)| parent);
    format!("{parent}/{target}{slash}")
}

fn is_directory(path: &str, follow: bool) -> Result<bool, Error> {
    let metadata = if follow { std::fs::metadata(path) } else { std::fs::symlink_metadata(path) };
    Ok(metadata.map_err(unreadable(path))?.is_dir())
}

/// With what stands at its end: a slash or a dot means something here.
fn absolute(path: &str) -> Result<String, Error> {
    if path.starts_with('/') {
        return Ok(path.to_owned());
    }
    let here = std::env::current_dir()
        .map_err(|source| Error::System { step: "tell the working directory", source })?;
    Ok(format!("{}/{path}", text(&here)?))
}

fn text(path: &Path) -> Result<String, Error> {
    path.to_str().map(str::to_owned).ok_or_else(|| FlagError::PathNotText(path.to_owned()).into())
}

fn unreadable(path: &str) -> impl Fn(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::File { step: "read", path: path.clone().into(), source }
}

#[cfg(test)]
mod tests {
    use super::beside;

    #[test]
    fn a_links_target_is_seen_from_the_link() {
        for (link, target, want) in [
            ("/a/l", "f", "/a/f"),
            ("/a/l/", "d", "/a/d/"),
            ("/l", "../f", "/../f"),
            ("/a/l", "/b/f", "/b/f"),
        ] {
            assert_eq!(beside(link, target), want, "{link} {target}");
        }
    }
}
