//! Archives of images, damaged at random. `SEED=n` draws others. What single documents and layers may be
//! is `integration/fuzz`; here it is the whole way of an import.

use std::collections::BTreeMap;

use bosun_proto::v1;
use bosun_proto::v1::import_request::Message;
use tonic::Status;

use super::calls::expect_sound;
use super::{Case, Round};
use crate::api::Api;
use crate::archive;
use crate::daemon::Daemon;
use crate::image::Recipe;
use crate::messages::{Random, damage};
use crate::tar::Entry;

/// Of a tar.
const BLOCK: usize = 512;
/// Where the checksum of a header is, and how long.
const CHECKSUM: std::ops::Range<usize> = 148..156;

pub(super) fn cases() -> Vec<Case> {
    vec![Case::measured("damaged archives", damaged)]
}

fn damaged(round: &Round) {
    let daemon = Daemon::start();
    let api = daemon.api();
    let mut random = Random::of_round(round.number);
    let image =
        |text: &str| Recipe::new().files(&[Entry::file("etc/motd", text.as_bytes())]).image();
    let (one, two) = (image("one\n"), image("two\n"));
    let layout = archive::layout(&[("test/one:1", &one), ("test/two:1", &two)]);
    let docker =
        archive::docker_files(&[(&["test/one:1", "test/both:2"], &one), (&["test/two:1"], &two)]);
    let mut codes = BTreeMap::<String, usize>::new();
    for _ in 0..round.count(150, 5_000) {
        let files = if random.one_in(2) { layout.clone() } else { docker.clone() };
        let bytes = spoil(files, &mut random);
        let answer = import(&api, &bytes);
        let code =
            answer.as_ref().err().map_or("OK".to_owned(), |status| format!("{:?}", status.code()));
        *codes.entry(code).or_default() += 1;
        expect_sound(&daemon, "Import", answer);
    }
    assert!(!daemon.log().contains("panicked"), "the daemon panicked:\n{}", daemon.log());
    assert!(codes.len() > 1, "all are the same: {codes:?}");
    round.measured(format!("archives: {codes:?}"));
    for name in api.image_names() {
        daemon.ctl(&format!("rmi -f {name}")).ok();
    }
    daemon.forget_tries();
    daemon.expect_nothing_stored("damaged archives");
}

/// An archive of these files in which something is not as it was.
fn spoil(mut files: Vec<(String, Vec<u8>)>, random: &mut Random) -> Vec<u8> {
    let kind = random.below(6);
    if kind == 0 {
        // A document or a blob of other contents.
        let at = random.below(files.len());
        damage(&mut files[at].1, random);
    }
    if kind == 1 {
        let at = random.below(files.len());
        match random.below(3) {
            0 => _ = files.remove(at),
            1 => files.push(files[at].clone()),
            _ => files[at].0 = format!("{}/../{}", files[at].0, random.below(9)),
        }
    }
    let mut bytes = crate::tar::tar(&archive::entries(files));
    let blocks = bytes.len() / BLOCK;
    match kind {
        2 => damage(&mut bytes, random),
        3 => bytes.truncate(random.below(bytes.len())),
        4 => {
            let (from, to) = (random.below(blocks) * BLOCK, random.below(blocks) * BLOCK);
            bytes.copy_within(from..from + BLOCK, to);
        }
        5 => {
            // A header that is wrong and whose checksum is right.
            let header = &mut bytes[random.below(blocks) * BLOCK..][..BLOCK];
            header[random.below(BLOCK)] = random.number().to_le_bytes()[0];
            header[CHECKSUM].fill(b' ');
            let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
            header[CHECKSUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
        _ => {}
    }
    bytes
}

fn import(api: &Api, bytes: &[u8]) -> Result<(), Status> {
    let open = v1::ImportOpen { reference: "test/unnamed:1".to_owned(), ..Default::default() };
    let pieces: Vec<_> = bytes.chunks(7_000).map(|piece| Message::Data(piece.to_vec())).collect();
    let messages = std::iter::once(Message::Open(open)).chain(pieces);
    let messages = messages.map(|message| v1::ImportRequest { message: Some(message) });
    let messages: Vec<_> = messages.collect();
    api.wait(async { api.images().import(tokio_stream::iter(messages)).await.map(|_| ()) })
}
