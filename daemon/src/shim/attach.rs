//! The streams of a process: frames of the attach socket as asynchronous calls.

use shim_wire::attach::{self as wire, HEADER_LEN, Hello, Kind, MAX_PAYLOAD};
use shim_wire::files::SocketDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use prost::Message;

use super::Error;
use super::client::SHORT;

/// What a process writes, or why no more comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    Stdout(Vec<u8>),
    Stderr(Vec<u8>),
    /// This client did not keep up.
    Lagged,
    /// Everything was delivered.
    End,
}

/// An attached client.
#[derive(Debug)]
pub struct Attached {
    pub reader: AttachReader,
    pub writer: AttachWriter,
}

/// Its output side.
#[derive(Debug)]
pub struct AttachReader(BufReader<OwnedReadHalf>);

/// Its input side.
#[derive(Debug)]
pub struct AttachWriter(OwnedWriteHalf);

/// Attaches to a process of a shim. From the answer on no output is missed.
///
/// # Errors
/// [`Error::AttachRefused`] with the shim's reason, or the transport's.
pub async fn attach(sockets: &SocketDir, hello: &Hello) -> Result<Attached, Error> {
    let failed = |source| Error::Io { step: "attach", source };
    let attaching = async {
        let stream = UnixStream::connect(sockets.attach()).await.map_err(failed)?;
        let (reader, writer) = stream.into_split();
        let mut writer = AttachWriter(writer);
        writer.send(Kind::Hello, &hello.encode_to_vec()).await.map_err(failed)?;
        let mut reader = AttachReader(BufReader::with_capacity(16 * 1024, reader));
        match reader.frame().await.map_err(failed)? {
            Some((Kind::Attached, _)) => Ok(Attached { reader, writer }),
            Some((Kind::Refused, reason)) => {
                Err(Error::AttachRefused { message: String::from_utf8_lossy(&reason).into_owned() })
            }
            Some(_) | None => Err(Error::Gone { method: "attach" }),
        }
    };
    tokio::time::timeout(SHORT, attaching)
        .await
        .map_err(|_| Error::TimedOut { method: "attach", seconds: SHORT.as_secs() })?
}

impl AttachReader {
    /// The next output; [`Output::End`] also when the shim is gone.
    ///
    /// # Errors
    /// The transport's.
    pub async fn next(&mut self) -> std::io::Result<Output> {
        loop {
            match self.frame().await? {
                Some((Kind::Stdout, bytes)) => return Ok(Output::Stdout(bytes)),
                Some((Kind::Stderr, bytes)) => return Ok(Output::Stderr(bytes)),
                Some((Kind::Lagged, _)) => return Ok(Output::Lagged),
                Some((Kind::End, _)) | None => return Ok(Output::End),
                Some((
                    Kind::Stdin
                    | Kind::CloseStdin
                    | Kind::Resize
                    | Kind::Hello
                    | Kind::Attached
                    | Kind::Refused,
                    _,
                )) => {}
            }
        }
    }

    async fn frame(&mut self) -> std::io::Result<Option<(Kind, Vec<u8>)>> {
        let mut bytes = vec![0; HEADER_LEN];
        match self.0.read_exact(&mut bytes).await {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
        let len = u32::from_be_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]);
        let len = usize::try_from(len).unwrap_or(usize::MAX).min(MAX_PAYLOAD);
        bytes.resize(HEADER_LEN + len, 0);
        match self.0.read_exact(&mut bytes[HEADER_LEN..]).await {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
        match wire::decode(&bytes) {
            Ok(Some(frame)) => Ok(Some((frame.kind, bytes.split_off(HEADER_LEN)))),
            Ok(None) => Ok(None),
            Err(invalid) => Err(std::io::Error::new(std::io::ErrorKind::InvalidData, invalid)),
        }
    }
}

impl AttachWriter {
    /// Input for the process; returns when the shim has taken it.
    ///
    /// # Errors
    /// The transport's.
    pub async fn stdin(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        for piece in bytes.chunks(MAX_PAYLOAD) {
            self.send(Kind::Stdin, piece).await?;
        }
        Ok(())
    }

    /// No more input.
    ///
    /// # Errors
    /// The transport's.
    pub async fn close_stdin(&mut self) -> std::io::Result<()> {
        self.send(Kind::CloseStdin, &[]).await
    }

    /// The window of the client.
    ///
    /// # Errors
    /// The transport's.
    pub async fn resize(&mut self, width: u32, height: u32) -> std::io::Result<()> {
        let side = |value| u16::try_from(value).unwrap_or(u16::MAX).to_be_bytes();
        let (width, height) = (side(width), side(height));
        self.send(Kind::Resize, &[width[0], width[1], height[0], height[1]]).await
    }

    async fn send(&mut self, kind: Kind, payload: &[u8]) -> std::io::Result<()> {
        let mut frame = Vec::with_capacity(HEADER_LEN + payload.len());
        frame.extend_from_slice(&wire::header(kind, payload.len()));
        frame.extend_from_slice(payload);
        self.0.write_all(&frame).await
    }
}
