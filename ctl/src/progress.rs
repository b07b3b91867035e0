//! What is seen of a pull or a push while it goes on: a bar for each layer on a terminal, a line
//! for each change elsewhere, nothing on demand. Docker's words.

use std::collections::HashMap;
use std::io::IsTerminal;

use bosun_proto::v1::Progress;
use bosun_proto::v1::progress::{Kind, Status};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::error::Error;
use crate::output::{self, escaped};

/// Hexadecimal digits of a digest that are shown.
const SHORT: usize = 12;

/// A layer whose bytes move, and one whose bytes don't.
const MOVING: &str = "{prefix}: {msg} [{bar:30}] {decimal_bytes}/{decimal_total_bytes}";
const STILL: &str = "{prefix}: {msg}";

/// Where it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Channel {
    Stdout,
    /// Beside the output of something else.
    Stderr,
}

/// Which way the layers go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Pull,
    Push,
}

#[derive(Debug)]
enum Form {
    Quiet,
    Lines,
    Bars { all: MultiProgress, of: HashMap<String, ProgressBar> },
}

/// The layers of one pull or push.
#[derive(Debug)]
pub(crate) struct Display {
    form: Form,
    channel: Channel,
    direction: Direction,
    /// The word that each layer stands at.
    shown: HashMap<String, String>,
}

impl Channel {
    fn is_terminal(self) -> bool {
        match self {
            Self::Stdout => std::io::stdout().is_terminal(),
            Self::Stderr => std::io::stderr().is_terminal(),
        }
    }

    fn target(self) -> ProgressDrawTarget {
        match self {
            Self::Stdout => ProgressDrawTarget::stdout(),
            Self::Stderr => ProgressDrawTarget::stderr(),
        }
    }
}

impl Display {
    pub(crate) fn new(direction: Direction, channel: Channel, quiet: bool) -> Self {
        let form = match (quiet, channel.is_terminal()) {
            (true, _) => Form::Quiet,
            (false, false) => Form::Lines,
            (false, true) => Form::Bars {
                all: MultiProgress::with_draw_target(channel.target()),
                of: HashMap::new(),
            },
        };
        Self { form, channel, direction, shown: HashMap::new() }
    }

    /// A line about the whole, above the layers.
    pub(crate) fn say(&self, line: &str) -> Result<(), Error> {
        match &self.form {
            Form::Quiet => Ok(()),
            Form::Bars { all, .. } => all.println(line).map_err(Error::Output),
            Form::Lines => self.print(line),
        }
    }

    /// What has become of one blob. Manifests and configurations are seen only when they make
    /// trouble, as docker has it.
    pub(crate) fn update(&mut self, progress: &Progress) -> Result<(), Error> {
        let status = progress.status();
        if progress.kind() != Kind::Layer && status != Status::Retrying {
            return Ok(());
        }
        let word = self.word(progress);
        let short = short(&progress.digest);
        let changed = self.shown.get(&progress.digest) != Some(&word);
        match &mut self.form {
            Form::Quiet => return Ok(()),
            Form::Lines => {
                if changed {
                    self.print(&format!("{short}: {word}"))?;
                }
            }
            Form::Bars { all, of } => {
                let bar = of.entry(progress.digest.clone()).or_insert_with(|| {
                    all.add(ProgressBar::no_length().with_style(style(STILL)).with_prefix(short))
                });
                let moves = matches!(status, Status::Downloading | Status::Uploading);
                let moves = moves && progress.total > 0;
                if moves {
                    bar.set_length(progress.total);
                    bar.set_position(progress.current);
                }
                if changed {
                    bar.set_style(style(if moves { MOVING } else { STILL }));
                    bar.set_message(word.clone());
                }
            }
        }
        self.shown.insert(progress.digest.clone(), word);
        Ok(())
    }

    /// Leaves the layers where they are: what is said from now on stands below them.
    pub(crate) fn finish(&mut self) -> Result<(), Error> {
        let Form::Bars { of, .. } = &self.form else { return Ok(()) };
        of.values().for_each(ProgressBar::abandon);
        let is_in_line = !of.is_empty();
        self.form = Form::Lines;
        if is_in_line { self.print("") } else { Ok(()) }
    }

    fn print(&self, line: &str) -> Result<(), Error> {
        match self.channel {
            Channel::Stdout => output::print(&format!("{line}\n")),
            Channel::Stderr => {
                output::complain_raw(&format!("{line}\n"));
                Ok(())
            }
        }
    }

    fn word(&self, progress: &Progress) -> String {
        let message = escaped(&progress.message);
        let word = match (progress.status(), self.direction) {
            (Status::Unspecified | Status::Waiting, Direction::Pull) => "Waiting",
            (Status::Unspecified | Status::Waiting, Direction::Push) => "Preparing",
            (Status::Downloading, _) => "Downloading",
            (Status::Retrying, _) if message.is_empty() => "Retrying",
            (Status::Retrying, _) => return format!("Retrying: {message}"),
            (Status::Downloaded, _) => "Download complete",
            (Status::Unpacking, _) => "Extracting",
            (Status::Exists, Direction::Pull) => "Already exists",
            (Status::Exists, Direction::Push) => "Layer already exists",
            (Status::Mounted, _) if message.is_empty() => "Mounted",
            (Status::Mounted, _) => return format!("Mounted from {message}"),
            (Status::Uploading, _) => "Pushing",
            (Status::Done, Direction::Pull) => "Pull complete",
            (Status::Done, Direction::Push) => "Pushed",
        };
        word.to_owned()
    }
}

fn style(template: &str) -> ProgressStyle {
    // The templates are ours, and a test reads them.
    let style = ProgressStyle::with_template(template);
    style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}

/// The beginning of a digest's hexadecimal part.
pub(crate) fn short(digest: &str) -> String {
    let hex = digest.split_once(':').map_or(digest, |(_, hex)| hex);
    escaped(&hex.chars().take(SHORT).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_are_templates() {
        for template in [MOVING, STILL] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }

    #[test]
    fn words_are_dockers() {
        let said = |direction, status: Status, message: &str| {
            let display = Display::new(direction, Channel::Stderr, true);
            let message = message.to_owned();
            display.word(&Progress { status: status.into(), message, ..Progress::default() })
        };
        for (direction, status, message, want) in [
            (Direction::Pull, Status::Exists, "", "Already exists"),
            (Direction::Push, Status::Exists, "", "Layer already exists"),
            (Direction::Pull, Status::Done, "", "Pull complete"),
            (Direction::Push, Status::Done, "", "Pushed"),
            (Direction::Push, Status::Mounted, "library/a", "Mounted from library/a"),
            (Direction::Pull, Status::Retrying, "5\u{1b}03", "Retrying: 5\\u{1b}03"),
        ] {
            assert_eq!(said(direction, status, message), want);
        }
        assert_eq!(short("sha256:0123456789abcdef"), "0123456789ab");
    }
}
