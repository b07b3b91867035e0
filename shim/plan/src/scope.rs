//! A cgroup in systemd's terms: `SLICE:PREFIX:NAME` is the scope `PREFIX-NAME.scope` in a slice.
//!
//! ```text
//!   a-b.slice:bosun:web   →   unit bosun-web.scope, group a.slice/a-b.slice/bosun-web.scope
//! ```

use crate::Error;

const AT: &str = "linux.cgroupsPath";
/// Where what is not said belongs, as for every service of the system.
const DEFAULT_SLICE: &str = "system.slice";
const DEFAULT_PREFIX: &str = "bosun";
/// The longest name of a unit (systemd.unit(5)).
const NAME_MAX: usize = 255;

/// Where systemd is to make a container's group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// `machine.slice`
    pub slice: String,
    /// `bosun-web.scope`
    pub unit: String,
    /// Below the root of each hierarchy: `machine.slice/bosun-web.scope`.
    pub path: String,
}

impl Scope {
    /// Of `linux.cgroupsPath`; without one, of the container's own id.
    ///
    /// # Errors
    /// Names the path when it is not of that form, or can't be a unit.
    pub fn parse(cgroups_path: Option<&str>, id: &str) -> Result<Self, Error> {
        let text = cgroups_path.unwrap_or_default();
        let malformed = || Error::malformed(AT, text, "SLICE:PREFIX:NAME, as systemd has it");
        let (slice, prefix, name) = match text.split(':').collect::<Vec<_>>()[..] {
            [""] => (DEFAULT_SLICE, DEFAULT_PREFIX, id),
            ["", prefix, name] => (DEFAULT_SLICE, prefix, name),
            [slice, prefix, name] => (slice, prefix, name),
            _ => return Err(malformed()),
        };
        let unit = match prefix {
            "" => format!("{name}.scope"),
            prefix => format!("{prefix}-{name}.scope"),
        };
        let of_units = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
        let is_unit = |unit: &str| unit.len() <= NAME_MAX && unit.bytes().all(of_units);
        if name.is_empty() || name.starts_with('.') || !is_unit(&unit) || !is_unit(slice) {
            return Err(malformed());
        }
        let group = slice_path(slice).ok_or_else(malformed)?;
        let path = if group.is_empty() { unit.clone() } else { format!("{group}/{unit}") };
        Ok(Self { slice: slice.to_owned(), unit, path })
    }
}

/// A slice lies in those that its name begins with: `a-b.slice` in `a.slice`. `None` when it is none.
fn slice_path(slice: &str) -> Option<String> {
    let name = slice.strip_suffix(".slice")?;
    // The root of all.
    if name == "-" {
        return Some(String::new());
    }
    if name.is_empty() || name.split('-').any(str::is_empty) || name.starts_with('.') {
        return None;
    }
    let mut path = String::new();
    for (end, _) in name.match_indices('-').chain([(name.len(), "")]) {
        if !path.is_empty() {
            path.push('/');
        }
        path.push_str(&name[..end]);
        path.push_str(".slice");
    }
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_lies_in_its_slice_and_those_above_it() {
        for (path, slice, unit, group) in [
            (None, "system.slice", "bosun-web.scope", "system.slice/bosun-web.scope"),
            (Some(""), "system.slice", "bosun-web.scope", "system.slice/bosun-web.scope"),
            (Some(":p:n"), "system.slice", "p-n.scope", "system.slice/p-n.scope"),
            (Some("a.slice::n"), "a.slice", "n.scope", "a.slice/n.scope"),
            (
                Some("a-b-c.slice:cri:1f"),
                "a-b-c.slice",
                "cri-1f.scope",
                "a.slice/a-b.slice/a-b-c.slice/cri-1f.scope",
            ),
            (Some("-.slice:p:n"), "-.slice", "p-n.scope", "p-n.scope"),
        ] {
            let scope = Scope::parse(path, "web").unwrap();
            let found = (scope.slice.as_str(), scope.unit.as_str(), scope.path.as_str());
            assert_eq!(found, (slice, unit, group), "{path:?}");
        }
    }

    #[test]
    fn what_is_no_unit_leads_nowhere() {
        let long = format!("a.slice:p:{}", "n".repeat(250));
        for path in [
            "/bosun/web",
            "a.slice:p",
            "a.slice:p:n:m",
            "a:p:n",
            "a--b.slice:p:n",
            "-a.slice:p:n",
            "../a.slice:p:n",
            "a.slice:p:",
            "a.slice:..:../x",
            "a.slice:p:n/m",
            "a.slice:p:n\n",
            ".slice:p:n",
            &long,
        ] {
            let error = Scope::parse(Some(path), "web").unwrap_err().to_string();
            assert!(error.starts_with("linux.cgroupsPath: "), "{path:?}: {error}");
        }
    }
}
