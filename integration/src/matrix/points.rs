//! The failpoints that a program has, as the program itself holds them: none can be forgotten.

use std::collections::BTreeMap;

use crate::daemon::program;

/// How a program with failpoints keeps the name of one (see the crate `shim-failpoints`).
const MARK: &[u8] = b"<failpoint ";

/// A named step of the daemon or of the shim.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Point {
    /// `SIDE.OPERATION.STEP`.
    pub name: String,
    /// Whether the step may also fail.
    pub can_fail: bool,
}

impl Point {
    /// `daemon` or `shim`.
    #[must_use]
    pub fn side(&self) -> &str {
        self.name.split('.').next().unwrap_or_default()
    }

    #[must_use]
    pub fn operation(&self) -> &str {
        self.name.split('.').nth(1).unwrap_or_default()
    }
}

/// All of both programs, sorted by name.
///
/// # Panics
/// When the programs were not built, or hold none.
#[must_use]
pub fn all() -> Vec<Point> {
    let mut found = BTreeMap::new();
    for name in ["failpoints/bosund", "failpoints/bosun-shim"] {
        let before = found.len();
        let bytes = std::fs::read(program(name)).expect("a program");
        let mut rest = &bytes[..];
        while let Some(at) = rest.windows(MARK.len()).position(|window| window == MARK) {
            rest = &rest[at + MARK.len()..];
            let Some(end) = rest.iter().take(100).position(|&byte| byte == b'>') else { continue };
            let Ok(text) = std::str::from_utf8(&rest[..end]) else { continue };
            let name = text.trim_end_matches('?');
            // One step may stand in several places.
            *found.entry(name.to_owned()).or_insert(true) &= name != text;
        }
        assert!(found.len() > before, "{name} has no failpoints: run `make build-test`");
    }
    found.into_iter().map(|(name, can_fail)| Point { name, can_fail }).collect()
}

/// Those of some operations of one side.
///
/// # Panics
/// As [`all`], and when an operation has none.
#[must_use]
pub fn of(side: &str, operations: &[&str]) -> Vec<Point> {
    let mut points = all();
    points.retain(|point| point.side() == side && operations.contains(&point.operation()));
    for operation in operations {
        let known = points.iter().any(|point| point.operation() == *operation);
        assert!(known, "no failpoint {side}.{operation}.*");
    }
    points
}
