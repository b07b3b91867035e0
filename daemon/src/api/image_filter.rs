//! `--filter KEY=VALUE` of images, as docker has it: the same key twice is "or", different keys are
//! "and"; `label!=` takes away.

use std::time::SystemTime;

use bosun_image::Reference;

use super::filter::{split, unknown};
use crate::error::{Error, Result};
use crate::images::Found;
use crate::time::Time;

const KEYS: [&str; 7] = ["reference", "label", "label!", "before", "since", "until", "dangling"];

/// Which images a list shows, or a prune takes.
#[derive(Debug, Default)]
pub(super) struct ImageFilter {
    references: Vec<String>,
    labels: Vec<(String, Option<String>)>,
    without: Vec<(String, Option<String>)>,
    before: Vec<Time>,
    since: Vec<Time>,
    dangling: Option<bool>,
}

impl ImageFilter {
    /// # Errors
    /// Names the filter that can't be used, and those that can.
    pub(super) fn parse(filters: &[String], all: &[Found]) -> Result<Self> {
        let mut parsed = Self::default();
        for text in filters {
            let (name, value) = split(text)?;
            match name {
                "reference" => parsed.references.push(value.to_owned()),
                "label" => parsed.labels.push(label(value)),
                "label!" => parsed.without.push(label(value)),
                "before" => parsed.before.push(created(all, value)?),
                "since" => parsed.since.push(created(all, value)?),
                "until" => parsed.before.push(moment(value)?),
                "dangling" => {
                    parsed.dangling = Some(value.parse().map_err(|_| Error::InvalidArgument {
                        what: "filter",
                        problem: format!("dangling {value:?} is neither true nor false"),
                    })?);
                }
                _ => return Err(unknown(name, &KEYS)),
            }
        }
        Ok(parsed)
    }

    pub(super) fn matches(&self, found: &Found) -> bool {
        let at = made(found);
        let of_image = found.image.as_ref().map(|image| &image.config.config.labels);
        let has = |(key, value): &(String, Option<String>)| {
            let known = found.row.labels.get(key).or_else(|| of_image?.get(key));
            known.is_some_and(|known| value.as_ref().is_none_or(|value| value == known))
        };
        let name = found.row.name.parse::<Reference>().ok();
        let is_dangling = name.as_ref().is_some_and(|name| name.tag().is_none());
        let named = |pattern: &String| {
            name.as_ref().is_some_and(|name| {
                [name.name(), name.familiar(), name.repository(), last(name)]
                    .iter()
                    .any(|text| glob(pattern, text))
            })
        };
        (self.references.is_empty() || self.references.iter().any(named))
            && (self.labels.is_empty() || self.labels.iter().all(has))
            && !self.without.iter().any(has)
            && self.before.iter().all(|before| at < *before)
            && self.since.iter().all(|since| at > *since)
            && self.dangling.is_none_or(|wanted| wanted == is_dangling)
    }
}

/// The familiar repository, without its tag.
fn last(name: &Reference) -> String {
    let familiar = name.familiar();
    let end = familiar.find('@').unwrap_or(familiar.len());
    let start = familiar[..end].rfind('/').map_or(0, |at| at + 1);
    let end = familiar[start..end].find(':').map_or(end, |at| start + at);
    familiar[..end].to_owned()
}

fn label(text: &str) -> (String, Option<String>) {
    match text.split_once('=') {
        Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
        None => (text.to_owned(), None),
    }
}

/// When the image was made, by its own word; else when its name came here.
fn made(found: &Found) -> Time {
    let of_image = found.image.as_ref().and_then(|image| image.config.created.as_deref());
    of_image.and_then(Time::parse).unwrap_or(found.row.created_at)
}

/// When the image of a name or an id was made.
fn created(all: &[Found], text: &str) -> Result<Time> {
    let name = text.parse::<Reference>().map(|name| name.name()).unwrap_or_default();
    let is_meant = |found: &&Found| {
        let id = found.image.as_ref().map(|image| image.manifest.config.digest.hex().to_owned());
        found.row.name == name || (text.len() >= 4 && id.is_some_and(|id| id.starts_with(text)))
    };
    all.iter()
        .find(is_meant)
        .map(made)
        .ok_or_else(|| Error::NoSuchImage { reference: text.to_owned(), similar: None })
}

/// A moment, or how long ago one was: `24h`, `10m`, `1h30m`.
fn moment(text: &str) -> Result<Time> {
    if let Some(time) = Time::parse(text) {
        return Ok(time);
    }
    if let Ok(seconds) = text.parse::<i64>() {
        return Ok(Time { seconds, nanos: 0 });
    }
    let ago = text.parse::<jiff::SignedDuration>().ok().map(|ago| ago.unsigned_abs());
    let at = ago.and_then(|ago| SystemTime::now().checked_sub(ago));
    at.map(Time::from).ok_or_else(|| Error::InvalidArgument {
        what: "filter",
        problem: format!("until {text:?} is neither a moment nor a time span, such as 24h"),
    })
}

/// `*` stands for anything but `/`, `?` for one such character, as docker's patterns have it.
fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), text.chars().collect());
    // The places in the pattern that may be reached; a star stays one of them.
    let mut places = vec![false; pattern.len() + 1];
    places[0] = true;
    let skip_stars = |places: &mut Vec<bool>| {
        for at in 0..pattern.len() {
            places[at + 1] |= places[at] && pattern[at] == '*';
        }
    };
    skip_stars(&mut places);
    for character in text {
        let mut next = vec![false; pattern.len() + 1];
        for at in 0..pattern.len() {
            if !places[at] {
                continue;
            }
            match pattern[at] {
                '*' if character != '/' => next[at] = true,
                '?' if character != '/' => next[at + 1] = true,
                wanted if wanted == character => next[at + 1] = true,
                _ => {}
            }
        }
        places = next;
        skip_stars(&mut places);
    }
    places[pattern.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_docker_s() {
        for (pattern, text, matches) in [
            ("alpine", "alpine", true),
            ("alp*", "alpine:latest", true),
            ("alp*", "library/alpine", false),
            ("*/alpine*", "library/alpine:3", true),
            ("a?pine", "alpine", true),
            ("*:3", "alpine:3", true),
            ("", "alpine", false),
            ("**", "x", true),
        ] {
            assert_eq!(glob(pattern, text), matches, "{pattern} {text}");
        }
    }

    #[test]
    fn moments_are_read_in_all_their_forms() {
        let now = Time::now();
        assert!(moment("1h").unwrap() < now);
        assert_eq!(moment("1700000000").unwrap().seconds, 1_700_000_000);
        assert_eq!(moment("2026-01-01T00:00:00Z").unwrap().seconds, 1_767_225_600);
        assert!(moment("soon").is_err());
    }
}
