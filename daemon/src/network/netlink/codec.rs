//! Messages and attributes, written and read (`include/uapi/linux/netlink.h`).
//!
//! Everything is padded to four bytes. Headers are in the machine's byte order; what is inside an
//! attribute is its family's matter.

/// Bytes of `struct nlmsghdr`.
pub(super) const HEADER: usize = 16;
/// Bytes of `struct nlattr`.
const ATTRIBUTE_HEADER: usize = 4;

pub(in super::super) const NLM_F_REQUEST: u16 = 0x1;
pub(in super::super) const NLM_F_ACK: u16 = 0x4;
/// NLM_F_ROOT | NLM_F_MATCH
pub(in super::super) const NLM_F_DUMP: u16 = 0x300;
pub(in super::super) const NLM_F_REPLACE: u16 = 0x100;
pub(in super::super) const NLM_F_EXCL: u16 = 0x200;
pub(in super::super) const NLM_F_CREATE: u16 = 0x400;

const NLA_F_NESTED: u16 = 0x8000;
/// Without NLA_F_NESTED and NLA_F_NET_BYTEORDER.
const NLA_TYPE_MASK: u16 = 0x3fff;

/// Messages that are sent with one system call.
#[derive(Debug, Default)]
pub(in super::super) struct Batch {
    bytes: Vec<u8>,
    messages: u32,
    acknowledged: usize,
}

impl Batch {
    /// Adds a request. `header` is the fixed part that the family puts before the attributes. The
    /// message's sequence number is its place in the batch.
    pub(in super::super) fn message(
        &mut self,
        kind: u16,
        flags: u16,
        header: &[u8],
        fill: impl FnOnce(&mut Attributes<'_>),
    ) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        self.bytes.extend_from_slice(&self.messages.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(header);
        pad(&mut self.bytes);
        fill(&mut Attributes(&mut self.bytes));
        let length = u32::try_from(self.bytes.len() - start).unwrap_or(u32::MAX);
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
        self.messages += 1;
        self.acknowledged += usize::from(flags & NLM_F_ACK != 0);
    }

    pub(super) fn messages(&self) -> u32 {
        self.messages
    }

    /// How many acknowledgements a success brings.
    pub(super) fn acknowledged(&self) -> usize {
        self.acknowledged
    }

    /// The bytes to send, numbered from `first` on.
    pub(super) fn numbered(mut self, first: u32) -> Vec<u8> {
        let (mut start, mut number) = (0, first);
        while let Some(length) = field(&self.bytes, start).map(u32::from_ne_bytes) {
            self.bytes[start + 8..start + 12].copy_from_slice(&number.to_ne_bytes());
            start += align(length as usize);
            number = number.wrapping_add(1);
        }
        self.bytes
    }
}

/// Where attributes are added.
#[derive(Debug)]
pub(in super::super) struct Attributes<'a>(&'a mut Vec<u8>);

impl Attributes<'_> {
    pub(in super::super) fn bytes(&mut self, kind: u16, payload: &[u8]) -> &mut Self {
        let length = u16::try_from(ATTRIBUTE_HEADER + payload.len()).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(payload);
        pad(self.0);
        self
    }

    /// A string with its terminating zero.
    pub(in super::super) fn string(&mut self, kind: u16, text: &str) -> &mut Self {
        let mut payload = text.as_bytes().to_vec();
        payload.push(0);
        self.bytes(kind, &payload)
    }

    /// In the machine's byte order.
    pub(in super::super) fn native(&mut self, kind: u16, number: u32) -> &mut Self {
        self.bytes(kind, &number.to_ne_bytes())
    }

    pub(in super::super) fn nest(
        &mut self,
        kind: u16,
        fill: impl FnOnce(&mut Attributes<'_>),
    ) -> &mut Self {
        let start = self.0.len();
        self.0.extend_from_slice(&[0; 2]);
        self.0.extend_from_slice(&(kind | NLA_F_NESTED).to_ne_bytes());
        fill(&mut Attributes(self.0));
        let length = u16::try_from(self.0.len() - start).unwrap_or(u16::MAX);
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self
    }

    /// Bytes without a header of their own, for a fixed structure inside a nest.
    pub(in super::super) fn raw(&mut self, payload: &[u8]) -> &mut Self {
        self.0.extend_from_slice(payload);
        pad(self.0);
        self
    }
}

/// A message as the kernel sent it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'a> {
    pub(super) kind: u16,
    pub(super) sequence: u32,
    /// After the netlink header: the family's fixed part, then attributes.
    pub(super) payload: &'a [u8],
}

/// The messages of one datagram; ends at the first that is cut short.
pub(super) fn messages(mut datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(field(datagram, 0)?) as usize;
        let message = Message {
            kind: u16::from_ne_bytes(field(datagram, 4)?),
            sequence: u32::from_ne_bytes(field(datagram, 8)?),
            payload: datagram.get(HEADER..length)?,
        };
        datagram = datagram.get(align(length)..).unwrap_or_default();
        Some(message)
    })
}

/// The attributes of `bytes` with their types; ends at the first that is cut short.
pub(in super::super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(field(bytes, 0)?));
        let kind = u16::from_ne_bytes(field(bytes, 2)?) & NLA_TYPE_MASK;
        let payload = bytes.get(ATTRIBUTE_HEADER..length)?;
        bytes = bytes.get(align(length)..).unwrap_or_default();
        Some((kind, payload))
    })
}

/// A string attribute without its terminating zero.
pub(in super::super) fn text(payload: &[u8]) -> String {
    let end = payload.iter().position(|byte| *byte == 0).unwrap_or(payload.len());
    String::from_utf8_lossy(&payload[..end]).into_owned()
}

/// `N` bytes at `start`, if they are there.
pub(in super::super) fn field<const N: usize>(bytes: &[u8], start: usize) -> Option<[u8; N]> {
    bytes.get(start..start + N)?.try_into().ok()
}

fn align(length: usize) -> usize {
    length.next_multiple_of(4)
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(align(bytes.len()), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let mut batch = Batch::default();
        batch.message(16, NLM_F_ACK, &[7; 3], |attributes| {
            attributes.string(3, "eth0").nest(18, |nest| {
                nest.native(1, 9).raw(&[1, 2, 3, 4]);
            });
        });
        batch.message(17, 0, &[], |_| {});
        assert_eq!((batch.messages(), batch.acknowledged()), (2, 1));
        let bytes = batch.numbered(40);
        let read: Vec<Message<'_>> = messages(&bytes).collect();
        assert_eq!(
            read.iter().map(|m| (m.kind, m.sequence)).collect::<Vec<_>>(),
            [(16, 40), (17, 41)]
        );
        let inside: Vec<(u16, &[u8])> = attributes(&read[0].payload[4..]).collect();
        assert_eq!(inside[0].0, 3);
        assert_eq!(text(inside[0].1), "eth0");
        assert_eq!(inside[1].0, 18);
        assert_eq!(attributes(inside[1].1).next(), Some((1, &9_u32.to_ne_bytes()[..])));
    }

    #[test]
    fn a_cut_message_or_attribute_ends_the_reading() {
        let mut batch = Batch::default();
        batch.message(16, 0, &[], |attributes| {
            attributes.string(3, "eth0");
        });
        let bytes = batch.numbered(1);
        for end in 0..bytes.len() - 3 {
            assert_eq!(messages(&bytes[..end]).count(), 0, "{end}");
        }
        let payload = &bytes[HEADER..];
        for end in 0..8 {
            assert_eq!(attributes(&payload[..end]).count(), 0, "{end}");
        }
        // Lengths that lie: zero, and shorter than the header itself.
        assert_eq!(messages(&[0; 16]).count(), 0);
        assert_eq!(attributes(&[1, 0, 0, 0]).count(), 0);
    }
}
