//! `ctl create`: make a container and leave it.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use bosun_proto::v1::{ContainerOptions, CreateRequest};

use crate::cli::create::{ContainerArgs, CreateArgs};
use crate::client::{self, Client, Deadline};
use crate::error::Error;
use crate::flags::FlagError;
use crate::output;
use crate::request::{Caller, container_options};
use crate::terminal;

pub(super) async fn run(client: &Client, args: CreateArgs) -> Result<u8, Error> {
    let CreateArgs { rm, container } = args;
    let id_file = container.cidfile.clone();
    let options = options(container, rm)?;
    let id = create(client, options, id_file.as_deref()).await?;
    output::print(&format!("{id}\n"))?;
    Ok(0)
}

/// What the flags say, in the environment of this process.
pub(super) fn options(args: ContainerArgs, rm: bool) -> Result<ContainerOptions, Error> {
    if let Some(path) = &args.cidfile
        && path.exists()
    {
        return Err(FlagError::CidFileExists(path.display().to_string()).into());
    }
    let caller =
        Caller { variable: |name| std::env::var_os(name), working_dir: std::env::current_dir };
    let window = if args.tty { terminal::window_size() } else { None };
    Ok(container_options(args, rm, window, caller)?)
}

/// Creates the container, shows the daemon's warnings, and returns its id.
pub(super) async fn create(
    client: &Client,
    options: ContainerOptions,
    id_file: Option<&Path>,
) -> Result<String, Error> {
    let request = CreateRequest { request_id: client::request_id()?, options: Some(options) };
    let answer = client.call(Deadline::Long, request, |channel, request| async move {
        client::containers(channel).create(request).await
    });
    let answer = answer.await?;
    answer.warnings.iter().for_each(|warning| output::warn(warning));
    write_id(id_file, &answer.id)?;
    Ok(answer.id)
}

/// Writes `--cidfile`, which must not have come into being meanwhile.
pub(super) fn write_id(path: Option<&Path>, id: &str) -> Result<(), Error> {
    let Some(path) = path else { return Ok(()) };
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)
        .and_then(|mut file| file.write_all(id.as_bytes()))
        .map_err(|source| Error::File { step: "write", path: path.to_owned(), source })
}
