//! `state`: what the specification's "state" says of a container, with what runc adds.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::print_json;
use crate::cli::Global;
use crate::container::Container;
use crate::error::Error;

/// Print the state of a container as JSON
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  bosun-oci state web")]
pub(crate) struct StateArgs {
    #[arg(value_name = "ID")]
    id: String,
}

/// In runc's order of keys.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct State {
    oci_version: String,
    pub(super) id: String,
    /// 0 when stopped.
    pub(super) pid: i32,
    pub(super) status: String,
    pub(super) bundle: PathBuf,
    rootfs: PathBuf,
    pub(super) created: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
    /// A user's name; ours is always root's.
    pub(super) owner: String,
}

pub(crate) fn run(global: &Global, arguments: &StateArgs) -> Result<(), Error> {
    print_json(&of(&Container::find(&global.root, &arguments.id)?))
}

pub(super) fn of(container: &Container) -> State {
    let record = container.record.clone();
    let status = container.status();
    State {
        oci_version: record.oci_version,
        id: record.id,
        pid: container.init().map_or(0, |init| init.pid),
        status: status.to_string(),
        bundle: record.bundle,
        rootfs: record.rootfs,
        created: record.created,
        annotations: record.annotations,
        owner: "root".to_owned(),
    }
}
