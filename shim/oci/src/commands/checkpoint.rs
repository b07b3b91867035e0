//! `checkpoint`: writes a running container down, for `restore`.

use std::path::{Path, PathBuf};

use clap::Args;
use shim_runtime::Checkpoint;

use crate::cli::Global;
use crate::container::{Container, Status};
use crate::error::Error;

/// Where images go that no flag places, as runc has it.
pub(super) const IMAGES: &str = "checkpoint";

/// Write the state of a running or paused container to files, through criu
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
        bosun-oci checkpoint --image-path /var/lib/web.images web\n  \
        bosun-oci checkpoint --image-path /var/lib/web.images --leave-running web")]
pub(crate) struct CheckpointArgs {
    /// Where the images go [default: checkpoint, in the current directory]
    #[arg(long, value_name = "DIR")]
    image_path: Option<PathBuf>,
    /// Where criu's log goes [default: the images' directory]
    #[arg(long, value_name = "DIR")]
    work_path: Option<PathBuf>,
    /// Images of an earlier --pre-dump, relative to --image-path
    #[arg(long, value_name = "DIR")]
    parent_path: Option<PathBuf>,
    /// Let the container go on; otherwise it ends and is removed
    #[arg(long)]
    leave_running: bool,
    /// Write only memory, and let the container go on
    #[arg(long)]
    pre_dump: bool,
    #[command(flatten)]
    what: What,
    /// Refused: the images go to files
    #[arg(long, value_name = "ADDRESS:PORT")]
    page_server: Option<String>,
    /// Refused: memory is read by the restore
    #[arg(long)]
    lazy_pages: bool,
    /// Refused: nobody is told but by the end of the command
    #[arg(long, value_name = "FD")]
    status_fd: Option<i32>,
    #[arg(value_name = "ID")]
    id: String,
}

/// What `checkpoint` and `restore` have in common.
#[derive(Args, Clone, Debug)]
pub(super) struct What {
    /// With open TCP connections
    #[arg(long)]
    pub(super) tcp_established: bool,
    /// With unix sockets that are connected to outside
    #[arg(long)]
    pub(super) ext_unix_sk: bool,
    /// With a session or terminal of somebody outside
    #[arg(long)]
    pub(super) shell_job: bool,
    /// With file locks
    #[arg(long)]
    pub(super) file_locks: bool,
    /// Ignored: limits are those of the bundle, and control groups are made like any container's
    #[arg(long, value_name = "MODE")]
    manage_cgroups_mode: Option<String>,
    /// Only `network`, which always is so: it is made like any container's
    #[arg(long, value_name = "KIND")]
    empty_ns: Vec<String>,
    /// Take memory out of the images that is in later ones, or restored
    #[arg(long)]
    pub(super) auto_dedup: bool,
}

impl What {
    /// # Errors
    /// [`Error::Refused`] for what can't be honoured.
    pub(super) fn check(&self) -> Result<(), Error> {
        match self.empty_ns.iter().all(|kind| kind == "network") {
            true => Ok(()),
            false => {
                let why = "only a network can be left out of a checkpoint";
                Err(Error::Refused { flag: "--empty-ns", why })
            }
        }
    }
}

pub(crate) fn run(global: &Global, arguments: &CheckpointArgs) -> Result<(), Error> {
    arguments.what.check()?;
    let refused = [
        (arguments.page_server.is_some(), "--page-server", "images go to files: not supported"),
        (arguments.lazy_pages, "--lazy-pages", "memory is restored at once: not supported"),
        (arguments.status_fd.is_some(), "--status-fd", "not supported"),
    ];
    if let Some((_, flag, why)) = refused.into_iter().find(|(asked, _, _)| *asked) {
        return Err(Error::Refused { flag, why });
    }
    let images = absolute(arguments.image_path.as_deref(), Path::new(IMAGES))?;
    let mut how = Checkpoint {
        work: absolute(arguments.work_path.as_deref(), &images)?,
        parent: arguments.parent_path.as_deref().map(|path| relative(path, &images)).transpose()?,
        images,
        pre_dump: arguments.pre_dump,
        leave_running: arguments.leave_running || arguments.pre_dump,
        tcp_established: arguments.what.tcp_established,
        external_unix_sockets: arguments.what.ext_unix_sk,
        shell_job: arguments.what.shell_job,
        file_locks: arguments.what.file_locks,
        auto_dedup: arguments.what.auto_dedup,
        streams: [const { None }; 3],
        freezer: None,
    };
    let container = Container::find(&global.root, &arguments.id)?;
    let lock = container.lock()?;
    let status = container.status_held(&lock);
    if !matches!(status, Status::Running | Status::Paused) {
        return Err(Error::Status { verb: "checkpoint", id: arguments.id.clone(), status });
    }
    let init = container.living()?;
    how.freezer = container.cgroup()?.freezer();
    shim_runtime::checkpoint(init.pid, &how)?.wait()?;
    match how.leave_running {
        true => Ok(()),
        false => container.remove(global),
    }
}

/// A path from the root on.
///
/// # Errors
/// When there is no current directory.
pub(super) fn absolute(path: Option<&Path>, default: &Path) -> Result<PathBuf, Error> {
    std::path::absolute(path.unwrap_or(default)).map_err(Error::system("find the directory"))
}

/// criu looks for earlier images from the directory of the new ones.
fn relative(path: &Path, images: &Path) -> Result<String, Error> {
    let wrong = |why| Error::Refused { flag: "--parent-path", why };
    if path.is_absolute() {
        return Err(wrong("it is relative to --image-path"));
    }
    if !images.join(path).is_dir() {
        return Err(wrong("there is no such directory below --image-path"));
    }
    path.to_str().map(str::to_owned).ok_or(wrong("it is not UTF-8"))
}
