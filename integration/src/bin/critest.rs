//! `make critest-table`: what a run of critest, the validation suite of kubernetes-sigs/cri-tools, has
//! found, as a table in `docs/kubernetes.md`.
//!
//! The suite is run beside this project (`critest -ginkgo.junit-report FILE …`), and this reads the JUnit report that
//! it leaves. Arguments: `--report FILE`, and, where streams were tested over WebSocket in a run of their
//! own, `--websocket FILE`; `--where machine` (if nothing is said) or `--where vm` says which of the two
//! tables it is: of a machine as it is, or of the virtual machine of `integration/vm`. Ends with 1 when the
//! document or a report can't be read or written; specs that failed are no error here: the table names them.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const END: &str = "<!-- the table's end -->";

/// Where a run was made: each has a table of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Machine,
    VirtualMachine,
}

impl Place {
    fn parse(word: &str) -> Option<Self> {
        match word {
            "machine" => Some(Self::Machine),
            "vm" => Some(Self::VirtualMachine),
            _ => None,
        }
    }

    /// The line above its table.
    fn mark(self) -> &'static str {
        match self {
            Self::Machine => "<!-- the table: written by `make critest-table` -->",
            Self::VirtualMachine => {
                "<!-- the virtual machine's table: written by `make critest-table WHERE=vm` -->"
            }
        }
    }
}

/// The groups of the suite whose names are not seen from the name of a spec; of two that fit, the longer.
const GROUPS: [&str; 18] = [
    "AppArmor",
    "Container",
    "Container Mount Propagation",
    "Container Mount Readonly",
    "Container OOM",
    "Idempotence",
    "Image",
    "Image Consistency",
    "Image Identifier Consistency",
    "Image Manager",
    "Image Volume",
    "Multiple Containers",
    "NRI",
    "Networking",
    "PodSandbox",
    "Runtime info",
    "Security Context",
    "Streaming",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Passed,
    Failed,
    Skipped,
}

#[derive(Debug, PartialEq, Eq)]
struct Spec {
    name: String,
    verdict: Verdict,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    passed: usize,
    failed: usize,
    skipped: usize,
}

impl Count {
    fn add(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Passed => self.passed += 1,
            Verdict::Failed => self.failed += 1,
            Verdict::Skipped => self.skipped += 1,
        }
    }

    fn row(self, name: &str) -> String {
        format!("| {name} | {} | {} | {} |\n", self.passed, self.failed, self.skipped)
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("critest: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let (mut report, mut websocket, mut place) = (None, None, Place::Machine);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value"));
        match word.as_str() {
            "--report" => report = Some(PathBuf::from(value()?)),
            "--websocket" => websocket = Some(PathBuf::from(value()?)),
            "--where" => {
                let word = value()?;
                place = Place::parse(&word).ok_or(format!("--where {word:?}: machine, or vm"))?;
            }
            other => {
                return Err(format!("unknown argument {other:?}: --report, --websocket, --where"));
            }
        }
    }
    let report = report.ok_or("which report? --report FILE")?;
    let specs = read(&report)?;
    let websocket = websocket.map(|path| read(&path)).transpose()?;
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("docs").join("kubernetes.md");
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let text = fs::read_to_string(&path).map_err(failed)?;
    let text = with_table(&text, place, &table(&specs, websocket.as_deref())).ok_or(format!(
        "{}: the marks {:?} and {END:?} are gone",
        path.display(),
        place.mark()
    ))?;
    fs::write(&path, text).map_err(failed)
}

/// The document with `table` in the place of what it has between the marks of `place`.
fn with_table(text: &str, place: Place, table: &str) -> Option<String> {
    let mark = place.mark();
    let (before, rest) = text.split_once(mark)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{mark}\n{table}{END}{after}"))
}

fn read(path: &Path) -> Result<Vec<Spec>, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let specs = specs(&text);
    match specs.is_empty() {
        true => Err(format!("{}: no spec is in it", path.display())),
        false => Ok(specs),
    }
}

fn table(specs: &[Spec], websocket: Option<&[Spec]>) -> String {
    let mut groups: BTreeMap<String, Count> = BTreeMap::new();
    let mut all = Count::default();
    for spec in specs {
        groups.entry(group(&spec.name)).or_default().add(spec.verdict);
        all.add(spec.verdict);
    }
    let mut table =
        String::from("| group of specs | passed | failed | skipped |\n|---|---|---|---|\n");
    for (name, count) in &groups {
        let _ = write!(table, "{}", count.row(name));
    }
    table += &all.row("all");
    if let Some(specs) = websocket {
        let mut count = Count::default();
        let streams = specs.iter().filter(|spec| group(&spec.name) == "Streaming");
        streams.for_each(|spec| count.add(spec.verdict));
        table += &count.row("Streaming, over WebSocket");
    }
    let failed = |spec: &&Spec| spec.verdict == Verdict::Failed;
    let mut names: Vec<String> =
        specs.iter().filter(failed).map(|spec| spec.name.clone()).collect();
    let streams = websocket.into_iter().flatten().filter(|spec| group(&spec.name) == "Streaming");
    names.extend(streams.filter(failed).map(|spec| format!("{}, over WebSocket", spec.name)));
    if !names.is_empty() {
        table += "\nFailed:\n\n";
        for name in names {
            let _ = writeln!(table, "- {name}");
        }
    }
    table
}

/// The group of a spec, by the name that it has in reports.
fn group(name: &str) -> String {
    let is_of = |group: &&&str| {
        name.strip_prefix(**group).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
    };
    let known = GROUPS.iter().filter(is_of).max_by_key(|group| group.len());
    let first = || name.split(' ').next().unwrap_or_default();
    known.copied().unwrap_or_else(first).to_owned()
}

/// The specs of a JUnit report of Ginkgo's; what it does before and after them is left out.
fn specs(report: &str) -> Vec<Spec> {
    report.split("<testcase ").skip(1).filter_map(spec).collect()
}

/// `text` begins behind the opening of an element and goes on to the next one.
fn spec(text: &str) -> Option<Spec> {
    let body = text.split("</testcase>").next().unwrap_or(text);
    let name = attribute(body, "name")?;
    // `[It] [k8s.io] GROUP …`
    let name = name.strip_prefix("[It] ")?.trim_start_matches("[k8s.io] ").to_owned();
    let has = |element: &str| body.contains(element);
    let verdict = match attribute(body, "status").as_deref() {
        Some("passed") => Verdict::Passed,
        Some("skipped" | "pending") => Verdict::Skipped,
        Some(_) => Verdict::Failed,
        None if has("<failure") || has("<error") => Verdict::Failed,
        None if has("<skipped") => Verdict::Skipped,
        None => Verdict::Passed,
    };
    Some(Spec { name, verdict })
}

fn attribute(text: &str, name: &str) -> Option<String> {
    let (_, rest) = text.split_once(&format!("{name}=\""))?;
    let (value, _) = rest.split_once('"')?;
    let entities = [
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&#34;", "\""),
        ("&quot;", "\""),
        ("&#39;", "'"),
        ("&apos;", "'"),
        ("&amp;", "&"),
    ];
    let mut value = value.to_owned();
    for (entity, letter) in entities {
        value = value.replace(entity, letter);
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = r#"<?xml version="1.0"?>
<testsuites><testsuite name="CRI validation">
<testcase name="[BeforeSuite]" classname="CRI validation" status="passed" time="0"></testcase>
<testcase name="[It] [k8s.io] Container OOM runtime should say so" classname="a" status="passed"></testcase>
<testcase name="[It] [k8s.io] Container runtime should &#39;start&#39;" status="failed"><failure/></testcase>
<testcase name="[It] [k8s.io] Container runtime should stop"><skipped message="no"/></testcase>
<testcase name="[It] [k8s.io] Streaming runtime should exec" status="panicked"></testcase>
<testcase name="[It] [k8s.io] Newer things should work" status="passed"/>
</testsuite></testsuites>"#;

    #[test]
    fn each_spec_is_counted_in_its_group() {
        let specs = specs(REPORT);
        assert_eq!(specs.len(), 5);
        assert_eq!(specs[1].name, "Container runtime should 'start'");
        assert_eq!(
            table(&specs, Some(&specs)),
            "| group of specs | passed | failed | skipped |\n|---|---|---|---|\n\
             | Container | 0 | 1 | 1 |\n\
             | Container OOM | 1 | 0 | 0 |\n\
             | Newer | 1 | 0 | 0 |\n\
             | Streaming | 0 | 1 | 0 |\n\
             | all | 2 | 2 | 1 |\n\
             | Streaming, over WebSocket | 0 | 1 | 0 |\n\
             \nFailed:\n\n\
             - Container runtime should 'start'\n\
             - Streaming runtime should exec\n\
             - Streaming runtime should exec, over WebSocket\n"
        );
    }

    #[test]
    fn each_place_has_a_table_of_its_own() {
        let (machine, vm) = (Place::Machine, Place::VirtualMachine);
        let text = format!("a\n{}\n1\n{END}\nb\n{}\n2\n{END}\nc\n", machine.mark(), vm.mark());
        let changed = |place| with_table(&text, place, "3\n").unwrap();
        assert_eq!(changed(machine), text.replace("1\n", "3\n"));
        assert_eq!(changed(vm), text.replace("2\n", "3\n"));
        assert_eq!(with_table("no mark", vm, "3\n"), None);
    }
}
