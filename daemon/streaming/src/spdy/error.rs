//! Why a SPDY connection ended.

use std::io;

/// Each of them ends the connection; what concerns one stream alone is a RST_STREAM, not an error.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the client broke off the connection")]
    Gone,
    #[error("the client's frame {kind:#06x} has version {version}, not 3")]
    Version { kind: u16, version: u16 },
    #[error("the client's frame {kind:#06x} has {length} bytes, which it can't have")]
    Length { kind: u16, length: u32 },
    #[error("the client's frame {kind:#06x} has flags {flags:#04x}, which it can't have")]
    Flags { kind: u16, flags: u8 },
    #[error("the client's frame {kind:#06x} concerns stream {stream}, which it can't")]
    Stream { kind: u16, stream: u32 },
    #[error("the client's header block can't be inflated")]
    Compression,
    #[error("the client's header block is not whole")]
    HeaderBlock,
    #[error("the client's header block is larger than {} bytes", crate::limits::MAX_HEADER_BYTES)]
    HeadersTooLarge,
    #[error(
        "the client's header block has {count} headers, {} are allowed",
        crate::limits::MAX_HEADERS
    )]
    TooManyHeaders { count: u32 },
    #[error("the client's header name {name:?} is empty or not in lower case")]
    HeaderName { name: String },
    #[error("the client's header {name:?} is there twice")]
    HeaderTwice { name: String },
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
}
