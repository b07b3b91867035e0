//! Reading a container's log: the json-file and its rotated predecessors, and what is still being
//! written.
//!
//! The reader follows the file by descriptor: a file that is renamed away by rotation is read to its
//! end before the next one is opened, so nothing is skipped and nothing comes twice. What is no record
//! (flipped bytes, the torn tail of a power cut) is passed over up to the next line end, and a record
//! on standard error says in its place how much that was.
//!
//! Rotated files are `NAME.1` (the newest) and upwards. Deliberately absent: writing, which is the
//! shim's alone.

use std::collections::{HashSet, VecDeque};
use std::fs::File;
use std::future::Future;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::mpsc;

use crate::error::{Error, Result};
use crate::time::Time;

/// How often a followed log is looked at while it is silent.
const LOOK: Duration = Duration::from_millis(100);

/// Bytes read at once, and the step in which the tail is searched backwards.
const BLOCK: u64 = 64 * 1024;

/// The longest line that is taken for a record; the shim splits at 16 KiB, and each byte may take
/// six in JSON.
const LONGEST: usize = 1 << 20;

/// How many rotations may pass while a file is looked for.
const MOVED_MEANWHILE: u64 = 8;

/// What is wanted of a log.
#[derive(Clone, Debug)]
pub struct LogQuery {
    pub path: PathBuf,
    /// How many of the last records; `None` is all of them.
    pub tail: Option<u64>,
    pub since: Option<Time>,
    pub until: Option<Time>,
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRecord {
    pub time: Time,
    pub stream: Stream,
    /// With its line end, when it had one.
    pub log: String,
}

/// Where it was written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    Stdout,
    Stderr,
}

/// Hands out the records of a log; with `follow`, until `ended` is done and everything was read.
/// Ends early when nobody listens any more.
///
/// # Errors
/// The file can't be read.
pub async fn read(
    query: LogQuery,
    follow: bool,
    ended: impl Future<Output = ()> + Send,
    records: &mpsc::Sender<LogRecord>,
) -> Result<()> {
    let mut reader = Reader::open(&query)?;
    tokio::pin!(ended);
    let mut over = !follow;
    loop {
        // Seen before reading: what was written until then is read in this round.
        let last = over;
        for record in reader.more()? {
            if query.until.is_some_and(|until| record.time > until) {
                return Ok(());
            }
            let wanted = query.since.is_none_or(|since| record.time >= since);
            if wanted && records.send(record).await.is_err() {
                return Ok(());
            }
        }
        if reader.has_more() {
            continue;
        }
        if last {
            return Ok(());
        }
        tokio::select! {
            () = &mut ended, if !over => over = true,
            () = records.closed() => return Ok(()),
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// The files of a log, oldest first, read one after the other.
#[derive(Debug)]
struct Reader {
    path: PathBuf,
    waiting: VecDeque<File>,
    current: Option<BufReader<File>>,
    /// A line whose end has not been written yet.
    partial: Vec<u8>,
    drained: bool,
    /// Bytes that are no records, and that nothing was said of yet.
    damaged: usize,
    /// A file went before it was known what followed it, and nothing was said of that yet.
    outrun: bool,
    /// When the last record was written.
    time: Time,
}

impl Reader {
    fn open(query: &LogQuery) -> Result<Self> {
        let mut files = files(&query.path)?;
        if let Some(tail) = query.tail {
            seek_tail(&mut files, tail, &query.path)?;
        }
        Ok(Self {
            path: query.path.clone(),
            waiting: files.into(),
            current: None,
            partial: Vec::new(),
            drained: false,
            damaged: 0,
            outrun: false,
            time: Time::default(),
        })
    }

    fn has_more(&self) -> bool {
        !self.drained || !self.waiting.is_empty()
    }

    /// Records that are there now, a block's worth at most.
    fn more(&mut self) -> Result<Vec<LogRecord>> {
        let mut records = Vec::new();
        let mut budget = BLOCK;
        while budget > 0 {
            let Some(current) = &mut self.current else {
                match self.waiting.pop_front() {
                    Some(file) => self.current = Some(BufReader::new(file)),
                    None => {
                        self.drained = true;
                        break;
                    }
                }
                continue;
            };
            let before = self.partial.len();
            let room = u64::try_from(LONGEST.saturating_sub(before)).unwrap_or(0);
            let len = current
                .take(room.max(1))
                .read_until(b'\n', &mut self.partial)
                .map_err(Error::file("read log", &self.path))?;
            budget = budget.saturating_sub(u64::try_from(len).unwrap_or(budget).max(1));
            if self.partial.last() == Some(&b'\n') || self.partial.len() >= LONGEST {
                match parse(&self.partial) {
                    None => self.damaged += self.partial.len(),
                    Some(record) => {
                        records.extend(self.gap());
                        records.extend(self.missed());
                        self.time = record.time;
                        records.push(record);
                    }
                }
                self.partial.clear();
                continue;
            }
            if len == 0 && !self.next_file()? {
                self.drained = true;
                break;
            }
        }
        if budget == 0 {
            self.drained = false;
        }
        if self.drained {
            records.extend(self.gap());
        }
        Ok(records)
    }

    /// What is said in the place of what can't be read.
    fn gap(&mut self) -> Option<LogRecord> {
        let bytes = std::mem::take(&mut self.damaged);
        if bytes == 0 {
            return None;
        }
        tracing::warn!(log = %self.path.display(), bytes, "a log holds what is no record");
        let log = format!("bosun: {bytes} bytes of this log can't be read\n");
        Some(LogRecord { time: self.time, stream: Stream::Stderr, log })
    }

    /// What is said where files were rotated away before they were read.
    fn missed(&mut self) -> Option<LogRecord> {
        let log = "bosun: lines may be missing here: the log was rotated away before it was read\n";
        std::mem::take(&mut self.outrun).then(|| LogRecord {
            time: self.time,
            stream: Stream::Stderr,
            log: log.to_owned(),
        })
    }

    /// At the end of a file: goes on to the next when this one will not grow any more.
    fn next_file(&mut self) -> Result<bool> {
        if let Some(next) = self.waiting.pop_front() {
            self.current = Some(BufReader::new(next));
            self.partial.clear();
            return Ok(true);
        }
        let Some(current) = &mut self.current else { return Ok(false) };
        let own = current.get_ref().metadata().map_err(Error::file("look at log", &self.path))?;
        let Some(newest) = open(&self.path)? else { return Ok(false) };
        let there = newest.metadata().map_err(Error::file("look at log", &self.path))?;
        if (own.dev(), own.ino()) == (there.dev(), there.ino()) {
            let read = current.stream_position().map_err(Error::file("read log", &self.path))?;
            if own.len() >= read {
                return Ok(false);
            }
            // Somebody has cut it: it begins anew.
            current.rewind().map_err(Error::file("seek in log", &self.path))?;
            self.partial.clear();
            self.outrun = true;
            return Ok(true);
        }
        // It was renamed away after our last look: what was written before that is still to be read.
        if !current.fill_buf().map_err(Error::file("read log", &self.path))?.is_empty() {
            return Ok(true);
        }
        // Several rotations may have passed; those between are read first.
        let between = files(&self.path)?;
        let known = between.iter().position(|file| {
            file.metadata().is_ok_and(|found| (found.dev(), found.ino()) == (own.dev(), own.ino()))
        });
        self.outrun |= known.is_none();
        self.waiting = between.into_iter().skip(known.map_or(0, |position| position + 1)).collect();
        self.current = self.waiting.pop_front().map(BufReader::new);
        self.partial.clear();
        Ok(self.current.is_some())
    }
}

/// All files of a log that are there, oldest first.
///
/// They are opened from the newest on. A rotation meanwhile moves files to higher numbers only, so one
/// that is moved is met again, and none is missed; but it leaves a gap for a moment, and for longer
/// when the shim was killed in the middle.
fn files(path: &Path) -> Result<Vec<File>> {
    let mut files: Vec<File> = Vec::new();
    let mut seen = HashSet::new();
    files.extend(open(path)?);
    for number in 1.. {
        match open(&numbered(path, number))? {
            Some(file) => files.push(file),
            None if goes_on(path, number)? => {}
            None => break,
        }
    }
    files.reverse();
    // What was moved shows under two names, of which the later counts: behind it are older ones only.
    files.retain(|file| file.metadata().is_ok_and(|found| seen.insert((found.dev(), found.ino()))));
    Ok(files)
}

fn numbered(path: &Path, number: u64) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

/// Whether there is a rotated file of a higher number. By name first: a file that is being renamed may be
/// missing from a listing, under both of its names (readdir(3)).
fn goes_on(path: &Path, number: u64) -> Result<bool> {
    let mut next = number + 1..=number + MOVED_MEANWHILE;
    let met = next.any(|number| numbered(path, number).symlink_metadata().is_ok());
    Ok(met || highest(path)? > number)
}

/// The highest number of a rotated file that is there; 0 without one.
fn highest(path: &Path) -> Result<u64> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else { return Ok(0) };
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(Error::file("list the files of log", path)(error)),
    };
    let number = |entry: std::fs::DirEntry| {
        let entry = entry.file_name();
        let rest = entry.as_encoded_bytes().strip_prefix(name.as_encoded_bytes())?;
        std::str::from_utf8(rest.strip_prefix(b".")?).ok()?.parse().ok()
    };
    Ok(entries.flatten().filter_map(number).max().unwrap_or(0))
}

fn open(path: &Path) -> Result<Option<File>> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    match File::options().read(true).custom_flags(flags.bits().cast_signed()).open(path) {
        Ok(file) => Ok(Some(file)),
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::file("open log", path)(source)),
    }
}

/// Moves to the last `tail` records: drops whole files from the front and seeks in the one where
/// they begin.
fn seek_tail(files: &mut Vec<File>, tail: u64, path: &Path) -> Result<()> {
    let mut missing = tail;
    for index in (0..files.len()).rev() {
        let (start, found) =
            last_lines(&mut files[index], missing).map_err(Error::file("read log", path))?;
        missing -= found;
        files[index].seek(SeekFrom::Start(start)).map_err(Error::file("seek in log", path))?;
        if missing == 0 {
            files.drain(..index);
            return Ok(());
        }
    }
    Ok(())
}

/// Where the last `wanted` lines of a file begin, and how many there are.
fn last_lines(file: &mut File, wanted: u64) -> std::io::Result<(u64, u64)> {
    let size = file.seek(SeekFrom::End(0))?;
    let mut position = size;
    let mut found = 0;
    let mut block = Vec::new();
    while position > 0 {
        let begin = position.saturating_sub(BLOCK);
        file.seek(SeekFrom::Start(begin))?;
        block.clear();
        file.take(position - begin).read_to_end(&mut block)?;
        for (offset, byte) in block.iter().enumerate().rev() {
            let end_of_file = begin + offset as u64 + 1 == size;
            if *byte == b'\n' && !end_of_file {
                found += 1;
                if found == wanted {
                    return Ok((begin + offset as u64 + 1, found));
                }
            }
        }
        position = begin;
    }
    // The first line has no line end before it.
    let all = if size > 0 && wanted > 0 { found + 1 } else { found };
    Ok(if wanted == 0 { (size, 0) } else { (0, all.min(wanted)) })
}

/// How many bytes of a log file are no records: its torn tail, and lines that can't be read.
///
/// # Errors
/// It can't be read.
pub fn damage(path: &Path) -> Result<usize> {
    let Some(file) = open(path)? else { return Ok(0) };
    let mut reader = BufReader::new(file);
    let (mut line, mut damaged) = (Vec::new(), 0);
    loop {
        line.clear();
        let room = u64::try_from(LONGEST).unwrap_or(u64::MAX);
        let len = (&mut reader)
            .take(room)
            .read_until(b'\n', &mut line)
            .map_err(Error::file("read log", path))?;
        if len == 0 {
            return Ok(damaged);
        }
        if line.last() != Some(&b'\n') || parse(&line).is_none() {
            damaged += len;
        }
    }
}

#[derive(Deserialize)]
struct Line {
    log: String,
    stream: Stream,
    time: String,
}

fn parse(bytes: &[u8]) -> Option<LogRecord> {
    let line: Line = serde_json::from_slice(bytes).ok()?;
    Some(LogRecord { time: parse_time(&line.time)?, stream: line.stream, log: line.log })
}

/// RFC 3339 in UTC, as the shim writes it: `2026-11-23T16:15:53.506835069Z`.
fn parse_time(text: &str) -> Option<Time> {
    let (date, clock) = text.strip_suffix('Z')?.split_once('T')?;
    let mut date = date.splitn(3, '-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let mut clock = clock.splitn(3, ':').map(|part| part.parse::<i64>().ok());
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    let nanos: u32 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    Some(Time {
        seconds: ((days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second,
        nanos,
    })
}

/// Days since 1970-01-01 of a date of the Gregorian calendar: counted in years that begin in March,
/// so that the leap day is the last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn line(number: u32) -> String {
        format!(
            "{{\"log\":\"line {number}\\n\",\"stream\":\"stdout\",\"time\":\"2026-11-23T00:00:{:02}.5Z\"}}\n",
            number % 60
        )
    }

    fn read_all(path: &Path, tail: Option<u64>) -> Vec<String> {
        let query = LogQuery { path: path.to_owned(), tail, since: None, until: None };
        let mut seen = Vec::new();
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(
            async {
                let (records, mut receiver) = mpsc::channel(1);
                let reading = async move { read(query, false, async {}, &records).await };
                let taking = async {
                    while let Some(record) = receiver.recv().await {
                        seen.push(record.log.trim_end().to_owned());
                    }
                };
                tokio::join!(reading, taking).0.unwrap();
            },
        );
        seen
    }

    #[test]
    fn times_are_read_to_the_nanosecond() {
        let time = parse_time("2026-11-23T16:15:53.506835069Z").unwrap();
        assert_eq!((time.seconds, time.nanos), (1_795_450_553, 506_835_069));
        assert_eq!(parse_time("1970-01-01T00:00:00Z").unwrap(), Time { seconds: 0, nanos: 0 });
        assert_eq!(parse_time("2000-02-29T00:00:00.1Z").unwrap().seconds, 951_782_400);
        assert_eq!(parse_time("yesterday"), None);
    }

    #[test]
    fn the_tail_reaches_back_into_rotated_files() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x-json.log");
        let lines = |range: std::ops::Range<u32>| range.map(line).collect::<String>();
        std::fs::write(directory.path().join("x-json.log.2"), lines(0..10)).unwrap();
        std::fs::write(directory.path().join("x-json.log.1"), lines(10..20)).unwrap();
        std::fs::write(&path, lines(20..25)).unwrap();
        assert_eq!(read_all(&path, None).len(), 25);
        for (tail, first) in [(1, "line 24"), (5, "line 20"), (6, "line 19"), (17, "line 8")] {
            let seen = read_all(&path, Some(tail));
            assert_eq!((seen.len() as u64, seen[0].as_str()), (tail, first));
        }
        assert_eq!(read_all(&path, Some(0)), Vec::<String>::new());
        assert_eq!(read_all(&path, Some(100)).len(), 25);
    }

    /// A shim that was killed while it rotated leaves one, and every rotation does for a moment.
    #[test]
    fn a_gap_between_rotated_files_hides_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x-json.log");
        let name = |number: u32| path.with_extension(format!("log.{number}"));
        std::fs::write(name(5), line(0)).unwrap();
        std::fs::write(name(3), line(1)).unwrap();
        std::fs::write(&path, line(2)).unwrap();
        assert_eq!(read_all(&path, None), ["line 0", "line 1", "line 2"]);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(read_all(&path, None), ["line 0", "line 1"]);
    }

    #[test]
    fn a_rotation_while_the_files_are_opened_hides_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x-json.log");
        let name = |number: u32| path.with_extension(format!("log.{number}"));
        let over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for number in 0..400 {
                    std::fs::write(&path, line(number)).unwrap();
                    for old in (1..=number).rev() {
                        let _ = std::fs::rename(name(old), name(old + 1));
                    }
                    std::fs::rename(&path, name(1)).unwrap();
                }
                over.store(true, std::sync::atomic::Ordering::Relaxed);
            });
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                let seen = read_all(&path, None);
                let wrong = seen.iter().enumerate().find(|(n, seen)| **seen != format!("line {n}"));
                assert_eq!(wrong, None, "of {}", seen.len());
            }
        });
    }

    #[test]
    fn what_is_no_record_is_passed_over_and_told_of() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x-json.log");
        let torn = format!("{}{{\"log\":\"half\0\0\0\n{}{{\"log\":\"no end", line(1), line(2));
        std::fs::write(&path, torn).unwrap();
        let said = "bosun: 16 bytes of this log can't be read";
        assert_eq!(read_all(&path, None), ["line 1", said, "line 2"]);
        assert_eq!(damage(&path).unwrap(), 16 + "{\"log\":\"no end".len());
        std::fs::write(&path, line(1) + &line(2)).unwrap();
        assert_eq!(damage(&path).unwrap(), 0);
    }

    /// A reader of a log, as far as it is, and what it reads next.
    fn next_of(reader: &mut Reader) -> Vec<String> {
        let records = reader.more().unwrap();
        records.into_iter().map(|record| record.log.trim_end().to_owned()).collect()
    }

    #[test]
    fn a_reader_that_was_outrun_says_so() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x-json.log");
        let query = LogQuery { path: path.clone(), tail: None, since: None, until: None };
        let missing =
            "bosun: lines may be missing here: the log was rotated away before it was read";
        std::fs::write(&path, line(1)).unwrap();
        let mut reader = Reader::open(&query).unwrap();
        assert_eq!(next_of(&mut reader), ["line 1"]);
        // Both of the files that there may be are other ones by now.
        std::fs::remove_file(&path).unwrap();
        std::fs::write(path.with_extension("log.1"), line(7)).unwrap();
        std::fs::write(&path, line(8)).unwrap();
        assert_eq!(next_of(&mut reader), [missing, "line 7", "line 8"]);
        // Cut by somebody, and written to again.
        std::fs::write(&path, "").unwrap();
        assert_eq!(next_of(&mut reader), Vec::<String>::new());
        std::fs::write(&path, line(9)).unwrap();
        assert_eq!(next_of(&mut reader), [missing, "line 9"]);
        let mut file = File::options().append(true).open(&path).unwrap();
        file.write_all(line(10).as_bytes()).unwrap();
        assert_eq!(next_of(&mut reader), ["line 10"]);
    }

    #[test]
    fn following_goes_through_rotations_without_loss_or_repetition() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x-json.log");
        let query = LogQuery { path: path.clone(), tail: None, since: None, until: None };
        std::fs::write(&path, line(0)).unwrap();
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let writer = std::thread::spawn(move || {
            for number in 1..200 {
                if number % 20 == 0 {
                    for old in (1..20).rev() {
                        let name = |n: u32| path.with_extension(format!("log.{n}"));
                        let _ = std::fs::rename(name(old), name(old + 1));
                    }
                    std::fs::rename(&path, path.with_extension("log.1")).unwrap();
                }
                let mut file = File::options().append(true).create(true).open(&path).unwrap();
                file.write_all(line(number).as_bytes()).unwrap();
                std::thread::sleep(Duration::from_millis(2));
            }
            end.send(()).unwrap();
        });
        let mut seen = Vec::new();
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(
            async {
                let ended = async {
                    let _ = ended.await;
                };
                let (records, mut receiver) = mpsc::channel(1);
                let reading = async move { read(query, true, ended, &records).await };
                let taking = async {
                    while let Some(record) = receiver.recv().await {
                        seen.push(record.log.trim_end().to_owned());
                    }
                };
                tokio::join!(reading, taking).0.unwrap();
            },
        );
        writer.join().unwrap();
        let expected: Vec<String> = (0..200).map(|number| format!("line {number}")).collect();
        assert_eq!(seen, expected);
    }
}
