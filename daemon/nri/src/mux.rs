//! Two ttrpc connections on one socket, without I/O.
//!
//! ```text
//!   connection: u32 BE | length: u32 BE | length bytes
//! ```
//!
//! Connections are not opened: both sides know their numbers. What arrives on one is a stream of bytes,
//! however it was cut.

use shim_wire::ttrpc;

/// On which the plugin answers.
pub const PLUGIN: u32 = 1;

/// On which the runtime answers.
pub const RUNTIME: u32 = 2;

/// Bytes before each piece.
pub const HEADER_LEN: usize = 8;

/// The longest piece: a whole message of ttrpc.
pub const MAX_PIECE: usize = ttrpc::HEADER_LEN + ttrpc::MAX_MESSAGE;

/// Where a message is cut. Readers in Go take a piece whole or not at all, first with a buffer of this
/// size for the head of a message, then with one for exactly what is missing of it.
const FIRST: usize = 4096;

/// Appends a message of ttrpc, its frame included, for a connection.
pub fn encode(buffer: &mut Vec<u8>, connection: u32, message: &[u8]) {
    let (first, rest) = message.split_at(message.len().min(FIRST));
    for piece in [first, rest] {
        if !piece.is_empty() {
            buffer.extend_from_slice(&connection.to_be_bytes());
            // At most MAX_PIECE, which fits.
            buffer.extend_from_slice(&u32::try_from(piece.len()).unwrap_or(u32::MAX).to_be_bytes());
            buffer.extend_from_slice(piece);
        }
    }
}

/// The head of a piece: its connection, and how many bytes follow.
///
/// # Errors
/// The length, when it is more than any message has.
pub fn head(bytes: [u8; HEADER_LEN]) -> Result<(u32, usize), usize> {
    let [c0, c1, c2, c3, l0, l1, l2, l3] = bytes;
    let length = u32::from_be_bytes([l0, l1, l2, l3]);
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    match length <= MAX_PIECE {
        true => Ok((u32::from_be_bytes([c0, c1, c2, c3]), length)),
        false => Err(length),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(mut bytes: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let mut found = Vec::new();
        while let Some((first, rest)) = bytes.split_first_chunk::<HEADER_LEN>() {
            let (connection, length) = head(*first).unwrap();
            found.push((connection, rest[..length].to_vec()));
            bytes = &rest[length..];
        }
        assert!(bytes.is_empty());
        found
    }

    #[test]
    fn a_short_message_is_one_piece_and_a_long_one_is_cut_where_readers_expect_it() {
        let mut buffer = Vec::new();
        encode(&mut buffer, RUNTIME, &[7; 4096]);
        assert_eq!(pieces(&buffer), [(RUNTIME, vec![7; 4096])]);
        buffer.clear();
        encode(&mut buffer, PLUGIN, &[7; 10_000]);
        assert_eq!(pieces(&buffer), [(PLUGIN, vec![7; 4096]), (PLUGIN, vec![7; 5904])]);
    }

    #[test]
    fn a_piece_that_no_message_needs_is_refused_by_its_head() {
        let head_of = |length: u32| {
            let mut bytes = [0; HEADER_LEN];
            bytes[4..].copy_from_slice(&length.to_be_bytes());
            head(bytes)
        };
        let most = u32::try_from(MAX_PIECE).unwrap();
        assert_eq!(head_of(most), Ok((0, MAX_PIECE)));
        assert_eq!(head_of(most + 1), Err(MAX_PIECE + 1));
    }
}
