//! What a process is given beside its words, lowered.

mod specs;

use oci_spec::runtime::Spec;
use serde_json::{Value, json};
use shim_plan::{Context, ExecContext, exec};
use shim_wire::hooks::State;
use shim_wire::plan::{Notify, Scheduler};

use specs::{lower, minimal, minimal_context, with};

#[test]
fn how_a_process_is_scheduled() {
    let scheduler = |value: Value| {
        let text = with(minimal(), "/process/scheduler", value).to_string();
        let spec = shim_plan::parse::config(text.as_bytes()).unwrap().value;
        shim_plan::plan(&spec, &minimal_context()).unwrap().1.process.unwrap().scheduler.unwrap()
    };
    let plain = Scheduler::default();
    assert_eq!(scheduler(json!({"policy": "SCHED_IDLE"})), Scheduler { policy: 5, ..plain });
    for (policy, number) in [("SCHED_OTHER", 0), ("SCHED_BATCH", 3)] {
        assert_eq!(
            scheduler(json!({"policy": policy, "nice": -20})),
            Scheduler { policy: number, nice: -20, ..plain }
        );
    }
    for (policy, number) in [("SCHED_FIFO", 1), ("SCHED_RR", 2)] {
        assert_eq!(
            scheduler(json!({"policy": policy, "priority": 99})),
            Scheduler { policy: number, priority: 99, ..plain }
        );
    }
    let deadline =
        json!({"policy": "SCHED_DEADLINE", "runtime": 1024, "deadline": 2000, "period": 3000});
    assert_eq!(
        scheduler(deadline),
        Scheduler { policy: 6, runtime: 1024, deadline: 2000, period: 3000, ..plain }
    );
    for (index, flag) in [
        "SCHED_FLAG_RESET_ON_FORK",
        "SCHED_FLAG_RECLAIM",
        "SCHED_FLAG_DL_OVERRUN",
        "SCHED_FLAG_KEEP_POLICY",
        "SCHED_FLAG_KEEP_PARAMS",
    ]
    .iter()
    .enumerate()
    {
        let lowered = scheduler(
            json!({"policy": "SCHED_DEADLINE", "runtime": 1024, "deadline": 1024, "flags": [flag]}),
        );
        assert_eq!(lowered.flags, 1 << index, "{flag}");
    }
}

/// What no machine could do is refused before anything is made, by the field that is to blame.
#[test]
fn what_no_scheduler_takes_is_named_by_its_field() {
    let said = |value: Value| {
        let text = with(minimal(), "/process/scheduler", value).to_string();
        let spec = shim_plan::parse::config(text.as_bytes()).unwrap().value;
        shim_plan::plan(&spec, &minimal_context()).unwrap_err().to_string()
    };
    let deadline = |runtime: u64, deadline: u64, period: u64| {
        json!({
            "policy": "SCHED_DEADLINE", "runtime": runtime, "deadline": deadline, "period": period
        })
    };
    let with_flag = |policy: &str, flag: &str| json!({"policy": policy, "flags": [flag]});
    for (value, expected) in [
        (deadline(0, 2000, 3000), "process.scheduler.runtime: \"0\""),
        (deadline(1023, 2000, 3000), "process.scheduler.runtime: \"1023\""),
        (deadline(2001, 2000, 3000), "process.scheduler.deadline: "),
        (deadline(1024, 0, 3000), "process.scheduler.deadline: "),
        (deadline(1024, 2000, 1999), "process.scheduler.period: "),
        (deadline(1024, 1 << 63, 0), "process.scheduler.deadline: \"9223372036854775808\""),
        (deadline(1024, 2000, u64::MAX), "process.scheduler.period: \"18446744073709551615\""),
        (json!({"policy": "SCHED_FIFO", "priority": 1, "period": 1}), "process.scheduler.period: "),
        (json!({"policy": "SCHED_OTHER", "runtime": 1}), "process.scheduler.runtime: "),
        (json!({"policy": "SCHED_FIFO", "priority": 100}), "process.scheduler.priority: "),
        (json!({"policy": "SCHED_RR"}), "process.scheduler.priority: "),
        (json!({"policy": "SCHED_BATCH", "priority": 1}), "process.scheduler.priority: "),
        (json!({"policy": "SCHED_OTHER", "nice": 20}), "process.scheduler.nice: "),
        (json!({"policy": "SCHED_IDLE", "nice": 5}), "process.scheduler.nice: belongs to"),
        (with_flag("SCHED_OTHER", "SCHED_FLAG_RECLAIM"), "process.scheduler.flags[0]: "),
        (with_flag("SCHED_IDLE", "SCHED_FLAG_DL_OVERRUN"), "process.scheduler.flags[0]: "),
        (with_flag("SCHED_OTHER", "SCHED_FLAG_UTIL_CLAMP_MIN"), "process.scheduler.flags[0]: "),
        (with_flag("SCHED_OTHER", "SCHED_FLAG_UTIL_CLAMP_MAX"), "process.scheduler.flags[0]: "),
    ] {
        let said = said(value);
        assert!(said.starts_with(expected), "no {expected:?} in {said}");
    }
}

#[test]
fn cpus_are_about_execs_and_the_execution_domain_about_all() {
    let spec = with(minimal(), "/linux/personality", json!({"domain": "LINUX32"}));
    let affinity = json!({"initial": "0-3,7", "final": "9"});
    let spec = with(spec, "/process/execCPUAffinity", affinity);
    let spec =
        with(spec, "/process/ioPriority", json!({"class": "IOPRIO_CLASS_IDLE", "priority": 7}));
    let first = lower(spec.clone(), &minimal_context()).unwrap().1.process.unwrap();
    assert!(first.cpus_at_clone.is_empty() && first.cpus.is_empty());
    assert_eq!((first.personality, first.io_priority), (Some(8), Some(3 << 13 | 7)));
    let spec: Spec = serde_json::from_value(spec).unwrap();
    let context = ExecContext {
        personality: spec.linux().as_ref().unwrap().personality().clone(),
        ..ExecContext::default()
    };
    let further = exec(spec.process().as_ref().unwrap(), None, &context).unwrap().process.unwrap();
    assert_eq!((further.cpus_at_clone, further.cpus), (vec![0b1000_1111], vec![0, 0b10]));
    assert_eq!((further.personality, further.io_priority), (Some(8), Some(3 << 13 | 7)));
}

#[test]
fn capabilities_that_can_t_be_granted_are_said_and_passed_over() {
    let sets = json!({
        "bounding": ["CAP_CHOWN", "CAP_FLY"],
        "permitted": ["CAP_CHOWN"],
        "effective": ["CAP_TELEPORT"],
        "inheritable": ["CAP_CHOWN"],
        "ambient": ["CAP_CHOWN", "CAP_KILL"],
    });
    let text = with(minimal(), "/process/capabilities", sets).to_string();
    let parsed = shim_plan::parse::config(text.as_bytes()).unwrap();
    assert_eq!(
        parsed.warnings,
        [
            "process.capabilities.bounding: \"CAP_FLY\" is no capability and is passed over",
            "process.capabilities.effective: \"CAP_TELEPORT\" is no capability and is passed over",
            "process.capabilities.ambient: \"CAP_KILL\" is not both permitted and inheritable and is passed over",
        ]
    );
    let plan = shim_plan::plan(&parsed.value, &minimal_context()).unwrap().1;
    let sets = plan.process.unwrap().capabilities.unwrap();
    assert_eq!((sets.bounding, sets.effective, sets.ambient), (1, 0, 1));
}

#[test]
fn how_a_process_runs_is_refused_by_its_path() {
    let table = [
        (
            "/process/scheduler",
            json!({"policy": "SCHED_ISO"}),
            "process.scheduler.policy: \"SCHED_ISO\" is not supported",
        ),
        (
            "/process/scheduler",
            json!({"policy": "SCHED_FIFO"}),
            "process.scheduler.priority: \"0\" is not between 1 and 99",
        ),
        (
            "/process/scheduler",
            json!({"policy": "SCHED_OTHER", "priority": 1}),
            "process.scheduler.priority: belongs to SCHED_FIFO and SCHED_RR alone",
        ),
        (
            "/process/scheduler",
            json!({"policy": "SCHED_OTHER", "nice": 20}),
            "process.scheduler.nice: \"20\" is not between -20 and 19",
        ),
        (
            "/process/scheduler",
            json!({"policy": "SCHED_OTHER", "runtime": 1}),
            "process.scheduler.runtime: runtime, deadline and period belong to SCHED_DEADLINE alone",
        ),
        (
            "/process/scheduler",
            json!({"policy": "SCHED_DEADLINE", "runtime": 2048, "deadline": 1024}),
            "process.scheduler.deadline: is less than process.scheduler.runtime, and SCHED_DEADLINE needs runtime <= deadline <= period",
        ),
        (
            "/process/ioPriority",
            json!({"class": "IOPRIO_CLASS_BE", "priority": 8}),
            "process.ioPriority.priority: \"8\" is not between 0 and 7",
        ),
        (
            "/process/execCPUAffinity",
            json!({"initial": "3-1"}),
            "process.execCPUAffinity.initial: \"3-1\" is not a list of CPUs",
        ),
        (
            "/process/execCPUAffinity",
            json!({"final": "8192"}),
            "process.execCPUAffinity.final: \"8192\" is not a list of CPUs",
        ),
        (
            "/linux/personality",
            json!({"domain": "LINUX", "flags": ["X"]}),
            "linux.personality.flags[0]: \"X\" is not supported",
        ),
        (
            "/process/capabilities",
            json!({"effective": ["CAP_CHOWN"]}),
            "process.capabilities.effective: names what process.capabilities.permitted does not",
        ),
        (
            "/process/capabilities",
            json!({"inheritable": ["CAP_CHOWN"]}),
            "process.capabilities.inheritable: names what process.capabilities.bounding does not",
        ),
    ];
    for (path, value, message) in table {
        let said = lower(with(minimal(), path, value), &minimal_context()).unwrap_err();
        assert!(said.starts_with(message), "{said}\nis not {message}");
    }
}

#[test]
fn what_is_no_specification_is_refused_where_it_is_none() {
    let table = [
        ("/ociVersion", json!("2.0.0"), "ociVersion: \"2.0.0\" is not a version 1.x.y"),
        ("/ociVersion", json!(""), "ociVersion: \"\" is not"),
        ("/freebsd", json!({}), "freebsd: not supported"),
        ("/process/user/uid", json!(-1), "process.user.uid: invalid value: integer `-1`"),
        ("/process/args", json!(["a", 1]), "process.args[1]: invalid type: integer `1`"),
        (
            "/process/rlimits",
            json!([{"type": "RLIMIT_FOO", "soft": 1, "hard": 1}]),
            "process.rlimits[0].type: unknown variant `RLIMIT_FOO`",
        ),
        (
            "/process/scheduler",
            json!({"policy": "SCHED_X"}),
            "process.scheduler.policy: unknown variant",
        ),
        (
            "/process/scheduler",
            json!({"policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_X"]}),
            "process.scheduler.flags[0]: unknown variant",
        ),
        ("/process/execCPUAffinity", json!({"initial": "x"}), "process.execCPUAffinity"),
        (
            "/linux/seccomp",
            json!({"defaultAction": "SCMP_ACT_X"}),
            "linux.seccomp.defaultAction: unknown variant",
        ),
        (
            "/linux/seccomp",
            json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_X"]}),
            "linux.seccomp.flags[0]: unknown variant",
        ),
        ("/mounts", json!([{}]), "mounts[0]: missing field `destination`"),
        (
            "/linux/namespaces",
            json!([{"type": "planet"}]),
            "linux.namespaces[0].type: unknown variant",
        ),
    ];
    for (path, value, message) in table {
        let text = with(minimal(), path, value).to_string();
        let said = shim_plan::parse::config(text.as_bytes()).unwrap_err().to_string();
        assert!(said.starts_with(message), "{said}\nis not {message}");
    }
    let said = shim_plan::parse::config(b"{").unwrap_err().to_string();
    assert!(said.starts_with("not JSON: EOF while parsing"), "{said}");
    let said = shim_plan::parse::process(b"{\"cwd\": 1}").unwrap_err().to_string();
    assert!(said.starts_with("process.cwd: invalid type"), "{said}");
}

#[test]
fn an_agent_of_seccomp_is_told_the_container() {
    let seccomp = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": "/run/agent.sock",
        "listenerMetadata": "words",
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}],
    });
    let spec = with(minimal(), "/linux/seccomp", seccomp.clone());
    let context = Context { id: "web".into(), ..minimal_context() };
    let notify = lower(spec.clone(), &context).unwrap().1.process.unwrap().notify.unwrap();
    let state = State {
        oci_version: "1.0.2".into(),
        id: "web".into(),
        bundle: "/bundle".into(),
        ..State::default()
    };
    let expected = Notify {
        path: "/run/agent.sock".into(),
        metadata: "words".into(),
        state: Some(state.clone()),
        is_exec: false,
    };
    assert_eq!(notify, expected);
    let typed: Spec = serde_json::from_value(spec.clone()).unwrap();
    assert_eq!(shim_plan::state(&typed, &context).unwrap(), state);
    let profile = typed.linux().as_ref().unwrap().seccomp().as_ref();
    let context_of_exec = ExecContext { state, ..ExecContext::default() };
    let further = exec(typed.process().as_ref().unwrap(), profile, &context_of_exec).unwrap();
    assert_eq!(further.process.unwrap().notify, Some(Notify { is_exec: true, ..expected }));

    let quiet = with(spec.clone(), "/linux/seccomp/syscalls", json!([]));
    assert_eq!(lower(quiet, &context).unwrap().1.process.unwrap().notify, None);
    let relative = with(spec.clone(), "/linux/seccomp/listenerPath", json!("agent.sock"));
    let said = lower(relative, &context).unwrap_err();
    assert!(said.starts_with("linux.seccomp.listenerPath: \"agent.sock\" is not"), "{said}");
    let hooked = with(spec, "/hooks", json!({"startContainer": [{"path": "/x"}]}));
    let said = lower(hooked, &context).unwrap_err();
    assert!(said.starts_with("hooks.startContainer: run under"), "{said}");
}
