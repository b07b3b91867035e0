//! `make matrix`: the fault matrix, run as often as asked, and the table of what was lost.
//!
//! Every row that ran gets a file of its own below `integration/results/matrix/`; the table in
//! `docs/RELIABILITY.md` is made of all files there, so that a run of a few rows changes those.
//!
//! Arguments: `--rounds N` (times each row's own count; default 1), `--only WORD` (rows whose name holds
//! it), `--cases WORD` (only cases whose name holds it, `--rounds` times each; nothing is written then), `--bounded` (what the suite runs), `--full` (each case `--rounds` times with the counts of a release, such as
//! 10,000 containers, where it has them), `--threads N` (rounds side by side; default 3), `--date TEXT` (goes into the
//! files), `--table` (runs nothing, writes the table), `--report FILE` (runs nothing: what `make test` or `make
//! test-vm` printed, for the rows that are tests). Ends with 1 when something was lost.
#![forbid(unsafe_code)]

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use integration::matrix::tested::TESTED;
use integration::matrix::{Outcome, ROWS, few_pids};
use serde_json::{Value, json};

const BEGIN: &str = "<!-- the table: written by `make matrix` -->";
const END: &str = "<!-- the table's end -->";

struct Options {
    rounds: usize,
    threads: usize,
    only: String,
    cases: String,
    date: String,
    report: Option<PathBuf>,
    table: bool,
    bounded: bool,
    full: bool,
}

impl Options {
    fn read() -> Result<Self, String> {
        let mut options = Self {
            rounds: 1,
            threads: 3,
            only: String::new(),
            cases: String::new(),
            date: String::new(),
            report: None,
            table: false,
            bounded: false,
            full: false,
        };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} needs a value"));
            let number =
                |text: String| text.parse().map_err(|_| format!("{word} {text:?} is not a number"));
            match word.as_str() {
                "--rounds" => options.rounds = number(value()?)?,
                "--threads" => options.threads = number(value()?)?,
                "--only" => options.only = value()?,
                "--cases" => options.cases = value()?,
                "--date" => options.date = value()?,
                "--report" => options.report = Some(value()?.into()),
                "--table" => options.table = true,
                "--bounded" => options.bounded = true,
                "--full" => options.full = true,
                other => {
                    return Err(format!(
                        "unknown argument {other:?}: --rounds N, --threads N, --only WORD, --cases WORD, --date TEXT, --bounded, --full, --table, --report FILE"
                    ));
                }
            }
        }
        let runs = !options.table && options.report.is_none();
        if runs && !ROWS.iter().any(|row| row.name.contains(&options.only)) {
            let names: Vec<_> = ROWS.iter().map(|row| row.name).collect();
            return Err(format!("no row {:?}: there are {}", options.only, names.join(", ")));
        }
        Ok(options)
    }
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [word, numbers @ ..] = words.as_slice()
        && word == few_pids::ARGUMENT
    {
        let numbers: Result<Vec<usize>, _> = numbers.iter().map(|word| word.parse()).collect();
        return match numbers.as_deref() {
            Ok(&[round, count]) => {
                few_pids::among_few_pids(round, count);
                ExitCode::SUCCESS
            }
            _ => ExitCode::from(2),
        };
    }
    let options = match Options::read() {
        Ok(options) => options,
        Err(problem) => {
            eprintln!("matrix: {problem}");
            return ExitCode::from(2);
        }
    };
    let mut lost = 0;
    if let Some(report) = &options.report {
        match read_report(report, &options) {
            Ok(found) => lost += found,
            Err(error) => {
                eprintln!("matrix: {}: {error}", report.display());
                return ExitCode::FAILURE;
            }
        }
    } else if !options.table {
        for row in ROWS.iter().filter(|row| row.name.contains(&options.only)) {
            eprintln!("matrix: {}: {}", row.name, row.fault);
            let (word, threads) = (options.cases.as_str(), options.threads);
            let outcome = match (options.bounded, options.full) {
                (true, _) => row.run_bounded(word, threads),
                (false, false) if !word.is_empty() => row.run(word, options.rounds, threads, false),
                (false, false) => row.run(word, row.full * options.rounds, threads, false),
                // One after the other: they measure.
                (false, true) => row.run(word, options.rounds, 1, true),
            };
            lost += outcome.lost.len();
            report(&outcome);
            if !word.is_empty() {
                continue;
            }
            if let Err(error) = write(&outcome, &options, &kernel()) {
                eprintln!("matrix: the results of {}: {error}", row.name);
                return ExitCode::FAILURE;
            }
        }
    }
    if !options.cases.is_empty() {
        return if lost == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    match write_table() {
        Ok(()) if lost == 0 => ExitCode::SUCCESS,
        Ok(()) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("matrix: {}: {error}", document().display());
            ExitCode::FAILURE
        }
    }
}

/// Writes the results of the rows of which a report has tests; how many of these failed.
fn read_report(path: &Path, options: &Options) -> std::io::Result<usize> {
    let text = String::from_utf8_lossy(&fs::read(path)?).into_owned();
    // The virtual machine says first which kernel it has.
    let release = text.lines().find_map(|line| line.strip_prefix("Linux "));
    let kernel = release.map_or_else(kernel, str::to_owned);
    let outcomes: Vec<_> = TESTED.iter().filter_map(|row| row.outcome(&text)).collect();
    if outcomes.is_empty() {
        return Err(std::io::Error::other("it has no test of any row"));
    }
    for outcome in &outcomes {
        report(outcome);
        write(outcome, options, &kernel)?;
    }
    Ok(outcomes.iter().map(|outcome| outcome.lost.len()).sum())
}

/// The release of this machine's.
fn kernel() -> String {
    let text = fs::read_to_string("/proc/sys/kernel/osrelease");
    text.unwrap_or_default().trim().to_owned()
}

fn report(outcome: &Outcome) {
    eprintln!(
        "matrix: {}: {} rounds of {} cases, {} lost",
        outcome.name,
        outcome.rounds,
        outcome.cases,
        outcome.lost.len()
    );
    for line in &outcome.lost {
        eprintln!("  lost: {line}");
    }
}

fn file(row: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("results/matrix").join(format!("{row}.json"))
}

fn document() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("docs").join("RELIABILITY.md")
}

fn write(outcome: &Outcome, options: &Options, kernel: &str) -> std::io::Result<()> {
    let document = json!({
        "row": outcome.name, "fault": outcome.fault, "promise": outcome.promise,
        "cases": outcome.cases, "rounds": outcome.rounds,
        "lost": outcome.lost, "unreached": outcome.unreached, "measured": outcome.figures,
        "date": options.date, "kernel": kernel,
    });
    let name = if options.full { full(outcome.name) } else { outcome.name.to_owned() };
    let path = file(&name);
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::write(path, format!("{document:#}\n"))
}

/// Name of the results of a row with the counts of a release.
fn full(row: &str) -> String {
    format!("{row}-full")
}

/// What a result file says, for the table's last columns.
fn cells(result: &Value) -> String {
    let lost = result["lost"].as_array().map_or(0, Vec::len);
    let date = result["date"].as_str().unwrap_or_default().split('T').next().unwrap_or_default();
    format!("{} | {} | {lost} | {date}", result["cases"], result["rounds"])
}

/// Puts the table made of the result files between the marks of the document.
fn write_table() -> std::io::Result<()> {
    let mut table = String::from(
        "| row | fault | promise | cases | rounds | lost | run |\n|---|---|---|---:|---:|---:|---|\n",
    );
    let mut measured = String::new();
    let rows = ROWS.iter().map(|row| (row.name, row.fault, row.promise));
    for (name, fault, promise) in
        rows.chain(TESTED.iter().map(|row| (row.name, row.fault, row.promise)))
    {
        let Ok(text) = fs::read_to_string(file(name)) else {
            let _ = writeln!(table, "| {name} | {fault} | {promise} | | | | not run |");
            continue;
        };
        let result: Value = serde_json::from_str(&text)?;
        let _ = writeln!(table, "| {name} | {fault} | {promise} | {} |", cells(&result));
        if let Ok(text) = fs::read_to_string(file(&full(name))) {
            let result: Value = serde_json::from_str(&text)?;
            let _ = writeln!(
                table,
                "| {name} | *the same, with the counts of a release* | | {} |",
                cells(&result)
            );
            for figure in result["measured"].as_array().into_iter().flatten() {
                let _ = writeln!(measured, "- {name}: {}", figure.as_str().unwrap_or_default());
            }
        }
    }
    if !measured.is_empty() {
        let _ = write!(table, "\nMeasured by the runs with the counts of a release:\n\n{measured}");
    }
    let path = document();
    let text = fs::read_to_string(&path)?;
    let parts = text.split_once(BEGIN).zip(text.split_once(END));
    let Some(((before, _), (_, after))) = parts else {
        return Err(std::io::Error::other("the marks of the table are gone"));
    };
    fs::write(path, format!("{before}{BEGIN}\n{table}{END}{after}"))
}
