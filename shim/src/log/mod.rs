//! The container's log: its output as records of a file.
//!
//! | module | owns |
//! |---|---|
//! | [`lines`] | where a stream is cut into pieces |
//! | [`json`], [`cri`] | what a piece looks like as a record |
//! | [`file`] | the file: whole records, rotation, a full disk, a path that was renamed away |
//!
//! Nothing here can stop the container: what can't be written is counted and said in the log when
//! there is room again. Deliberately absent: compression of rotated files, which would cost the one
//! thread that feeds all else; whoever reads rotated files may compress them.

mod cri;
mod file;
mod json;
mod lines;

use std::io;

use shim_wire::exit::Timestamp;
use shim_wire::plan::{self, LogFormat};

use crate::clock::{self, RFC3339_LEN};
use file::LogFile;
use lines::{Ending, Lines};

/// Which of the two outputs. A terminal has only the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

/// Encoded bytes that are worth a write.
const BATCH_BYTES: usize = 128 * 1024;

/// One log: where records go, and the unfinished line of each stream.
#[derive(Debug)]
pub(crate) struct Log {
    format: Format,
    file: LogFile,
    stdout: Lines,
    stderr: Lines,
    batch: Batch,
}

/// A format that writes a file.
#[derive(Clone, Copy, Debug)]
enum Format {
    JsonFile,
    Cri,
}

/// Encoded records that are not written yet.
#[derive(Debug, Default)]
struct Batch {
    bytes: Vec<u8>,
    records: Vec<Record>,
}

/// What stands before and behind the text of every record of one moment, stream and ending.
#[derive(Debug)]
struct Frame {
    before: Vec<u8>,
    after: Vec<u8>,
}

/// One record of a [`Batch`].
#[derive(Clone, Copy, Debug)]
struct Record {
    /// Where it ends in the batch.
    end: usize,
    /// Bytes of output that it stands for.
    output: u64,
}

impl Log {
    /// Opens the log that `options` asks for; `None` when they ask for none.
    ///
    /// # Errors
    /// When the file can't be opened.
    pub(crate) fn open(options: &plan::Log) -> io::Result<Option<Self>> {
        let format = match options.format() {
            LogFormat::None => return Ok(None),
            LogFormat::JsonFile => Format::JsonFile,
            LogFormat::Cri => Format::Cri,
        };
        Ok(Some(Self {
            format,
            file: LogFile::open(options)?,
            stdout: Lines::default(),
            stderr: Lines::default(),
            batch: Batch::default(),
        }))
    }

    /// Takes output that arrived at `time`. Every whole record is in the file afterwards, or
    /// counted as lost.
    pub(crate) fn write(&mut self, stream: Stream, data: &[u8], time: Timestamp) {
        let Self { format, file, stdout, stderr, batch } = self;
        let lines = match stream {
            Stream::Stdout => stdout,
            Stream::Stderr => stderr,
        };
        let text = clock::rfc3339(time);
        let whole_line = format.frame(&text, stream, Ending::Newline);
        lines.push(data, |piece, ending| {
            match ending {
                Ending::Newline => batch.push(*format, &whole_line, piece, ending),
                Ending::Cut | Ending::End => {
                    batch.push(*format, &format.frame(&text, stream, ending), piece, ending);
                }
            }
            if batch.bytes.len() >= BATCH_BYTES {
                write_batch(*format, file, batch, time);
            }
        });
        write_batch(*format, file, batch, time);
    }

    /// The stream has ended: its unfinished line is a record now.
    pub(crate) fn end(&mut self, stream: Stream) {
        let Self { format, file, stdout, stderr, batch } = self;
        let lines = match stream {
            Stream::Stdout => stdout,
            Stream::Stderr => stderr,
        };
        let time = clock::now();
        lines.end(|piece, ending| {
            let frame = format.frame(&clock::rfc3339(time), stream, ending);
            batch.push(*format, &frame, piece, ending);
        });
        write_batch(*format, file, batch, time);
    }

    /// Makes what was written survive a power cut.
    ///
    /// # Errors
    /// When the file system says that it could not.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        self.file.sync()
    }

    /// Opens the file by its path again. On failure the old one stays in use.
    ///
    /// # Errors
    /// When the path can't be opened.
    pub(crate) fn reopen(&mut self) -> io::Result<()> {
        self.file.reopen()
    }

    pub(crate) fn path(&self) -> String {
        self.file.path().display().to_string()
    }

    /// Bytes of output that could not be written since the start.
    pub(crate) fn bytes_lost(&self) -> u64 {
        self.file.bytes_lost()
    }

    /// Gives memory back that only a flood needs.
    pub(crate) fn shrink(&mut self) {
        self.batch = Batch::default();
        self.stdout.shrink();
        self.stderr.shrink();
    }
}

impl Format {
    fn frame(self, time: &[u8; RFC3339_LEN], stream: Stream, ending: Ending) -> Frame {
        match self {
            Self::JsonFile => json::frame(time, stream, ending),
            Self::Cri => cri::frame(time, stream, ending),
        }
    }
}

impl Batch {
    fn push(&mut self, format: Format, frame: &Frame, piece: &[u8], ending: Ending) {
        self.bytes.extend_from_slice(&frame.before);
        match format {
            Format::JsonFile => json::escape(&mut self.bytes, piece),
            Format::Cri => self.bytes.extend_from_slice(piece),
        }
        self.bytes.extend_from_slice(&frame.after);
        let newline = u64::from(ending == Ending::Newline);
        self.records.push(Record { end: self.bytes.len(), output: piece.len() as u64 + newline });
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.records.clear();
    }
}

fn write_batch(format: Format, file: &mut LogFile, batch: &mut Batch, time: Timestamp) {
    if batch.records.is_empty() {
        return;
    }
    file.append(batch, time, |lost| {
        let text =
            format!("bosun: {lost} bytes of output are missing here: the log could not be written");
        let mut marker = Batch::default();
        let clock = clock::rfc3339(time);
        let frame = format.frame(&clock, Stream::Stderr, Ending::Newline);
        marker.push(format, &frame, text.as_bytes(), Ending::Newline);
        marker.bytes
    });
    batch.clear();
}
