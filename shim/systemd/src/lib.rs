//! systemd as the manager of control groups: a container's group is a scope that systemd makes, over
//! D-Bus (org.freedesktop.systemd1(5)).
//!
//! ```text
//!   start(scope, pid) ── StartTransientUnit ──▶ job ── JobRemoved ──▶ the group is there, `pid` in it
//!   set(unit, …)      ── SetUnitProperties        at an update, so that a reload keeps the limits
//!   stop(unit)        ── StopUnit, ResetFailedUnit
//! ```
//!
//! A scope lives as long as a process is in it. So whoever makes a container starts the scope with a
//! process of its own, makes the container in the group as in any other, and lets that process end.
//! systemd is told the limits that it knows, so that it writes the same when it is reloaded; the
//! files are `shim-cgroup`'s all the same, for it knows all of them and says which one is refused.
//!
//! | module | what |
//! |---|---|
//! | `message` | D-Bus messages as bytes |
//! | `connection` | a socket, its authentication, calls with a deadline |
//! | `properties` | resources in systemd's terms |
//!
//! For the daemon and for short-lived processes: the long-lived shim does not link this. Deliberately absent: everything of
//! D-Bus that these five calls do not need, and services of users (`systemd --user`).
#![forbid(unsafe_code)]

mod connection;
mod error;
mod message;
mod properties;

use std::path::Path;
use std::time::{Duration, Instant};

use shim_wire::plan::Resources;

use connection::Connection;
pub use error::Error;
use message::{Value, array_of_structs};

/// systemd's own socket: root needs no bus.
const PRIVATE: &str = "/run/systemd/private";
/// The system's bus, where systemd is one of many.
const BUS: &str = "/run/dbus/system_bus_socket";

/// How long systemd may take for one job. It is one process that does one thing after another.
const PATIENCE: Duration = Duration::from_secs(30);

const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";

/// A connection to systemd.
#[derive(Debug)]
pub struct Manager {
    connection: Connection,
}

impl Manager {
    /// Connects to systemd, by its own socket or by the system's bus.
    ///
    /// # Errors
    /// [`Error::NotRunning`] on a machine without it; [`Error::Io`], [`Error::Protocol`].
    pub fn connect() -> Result<Self, Error> {
        let deadline = Instant::now() + PATIENCE;
        match Self::connect_private(Path::new(PRIVATE), deadline) {
            Err(Error::Io { .. }) => {}
            other => return other,
        }
        match Self::connect_bus(Path::new(BUS), deadline) {
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                Err(Error::NotRunning)
            }
            other => other,
        }
    }

    /// Connects to systemd's own socket.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Protocol`].
    pub fn connect_private(socket: &Path, deadline: Instant) -> Result<Self, Error> {
        Ok(Self { connection: Connection::new(socket, None, deadline)? })
    }

    /// Connects to a bus that systemd is on.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Protocol`]; [`Error::Refused`] when it is not on it.
    pub fn connect_bus(socket: &Path, deadline: Instant) -> Result<Self, Error> {
        let mut connection = Connection::new(socket, Some("org.freedesktop.systemd1"), deadline)?;
        let dbus = "org.freedesktop.DBus";
        connection.call_to(dbus, "/org/freedesktop/DBus", dbus, "Hello", &[], deadline)?;
        let rule = format!("type='signal',interface='{MANAGER}',member='JobRemoved'");
        let rule = [Value::Text(rule)];
        connection.call_to(dbus, "/org/freedesktop/DBus", dbus, "AddMatch", &rule, deadline)?;
        let mut manager = Self { connection };
        // Who is on the bus is told of jobs only when somebody asks for it.
        manager.call("Subscribe", &[], deadline)?;
        Ok(manager)
    }

    /// Makes the scope `unit` in `slice` around the process `pid`, with the limits that systemd
    /// knows, and waits until it is there. One of that name that has failed is forgotten first.
    ///
    /// # Errors
    /// [`Error::Refused`] with systemd's words; [`Error::Job`] when it did not come to be;
    /// [`Error::TimedOut`].
    pub fn start(
        &mut self,
        unit: &str,
        slice: &str,
        pid: u32,
        resources: &Resources,
        unified: bool,
    ) -> Result<(), Error> {
        let deadline = Instant::now() + PATIENCE;
        let mut properties = vec![
            ("Description", Value::Text(format!("container {unit}"))),
            ("Slice", Value::Text(slice.to_owned())),
            ("PIDs", Value::Numbers(vec![pid])),
            // The container may divide its group, and systemd leaves what is below alone.
            ("Delegate", Value::Flag(true)),
            ("DefaultDependencies", Value::Flag(false)),
            ("CPUAccounting", Value::Flag(true)),
            ("MemoryAccounting", Value::Flag(true)),
            ("TasksAccounting", Value::Flag(true)),
            (if unified { "IOAccounting" } else { "BlockIOAccounting" }, Value::Flag(true)),
        ];
        properties.extend(properties::of(resources, unified));
        let arguments = [
            Value::Text(unit.to_owned()),
            Value::Text("replace".to_owned()),
            Value::Properties(properties),
            array_of_structs("(sa(sv))"),
        ];
        let started = self.job("StartTransientUnit", &arguments, deadline);
        match started {
            Err(Error::Refused { ref name, .. }) if name.ends_with(".UnitExists") => {
                // What is left of an earlier one: systemd keeps units that failed.
                self.forget(unit, deadline)?;
                self.job("StartTransientUnit", &arguments, deadline)
            }
            other => other,
        }
    }

    /// Tells systemd the limits that a scope has by now, as long as it lives: of a `group` of the unified
    /// hierarchy all that its files say, otherwise those of `resources`.
    ///
    /// # Errors
    /// [`Error::Refused`] with systemd's words; [`Error::TimedOut`].
    pub fn set(
        &mut self,
        unit: &str,
        resources: &Resources,
        group: Option<&Path>,
    ) -> Result<(), Error> {
        let properties = match group {
            // A file that is not there is of a controller that is not, or of a newer kernel.
            Some(group) => properties::of_group(resources, |file| {
                std::fs::read_to_string(group.join(file)).ok()
            }),
            None => properties::of(resources, false),
        };
        if properties.is_empty() {
            return Ok(());
        }
        let runtime = Value::Flag(true);
        let arguments = [Value::Text(unit.to_owned()), runtime, Value::Properties(properties)];
        self.call("SetUnitProperties", &arguments, Instant::now() + PATIENCE).map(drop)
    }

    /// Ends a scope, with all that is in it. One that is not there has ended.
    ///
    /// # Errors
    /// [`Error::Refused`] with systemd's words; [`Error::TimedOut`].
    pub fn stop(&mut self, unit: &str) -> Result<(), Error> {
        let deadline = Instant::now() + PATIENCE;
        let arguments = [Value::Text(unit.to_owned()), Value::Text("replace".to_owned())];
        match self.job("StopUnit", &arguments, deadline) {
            Ok(()) => {}
            Err(Error::Refused { name, .. }) if name.ends_with(".NoSuchUnit") => return Ok(()),
            Err(error) => return Err(error),
        }
        self.forget(unit, deadline)
    }

    fn forget(&mut self, unit: &str, deadline: Instant) -> Result<(), Error> {
        match self.call("ResetFailedUnit", &[Value::Text(unit.to_owned())], deadline) {
            Ok(_) => Ok(()),
            // It did not fail, and is gone.
            Err(Error::Refused { name, .. }) if name.ends_with(".NoSuchUnit") => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Calls what starts a job, and waits for the job's end.
    fn job(
        &mut self,
        method: &'static str,
        arguments: &[Value],
        deadline: Instant,
    ) -> Result<(), Error> {
        let answer = self.call(method, arguments, deadline)?;
        let malformed =
            || Error::Protocol { problem: format!("{method}: an answer without a job") };
        let job = answer.reader().text().ok_or_else(malformed)?;
        loop {
            let signal = self.connection.signal("JobRemoved", method, deadline)?;
            // The job's number, its path, its unit, how it ended.
            let mut reader = signal.reader();
            let (_, path) = (reader.number(), reader.text());
            let (unit, result) = (reader.text(), reader.text());
            if path.as_deref() != Some(job.as_str()) {
                continue;
            }
            return match result.as_deref() {
                Some("done") => Ok(()),
                result => Err(Error::Job {
                    method,
                    unit: unit.unwrap_or_default(),
                    result: result.unwrap_or_default().to_owned(),
                }),
            };
        }
    }

    fn call(
        &mut self,
        method: &'static str,
        arguments: &[Value],
        deadline: Instant,
    ) -> Result<message::Message, Error> {
        self.connection.call(MANAGER_PATH, MANAGER, method, arguments, deadline)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::process::{Child, Command, Stdio};
    use std::thread::JoinHandle;

    use super::*;
    use crate::message::{Kind, Message, tests::message};

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    /// Accepts one client, authenticates it as systemd does, and answers its calls by `script`; the
    /// names of the calls.
    fn systemd(
        script: impl Fn(usize, &Message, u32) -> Vec<Vec<u8>> + Send + 'static,
    ) -> (tempfile::TempDir, JoinHandle<Vec<String>>) {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("private")).unwrap();
        let served = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let mut input = Vec::new();
            let receive = |input: &mut Vec<u8>, socket: &mut UnixStream| {
                let mut chunk = [0; 4096];
                let len = socket.read(&mut chunk).unwrap();
                input.extend_from_slice(&chunk[..len]);
                len > 0
            };
            // What follows BEGIN is to come later: systemd's own would not look at it.
            while !input.ends_with(b"BEGIN\r\n") {
                receive(&mut input, &mut socket);
            }
            assert_eq!(input[0], 0);
            let uid = rustix::process::geteuid().as_raw().to_string();
            let hex: String = uid.bytes().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(&input[1..], format!("AUTH EXTERNAL {hex}\r\nBEGIN\r\n").as_bytes());
            input.clear();
            socket.write_all(b"OK 0123456789abcdef0123456789abcdef\r\n").unwrap();
            let mut calls = Vec::new();
            loop {
                if let Ok(Some((call, len))) = Message::decode(&input) {
                    let serial = u32::from_le_bytes(input[8..12].try_into().unwrap());
                    input.drain(..len);
                    for answer in script(calls.len(), &call, serial) {
                        socket.write_all(&answer).unwrap();
                    }
                    calls.push(call.member);
                } else if !receive(&mut input, &mut socket) {
                    return calls;
                }
            }
        });
        (directory, served)
    }

    fn connect(directory: &tempfile::TempDir) -> Manager {
        Manager::connect_private(&directory.path().join("private"), soon()).unwrap()
    }

    fn removed(job: &str, result: &str) -> Vec<u8> {
        let text = |text: &str| Value::Text(text.to_owned());
        let body = [Value::Flag(true), text(job), text("c.scope"), text(result)];
        message(Kind::Signal, 0, "JobRemoved", "", &body)
    }

    fn job(serial: u32, job: &str) -> Vec<u8> {
        message(Kind::Answer, serial, "", "", &[Value::Text(job.to_owned())])
    }

    fn refusal(serial: u32, name: &str) -> Vec<u8> {
        message(Kind::Error, serial, "", name, &[Value::Text("so it is".to_owned())])
    }

    #[test]
    fn a_scope_is_there_when_its_own_job_is_done() {
        let (directory, served) = systemd(|_, call, serial| {
            let mut reader = call.reader();
            assert_eq!(reader.text().as_deref(), Some("c.scope"));
            assert_eq!(reader.text().as_deref(), Some("replace"));
            // The end of a job may come before the answer that names it, and others end as well.
            vec![removed("/job/1", "failed"), removed("/job/2", "done"), job(serial, "/job/2")]
        });
        let mut manager = connect(&directory);
        let limits = Resources { memory: Some(1 << 20), ..Resources::default() };
        manager.start("c.scope", "machine.slice", 42, &limits, true).unwrap();
        drop(manager);
        assert_eq!(served.join().unwrap(), ["StartTransientUnit"]);
    }

    #[test]
    fn a_job_that_fails_is_an_error_with_its_result() {
        let (directory, served) =
            systemd(|_, _, serial| vec![job(serial, "/job/2"), removed("/job/2", "canceled")]);
        let mut manager = connect(&directory);
        let none = Resources::default();
        let error = manager.start("c.scope", "", 42, &none, true).unwrap_err();
        assert_eq!(
            error.to_string(),
            "systemd: StartTransientUnit: the job of c.scope ended as \"canceled\""
        );
        drop(manager);
        served.join().unwrap();
    }

    #[test]
    fn what_is_left_of_a_failed_scope_is_forgotten_first() {
        let (directory, served) = systemd(|count, _, serial| match count {
            0 => vec![refusal(serial, "org.freedesktop.systemd1.UnitExists")],
            1 => vec![message(Kind::Answer, serial, "", "", &[])],
            _ => vec![job(serial, "/job/2"), removed("/job/2", "done")],
        });
        let mut manager = connect(&directory);
        manager.start("c.scope", "", 42, &Resources::default(), false).unwrap();
        drop(manager);
        let calls = served.join().unwrap();
        assert_eq!(calls, ["StartTransientUnit", "ResetFailedUnit", "StartTransientUnit"]);
    }

    #[test]
    fn a_scope_that_has_gone_is_stopped() {
        let (directory, served) =
            systemd(|_, _, serial| vec![refusal(serial, "org.freedesktop.systemd1.NoSuchUnit")]);
        let mut manager = connect(&directory);
        manager.stop("c.scope").unwrap();
        drop(manager);
        assert_eq!(served.join().unwrap(), ["StopUnit"]);
    }

    #[test]
    fn an_update_says_only_what_systemd_knows() {
        let (directory, served) = systemd(|_, _, serial| {
            vec![refusal(serial, "org.freedesktop.DBus.Error.PropertyReadOnly")]
        });
        let mut manager = connect(&directory);
        let unknown = Resources { cpu_idle: Some(1), ..Resources::default() };
        manager.set("c.scope", &unknown, None).unwrap();
        let known = Resources { pids: Some(7), ..Resources::default() };
        let said = manager.set("c.scope", &known, None).unwrap_err().to_string();
        assert_eq!(
            said,
            "systemd: SetUnitProperties: so it is (org.freedesktop.DBus.Error.PropertyReadOnly)"
        );
        drop(manager);
        assert_eq!(served.join().unwrap(), ["SetUnitProperties"]);
    }

    #[test]
    fn a_systemd_that_does_not_answer_is_not_waited_for_for_ever() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("private");
        let _listener = UnixListener::bind(&path).unwrap();
        let deadline = Instant::now() + Duration::from_millis(50);
        let error = Manager::connect_private(&path, deadline).unwrap_err();
        assert!(matches!(error, Error::TimedOut { .. }), "{error}");
    }

    /// The reference implementation, which ends a connection whose messages are not valid to the last
    /// byte. `None` where it is not installed.
    fn real_bus(directory: &Path) -> Option<Bus> {
        let socket = directory.join("bus");
        let config = directory.join("bus.conf");
        let text = format!(
            "<busconfig><type>session</type><listen>unix:path={}</listen><auth>EXTERNAL</auth>\
             <policy context=\"default\"><allow send_destination=\"*\" eavesdrop=\"true\"/>\
             <allow eavesdrop=\"true\"/><allow own=\"*\"/></policy></busconfig>",
            socket.display()
        );
        std::fs::write(&config, text).unwrap();
        let child = Command::new("dbus-daemon")
            .args(["--nofork", "--nosyslog", "--nopidfile", "--config-file"])
            .arg(&config)
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let bus = Bus(child);
        let deadline = soon();
        while !socket.exists() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        Some(bus)
    }

    struct Bus(Child);

    impl Drop for Bus {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn a_real_bus_takes_every_message() {
        let directory = tempfile::tempdir().unwrap();
        let Some(_bus) = real_bus(directory.path()) else { return };
        let socket = directory.path().join("bus");
        // Nobody owns systemd's name there: the first call to it is what fails.
        let error = Manager::connect_bus(&socket, soon()).unwrap_err();
        let unknown = "org.freedesktop.DBus.Error.ServiceUnknown";
        assert!(matches!(&error, Error::Refused { name, .. } if name == unknown), "{error}");
        let mut connection =
            Connection::new(&socket, Some("org.freedesktop.systemd1"), soon()).unwrap();
        let dbus = "org.freedesktop.DBus";
        connection.call_to(dbus, "/org/freedesktop/DBus", dbus, "Hello", &[], soon()).unwrap();
        let mut manager = Manager { connection };
        let rule = |allow, kind: &str, major| shim_wire::plan::DeviceRule {
            allow,
            kind: kind.to_owned(),
            major,
            minor: None,
            access: "rwm".to_owned(),
        };
        let resources = Resources {
            memory: Some(1 << 20),
            memory_swap: Some(1 << 21),
            cpu_quota: Some(50_000),
            cpu_period: Some(100_000),
            cpuset_cpus: "0-9".to_owned(),
            pids: Some(7),
            devices: vec![rule(false, "a", None), rule(true, "c", Some(1)), rule(true, "b", None)],
            ..Resources::default()
        };
        for unified in [true, false] {
            for error in [
                manager.start("c.scope", "machine.slice", 42, &resources, unified).unwrap_err(),
                manager.set("c.scope", &resources, None).unwrap_err(),
                manager.stop("c.scope").unwrap_err(),
            ] {
                assert!(
                    matches!(&error, Error::Refused { name, .. } if name == unknown),
                    "{error}"
                );
            }
        }
    }
}
