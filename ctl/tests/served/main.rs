//! The real `ctl` against a served API with canned behaviour: what reaches the daemon, what the
//! user sees, which exit code comes out. The daemon itself is tested in `integration/`.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

mod address;
mod archives;
mod copies;
mod ctl;
mod daemon;
mod images;
mod login;
mod restart;
mod sessions;
mod terminal;
mod verbs;
