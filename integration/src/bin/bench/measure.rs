//! Times and memory, taken several times.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use integration::process::Process;

/// Milliseconds of several rounds, sorted.
#[derive(Clone, Debug)]
pub(crate) struct Sample(Vec<f64>);

impl Sample {
    pub(crate) fn new(times: impl IntoIterator<Item = Duration>) -> Self {
        let mut all: Vec<f64> = times.into_iter().map(|time| time.as_secs_f64() * 1000.0).collect();
        all.sort_by(f64::total_cmp);
        Self(all)
    }

    pub(crate) fn median(&self) -> f64 {
        self.percentile(50)
    }

    /// NaN without a round.
    pub(crate) fn percentile(&self, percent: usize) -> f64 {
        let last = self.0.len().saturating_sub(1);
        self.0.get((last * percent).div_ceil(100)).copied().unwrap_or(f64::NAN)
    }
}

/// So many rounds of one thing, after one that doesn't count.
pub(crate) fn rounds(count: usize, mut one: impl FnMut(usize) -> Duration) -> Sample {
    one(usize::MAX);
    Sample::new((0..count).map(one))
}

/// So many rounds of several things in turn, so that the machine's moods meet all of them.
pub(crate) fn in_turn<const N: usize>(
    count: usize,
    things: [&dyn Fn(usize) -> Duration; N],
) -> [Sample; N] {
    for thing in things {
        thing(usize::MAX);
    }
    let mut times = [(); N].map(|()| Vec::new());
    for round in 0..count {
        for (thing, times) in things.iter().zip(&mut times) {
            times.push(thing(round));
        }
    }
    times.map(Sample::new)
}

/// How long a command takes that has to succeed. Its output is discarded.
pub(crate) fn time(command: &mut Command) -> Duration {
    let begin = Instant::now();
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let output = child.and_then(std::process::Child::wait_with_output);
    let elapsed = begin.elapsed();
    match output {
        Ok(output) if output.status.success() => elapsed,
        Ok(output) => panic!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => panic!("{command:?}: {error}"),
    }
}

/// Kilobytes by field of smaps_rollup, the mean over the processes.
pub(crate) fn footprint(processes: &[Process]) -> BTreeMap<&'static str, f64> {
    assert!(!processes.is_empty(), "no process to measure");
    let count = u32::try_from(processes.len()).map_or(f64::MAX, f64::from);
    ["Pss", "Private_Dirty", "Rss"]
        .into_iter()
        .map(|field| {
            let all: u64 = processes.iter().filter_map(|process| process.memory(field)).sum();
            (field, u32::try_from(all).map_or(f64::MAX, f64::from) / count)
        })
        .collect()
}
