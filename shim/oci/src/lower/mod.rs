//! `lower`: what a shim that containerd drives asks of a program that goes again.
//!
//! The request comes on standard input as containerd sent it to the shim, and what the shim itself
//! needs of it goes to standard output; the plan is written into the run directory. So the spec's
//! JSON and the compilation of its filter touch no long-lived memory.
//!
//! | what | standard input | standard output |
//! |---|---|---|
//! | `create` | `CreateTaskRequest` | `CreateOptions`; the plan's file, and the hooks' |
//! | `exec` | `ExecProcessRequest` | `ExecOptions` |
//! | `update` | `UpdateTaskRequest` | `Resources` |
//! | `scope`, `limits`, `forget` | see [`scope`] | |

mod mounts;
mod scope;

use std::fs::OpenOptions;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use oci_spec::runtime::{Process, Root};
use prost::Message;
use shim_cgroup::{Cgroup, Layout};
use shim_plan::parse::Parsed;
use shim_plan::{Context, ExecContext};
use shim_wire::containerd::{self, CREATE_OPTIONS, RUNC_OPTIONS, RuncOptions};
use shim_wire::files::RunDir;
use shim_wire::plan::{CreateOptions, Resources, Restore};
use shim_wire::task::{Any, CreateTaskRequest, ExecProcessRequest, UpdateTaskRequest};

use self::mounts::Found;
use crate::bundle::{self, Bundle};
use crate::error::Error;
use crate::launch;

const PROCESS: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";
const RESOURCES: &str = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources";

/// The most that is read: a request holds a spec at most.
const MAX_REQUEST: u64 = 16 << 20;

/// Lower a request of containerd's, for a shim
#[derive(Args, Debug)]
pub(crate) struct LowerArgs {
    what: What,
    /// Of the container
    #[arg(long, value_name = "NS")]
    namespace: String,
    /// Where config.json is
    #[arg(long, value_name = "DIR")]
    bundle: PathBuf,
    /// Where the plan goes
    #[arg(long, value_name = "DIR")]
    run_dir: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    Create,
    Exec,
    Update,
    Scope,
    Limits,
    Forget,
}

/// # Errors
/// What is wrong with the request, by its field or the JSON path in the spec.
pub(crate) fn run(arguments: &LowerArgs) -> Result<(), Error> {
    let mut request = Vec::new();
    io::stdin().lock().take(MAX_REQUEST).read_to_end(&mut request).map_err(Error::Input)?;
    let answer = match arguments.what {
        What::Create => create(arguments, &request)?.encode_to_vec(),
        What::Exec => exec(arguments, &request)?,
        What::Update => update(&request)?.encode_to_vec(),
        What::Scope => return scope::keep(&run_dir(arguments), &decode("limits", &request)?),
        What::Limits => return scope::limit(&run_dir(arguments), &decode("limits", &request)?),
        What::Forget => return scope::forget(&run_dir(arguments)),
    };
    io::stdout().lock().write_all(&answer).map_err(Error::Output)
}

fn create(arguments: &LowerArgs, request: &[u8]) -> Result<CreateOptions, Error> {
    let request: CreateTaskRequest = decode("the request", request)?;
    let systemd_cgroup = options(request.options.as_ref())?.systemd_cgroup;
    let bundle = Bundle::read(Some(&arguments.bundle))?;
    let found = mounts::read(&request.rootfs)?;
    if matches!(found, Found::Nothing) && bundle.spec.root().is_some() {
        bundle.check_rootfs()?;
    }
    let Bundle { directory, mut spec, warnings, .. } = bundle;
    warn(&warnings);
    let refused = |source| Error::Plan { file: directory.join("config.json"), source };
    let asked = spec.process().as_ref().and_then(Process::terminal).unwrap_or(false);
    if asked != request.terminal {
        return Err(Error::field("process.terminal", "the request says otherwise"));
    }
    let mut context = Context {
        attempt: 1,
        id: request.id.clone(),
        bundle: Some(directory.clone()),
        cgroup: match systemd_cgroup {
            true => request.id.clone(),
            false => format!("{}/{}", arguments.namespace, request.id),
        },
        systemd_cgroup,
        stdin: !request.stdin.is_empty(),
        ..Context::default()
    };
    let mut overlay_options = Vec::new();
    match found {
        Found::Nothing => {}
        Found::Directory { path, readonly } => {
            let mut root = spec.root().clone().unwrap_or_default();
            let readonly = readonly || root.readonly().unwrap_or(false);
            root.set_path(path.into()).set_readonly(Some(readonly));
            spec.set_root(Some(root));
        }
        Found::Overlay { layers, options } => {
            // What the spec says of the path is what the mounts were to be mounted at.
            context.layers = layers;
            overlay_options = options;
        }
    }
    if spec.root().is_none() {
        spec.set_root(Some(Root::default()));
    }
    let (mut create, mut plan) = shim_plan::plan(&spec, &context).map_err(refused)?;
    create.restore = restore(&request, arguments)?;
    launch::refuse_populated(&Cgroup::new(&Layout::detect()?, &create.cgroup)?)?;
    if let Some(rootfs) = &mut plan.rootfs {
        rootfs.overlay_options.extend(overlay_options);
        // Whoever made the mounts gave the files to the container's users.
        rootfs.idmap = false;
    }
    let run = run_dir(arguments);
    let scope = shim_plan::scope(&spec, &context).map_err(refused)?;
    scope::note(&run, scope.as_ref())?;
    write_file(&run.plan(), &plan)?;
    if let Some(hooks) = shim_plan::hooks(&spec, &context).map_err(refused)? {
        write_file(&run.hooks(), &hooks)?;
    }
    Ok(create)
}

/// From which checkpoint the container goes on, if from one. What that has of connections, locks and
/// the like was said when it was taken.
fn restore(request: &CreateTaskRequest, arguments: &LowerArgs) -> Result<Option<Restore>, Error> {
    if request.checkpoint.is_empty() {
        return Ok(None);
    }
    if !request.parent_checkpoint.is_empty() {
        let why = "the images know which ones they build upon";
        return Err(Error::field("parent_checkpoint", why));
    }
    let work = arguments.run_dir.join("criu");
    Ok(Some(Restore {
        images: request.checkpoint.clone(),
        work: work.to_string_lossy().into_owned(),
        tcp_established: true,
        external_unix_sockets: true,
        file_locks: true,
        ..Restore::default()
    }))
}

fn exec(arguments: &LowerArgs, request: &[u8]) -> Result<Vec<u8>, Error> {
    let request: ExecProcessRequest = decode("the request", request)?;
    let any = request.spec.unwrap_or_default();
    if any.type_url != PROCESS {
        return Err(Error::field("spec", format!("a process is no {:?}", any.type_url)));
    }
    let Parsed { value: mut process, warnings } = bundle::process(&any.value, Path::new("spec"))?;
    warn(&warnings);
    // containerd's clients say it here, and leave the process' own field as it was.
    process.set_terminal(Some(request.terminal));
    let bundle = Bundle::read(Some(&arguments.bundle))?;
    warn(&bundle::restrict(&mut process, &bundle.spec));
    let seccomp = bundle.spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
    let personality = bundle.spec.linux().as_ref().and_then(|linux| linux.personality().clone());
    let stdin = !request.stdin.is_empty();
    let place = Context {
        id: request.id.clone(),
        bundle: Some(bundle.directory.clone()),
        ..Context::default()
    };
    let state = shim_plan::state(&bundle.spec, &place);
    let state = state.map_err(|source| Error::Plan { file: bundle.config(), source })?;
    let context = ExecContext { stdin, personality, state, ..ExecContext::default() };
    let lowered = shim_plan::exec(&process, seccomp, &context);
    let refused = |source| Error::Plan { file: "spec".into(), source };
    Ok(lowered.map_err(refused)?.encode_to_vec())
}

fn update(request: &[u8]) -> Result<Resources, Error> {
    let request: UpdateTaskRequest = decode("the request", request)?;
    let any = request.resources.unwrap_or_default();
    if any.type_url != RESOURCES {
        return Err(Error::field("resources", format!("limits are no {:?}", any.type_url)));
    }
    let Parsed { value: resources, warnings } =
        bundle::resources(&any.value, Path::new("resources"))?;
    warn(&warnings);
    let refused = |source| Error::Plan { file: "resources".into(), source };
    shim_plan::resources(&resources).map_err(refused)
}

fn run_dir(arguments: &LowerArgs) -> RunDir {
    RunDir::new(arguments.run_dir.clone())
}

/// Options of a runtime that this one is not: what they ask for and is not done is refused, by name.
fn options(any: Option<&Any>) -> Result<RuncOptions, Error> {
    let Some(any) = any.filter(|any| !any.type_url.is_empty()) else {
        return Ok(RuncOptions::default());
    };
    let options: RuncOptions = match any.type_url.as_str() {
        RUNC_OPTIONS => decode("options", &any.value)?,
        CREATE_OPTIONS => {
            let old: containerd::CreateOptions = decode("options", &any.value)?;
            if !old.shim_cgroup.is_empty() {
                let why = "the shim is in its cgroup from its start on";
                return Err(Error::field("options.shim_cgroup", why));
            }
            let containerd::CreateOptions { no_pivot_root, no_new_keyring, .. } = old;
            RuncOptions { no_pivot_root, no_new_keyring, ..RuncOptions::default() }
        }
        other => return Err(Error::field("options", format!("{other:?} are not supported"))),
    };
    let asked = [
        (options.no_pivot_root, "no_pivot_root", "a rootfs is always entered by pivot_root"),
        (options.no_new_keyring, "no_new_keyring", "a container has a keyring of its own"),
        (!options.binary_name.is_empty(), "binary_name", "this runtime is its own OCI runtime"),
        (!options.root.is_empty(), "root", "this runtime keeps its state in the bundle"),
    ];
    match asked.into_iter().find(|(asked, _, _)| *asked) {
        Some((_, name, why)) => Err(Error::field(format!("options.{name}"), why)),
        // The shim's cgroup was its start's business; the streams are their user's in any case.
        None => Ok(options),
    }
}

/// Says what is passed over.
fn warn(warnings: &[String]) {
    for warning in warnings {
        // Whoever closed standard error does not want to know.
        let _ = writeln!(io::stderr(), "bosun-oci: warning: {warning}");
    }
}

fn decode<T: Message + Default>(what: &'static str, bytes: &[u8]) -> Result<T, Error> {
    T::decode(bytes).map_err(|source| Error::Message { what, source })
}

fn write_file(path: &Path, message: &impl Message) -> Result<(), Error> {
    let opened = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    let written = opened.and_then(|mut file| file.write_all(&message.encode_to_vec()));
    written.map_err(Error::file("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_are_not_honoured_are_refused_by_name() {
        let none = RuncOptions::default();
        for (asked, expected) in [
            (RuncOptions { no_pivot_root: true, ..none.clone() }, "options.no_pivot_root: "),
            (RuncOptions { binary_name: "crun".to_owned(), ..none.clone() }, "options.binary_name"),
            (RuncOptions { root: "/run/runc".to_owned(), ..none.clone() }, "options.root: "),
        ] {
            let refused = options(Some(&Any::of(RUNC_OPTIONS, &asked))).unwrap_err();
            assert!(refused.to_string().starts_with(expected), "{refused}");
        }
        let old = containerd::CreateOptions { no_pivot_root: true, ..Default::default() };
        let refused = options(Some(&Any::of(CREATE_OPTIONS, &old))).unwrap_err();
        assert!(refused.to_string().starts_with("options.no_pivot_root: "), "{refused}");
        let other = options(Some(&Any::of("kata.Options", &none))).unwrap_err();
        assert_eq!(other.to_string(), r#"options: "kata.Options" are not supported"#);
    }

    #[test]
    fn what_is_honoured_or_says_nothing_passes() {
        let asked = RuncOptions {
            shim_cgroup: "/shims".to_owned(),
            systemd_cgroup: true,
            io_uid: 1000,
            io_gid: 1000,
            ..RuncOptions::default()
        };
        assert_eq!(options(Some(&Any::of(RUNC_OPTIONS, &asked))).unwrap(), asked);
        let old = containerd::CreateOptions { io_uid: 1000, ..Default::default() };
        options(Some(&Any::of(CREATE_OPTIONS, &old))).unwrap();
        options(Some(&Any::default())).unwrap();
        options(None).unwrap();
    }
}
