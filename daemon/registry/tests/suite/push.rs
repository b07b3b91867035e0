//! Pushing blobs and documents.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bosun_image::{Descriptor, Digest, media_type};
use bosun_registry::{Error, Pushed, Registry};
use bytes::Bytes;
use futures::stream;

use super::fake::{Fake, Reply, blob};
use super::{manifest, options, password, repository, repository_of};

type Stream = stream::Iter<std::vec::IntoIter<io::Result<Bytes>>>;

fn pieces(bytes: &[u8]) -> Stream {
    let all: Vec<_> = bytes.chunks(7000).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    stream::iter(all)
}

#[tokio::test]
async fn a_blob_goes_to_where_the_registry_says() {
    let (bytes, descriptor) = blob(100_000);
    for absolute in [false, true] {
        let fake = Fake::start(move |request| match request.method.as_str() {
            "HEAD" => Reply::new(404, ""),
            "POST" => {
                let host = request.header("host").unwrap();
                let base = if absolute { format!("http://{host}") } else { String::new() };
                Reply::new(202, "").with("Location", format!("{base}/up/1?state=x"))
            }
            _ => Reply::new(201, ""),
        })
        .await;
        let repository = repository(&fake.host()).await;
        let pushed = repository.push_blob(&descriptor, || pieces(&bytes), &[]).await.unwrap();
        assert_eq!(pushed, Pushed::Uploaded);
        let seen = fake.seen();
        assert_eq!(seen[1].path, "/v2/a/b/blobs/uploads/");
        let digest = descriptor.digest.as_str().replace(':', "%3A");
        assert_eq!(seen[2].path, format!("/up/1?state=x&digest={digest}"));
        assert!(seen[2].body == bytes);
        assert_eq!(seen[2].header("content-length"), Some("100000"));
    }
}

#[tokio::test]
async fn what_is_there_or_can_be_mounted_is_not_sent() {
    let (bytes, descriptor) = blob(10);
    let fake = Fake::start(|_| Reply::ok("")).await;
    let there = repository(&fake.host()).await;
    let pushed = there.push_blob(&descriptor, || pieces(&bytes), &[]).await.unwrap();
    assert_eq!((pushed, fake.seen().len()), (Pushed::Exists, 1));

    let fake = Fake::start(|request| match request.path.as_str() {
        path if path.ends_with("&from=c/d") => Reply::new(201, ""),
        path if path.contains("mount=") => Reply::new(202, "").with("Location", "/up/0"),
        _ => Reply::new(404, ""),
    })
    .await;
    let there = repository(&fake.host()).await;
    let from = ["x/y".to_owned(), "c/d".to_owned()];
    let pushed = there.push_blob(&descriptor, || pieces(&bytes), &from).await.unwrap();
    assert_eq!((pushed, fake.seen().len()), (Pushed::Mounted, 3));

    // Not there after all: the session that the question opened is used.
    let fake = Fake::start(|request| match request.method.as_str() {
        "HEAD" => Reply::new(404, ""),
        "POST" => Reply::new(202, "").with("Location", "/up/0"),
        _ => Reply::new(201, ""),
    })
    .await;
    let there = repository(&fake.host()).await;
    let pushed = there.push_blob(&descriptor, || pieces(&bytes), &from[..1]).await.unwrap();
    assert_eq!((pushed, fake.seen().len()), (Pushed::Uploaded, 3));
}

#[tokio::test]
async fn a_broken_upload_is_begun_anew() {
    let (bytes, descriptor) = blob(50_000);
    let count = AtomicUsize::new(0);
    let fake = Fake::start(move |request| match request.method.as_str() {
        "HEAD" => Reply::new(404, ""),
        "POST" => Reply::new(202, "").with("Location", "/up/0"),
        _ if count.fetch_add(1, Ordering::SeqCst) == 0 => Reply::new(502, ""),
        _ => Reply::new(201, ""),
    })
    .await;
    let repository = repository(&fake.host()).await;
    repository.push_blob(&descriptor, || pieces(&bytes), &[]).await.unwrap();
    let last = fake.seen().pop().unwrap();
    assert!(last.method == "PUT" && last.body == bytes);
}

#[tokio::test]
async fn an_upload_elsewhere_carries_no_credentials() {
    let (bytes, descriptor) = blob(1000);
    let elsewhere = Fake::start(|_| Reply::new(201, "")).await;
    let to = elsewhere.url("/up");
    let fake = Fake::start(move |request| match request.method.as_str() {
        _ if request.header("authorization").is_none() => Reply::challenge("Basic"),
        "HEAD" => Reply::new(404, ""),
        _ => Reply::new(202, "").with("Location", &to),
    })
    .await;
    let who = Some(password(&fake.host(), "hunter2"));
    let repository = repository_of(&Registry::new(options()), &fake.host(), who).await;
    repository.push_blob(&descriptor, || pieces(&bytes), &[]).await.unwrap();
    assert!(elsewhere.seen()[0].header("authorization").is_none());
    assert!(elsewhere.seen()[0].body == bytes);
}

#[tokio::test]
async fn bytes_that_cannot_be_read_are_the_error() {
    let (_, descriptor) = blob(50_000);
    let fake = Fake::start(|request| match request.method.as_str() {
        "HEAD" => Reply::new(404, ""),
        _ => Reply::new(202, "").with("Location", "/up/0"),
    })
    .await;
    let torn = || stream::iter(vec![Ok(Bytes::from_static(b"x")), Err(io::Error::other("torn"))]);
    let repository = repository(&fake.host()).await;
    let error = repository.push_blob(&descriptor, torn, &[]).await.unwrap_err();
    assert!(matches!(&error, Error::Upload { source, .. } if source.to_string() == "torn"));
    assert_eq!(fake.seen().iter().filter(|request| request.method == "POST").count(), 1);
}

#[tokio::test]
async fn a_document_goes_under_its_tag_or_its_digest() {
    let bytes = Bytes::from(manifest());
    let descriptor = Descriptor::of(media_type::OCI_MANIFEST, &bytes);
    let fake = Fake::start(|_| Reply::new(201, "")).await;
    let repository = repository(&fake.host()).await;
    repository.push_manifest(&descriptor, bytes.clone(), Some("1.0")).await.unwrap();
    repository.push_manifest(&descriptor, bytes.clone(), None).await.unwrap();
    let seen = fake.seen();
    assert_eq!(seen[0].path, "/v2/a/b/manifests/1.0");
    assert_eq!(seen[1].path, format!("/v2/a/b/manifests/{}", descriptor.digest));
    assert_eq!(seen[0].header("content-type"), Some(media_type::OCI_MANIFEST));
    assert!(seen[0].body == bytes);
    let other = Bytes::from_static(b"other");
    let result = repository.push_manifest(&descriptor, other, None).await;
    assert!(matches!(result, Err(Error::BadDigest { .. })));
}

#[tokio::test]
async fn what_the_registry_kept_is_checked() {
    let bytes = Bytes::from(manifest());
    let descriptor = Descriptor::of(media_type::OCI_MANIFEST, &bytes);
    let stated = Digest::of(b"other");
    let fake =
        Fake::start(move |_| Reply::new(201, "").with("Docker-Content-Digest", &stated)).await;
    let there = repository(&fake.host()).await;
    let result = there.push_manifest(&descriptor, bytes.clone(), None).await;
    assert!(matches!(result, Err(Error::BadDigest { .. })));
    let fake = Fake::start(|_| Reply::ok("")).await;
    let there = repository(&fake.host()).await;
    let result = there.push_manifest(&descriptor, bytes, None).await;
    assert!(matches!(result, Err(Error::BadAnswer { .. })));
}

/// The scope of a push, and of the repository that is mounted from.
#[tokio::test]
async fn a_push_asks_for_its_own_scope() {
    let (bytes, descriptor) = blob(10);
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let tokens = Arc::clone(&asked);
    let fake = Fake::start(move |request| {
        let host = request.header("host").unwrap();
        if request.path.starts_with("/token") {
            tokens.lock().unwrap().push(request.path.replace("%3A", ":").replace("%2F", "/"));
            return Reply::ok(r#"{"token":"t"}"#);
        }
        match request.method.as_str() {
            _ if request.header("authorization").is_none() => {
                Reply::challenge(&format!("Bearer realm=\"http://{host}/token\""))
            }
            "HEAD" => Reply::new(404, ""),
            _ => Reply::new(201, ""),
        }
    })
    .await;
    let repository = repository(&fake.host()).await;
    let from = ["c/d".to_owned()];
    repository.push_blob(&descriptor, || pieces(&bytes), &from).await.unwrap();
    assert_eq!(
        *asked.lock().unwrap(),
        [
            "/token?scope=repository:a/b:pull%2Cpush",
            "/token?scope=repository:a/b:pull%2Cpush&scope=repository:c/d:pull",
        ]
    );
}

#[tokio::test]
async fn an_upload_without_an_answer_is_a_stall() {
    let (bytes, descriptor) = blob(50_000);
    let fake = Fake::start(|request| match request.method.as_str() {
        "HEAD" => Reply::new(404, ""),
        "POST" => Reply::new(202, "").with("Location", "/up/0"),
        _ => Reply::dead(),
    })
    .await;
    let repository = repository(&fake.host()).await;
    let error = repository.push_blob(&descriptor, || pieces(&bytes), &[]).await.unwrap_err();
    assert!(matches!(error, Error::Stalled { .. }), "{error:?}");
    assert_eq!(fake.seen().iter().filter(|request| request.method == "PUT").count(), 3);
}
