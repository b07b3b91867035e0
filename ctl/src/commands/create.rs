//! `ctl create`: make a container and leave it.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use bosun_proto::v1::container_options::Base;
use bosun_proto::v1::{ContainerOptions, CreateRequest, CreateResponse};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use super::image::pull::for_container;
use crate::cli::create::{ContainerArgs, CreateArgs, PullWhen};
use crate::client::{self, Client, Deadline};
use crate::error::Error;
use crate::flags::FlagError;
use crate::output;
use crate::request::{Caller, container_options};
use crate::terminal;
use crate::view::image::familiar;

pub(super) async fn run(client: &Client, args: CreateArgs) -> Result<u8, Error> {
    let CreateArgs { rm, container } = args;
    let id_file = container.cidfile.clone();
    let pulling = Pulling::of(&container);
    let options = options(container, rm)?;
    let id = create(client, options, pulling, id_file.as_deref()).await?;
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
    pulling: Pulling,
    id_file: Option<&Path>,
) -> Result<String, Error> {
    let method =
        |channel, request| async move { client::containers(channel).create(request).await };
    let answer = with_image(client, options, pulling, method).await?;
    answer.warnings.iter().for_each(|warning| output::warn(warning));
    write_id(id_file, &answer.id)?;
    Ok(answer.id)
}

/// What to do about the image.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pulling {
    when: PullWhen,
    quiet: bool,
}

impl Pulling {
    pub(super) fn of(args: &ContainerArgs) -> Self {
        Self { when: args.pull, quiet: args.quiet }
    }
}

/// Makes a container by `method`, after its image was pulled if that is wanted or needed.
pub(super) async fn with_image<F, Fut>(
    client: &Client,
    options: ContainerOptions,
    pulling: Pulling,
    method: F,
) -> Result<CreateResponse, Error>
where
    F: Fn(Channel, Request<CreateRequest>) -> Fut,
    Fut: Future<Output = Result<Response<CreateResponse>, Status>>,
{
    let Pulling { when, quiet } = pulling;
    let image = match &options.base {
        Some(Base::Image(image)) => Some(image.clone()),
        Some(Base::Rootfs(_)) | None => None,
    };
    let platform = options.platform.clone();
    if let (Some(image), PullWhen::Always) = (&image, when) {
        for_container(client, image, &platform, quiet).await?;
    }
    let request = CreateRequest { request_id: client::request_id()?, options: Some(options) };
    let answer = client.call(Deadline::Long, request.clone(), &method).await;
    match (answer, image) {
        (Err(error), Some(image))
            if when == PullWhen::Missing && error.reason() == Some("NO_SUCH_IMAGE") =>
        {
            let name = familiar(&image);
            output::complain_raw(&format!("Unable to find image '{name}' locally\n"));
            for_container(client, &image, &platform, quiet).await?;
            let request = CreateRequest { request_id: client::request_id()?, ..request };
            client.call(Deadline::Long, request, method).await
        }
        (answer, _) => answer,
    }
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
