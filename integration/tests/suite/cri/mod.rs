//! The CRI, as a kubelet uses it: at least one test for each call that works.

mod bad_input;
mod containers;
mod events;
mod exec;
mod handlers;
mod images;
mod mounts;
mod networks;
mod nri;
mod pods;
mod security;
mod stats;
mod stop;
mod streams;
mod survival;
mod volumes;
