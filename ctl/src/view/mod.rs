//! How things look: rows, tables, docker's words for times and states, docker's JSON.
//!
//! Pure functions from the API's messages to text and [`Value`](crate::template::Value)s; nothing
//! here writes anywhere.

pub(crate) mod content;
pub(crate) mod disk;
mod duration;
pub(crate) mod event;
pub(crate) mod history;
pub(crate) mod image;
mod inspect;
mod listing;
mod moment;
pub(crate) mod pod;
mod ports;
pub(crate) mod prune;
mod row;
mod size;
pub(crate) mod snapshot;
pub(crate) mod stats;
mod status;
pub(crate) mod system;
mod table;

pub(crate) use inspect::inspection;
pub(crate) use listing::Listing;
pub(crate) use moment::utc_fixed;
pub(crate) use row::{COLUMNS, container_row};
pub(crate) use size::{decimal_size, human_size};
pub(crate) use table::align;
