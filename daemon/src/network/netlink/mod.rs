//! Netlink, as far as the bridge needs it: messages with attributes, sent in batches over one socket
//! and answered by the kernel before `send` returns (netlink(7), netfilter's nfnetlink).
//!
//! One codec serves three families (routes and links, nftables, conntrack), so it is our own: the
//! libraries for the first of them are asynchronous, and none covers the other two without C code.
//! Deliberately absent: multicast groups, and anything that keeps a socket longer than one operation.
//! A socket belongs to the network namespace of the thread that opened it, for good.

pub(super) mod codec;
pub(super) mod socket;

pub(super) use codec::{Attributes, Batch, attributes, text};
pub(super) use socket::{Family, Rejected, Socket};
