//! Layers and archives as a whole, over trees on disk. Needs root: owners, devices and overlayfs'
//! attributes are root's to give.
#![expect(clippy::unwrap_used, reason = "what surprises a test ends it")]

mod apply;
mod support;
mod tar;
mod trees;
