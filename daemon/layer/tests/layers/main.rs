//! Layers and archives as a whole, over trees on disk. Needs root: owners, devices and overlayfs'
//! attributes are root's to give.

mod apply;
mod support;
