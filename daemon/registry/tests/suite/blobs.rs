//! Downloading blobs.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bosun_registry::Error;

use super::fake::{Fake, Reply, Request, blob};
use super::{read, repository};

/// The first byte that a request asks for.
fn from(request: &Request) -> usize {
    let range = request.header("range").unwrap_or("bytes=0-");
    range.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap()
}

/// What a registry with ranges answers.
fn ranged(request: &Request, bytes: &[u8]) -> Reply {
    let first = from(request);
    match first {
        0 => Reply::ok(bytes),
        _ => Reply::new(206, &bytes[first..])
            .with("Content-Range", format!("bytes {first}-{}/{}", bytes.len() - 1, bytes.len())),
    }
}

#[tokio::test]
async fn a_blob_comes_whole_or_from_an_offset() {
    let (bytes, descriptor) = blob(300_000);
    for ranges in [true, false] {
        let served = bytes.clone();
        let fake = Fake::start(
            move |request| {
                if ranges { ranged(request, &served) } else { Reply::ok(&*served) }
            },
        )
        .await;
        let repository = repository(&fake.host()).await;
        for offset in [0, 1, 150_000, 299_999, 300_000] {
            let mut blob = repository.blob(&descriptor, offset as u64).await.unwrap();
            assert!(read(&mut blob).await.unwrap() == bytes[offset..], "{offset}");
            assert_eq!(blob.position(), 300_000);
        }
        assert_eq!(fake.seen().len(), 4, "nothing is asked for when nothing is missing");
        assert!(matches!(
            repository.blob(&descriptor, 300_001).await,
            Err(Error::BadLength { .. })
        ));
        let connections = fake.seen().iter().map(|request| request.connection).max();
        assert_eq!(connections, fake.seen().first().map(|request| request.connection));
    }
}

#[tokio::test]
async fn a_break_anywhere_is_mended_by_range_and_told() {
    let (bytes, descriptor) = blob(200_000);
    for ranges in [true, false] {
        for at in [0, 1, 65_536, 131_072, 199_999] {
            let (served, count) = (bytes.clone(), AtomicUsize::new(0));
            let fake = Fake::start(move |request| {
                let whole = if ranges { ranged(request, &served) } else { Reply::ok(&*served) };
                match count.fetch_add(1, Ordering::SeqCst) {
                    0 => whole.cut(at),
                    _ => whole,
                }
            })
            .await;
            let told: Arc<Mutex<Vec<String>>> = Arc::default();
            let tell = Arc::clone(&told);
            let repository = repository(&fake.host()).await.on_retry(move |retry| {
                tell.lock().unwrap().push(retry.reason.to_string());
            });
            let mut blob = repository.blob(&descriptor, 0).await.unwrap();
            assert!(read(&mut blob).await.unwrap() == bytes, "{at} {ranges}");
            let seen = fake.seen();
            assert_eq!((seen.len(), from(&seen[1])), (2, at));
            let told = told.lock().unwrap();
            assert!(told.len() == 1 && told[0].contains(&format!("byte {at}")), "{told:?}");
        }
    }
}

#[tokio::test]
async fn errors_and_stalls_in_the_middle_are_mended_too() {
    let (bytes, descriptor) = blob(50_000);
    let (served, count) = (bytes.clone(), AtomicUsize::new(0));
    let fake = Fake::start(move |request| match count.fetch_add(1, Ordering::SeqCst) {
        0 => ranged(request, &served).silent_after(20_000),
        1 => Reply::new(503, ""),
        _ => ranged(request, &served),
    })
    .await;
    let mut blob = repository(&fake.host()).await.blob(&descriptor, 0).await.unwrap();
    assert!(read(&mut blob).await.unwrap() == bytes);
    assert_eq!(fake.seen().iter().map(from).collect::<Vec<_>>(), [0, 20_000, 20_000]);
}

#[tokio::test]
async fn a_blob_that_never_comes_to_its_end_is_given_up() {
    let (bytes, descriptor) = blob(50_000);
    let served = bytes.clone();
    let fake = Fake::start(move |request| {
        let first = from(request);
        ranged(request, &served).cut((served.len() - first).min(10))
    })
    .await;
    let mut blob = repository(&fake.host()).await.blob(&descriptor, 0).await.unwrap();
    let error = read(&mut blob).await.unwrap_err();
    assert!(matches!(error, Error::Broken { received: 30, .. }), "{error:?}");
    assert!(error.to_string().contains(descriptor.digest.as_str()), "{error}");
    assert_eq!(fake.seen().len(), 3);
}

#[tokio::test]
async fn one_byte_at_a_time_is_a_stall() {
    let (bytes, descriptor) = super::fake::blob(50_000);
    let served = bytes.clone();
    let fake =
        Fake::start(move |request| ranged(request, &served).drip(Duration::from_millis(50))).await;
    let mut blob = repository(&fake.host()).await.blob(&descriptor, 0).await.unwrap();
    let start = Instant::now();
    let error = read(&mut blob).await.unwrap_err();
    assert!(matches!(error, Error::Stalled { .. }), "{error:?}");
    assert!(error.to_string().contains("bytes a second"), "{error}");
    // All of it would be 2,500 seconds.
    assert!(start.elapsed() < Duration::from_secs(60));
}

#[tokio::test]
async fn a_slow_reader_is_not_the_registrys_stall() {
    let (bytes, descriptor) = super::fake::blob(2_000_000);
    let served = bytes.clone();
    let fake = Fake::start(move |request| ranged(request, &served)).await;
    let mut blob = repository(&fake.host()).await.blob(&descriptor, 0).await.unwrap();
    let first = blob.next().await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_millis(900)).await;
    assert_eq!(read(&mut blob).await.unwrap().len(), bytes.len() - first.len());
    assert_eq!(fake.seen().len(), 1);
}

#[tokio::test]
async fn another_length_is_an_error_and_never_more_bytes() {
    let (bytes, descriptor) = blob(10_000);
    let mut longer = bytes.clone();
    longer.extend_from_slice(&[0; 5000]);
    let replies = [
        Reply::ok(&bytes[..9999]),
        Reply::ok(&*longer),
        Reply::ok(&*longer).chunked(),
        Reply::ok(&*bytes).saying(10_001),
        Reply::new(206, &*bytes),
        Reply::new(206, &*bytes).with("Content-Range", "bytes 1-10000/10001"),
    ];
    for reply in replies {
        let answer = reply.clone();
        let fake = Fake::start(move |_| answer.clone()).await;
        let repository = repository(&fake.host()).await;
        let (mut got, mut error) = (Vec::new(), None);
        match repository.blob(&descriptor, 0).await {
            Err(failed) => error = Some(failed),
            Ok(mut blob) => {
                while let Some(read) = blob.next().await {
                    match read {
                        Ok(bytes) => got.extend_from_slice(&bytes),
                        Err(failed) => {
                            error = Some(failed);
                            break;
                        }
                    }
                }
            }
        }
        assert!(got.len() <= bytes.len());
        let error = error.unwrap();
        assert!(
            matches!(error, Error::BadLength { .. } | Error::BadAnswer { .. }),
            "{reply:?}: {error}"
        );
        assert_eq!(fake.seen().len(), 1, "{error}");
    }
}

#[tokio::test]
async fn a_wrong_range_is_refused() {
    let (bytes, descriptor) = blob(10_000);
    for range in ["bytes 0-9999/10000", "bytes 6000-9999/10000", "bytes 5000-9999/9999", "x"] {
        let served = bytes.clone();
        let fake =
            Fake::start(move |_| Reply::new(206, &served[5000..]).with("Content-Range", range))
                .await;
        let result = repository(&fake.host()).await.blob(&descriptor, 5000).await;
        assert!(matches!(result, Err(Error::BadAnswer { .. })), "{range}: {result:?}");
    }
}

/// Six at once, as a pull does; in tasks, so that a future that can't be sent would not compile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_blobs_come_side_by_side() {
    let (bytes, descriptor) = blob(20 << 20);
    let served = bytes.clone();
    let fake = Fake::start(move |request| ranged(request, &served)).await;
    let repository = repository(&fake.host()).await;
    let start = Instant::now();
    let tasks: Vec<_> = (0..6)
        .map(|_| {
            let (repository, descriptor) = (repository.clone(), descriptor.clone());
            tokio::spawn(async move {
                let mut blob = repository.blob(&descriptor, 0).await.unwrap();
                let (mut length, mut pieces) = (0, 0);
                while let Some(bytes) = blob.next().await {
                    length += bytes.unwrap().len();
                    pieces += 1;
                }
                (length, pieces)
            })
        })
        .collect();
    for task in tasks {
        let (length, pieces) = task.await.unwrap();
        assert_eq!(length, 20 << 20);
        println!("{pieces} pieces, {:?}", start.elapsed());
    }
}
