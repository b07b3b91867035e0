//! A further process in a running container: the container's own, with other words.

use oci_spec::runtime::Spec;
use shim_plan::ExecContext;
use shim_rootfs::user::Identity;
use shim_wire::files::ContainerDir;
use shim_wire::plan::ExecOptions;

use super::foreign::become_user;
use super::{ContainerOptions, Error, WindowSize, identity, machine, privileges};

/// What a user asks of an exec. Empty is the container's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecRequest {
    pub command: Vec<String>,
    /// `NAME=value`, beside the container's.
    pub env: Vec<String>,
    pub working_dir: String,
    pub user: String,
    pub tty: bool,
    /// Standard input is held open for the client.
    pub stdin: bool,
    /// Every capability that the daemon has; the container's seccomp profile stays.
    pub privileged: bool,
    pub window: WindowSize,
}

/// The process to hand to the shim, from the spec that the container was started with. With an
/// `identity` it is said as runtimes of others take it too.
///
/// # Errors
/// Names what is wrong with the request; the stored spec can't be read.
pub fn exec_options(
    options: &ContainerOptions,
    container_dir: &ContainerDir,
    request: &ExecRequest,
    identity: Option<&Identity>,
) -> Result<ExecOptions, Error> {
    let path = container_dir.config();
    let text = std::fs::read_to_string(&path).map_err(|source| Error::Read { path, source })?;
    lower(options, &serde_json::from_str(&text)?, request, identity)
}

/// Who an exec is to run as, when nobody has looked it up: `USER[:GROUP]`.
#[must_use]
pub fn exec_user<'a>(options: &'a ContainerOptions, request: &'a ExecRequest) -> &'a str {
    if request.user.is_empty() { &options.user } else { &request.user }
}

fn lower(
    options: &ContainerOptions,
    spec: &Spec,
    request: &ExecRequest,
    identity: Option<&Identity>,
) -> Result<ExecOptions, Error> {
    if request.command.first().is_none_or(String::is_empty) {
        return Err(Error::NoExecCommand);
    }
    let user = exec_user(options, request);
    let ids = identity::user(user)?;
    let mut process = spec.process().clone().unwrap_or_default();
    let mut env = process.env().clone().unwrap_or_default();
    if request.tty {
        identity::set(&mut env, "TERM=xterm", identity::Existing::Keep)?;
    }
    for entry in &request.env {
        identity::set(&mut env, entry, identity::Existing::Replace)?;
    }
    if !request.working_dir.is_empty() {
        process.set_cwd(identity::working_dir(&request.working_dir)?.into());
    }
    process.user_mut().set_uid(ids.uid).set_gid(ids.gid);
    process
        .set_args(Some(request.command.clone()))
        .set_env(Some(env))
        .set_terminal(Some(request.tty))
        .set_console_size(None);
    if request.privileged {
        process.set_capabilities(Some(privileges::sets(machine::own_capabilities()?)?));
    }
    let context = ExecContext {
        stdin: request.stdin,
        width: request.window.width.into(),
        height: request.window.height.into(),
        user: user.to_owned(),
        strict_groups: options.security.strict_groups,
        personality: spec.linux().as_ref().and_then(|linux| linux.personality().clone()),
        ..ExecContext::default()
    };
    let seccomp = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
    let mut lowered = shim_plan::exec(&process, seccomp, &context)?;
    if let Some(identity) = identity {
        let mut process = serde_json::to_value(&process)?;
        become_user(&mut process, identity);
        lowered.oci_process = serde_json::to_vec(&process)?;
    }
    Ok(lowered)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::tests::{generated, web};

    fn exec(change: impl FnOnce(&mut ExecRequest)) -> Result<ExecOptions, Error> {
        let mut request =
            ExecRequest { command: vec!["/bin/sh".to_owned()], ..ExecRequest::default() };
        change(&mut request);
        let made = generated(|options| {
            options.user = "1000:50".to_owned();
            options.working_dir = "/srv".to_owned();
            options.env = vec!["A=1".to_owned()];
            options.tty = false;
        });
        let options = ContainerOptions { user: "1000:50".to_owned(), ..web() };
        lower(&options, &made.unwrap().spec, &request, None)
    }

    #[test]
    fn an_exec_is_the_container_s_process_with_other_words() {
        let process = exec(|_| {}).unwrap().process.unwrap();
        assert_eq!(process.args, ["/bin/sh"]);
        assert_eq!(process.cwd, "/srv");
        assert!(process.env.contains(&"A=1".to_owned()) && process.env[0].starts_with("PATH="));
        let user = process.user.unwrap();
        assert_eq!((user.uid, user.gid, user.name.as_str()), (1000, 50, "1000:50"));
        assert_eq!(process.capabilities.unwrap().effective, 0xa804_25fb);
        assert!(!process.terminal && !process.init && !process.seccomp.is_empty());
    }

    #[test]
    fn what_an_exec_asks_for_replaces_the_container_s() {
        let made = exec(|request| {
            request.user = "root".to_owned();
            request.working_dir = "/tmp".to_owned();
            request.env = vec!["A=2".to_owned(), "B=3".to_owned()];
            (request.tty, request.stdin, request.privileged) = (true, true, true);
            request.window = WindowSize { width: 80, height: 24 };
        })
        .unwrap();
        assert_eq!((made.stdin, made.width, made.height), (true, 80, 24));
        let process = made.process.unwrap();
        assert_eq!((process.cwd.as_str(), process.terminal), ("/tmp", true));
        let user = process.user.unwrap();
        assert_eq!((user.uid, user.name.as_str()), (0, "root"));
        for entry in ["A=2", "B=3", "TERM=xterm"] {
            assert!(process.env.contains(&entry.to_owned()), "{entry} in {:?}", process.env);
        }
        assert!(!process.env.contains(&"A=1".to_owned()));
        let own = machine::own_capabilities().unwrap();
        assert_eq!(process.capabilities.unwrap().bounding, own.0);
        assert!(!process.seccomp.is_empty());
    }

    #[test]
    fn a_bad_exec_is_refused() {
        let said = |change: fn(&mut ExecRequest)| exec(change).unwrap_err().to_string();
        assert!(said(|request| request.command.clear()).contains("no command"));
        assert!(said(|request| request.user = "4294967296".into()).contains("\"4294967296\""));
        assert!(said(|request| request.working_dir = "x".into()).contains("\"x\""));
        assert!(said(|request| request.env = vec!["X".into()]).contains("\"X\" is not NAME=value"));
    }
}
