//! The content service over a directory and a store of its own.

use std::path::Path;

use super::*;
use crate::leases::Leases;
use crate::store::Resource;

const WORDS: &[u8] = b"a blob is its bytes";

fn make(place: &Path) -> Content {
    for name in ["blobs/sha256", "ingest"] {
        std::fs::create_dir_all(place.join(name)).unwrap();
    }
    Content::new(Store::open(&place.join("meta.db")).unwrap(), place)
}

fn run(test: impl AsyncFnOnce(&Path, Content)) {
    let directory = tempfile::tempdir().unwrap();
    let content = make(directory.path());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(test(directory.path(), content));
}

fn digest_of(data: &[u8]) -> Digest {
    Digest::of(data)
}

async fn put(content: &Content, namespace: &str, data: &[u8]) -> Result<(Digest, u64)> {
    let writer = content.writer(namespace, "ref", Expected::default(), None).await?;
    let writer = content.write(writer, vec![data.to_vec().into()]).await?;
    content.commit(writer).await
}

async fn read(content: &Content, digest: &Digest, offset: u64, size: Option<u64>) -> Vec<u8> {
    let mut reader = content.reader("default", digest, offset, size).await.unwrap();
    let mut all = Vec::new();
    while let Some(data) = reader.next().await.unwrap() {
        all.extend(data);
    }
    all
}

fn names(directory: PathBuf) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap().flatten();
    entries.map(|entry| entry.file_name().into_string().unwrap()).collect()
}

/// No blob, no row, no ingest.
async fn expect_nothing(place: &Path, content: &Content) {
    assert_eq!(content.list("default").await.unwrap(), []);
    assert_eq!(names(place.join("blobs/sha256")), Vec::<String>::new());
    assert_eq!(names(place.join("ingest")), Vec::<String>::new());
}

#[test]
fn an_ingest_goes_on_after_its_writer_and_its_daemon_went_away() {
    run(async |place, content| {
        let whole = || Expected {
            size: Some(WORDS.len() as u64),
            digest: Some(digest_of(WORDS)),
            labels: [("a".to_owned(), "1".to_owned())].into(),
            lease: None,
        };
        let writer = content.writer("default", "layer", whole(), None).await.unwrap();
        drop(content.write(writer, vec![WORDS[..6].to_vec().into()]).await.unwrap());
        assert_eq!(content.status("default", "layer").await.unwrap().received, 6);
        drop(content);

        let content = make(place);
        assert_eq!(content.remove_orphans().await.unwrap(), 0);
        let beyond = content.writer("default", "layer", whole(), Some(7)).await.unwrap_err();
        assert!(matches!(beyond, Error::IngestOffset { received: 6, offset: 7, .. }), "{beyond}");
        // From before the end: what lies behind is sent again.
        let more = Expected { labels: [("b".to_owned(), "2".to_owned())].into(), ..whole() };
        let writer = content.writer("default", "layer", more, Some(4)).await.unwrap();
        let writer = content.write(writer, vec![WORDS[4..].to_vec().into()]).await.unwrap();
        let (digest, size) = content.commit(writer).await.unwrap();
        assert_eq!((digest.clone(), size), (digest_of(WORDS), WORDS.len() as u64));
        assert_eq!(read(&content, &digest, 0, None).await, WORDS);
        let labels = content.stat("default", &digest).await.unwrap().labels;
        assert_eq!(labels.into_keys().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(names(place.join("ingest")), Vec::<String>::new());
    });
}

#[test]
fn bytes_that_are_not_what_was_expected_leave_nothing() {
    run(async |place, content| {
        let size = |size| Expected { size: Some(size), ..Expected::default() };
        let digest = Expected { digest: Some(digest_of(b"other")), ..Expected::default() };
        let short = WORDS.len() as u64 + 1;
        for (expected, named) in [(digest, "digest"), (size(short), "size")] {
            let writer = content.writer("default", "ref", expected, None).await.unwrap();
            let writer = content.write(writer, vec![WORDS.to_vec().into()]).await.unwrap();
            let error = content.commit(writer).await.unwrap_err();
            assert!(matches!(error, Error::IngestMismatch { what, .. } if what == named));
            expect_nothing(place, &content).await;
        }
        let writer = content.writer("default", "ref", size(5), None).await.unwrap();
        let error = content.write(writer, vec![WORDS.to_vec().into()]).await.unwrap_err();
        assert!(matches!(error, Error::IngestMismatch { what: "size", .. }), "{error}");
        expect_nothing(place, &content).await;
    });
}

#[test]
fn a_reference_has_one_writer_and_one_blob() {
    run(async |_, content| {
        let expected = |size| Expected { size: Some(size), ..Expected::default() };
        let writer = content.writer("default", "ref", expected(9), None).await.unwrap();
        let second = content.writer("default", "ref", expected(9), None).await.unwrap_err();
        assert!(matches!(second, Error::IngestBusy { .. }), "{second}");
        let aborted = content.abort("default", "ref").await.unwrap_err();
        assert!(matches!(aborted, Error::IngestBusy { .. }), "{aborted}");
        drop(content.writer("other", "ref", expected(9), None).await.unwrap());
        drop(writer);
        let other = content.writer("default", "ref", expected(8), None).await.unwrap_err();
        assert!(matches!(other, Error::InvalidArgument { .. }), "{other}");
        assert_eq!(content.ingests("default").await.unwrap().len(), 1);
        content.abort("default", "ref").await.unwrap();
        let gone = content.abort("default", "ref").await.unwrap_err();
        assert!(matches!(gone, Error::NoSuchIngest { .. }), "{gone}");
        drop(content.writer("default", "ref", expected(8), None).await.unwrap());
    });
}

#[test]
fn parts_are_read_and_nothing_beyond_the_end() {
    run(async |_, content| {
        let long: Vec<u8> = (0..600_000_u32).map(|n| (n % 251) as u8).collect();
        let (digest, _) = put(&content, "default", &long).await.unwrap();
        assert_eq!(read(&content, &digest, 0, None).await, long);
        assert_eq!(read(&content, &digest, 262_143, Some(3)).await, long[262_143..262_146]);
        assert_eq!(read(&content, &digest, 599_999, Some(u64::MAX)).await, long[599_999..]);
        assert_eq!(read(&content, &digest, 600_000, None).await, b"");
        assert_eq!(read(&content, &digest, 5, Some(0)).await, b"");
        let beyond = content.reader("default", &digest, 600_001, None).await.unwrap_err();
        assert!(matches!(beyond, Error::BeyondBlob { .. }), "{beyond}");
    });
}

#[test]
fn two_namespaces_share_the_bytes_and_nothing_else() {
    run(async |place, content| {
        let (digest, _) = put(&content, "default", WORDS).await.unwrap();
        let unknown = content.stat("other", &digest).await.unwrap_err();
        assert!(matches!(unknown, Error::NoSuchBlob { .. }), "{unknown}");
        put(&content, "other", WORDS).await.unwrap();
        put(&content, "other", WORDS).await.unwrap();
        assert_eq!(names(place.join("blobs/sha256")), [digest.hex()]);
        content.remove("other", &digest).await.unwrap();
        assert_eq!(read(&content, &digest, 0, None).await, WORDS);
        content.remove("default", &digest).await.unwrap();
        expect_nothing(place, &content).await;
        assert!(content.remove("default", &digest).await.is_err());
    });
}

#[test]
fn a_blob_that_comes_and_goes_at_once_is_whole_or_gone() {
    run(async |place, content| {
        let (digest, _) = put(&content, "other", WORDS).await.unwrap();
        for _ in 0..50 {
            let (put, removed) =
                tokio::join!(put(&content, "default", WORDS), content.remove("other", &digest));
            put.unwrap();
            removed.unwrap();
            assert_eq!(read(&content, &digest, 0, None).await, WORDS);
            self::put(&content, "other", WORDS).await.unwrap();
            content.remove("default", &digest).await.unwrap();
        }
        content.remove("other", &digest).await.unwrap();
        expect_nothing(place, &content).await;
    });
}

#[test]
fn a_leased_blob_stays() {
    run(async |_, content| {
        let (digest, _) = put(&content, "default", WORDS).await.unwrap();
        put(&content, "other", WORDS).await.unwrap();
        let leases = Leases::new(content.store.clone());
        leases.create("default", "pull", BTreeMap::new(), None).await.unwrap();
        let blob = Resource { kind: ResourceKind::Content, id: digest.to_string() };
        leases.add_resource("default", "pull", blob).await.unwrap();
        let error = content.remove("default", &digest).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("blob {digest} is held by lease pull: delete that lease first")
        );
        content.remove("other", &digest).await.unwrap();
        leases.delete("default", "pull").await.unwrap();
        content.remove("default", &digest).await.unwrap();
    });
}

#[test]
fn what_a_crash_left_goes_at_the_next_start() {
    run(async |place, content| {
        let (digest, _) = put(&content, "default", WORDS).await.unwrap();
        let kept = content.writer("default", "ref", Expected::default(), None).await.unwrap();
        drop(content.write(kept, vec![b"half".to_vec().into()]).await.unwrap());
        let orphan = place.join("blobs/sha256").join(digest_of(b"orphan").hex());
        std::fs::write(&orphan, "orphan").unwrap();
        std::fs::create_dir(place.join("ingest/0123")).unwrap();
        let torn = place.join("ingest/4567");
        std::fs::create_dir(&torn).unwrap();
        std::fs::write(torn.join("ingest.json"), "{\"namespace\":").unwrap();
        assert_eq!(content.remove_orphans().await.unwrap(), 3);
        assert!(!orphan.exists() && !torn.exists());
        assert_eq!(read(&content, &digest, 0, None).await, WORDS);
        assert_eq!(content.status("default", "ref").await.unwrap().received, 4);
    });
}
