//! Resolving names and reading documents.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bosun_image::{Descriptor, Digest, media_type};
use bosun_registry::{Error, Registry};

use super::fake::{Fake, Reply};
use super::{manifest, options, repository};

#[tokio::test]
async fn a_tag_is_resolved_and_its_document_verified() {
    let digest = Digest::of(&manifest());
    let stated = digest.clone();
    let fake = Fake::start(move |_| {
        Reply::ok(manifest())
            .with("Content-Type", media_type::OCI_MANIFEST)
            .with("Docker-Content-Digest", &stated)
    })
    .await;
    let repository = repository(&fake.host()).await;
    let resolved = repository.resolve().await.unwrap();
    let wanted = Descriptor::of(media_type::OCI_MANIFEST, &manifest());
    assert_eq!((resolved.descriptor, &resolved.body[..]), (wanted.clone(), &manifest()[..]));
    assert_eq!(repository.manifest(&wanted).await.unwrap(), manifest());
    let paths = ["GET /v2/a/b/manifests/tag".to_owned(), format!("GET /v2/a/b/manifests/{digest}")];
    assert_eq!(fake.paths(), paths);
    let seen = fake.seen();
    let accept = seen[0].header("accept").unwrap();
    assert!(accept.contains(media_type::OCI_INDEX) && accept.contains(media_type::DOCKER_MANIFEST));
    assert_eq!(seen[0].connection, seen[1].connection, "a connection is used again");
}

#[tokio::test]
async fn other_content_than_the_digest_says_is_refused() {
    let other = Digest::of(b"other");
    let stated = other.clone();
    let fake =
        Fake::start(move |_| Reply::ok(manifest()).with("Docker-Content-Digest", &stated)).await;
    let here = repository(&fake.host()).await;
    assert!(matches!(here.resolve().await, Err(Error::BadDigest { .. })));

    let fake = Fake::start(|_| Reply::ok(manifest())).await;
    let by_digest = format!("{}/a/b:tag@{other}", fake.host()).parse().unwrap();
    let registry = Registry::new(options());
    let there = registry.repository(&by_digest, None).await.unwrap();
    let error = there.resolve().await.unwrap_err();
    assert!(matches!(&error, Error::BadDigest { wanted, .. } if *wanted == other));
    let text = error.to_string();
    assert!(text.contains(other.as_str()) && text.contains(&fake.host()), "{text}");
    assert_eq!(fake.paths(), [format!("GET /v2/a/b/manifests/{other}")]);

    let size = manifest().len() as u64;
    let wrong = Descriptor::new(media_type::OCI_MANIFEST, other, size);
    assert!(matches!(there.manifest(&wrong).await, Err(Error::BadDigest { .. })));
    for size in [size - 1, size + 1] {
        let wrong = Descriptor::new(media_type::OCI_MANIFEST, Digest::of(&manifest()), size);
        assert!(matches!(there.manifest(&wrong).await, Err(Error::BadLength { .. })), "{size}");
    }
}

#[tokio::test]
async fn what_is_no_document_is_refused() {
    let bodies = ["<html>", "", "{}", r#"{"schemaVersion":1}"#];
    for body in bodies {
        let fake = Fake::start(move |_| Reply::ok(body)).await;
        let result = repository(&fake.host()).await.resolve().await;
        assert!(matches!(result, Err(Error::BadDocument { .. })), "{body}: {result:?}");
        assert_eq!(fake.seen().len(), 1, "{body}: never asked again");
    }
}

#[tokio::test]
async fn a_document_of_100_mb_is_not_read() {
    for chunked in [false, true] {
        let fake = Fake::start(move |_| {
            let reply = Reply::ok(vec![b' '; 100 << 20]);
            if chunked { reply.chunked() } else { reply }
        })
        .await;
        let result = repository(&fake.host()).await.resolve().await;
        assert!(matches!(result, Err(Error::TooLarge { .. })), "{result:?}");
    }
    let fake = Fake::start(|_| Reply::ok("")).await;
    let large = Descriptor::new(media_type::OCI_MANIFEST, Digest::of(b""), 100 << 20);
    let result = repository(&fake.host()).await.manifest(&large).await;
    assert!(matches!(result, Err(Error::TooLarge { .. })));
    assert!(fake.seen().is_empty());
}

#[tokio::test]
async fn a_refusal_is_told_by_its_name_and_not_tried_again() {
    let body = r#"{"errors":[{"code":"X","message":"no\u001b[2J\u202eway"}]}"#;
    for status in [401, 403, 404, 418] {
        let fake = Fake::start(move |_| Reply::new(status, body)).await;
        let error = repository(&fake.host()).await.resolve().await.unwrap_err();
        let named = match status {
            401 => matches!(error, Error::Unauthorized { .. }),
            403 => matches!(error, Error::Denied { .. }),
            404 => matches!(error, Error::NotFound { .. }),
            _ => matches!(error, Error::Status { status: 418, .. }),
        };
        let text = error.to_string();
        assert!(named && text.contains(&fake.host()) && text.contains("a/b:tag"), "{text}");
        assert!(!text.contains(['\u{1b}', '\u{202e}']), "{text:?}");
        assert!(status == 404 || text.contains("no\\u{1b}[2J\\u{202e}way"), "{text}");
        assert_eq!(fake.seen().len(), 1, "{status}");
    }
}

#[tokio::test]
async fn what_passes_is_tried_again_and_told() {
    for status in [429, 500, 502, 503, 504] {
        let count = AtomicUsize::new(0);
        let fake = Fake::start(move |_| match count.fetch_add(1, Ordering::SeqCst) {
            0 | 1 => Reply::new(status, ""),
            _ => Reply::ok(manifest()),
        })
        .await;
        let told: Arc<Mutex<Vec<String>>> = Arc::default();
        let tell = Arc::clone(&told);
        let repository = repository(&fake.host()).await.on_retry(move |retry| {
            tell.lock().unwrap().push(format!("{}: {}", retry.what, retry.reason));
        });
        repository.resolve().await.unwrap();
        let told = told.lock().unwrap();
        let status = if status == 429 { "too many".to_owned() } else { status.to_string() };
        assert!(told.len() == 2 && told[0].contains(&status), "{told:?}");
    }
}

#[tokio::test]
async fn trying_again_has_an_end() {
    for (status, times) in [(503, 3), (429, 3), (501, 1)] {
        let fake = Fake::start(move |_| Reply::new(status, "")).await;
        let error = repository(&fake.host()).await.resolve().await.unwrap_err();
        assert_eq!(fake.seen().len(), times, "{error}");
    }
}

#[tokio::test]
async fn a_registry_may_ask_for_a_pause_and_not_for_ever() {
    for (seconds, least, most) in [("0", 0, 250), ("3600", 250, 2000), ("x", 0, 250)] {
        let count = AtomicUsize::new(0);
        let fake = Fake::start(move |_| match count.fetch_add(1, Ordering::SeqCst) {
            0 => Reply::new(429, "").with("Retry-After", seconds),
            _ => Reply::ok(manifest()),
        })
        .await;
        let start = Instant::now();
        repository(&fake.host()).await.resolve().await.unwrap();
        let range = Duration::from_millis(least)..Duration::from_millis(most);
        assert!(range.contains(&start.elapsed()), "{seconds}: {:?}", start.elapsed());
    }
}

#[tokio::test]
async fn silence_and_a_body_cut_anywhere_end_in_a_clear_error() {
    let fake = Fake::start(|_| Reply::dead()).await;
    let error = repository(&fake.host()).await.resolve().await.unwrap_err();
    assert!(matches!(error, Error::Stalled { .. }), "{error}");
    assert!(error.to_string().contains("no answer"), "{error}");
    let length = manifest().len();
    for at in [0, 1, length / 2, length - 1] {
        let fake = Fake::start(move |_| Reply::ok(manifest()).cut(at)).await;
        let error = repository(&fake.host()).await.resolve().await.unwrap_err();
        assert!(matches!(error, Error::Broken { .. }), "{at}: {error:?}");
        assert_eq!(fake.seen().len(), 3);
    }
    for at in [0, length / 2] {
        let fake = Fake::start(move |_| Reply::ok(manifest()).silent_after(at)).await;
        let error = repository(&fake.host()).await.resolve().await.unwrap_err();
        assert!(matches!(error, Error::Stalled { received, .. } if received == at as u64));
    }
}

#[tokio::test]
async fn garbage_and_nobody_there_are_clear_errors() {
    let nobody = {
        let fake = Fake::start(|_| Reply::ok("")).await;
        fake.host()
    };
    let error = repository(&nobody).await.resolve().await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }));
    assert!(error.to_string().contains("refused"), "{error}");
    let fake = Fake::start(|_| Reply::ok("").with("Bad\u{1}Header", "x")).await;
    let error = repository(&fake.host()).await.resolve().await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
}

#[tokio::test]
async fn redirects_are_followed_a_few_times_and_never_in_a_ring() {
    let fake = Fake::start(|request| match request.path.as_str() {
        "/v2/a/b/manifests/tag" => Reply::redirect("/1"),
        "/1" => Reply::redirect("two"),
        "/two" => Reply::ok(manifest()),
        _ => Reply::new(404, ""),
    })
    .await;
    repository(&fake.host()).await.resolve().await.unwrap();

    let fake = Fake::start(|request| match request.path.as_str() {
        "/x" => Reply::redirect("/y"),
        _ => Reply::redirect("/x"),
    })
    .await;
    let error = repository(&fake.host()).await.resolve().await.unwrap_err();
    assert!(matches!(error, Error::RedirectLoop { .. }));
    assert_eq!(fake.seen().len(), 3, "{:?}", fake.paths());

    let fake = Fake::start(|request| Reply::redirect(&format!("{}x", request.path))).await;
    let error = repository(&fake.host()).await.resolve().await.unwrap_err();
    assert!(matches!(error, Error::RedirectLoop { .. }));
    assert_eq!(fake.seen().len(), 6);

    for nowhere in ["file:///etc/passwd", "ftp://127.0.0.1/", "http://", "\u{e9}"] {
        let fake = Fake::start(move |_| Reply::redirect(nowhere)).await;
        let error = repository(&fake.host()).await.resolve().await.unwrap_err();
        assert!(matches!(error, Error::BadRedirect { .. }), "{nowhere}: {error}");
    }
}
