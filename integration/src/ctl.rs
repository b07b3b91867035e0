//! One run of the client: words in, output and exit code out.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::wait;

/// How long a client may take: longer than any deadline of the daemon's own that a test waits for.
const LIMIT: Duration = Duration::from_secs(60);

/// The client of one daemon.
#[derive(Clone, Debug)]
pub struct Ctl {
    program: PathBuf,
    address: String,
    prefix: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Ctl {
    #[must_use]
    pub fn new(program: &Path, socket: &Path) -> Self {
        Self {
            program: program.to_owned(),
            address: format!("unix://{}", socket.display()),
            prefix: Vec::new(),
            environment: Vec::new(),
        }
    }

    /// The same client started by another program, such as `setpriv --reuid 65534`.
    #[must_use]
    pub fn through(&self, words: &str) -> Self {
        Self { prefix: split(words), ..self.clone() }
    }

    #[must_use]
    pub fn with_environment(&self, name: &str, value: &str) -> Self {
        let mut this = self.clone();
        this.environment.push((name.to_owned(), value.to_owned()));
        this
    }

    /// The command for some words, in the manner of a shell: blanks separate, quotes hold together.
    #[must_use]
    pub fn command(&self, words: &str) -> Command {
        let mut all = self.prefix.clone();
        all.push(self.program.display().to_string());
        all.extend(split(words));
        let mut command = Command::new(&all[0]);
        command.args(&all[1..]).env("BOSUN_ADDRESS", &self.address);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs to the end, with nothing on standard input.
    #[must_use]
    pub fn run(&self, words: &str) -> Output {
        self.start(words, Stdio::null()).finish()
    }

    /// Runs to the end, with a text on standard input.
    #[must_use]
    pub fn feed(&self, words: &str, input: &str) -> Output {
        let mut running = self.start(words, Stdio::piped());
        running.feed(input);
        running.finish()
    }

    /// Starts and returns at once.
    ///
    /// # Panics
    /// When the program can't be started.
    #[must_use]
    pub fn start(&self, words: &str, input: Stdio) -> Running {
        let mut command = self.command(words);
        command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stdout = Collector::new(child.stdout.take().expect("a pipe was asked for"));
        let stderr = Collector::new(child.stderr.take().expect("a pipe was asked for"));
        Running { words: words.to_owned(), child, stdout, stderr }
    }
}

/// A client that still runs. It is killed when the test forgets it.
#[derive(Debug)]
pub struct Running {
    words: String,
    child: Child,
    stdout: Collector,
    stderr: Collector,
}

impl Running {
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// Waits until standard output holds a text.
    ///
    /// # Panics
    /// After the time limit.
    #[track_caller]
    pub fn expect(&self, text: &str) {
        wait::until(
            &format!("{text:?} from `ctl {}`, which wrote {:?}", self.words, self.stdout()),
            || self.stdout().contains(text).then_some(()),
        );
    }

    /// Writes to its standard input, which stays open.
    ///
    /// # Panics
    /// When it was started without a pipe, or closed it.
    pub fn send(&mut self, text: &str) {
        let pipe = self.child.stdin.as_mut().expect("started with a pipe");
        pipe.write_all(text.as_bytes()).expect("the client reads");
        pipe.flush().expect("the client reads");
    }

    /// Writes to its standard input and closes that. It may end without reading all of it.
    pub fn feed(&mut self, text: &str) {
        if let Some(mut pipe) = self.child.stdin.take() {
            let _ = pipe.write_all(text.as_bytes());
        }
    }

    pub fn close_input(&mut self) {
        self.child.stdin = None;
    }

    /// Sends it a signal by its number.
    ///
    /// # Panics
    /// When it is gone.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("the client lives");
    }

    #[must_use]
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child of ours").is_some()
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it doesn't end in time.
    #[track_caller]
    pub fn finish(mut self) -> Output {
        self.child.stdin = None;
        let status = wait::within(LIMIT, || self.child.try_wait().expect("a child of ours"));
        let Some(status) = status else {
            let _ = self.child.kill();
            panic!(
                "`ctl {}` did not end in {} seconds; it wrote {:?} and {:?}",
                self.words,
                wait::patiently(LIMIT).as_secs(),
                self.stdout.text(),
                self.stderr.text()
            );
        };
        Output {
            words: std::mem::take(&mut self.words),
            code: status.code(),
            stdout: self.stdout.end(),
            stderr: self.stderr.end(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// What a run of the client gave.
#[derive(Clone, Debug)]
pub struct Output {
    words: String,
    /// `None` when a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// It has to have ended with 0; gives standard output without the last line end.
    ///
    /// # Panics
    /// With everything it wrote, when it failed.
    #[track_caller]
    #[must_use]
    pub fn text(&self) -> String {
        self.check(0);
        self.stdout.trim_end_matches('\n').to_owned()
    }

    /// [`text`](Self::text), for its success alone.
    ///
    /// # Panics
    /// As `text`.
    #[track_caller]
    pub fn ok(&self) {
        self.check(0);
    }

    /// It has to have ended with this code.
    ///
    /// # Panics
    /// With everything it wrote, when it did not.
    #[track_caller]
    pub fn check(&self, code: i32) {
        assert_eq!(
            self.code,
            Some(code),
            "`ctl {}` ended otherwise; stdout:\n{}\nstderr:\n{}",
            self.words,
            self.stdout,
            self.stderr
        );
    }

    /// It has to have failed with this code and said each of these on standard error.
    ///
    /// # Panics
    /// With everything it wrote, when it did not.
    #[track_caller]
    pub fn fails(&self, code: i32, said: &[&str]) {
        self.check(code);
        for part in said {
            assert!(
                self.stderr.contains(part),
                "`ctl {}` does not say {part:?} on standard error:\n{}",
                self.words,
                self.stderr
            );
        }
    }

    /// As of `wait`: it printed the container's code and ended with it. Gives the code.
    ///
    /// # Panics
    /// When it did otherwise.
    #[track_caller]
    #[must_use]
    pub fn waited(&self) -> String {
        let printed = self.stdout.trim_end().to_owned();
        assert_eq!(
            self.code.map(|code| code.to_string()),
            Some(printed.clone()),
            "`ctl {}`; stderr:\n{}",
            self.words,
            self.stderr
        );
        printed
    }

    /// The output as JSON.
    ///
    /// # Panics
    /// When it failed or wrote something else.
    #[track_caller]
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        let text = self.text();
        serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("`ctl {}`: {error}: {text}", self.words))
    }
}

/// Reads a pipe to its end beside the test, so that no writer waits.
#[derive(Debug)]
struct Collector {
    text: std::sync::Arc<std::sync::Mutex<Vec<u8>>>,
    thread: std::thread::JoinHandle<()>,
}

impl Collector {
    fn new(mut pipe: impl Read + Send + 'static) -> Self {
        let text = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let into = text.clone();
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 16384];
            while let Ok(count @ 1..) = pipe.read(&mut buffer) {
                into.lock().expect("no reader panics").extend_from_slice(&buffer[..count]);
            }
        });
        Self { text, thread }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.text.lock().expect("no reader panics")).into_owned()
    }

    /// All of it. Something that inherited the pipe and outlived the client can't hold the test up.
    fn end(&self) -> String {
        wait::within(Duration::from_secs(2), || self.thread.is_finished().then_some(()));
        self.text()
    }
}

/// Splits words as a shell does, with single and double quotes.
///
/// # Panics
/// On a quote without its end: a slip in a test.
#[must_use]
pub fn split(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for character in text.chars() {
        match (quote, character) {
            (Some(open), _) if open == character => quote = None,
            (Some(_), _) => word.get_or_insert_default().push(character),
            (None, '\'' | '"') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (None, _) if character.is_whitespace() => words.extend(word.take()),
            (None, _) => word.get_or_insert_default().push(character),
        }
    }
    assert!(quote.is_none(), "a quote is not closed in {text:?}");
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn words_are_split_as_a_shell_does() {
        assert_eq!(split("run -d  --name web"), ["run", "-d", "--name", "web"]);
        assert_eq!(split("sh -c 'exit 3' \"a 'b'\" ''"), ["sh", "-c", "exit 3", "a 'b'", ""]);
        assert_eq!(split("--label a='b c'"), ["--label", "a=b c"]);
    }
}
