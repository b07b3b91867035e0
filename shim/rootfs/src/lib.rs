//! Paths inside a rootfs: the one way in.
#![forbid(unsafe_code)]
