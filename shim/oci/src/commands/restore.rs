//! `restore`: a container that goes on where `checkpoint` wrote it down.

use std::path::PathBuf;

use clap::Args;
use shim_wire::plan::Restore;

use super::checkpoint::{IMAGES, What, absolute};
use super::run::{Attendance, run_to_end};
use crate::cli::Global;
use crate::descriptors::Preserved;
use crate::error::Error;
use crate::launch::LaunchArgs;

/// Let a container go on from what checkpoint wrote, through criu, and wait for its end
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  \
        bosun-oci restore --detach --bundle /var/lib/web --image-path /var/lib/web.images web")]
pub(crate) struct RestoreArgs {
    #[command(flatten)]
    launch: LaunchArgs,
    #[command(flatten)]
    attendance: Attendance,
    /// Where the images are [default: checkpoint, in the current directory]
    #[arg(long, value_name = "DIR")]
    image_path: Option<PathBuf>,
    /// Where criu's log goes [default: the images' directory]
    #[arg(long, value_name = "DIR")]
    work_path: Option<PathBuf>,
    #[command(flatten)]
    what: What,
    /// The label of its processes, in place of the one that they had
    #[arg(long, value_name = "LABEL", default_value = "", hide_default_value = true)]
    lsm_profile: String,
    /// The label of its mounts, in place of the one that they had
    #[arg(long, value_name = "LABEL", default_value = "", hide_default_value = true)]
    lsm_mount_context: String,
    /// Refused: memory is read by the restore
    #[arg(long)]
    lazy_pages: bool,
}

/// The code is the container's.
pub(crate) fn run(global: &Global, arguments: &RestoreArgs) -> Result<u8, Error> {
    arguments.what.check()?;
    if arguments.lazy_pages {
        let why = "memory is restored at once: not supported";
        return Err(Error::Refused { flag: "--lazy-pages", why });
    }
    let preserved: Preserved = arguments.launch.take_descriptors()?;
    let images = absolute(arguments.image_path.as_deref(), IMAGES.as_ref())?;
    let work = absolute(arguments.work_path.as_deref(), &images)?;
    let restore = Restore {
        images: images.to_string_lossy().into_owned(),
        work: work.to_string_lossy().into_owned(),
        tcp_established: arguments.what.tcp_established,
        external_unix_sockets: arguments.what.ext_unix_sk,
        shell_job: arguments.what.shell_job,
        file_locks: arguments.what.file_locks,
        auto_dedup: arguments.what.auto_dedup,
        lsm_profile: arguments.lsm_profile.clone(),
        lsm_mount_context: arguments.lsm_mount_context.clone(),
    };
    run_to_end(global, &arguments.launch, &arguments.attendance, preserved, Some(restore))
}
