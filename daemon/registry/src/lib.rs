//! The client of OCI registries.
#![forbid(unsafe_code)]
