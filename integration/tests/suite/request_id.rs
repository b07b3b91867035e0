//! A call that is repeated with its request id is done once.

use bosun_proto::v1;
use integration::api::{options, reason};
use integration::daemon::Daemon;
use tonic::Code;

#[test]
fn a_repeated_create_is_the_same_container() {
    let daemon = Daemon::start();
    let api = daemon.api();
    let first = api.create("r1", options("one", &["/bin/true"])).unwrap();
    assert_eq!(api.create("r1", options("one", &["/bin/true"])).unwrap(), first);
    assert_eq!(api.list().len(), 1);
}

#[test]
fn another_body_under_the_same_id_is_refused() {
    let daemon = Daemon::start();
    let api = daemon.api();
    api.create("r1", options("one", &["/bin/true"])).unwrap();
    let status = api.create("r1", options("one", &["/bin/false"])).unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
}

#[test]
fn another_id_for_the_same_name_is_refused() {
    let daemon = Daemon::start();
    let api = daemon.api();
    api.create("r1", options("one", &["/bin/true"])).unwrap();
    let status = api.create("r2", options("one", &["/bin/true"])).unwrap_err();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::AlreadyExists, "NAME_IN_USE"),
        "{status}"
    );
}

#[test]
fn it_is_remembered_by_the_next_daemon() {
    let mut daemon = Daemon::start();
    let first = daemon.api().create("r1", options("one", &["/bin/true"])).unwrap();
    daemon.kill();
    daemon.start_again();
    assert_eq!(daemon.api().create("r1", options("one", &["/bin/true"])).unwrap(), first);
}

#[test]
fn a_hundred_at_once_are_one_container() {
    let daemon = Daemon::start();
    let api = daemon.api();
    let ids = api.wait(async {
        let calls: Vec<_> = (0..100)
            .map(|_| {
                let mut client = api.containers();
                let request = v1::CreateRequest {
                    request_id: "r1".to_owned(),
                    options: Some(options("one", &["/bin/true"])),
                };
                tokio::spawn(async move {
                    client.create(request).await.map(|answer| answer.into_inner().id)
                })
            })
            .collect();
        let mut ids = std::collections::BTreeSet::new();
        for call in calls {
            ids.insert(call.await.unwrap().unwrap());
        }
        ids
    });
    assert_eq!(ids.len(), 1);
    assert_eq!(api.list().len(), 1);
}

#[test]
fn a_repeated_start_and_remove_are_answered_alike() {
    let daemon = Daemon::start();
    let api = daemon.api();
    api.create("", options("one", &["/bin/sleep", "600"])).unwrap();
    let start = v1::StartRequest { request_id: "s1".to_owned(), container: "one".to_owned() };
    let pids: Vec<u32> = (0..2)
        .map(|_| {
            api.wait(async { api.containers().start(start.clone()).await })
                .unwrap()
                .into_inner()
                .pid
        })
        .collect();
    assert_eq!(pids[0], pids[1]);
    let remove =
        v1::RemoveRequest { request_id: "d1".to_owned(), container: "one".to_owned(), force: true };
    for _ in 0..2 {
        api.wait(async { api.containers().remove(remove.clone()).await }).unwrap();
    }
}

#[test]
fn a_client_that_gives_up_and_asks_again_gets_the_one_that_was_made() {
    let daemon = Daemon::start();
    let api = daemon.api();
    let request = v1::CreateRequest {
        request_id: "r1".to_owned(),
        options: Some(options("one", &["/bin/sleep", "600"])),
    };
    for micros in [0, 300, 1000, 3000, 10_000] {
        let mut client = api.containers();
        let call = client.run(request.clone());
        let _ = api.wait(async {
            tokio::time::timeout(std::time::Duration::from_micros(micros), call).await
        });
    }
    let id = api.wait(async { api.containers().run(request).await }).unwrap().into_inner().id;
    let all = api.list();
    assert_eq!((all.len(), all[0].id.as_str()), (1, id.as_str()));
    assert_eq!(daemon.inspect("one", "{{.State.Status}}"), "running");
}
