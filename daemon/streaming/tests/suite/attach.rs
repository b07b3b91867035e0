//! A client for a process that runs already.

use bosun_streaming::{Attach, Request};

use crate::fake::{ALL, Fixture, OUT};
use crate::spdy::open;

fn url(fixture: &Fixture, container: &str) -> String {
    let streams = if container == "c" { ALL } else { OUT };
    let attach = Attach { container: container.to_owned(), streams };
    fixture.server.url_for(Request::Attach(attach)).unwrap()
}

#[tokio::test]
async fn an_attached_client_has_the_streams_of_the_container() {
    let fixture = Fixture::new().await;
    let url = url(&fixture, "c");
    assert!(url.contains("/attach/"));
    let (mut sender, mut receiver) = open(&url, "v4.channel.k8s.io").await;
    let error = sender.stream("error").await;
    let stdin = sender.stream("stdin").await;
    let stdout = sender.stream("stdout").await;
    sender.stream("stderr").await;
    sender.data(stdin, b"hello\n", true).await;
    receiver.all().await;
    assert_eq!(receiver.text(stdout), "hello\n");
    assert!(receiver.text(error).contains("Success"));
}

#[tokio::test]
async fn what_cannot_be_attached_to_is_said() {
    let fixture = Fixture::new().await;
    let (mut sender, mut receiver) = open(&url(&fixture, "other"), "v4.channel.k8s.io").await;
    let error = sender.stream("error").await;
    sender.stream("stdout").await;
    receiver.all().await;
    assert!(receiver.text(error).contains("container other does not run"));
}
