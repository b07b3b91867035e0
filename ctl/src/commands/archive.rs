//! A stream of bytes from the daemon, to a file or to stdout: what `save` and `export` share.

use std::io::IsTerminal;
use std::path::Path;

use futures::{Stream, StreamExt};

use crate::error::Error;
use crate::output;
use crate::signals::{Caught, Signals};
use crate::whole_file::WholeFile;

/// Where an archive goes, checked before anything is asked for.
pub(super) enum Target {
    Stdout,
    File(WholeFile, std::path::PathBuf),
}

impl Target {
    pub(super) fn open(path: Option<&Path>) -> Result<Self, Error> {
        match path {
            Some(path) if path != Path::new("-") => {
                let file = WholeFile::create(path).map_err(|source| cannot_write(path, source))?;
                Ok(Self::File(file, path.to_owned()))
            }
            Some(_) | None if std::io::stdout().is_terminal() => Err(Error::OutputIsTerminal),
            Some(_) | None => Ok(Self::Stdout),
        }
    }

    /// Writes all of it. A file has its name when the stream has come to its end, and not when this
    /// process is told to end before.
    pub(super) async fn take(
        self,
        mut data: impl Stream<Item = Result<Vec<u8>, Error>> + Unpin,
    ) -> Result<u8, Error> {
        let (mut file, path) = match self {
            Self::Stdout => {
                while let Some(data) = data.next().await {
                    output::write(&data?)?;
                }
                return Ok(0);
            }
            Self::File(file, path) => (file, path),
        };
        let failed = |source| cannot_write(&path, source);
        let mut signals = Signals::catch(false)?;
        loop {
            let data = tokio::select! {
                data = data.next() => data,
                caught = signals.next() => match caught {
                    Caught::Signal(signal) => return Ok(signal.exit_code()),
                    Caught::WindowChanged => continue,
                },
            };
            match data {
                Some(data) => file.write(&data?).map_err(failed)?,
                None => break,
            }
        }
        file.finish().map_err(failed)?;
        Ok(0)
    }
}

fn cannot_write(path: &Path, source: std::io::Error) -> Error {
    Error::File { step: "write", path: path.to_owned(), source }
}
