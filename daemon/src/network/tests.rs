//! The bridge as a whole, in network namespaces of the tests' own: real interfaces, a real table,
//! real packets. Needs root, `nft` and `ip`.

mod bridge;
mod harness;
mod recovery;
mod traffic;
