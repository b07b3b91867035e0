//! Layers of files.
#![forbid(unsafe_code)]
