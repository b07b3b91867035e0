//! Devices by the Container Device Interface (CDI, cdi.k8s.io, specification versions 0.3.0 to 1.0.0):
//! vendors describe in files what a container needs for a device of theirs, and users name the device,
//! `vendor.com/class=name`.
//!
//! ```no_run
//! # fn example() -> Result<(), bosun_cdi::Error> {
//! let devices = ["vendor.com/gpu=0".parse()?];
//! let registry = bosun_cdi::Registry::read(&bosun_cdi::default_directories());
//! let edits = registry.edits(&devices)?;
//! println!("{:?}", edits.device_nodes);
//! # Ok(())
//! # }
//! ```
//!
//! | module | what |
//! |---|---|
//! | `name` | qualified names, and the annotations that carry them |
//! | `file` | one specification: JSON or YAML, its version, its names |
//! | `edits` | what a container is to get |
//! | `registry` | all files of the directories, and which of them describes a device |
//!
//! Files are read when a device is asked for: nothing is kept, and nothing is watched. Not here: how a
//! container gets its edits, which is for the user of this crate; network devices (version 1.1.0); and
//! Intel's resource director, which is refused by name.

#![forbid(unsafe_code)]

mod edits;
mod error;
mod file;
mod name;
mod registry;

pub use edits::{DeviceNode, Edits, Hook, HookName, Mount, NodeType};
pub use error::{Error, InvalidFile};
pub use name::{ANNOTATION_PREFIX, DeviceName, of_annotations};
pub use registry::{Registry, default_directories};
