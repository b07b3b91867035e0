//! `ctl load` and `ctl import`: archives, layouts and root file systems on their way in.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use bosun_proto::v1::import_open::Kind;
use bosun_proto::v1::import_request::Message;
use bosun_proto::v1::{Image, ImportOpen, ImportRequest, ImportResponse};

use crate::cli::image::{ImportArgs, LoadArgs};
use crate::client::{self, Client};
use crate::copy::{Pack, pack};
use crate::error::Error;
use crate::output;
use crate::transfer::{self, Sink};
use crate::view::image::{familiar, id};

pub(super) async fn load(client: &Client, args: LoadArgs) -> Result<u8, Error> {
    let input = Input::open(args.input.as_deref(), " with -i")?;
    let open = ImportOpen {
        request_id: client::request_id()?,
        kind: Kind::Images.into(),
        platform: args.platform,
        ..ImportOpen::default()
    };
    let answer = send(client, open, input).await?;
    for image in &answer.images {
        let name = familiar(&image.name);
        output::print(&match (args.quiet, image.name.as_str()) {
            (true, "") => format!("{}\n", id(image)),
            (true, _) => format!("{name}\n"),
            (false, "") => format!("Loaded image ID: {}\n", id(image)),
            (false, _) => format!("Loaded image: {name}\n"),
        })?;
    }
    Ok(0)
}

pub(super) async fn import(client: &Client, args: ImportArgs) -> Result<u8, Error> {
    let input = Input::open(Some(&args.file), "")?;
    let named = !args.name.is_empty();
    let open = ImportOpen {
        request_id: client::request_id()?,
        kind: Kind::Auto.into(),
        reference: args.name,
        platform: args.platform,
        changes: args.change,
        message: args.message,
        ..ImportOpen::default()
    };
    let answer = send(client, open, input).await?;
    answer.images.iter().try_for_each(|image| output::print(&imported(image, named)))?;
    Ok(0)
}

/// The id of what was made under the name that was asked for, the names that an archive had.
fn imported(image: &Image, named: bool) -> String {
    if named || image.name.is_empty() {
        format!("{}\n", id(image))
    } else {
        format!("Loaded image: {}\n", familiar(&image.name))
    }
}

async fn send(client: &Client, open: ImportOpen, input: Input) -> Result<ImportResponse, Error> {
    let open = ImportRequest { message: Some(Message::Open(open)) };
    let data = |data| ImportRequest { message: Some(Message::Data(data)) };
    let answer = transfer::send(
        client,
        open,
        data,
        |sink| input.write(sink),
        |channel, request| async move { client::images(channel).import(request).await },
    );
    let answer = answer.await?;
    answer.warnings.iter().for_each(|warning| output::warn(warning));
    Ok(answer)
}

/// Where an archive comes from.
enum Input {
    Stdin,
    File(File, PathBuf),
    /// Packed on the way.
    Directory(PathBuf),
}

impl Input {
    /// `or_file` says how a file is named where stdin would be a terminal.
    fn open(path: Option<&Path>, or_file: &'static str) -> Result<Self, Error> {
        let Some(path) = path.filter(|path| *path != Path::new("-")) else {
            if io::stdin().is_terminal() {
                return Err(Error::InputIsTerminal(or_file));
            }
            return Ok(Self::Stdin);
        };
        let failed = |source| Error::File { step: "read", path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let is_dir = file.metadata().map_err(failed)?.is_dir();
        Ok(match is_dir {
            true => Self::Directory(path.to_owned()),
            false => Self::File(file, path.to_owned()),
        })
    }

    fn write(self, sink: &mut Sink) -> Result<(), Error> {
        match self {
            Self::Stdin => transfer::copy(&mut io::stdin().lock(), sink, Error::Input),
            Self::File(mut file, path) => transfer::copy(&mut file, sink, |source| Error::File {
                step: "read",
                path: path.clone(),
                source,
            }),
            Self::Directory(path) => {
                pack(&Pack { path: &path, name: None, follow: true }, sink)?;
                Ok(())
            }
        }
    }
}
