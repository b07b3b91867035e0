//! What can go wrong, in the words of who names devices or writes their specifications.

use std::path::PathBuf;

/// Devices that can't be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("CDI device {name:?}: {why}: name it VENDOR/CLASS=NAME, as vendor.com/gpu=0")]
    Name { name: String, why: &'static str },
    #[error("CDI annotation {key:?}: {source}")]
    Annotation { key: String, source: Box<Error> },
    #[error(
        "CDI device {name}: there is none of that name in {}{}",
        listed(.directories),
        passed_over(.invalid)
    )]
    Unknown { name: String, directories: Vec<PathBuf>, invalid: Vec<InvalidFile> },
    #[error("CDI device {name}: described by several files, none of which goes before: {}{}: leave one",
        listed(&files[..files.len().min(TOLD)]), if files.len() > TOLD { " and more" } else { "" })]
    Conflict { name: String, files: Vec<PathBuf> },
    #[error("CDI device {name} ({}): {what} is not supported", file.display())]
    NotSupported { name: String, file: PathBuf, what: &'static str },
}

/// A file that is no specification; devices of others can be had all the same.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}: {problem}", path.display())]
pub struct InvalidFile {
    pub path: PathBuf,
    pub problem: String,
}

fn listed(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// How many files an error names: it travels in a header.
const TOLD: usize = 5;

/// What was passed over may have had it.
fn passed_over(files: &[InvalidFile]) -> String {
    let told = files.iter().take(TOLD).map(|file| format!("; passed over: {file}"));
    let more = files.len().saturating_sub(TOLD);
    let more = (more > 0).then(|| format!("; and {more} more files"));
    told.chain(more).collect()
}
