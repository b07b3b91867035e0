//! Numbered, durable events.

use bosun_proto::v1;
use integration::api::Api;
use integration::daemon::Daemon;
use integration::wait;
use tokio_stream::StreamExt;

/// The stored events from a number on.
fn stored(api: &Api, since: u64) -> Vec<v1::Event> {
    let now = std::time::SystemTime::now();
    let request = v1::SubscribeRequest {
        since_sequence: Some(since),
        until: Some(now.into()),
        ..Default::default()
    };
    api.wait(async {
        let stream = api.events().subscribe(request).await.unwrap().into_inner();
        stream.map(Result::unwrap).collect().await
    })
}

fn actions(events: &[v1::Event]) -> Vec<&str> {
    events
        .iter()
        .filter(|event| event.r#type == "container")
        .map(|event| event.action.as_str())
        .collect()
}

#[test]
fn a_run_is_told_from_create_to_destroy() {
    let daemon = Daemon::start();
    daemon.ctl("run --rm --name one --net none --rootfs / /bin/sh -c 'exit 3'").check(3);
    let events = wait::until("the last event", || {
        let events = stored(&daemon.api(), 0);
        actions(&events).contains(&"destroy").then_some(events)
    });
    let told = actions(&events);
    let order: Vec<_> = ["create", "start", "die", "destroy"]
        .map(|action| told.iter().position(|told| *told == action))
        .into();
    assert!(order.iter().all(Option::is_some) && order.is_sorted(), "{told:?}");
    let die = events.iter().find(|event| event.action == "die").unwrap();
    assert_eq!(die.attributes["exitCode"], "3");
    assert_eq!(die.attributes["name"], "one");
}

#[test]
fn numbers_have_no_holes_and_survive_a_kill() {
    let mut daemon = Daemon::start();
    daemon.ctl("run --rm --net none --rootfs / /bin/true").ok();
    daemon.kill();
    daemon.start_again();
    daemon.ctl("run --rm --net none --rootfs / /bin/true").ok();
    let events = stored(&daemon.api(), 0);
    let numbers: Vec<u64> = events.iter().map(|event| event.sequence).collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?}");
    assert!(actions(&events).iter().filter(|action| **action == "create").count() == 2);
}

#[test]
fn a_reader_goes_on_where_it_was() {
    let daemon = Daemon::start();
    daemon.ctl("create --name one --net none --rootfs / /bin/true").ok();
    let first = stored(&daemon.api(), 0);
    let last = first.last().unwrap().sequence;
    daemon.ctl("rm one").ok();
    let rest = stored(&daemon.api(), last + 1);
    assert_eq!(rest.first().unwrap().sequence, last + 1);
    assert!(!actions(&rest).contains(&"create") && actions(&rest).contains(&"destroy"));
}

#[test]
fn live_events_follow_the_stored_ones() {
    let daemon = Daemon::start();
    daemon.ctl("create --name one --net none --rootfs / /bin/true").ok();
    let (reader, writer) = (daemon.api(), daemon.client().clone());
    let request = v1::SubscribeRequest { since_sequence: Some(0), ..Default::default() };
    let seen = reader.wait(async {
        let stream = reader.events().subscribe(request).await.unwrap().into_inner();
        let thread = std::thread::spawn(move || writer.run("rm one").ok());
        let seen: Vec<_> = stream
            .map(Result::unwrap)
            .map_while(|event| (event.action != "destroy").then_some(event.action))
            .collect()
            .await;
        thread.join().unwrap();
        seen
    });
    assert!(seen.contains(&"create".to_owned()), "{seen:?}");
}

#[test]
fn a_number_of_the_future_gives_nothing_yet() {
    let daemon = Daemon::start();
    let api = daemon.api();
    let info =
        api.wait(async { api.system().info(v1::InfoRequest {}).await }).unwrap().into_inner();
    let past = stored(&api, info.last_event + 1);
    assert!(past.is_empty(), "{past:?}");
}

#[test]
fn the_client_shows_them_filtered() {
    let daemon = Daemon::start();
    let before = "2020-01-01T00:00:00Z";
    daemon.ctl("run --rm --name one --net none --rootfs / /bin/true").ok();
    daemon.ctl("run --rm --name two --net none --rootfs / /bin/true").ok();
    let shown = wait::until("both ends", || {
        let shown = daemon.ctl(&format!("events --since {before} --until 2099-01-01T00:00:00Z --filter event=die --filter container=two").replace("2099-01-01T00:00:00Z", &now())).text();
        (!shown.is_empty()).then_some(shown)
    });
    assert_eq!(shown.lines().count(), 1, "{shown}");
    assert!(
        shown.contains("container die")
            && shown.contains("name=two")
            && shown.contains("exitCode=0"),
        "{shown}"
    );
}

fn now() -> String {
    integration::netns::run(
        std::process::Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%S.%NZ"]),
    )
    .trim()
    .to_owned()
}
