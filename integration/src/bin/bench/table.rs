//! Rows of figures: for the terminal, and as JSON.

use std::fmt;
use std::io;

use serde_json::{Value, json};

/// What is to be reached.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal {
    AtMost(f64),
    AtLeast(f64),
}

impl Goal {
    fn is_met_by(self, value: f64) -> bool {
        match self {
            Self::AtMost(limit) => value <= limit,
            Self::AtLeast(limit) => value >= limit,
        }
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(limit) => write!(f, "≤ {}", figure(*limit)),
            Self::AtLeast(limit) => write!(f, "≥ {}", figure(*limit)),
        }
    }
}

/// The other side of a row.
#[derive(Clone, Debug)]
enum Peer {
    Measured {
        name: String,
        value: f64,
    },
    /// With the reason.
    None(String),
}

#[derive(Clone, Debug)]
pub(crate) struct Row {
    what: String,
    unit: &'static str,
    peer: Peer,
    ours: f64,
    goal: Goal,
}

impl Row {
    pub(crate) fn against(
        what: &str,
        unit: &'static str,
        peer: &str,
        theirs: f64,
        ours: f64,
        goal: Goal,
    ) -> Self {
        let peer = Peer::Measured { name: peer.to_owned(), value: theirs };
        Self { what: what.to_owned(), unit, peer, ours, goal }
    }

    pub(crate) fn alone(what: &str, unit: &'static str, why: &str, ours: f64, goal: Goal) -> Self {
        Self { what: what.to_owned(), unit, peer: Peer::None(why.to_owned()), ours, goal }
    }

    /// How many times better than the peer.
    fn ratio(&self) -> Option<f64> {
        let Peer::Measured { value, .. } = self.peer else { return None };
        Some(match self.goal {
            Goal::AtMost(_) => value / self.ours,
            Goal::AtLeast(_) => self.ours / value,
        })
    }

    fn cells(&self) -> [String; 6] {
        let (peer, theirs) = match &self.peer {
            Peer::Measured { name, value } => (name.clone(), figure(*value)),
            Peer::None(why) => (why.clone(), "–".to_owned()),
        };
        let met = if self.goal.is_met_by(self.ours) { "met" } else { "missed" };
        [
            format!("{} ({})", self.what, self.unit),
            peer,
            theirs,
            figure(self.ours),
            self.ratio().map_or("–".to_owned(), |ratio| format!("{ratio:.1}×")),
            format!("{} {met}", self.goal),
        ]
    }

    fn json(&self) -> Value {
        let (peer, theirs) = match &self.peer {
            Peer::Measured { name, value } => (json!(name), json!(value)),
            Peer::None(_) => (Value::Null, Value::Null),
        };
        json!({
            "what": self.what, "unit": self.unit, "peer": peer, "peer_value": theirs,
            "ours": self.ours, "ratio": self.ratio(), "goal": self.goal.to_string(),
            "met": self.goal.is_met_by(self.ours),
        })
    }
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table(Vec<Row>);

impl Table {
    pub(crate) fn push(&mut self, row: Row) {
        self.0.push(row);
    }

    pub(crate) fn write(&self, path: &str, date: &str, quick: bool) -> io::Result<()> {
        let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let memory = text("/proc/meminfo").lines().next().unwrap_or_default().to_owned();
        let document = json!({
            "date": date,
            "quick": quick,
            "machine": {
                "kernel": text("/proc/sys/kernel/osrelease"),
                "cores": std::thread::available_parallelism().map_or(0, usize::from),
                "memory": memory.trim_start_matches("MemTotal:").trim(),
            },
            "rows": self.0.iter().map(Row::json).collect::<Vec<_>>(),
        });
        if let Some(directory) = std::path::Path::new(path).parent() {
            std::fs::create_dir_all(directory)?;
        }
        std::fs::write(path, format!("{document:#}\n"))
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = ["what", "peer", "theirs", "ours", "ratio", "goal"].map(str::to_owned);
        let lines: Vec<[String; 6]> =
            std::iter::once(head).chain(self.0.iter().map(Row::cells)).collect();
        let width = |column: usize| {
            lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0)
        };
        let widths: [usize; 6] = std::array::from_fn(width);
        for line in &lines {
            for (column, cell) in line.iter().enumerate() {
                let wide = widths[column];
                if (2..5).contains(&column) {
                    write!(f, "{cell:>wide$}  ")?;
                } else {
                    write!(f, "{cell:<wide$}  ")?;
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// Three digits that count.
fn figure(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
