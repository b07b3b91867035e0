//! Limits of a running container, what it uses, and its standing still.
#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod support;

use prost::Message;
use shim_wire::metrics::{v1, v2};
use shim_wire::plan::{RESOURCES, Resources};
use shim_wire::task::{Any, Empty, StatsResponse, TaskRequest, UpdateTaskRequest};
use shim_wire::ttrpc::Code;
use support::{Client, Failure, SHIM, TASK, TestShim, exec_of, may_run};

fn update(client: &mut Client, shim: &TestShim, resources: &Resources) -> Result<(), Failure> {
    let value = resources.encode_to_vec();
    let request = UpdateTaskRequest {
        id: shim.id.clone(),
        resources: Some(Any { type_url: RESOURCES.to_owned(), value }),
    };
    client.call::<Empty>(TASK, "Update", &request).map(drop)
}

/// How many processes there are, and how many there may be, in whichever message the machine has.
fn pids(client: &mut Client, shim: &TestShim) -> (u64, u64) {
    let request = TaskRequest { id: shim.id.clone() };
    let response: StatsResponse = client.call(TASK, "Stats", &request).unwrap();
    let stats = response.stats.unwrap();
    match stats.type_url.as_str() {
        v1::METRICS => {
            let pids = v1::Metrics::decode(stats.value.as_slice()).unwrap().pids.unwrap();
            (pids.current, pids.limit)
        }
        v2::METRICS => {
            let pids = v2::Metrics::decode(stats.value.as_slice()).unwrap().pids.unwrap();
            (pids.current, pids.limit)
        }
        other => panic!("statistics of type {other}"),
    }
}

#[test]
fn limits_of_a_running_container_are_changed_and_told() {
    if !may_run() {
        return;
    }
    let mut shim = TestShim::start("update");
    let mut client = shim.connect();
    shim.run_shell(&mut client, "exec sleep 1000");
    let limit = |pids| Resources { pids: Some(pids), ..Resources::default() };
    update(&mut client, &shim, &limit(23)).unwrap();
    assert_eq!(pids(&mut client, &shim), (1, 23));
    update(&mut client, &shim, &limit(42)).unwrap();
    assert_eq!(pids(&mut client, &shim), (1, 42));
    let impossible = Resources { memory: Some(1), ..limit(5) };
    let refused = update(&mut client, &shim, &impossible).unwrap_err();
    assert_eq!(refused.code, Code::InvalidArgument);
    assert!(
        refused.message.starts_with("linux.resources.memory.limit: 1: "),
        "{}",
        refused.message
    );
    assert_eq!(pids(&mut client, &shim), (1, 42), "nothing of a refused update is done");
    client.kill("", 9).unwrap();
    client.wait("").unwrap();
    let late = update(&mut client, &shim, &limit(5)).unwrap_err();
    assert_eq!(late.code, Code::NotFound);
    shim.release(&mut client);
}

#[test]
fn what_is_no_resources_of_ours_is_refused_by_its_type() {
    if !may_run() {
        return;
    }
    let mut shim = TestShim::start("update-type");
    let mut client = shim.connect();
    shim.run_shell(&mut client, "exec sleep 1000");
    let request = UpdateTaskRequest {
        id: shim.id.clone(),
        resources: Some(Any { type_url: "x.y.Z".to_owned(), value: Vec::new() }),
    };
    let refused = client.call::<Empty>(TASK, "Update", &request).unwrap_err();
    assert_eq!(refused.code, Code::InvalidArgument);
    assert!(refused.message.contains("\"x.y.Z\""), "{}", refused.message);
    client.kill("", 9).unwrap();
    client.wait("").unwrap();
    shim.release(&mut client);
}

#[test]
fn a_paused_container_takes_no_exec_and_says_that_it_is_paused() {
    if !may_run() {
        return;
    }
    let mut shim = TestShim::start("paused-exec");
    let mut client = shim.connect();
    shim.run_shell(&mut client, "exec sleep 1000");
    let task = TaskRequest { id: shim.id.clone() };
    client.exec("e", &exec_of("true")).unwrap();
    client.call::<Empty>(TASK, "Pause", &task).unwrap();
    assert!(client.status().paused);
    let refused = client.start("e").unwrap_err();
    assert_eq!(refused.code, Code::FailedPrecondition);
    assert!(refused.message.ends_with("the container is paused"), "{}", refused.message);
    let limit = Resources { pids: Some(9), ..Resources::default() };
    update(&mut client, &shim, &limit).unwrap();
    client.call::<Empty>(TASK, "Resume", &task).unwrap();
    assert!(!client.status().paused);
    client.start("e").unwrap();
    assert_eq!(client.wait("e").unwrap(), 0);
    client.kill("", 9).unwrap();
    client.wait("").unwrap();
    let request = shim_wire::shim::ReleaseRequest { attempt: 1 };
    client.call::<Empty>(SHIM, "Release", &request).unwrap();
    shim.wait_end();
}
