//! What reads what comes from outside, as functions of bytes (`integration/fuzz`), given the stored corpus
//! with something changed. `SEED=n` draws others; `FUZZ_SECONDS=n` says how long a round with the counts of a
//! release takes, in seconds, an hour where nothing is said.
//!
//! It draws blindly. What looks for new paths through the code is `cargo +nightly fuzz` there; what either
//! finds becomes a file of the corpus.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use super::{Case, Round};
use crate::messages::{Random, damage, seed};

/// How many inputs a round of the suite draws for each target.
const INPUTS: usize = 500;

/// What one input may take. They are small: a minute is a hang.
const MOST: Duration = Duration::from_secs(60);

/// The longest input that is made of others.
const LONGEST: usize = 1 << 20;

/// Numbers at which programs are wrong by one, or by all.
const EDGES: [u64; 8] =
    [0, 1, 0x7f, 0xff, 0x7fff_ffff, 0xffff_ffff, 0x7fff_ffff_ffff_ffff, 0xffff_ffff_ffff_ffff];

pub(super) fn cases() -> Vec<Case> {
    bosun_fuzz::TARGETS
        .into_iter()
        .map(|(name, target)| Case::measured(name, move |round| draw(name, target, round)))
        .collect()
}

fn draw(name: &str, target: fn(&[u8]), round: &Round) {
    let corpus = corpus(name);
    let mut random = Random::of_round(round.number);
    let seconds = std::env::var("FUZZ_SECONDS").ok().and_then(|text| text.parse().ok());
    let time = Duration::from_secs(seconds.unwrap_or(3600));
    let (begin, mut inputs) = (Instant::now(), 0);
    let goes_on = |inputs| match round.full {
        true => begin.elapsed() < time,
        false => inputs < INPUTS,
    };
    while goes_on(inputs) {
        let input = changed(&corpus, &mut random);
        let start = Instant::now();
        let held = catch_unwind(AssertUnwindSafe(|| target(&input)));
        let took = start.elapsed();
        if held.is_err() || took > MOST {
            let path = std::env::temp_dir().join(format!("bosun-{name}-{:016x}", random.0));
            std::fs::write(&path, &input).expect("room for the input");
            let what = if held.is_err() { "does not hold".to_owned() } else { format!("{took:?}") };
            panic!("input {inputs} of seed {}: {what}: it is in {}", seed(), path.display());
        }
        inputs += 1;
    }
    if round.full {
        round.measured(format!("{name}: {inputs} inputs in {} s", begin.elapsed().as_secs()));
    }
}

/// The stored inputs of a target, each time in the same order.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let entries = std::fs::read_dir(&directory);
    let entries = entries.unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths.into_iter().map(|path| std::fs::read(path).expect("an input")).collect()
}

/// One of them in which up to four things are not as they were.
fn changed(corpus: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut bytes = random.pick(corpus).clone();
    for _ in 0..=random.below(4) {
        match random.below(4) {
            0 => {
                // The beginning of this one, and the end of another.
                let other = random.pick(corpus);
                bytes.truncate(random.below(bytes.len() + 1));
                bytes.extend_from_slice(&other[random.below(other.len() + 1)..]);
            }
            1 => {
                // A part of it twice.
                let (from, to) = (random.below(bytes.len() + 1), random.below(bytes.len() + 1));
                let part = bytes[from.min(to)..from.max(to)].to_vec();
                let at = random.below(bytes.len() + 1);
                bytes.splice(at..at, part);
            }
            2 if !bytes.is_empty() => {
                // A number, of one to eight bytes, in either order.
                let number = *random.pick(&EDGES);
                let number =
                    if random.one_in(2) { number.to_le_bytes() } else { number.to_be_bytes() };
                let at = random.below(bytes.len());
                let length = (1 << random.below(4)).min(bytes.len() - at);
                bytes[at..at + length].copy_from_slice(&number[..length]);
            }
            _ => damage(&mut bytes, random),
        }
    }
    bytes.truncate(LONGEST);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_draws_the_same_and_each_draw_is_another() {
        let corpus = corpus("manifest");
        let draw = |seed| {
            let mut random = Random(seed);
            (0..50).map(|_| changed(&corpus, &mut random)).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        let mut all = draw(7);
        all.sort();
        all.dedup();
        assert!(all.len() > 40, "{} of 50", all.len());
    }

    #[test]
    fn an_input_that_does_not_hold_is_kept_and_named() {
        let round = Round { number: 0, full: false, figures: std::sync::Arc::default() };
        let said = catch_unwind(|| draw("reference", |data| assert!(data.is_empty()), &round));
        let text = *said.unwrap_err().downcast::<String>().unwrap();
        let path = text.rsplit(' ').next().unwrap();
        assert!(!std::fs::read(path).unwrap().is_empty(), "{text}");
        std::fs::remove_file(path).unwrap();
    }
}
