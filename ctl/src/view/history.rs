//! How an image was made, as `docker history` shows it.
//!
//! What stands in it was written by whoever built the image: control characters are shown, not
//! obeyed.

use bosun_proto::v1::{Descriptor, ImageContent};
use jiff::Timestamp;
use serde::Deserialize;

use super::decimal_size;
use super::duration::human_duration;
use super::image::moment;
use super::listing::Column;
use super::moment::{seconds_since, utc};
use super::row::cut;
use crate::output::escaped;
use crate::progress::short;
use crate::template::{Value, record};

/// Only the last step's result has an id; the others are layers of it.
const MISSING: &str = "<missing>";
const NOT_KNOWN: &str = "N/A";
const CREATED_BY_LEN: usize = 45;
const DIGITS: u32 = 3;

/// The headings of docker's fields.
pub(crate) const COLUMNS: [Column; 6] = [
    Column { field: "Comment", heading: "COMMENT" },
    Column { field: "CreatedAt", heading: "CREATED AT" },
    Column { field: "CreatedBy", heading: "CREATED BY" },
    Column { field: "CreatedSince", heading: "CREATED" },
    Column { field: "ID", heading: "IMAGE" },
    Column { field: "Size", heading: "SIZE" },
];

#[derive(Default, Deserialize)]
#[serde(default)]
struct Config {
    history: Option<Vec<Step>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Step {
    created: Option<String>,
    created_by: Option<String>,
    comment: Option<String>,
    empty_layer: Option<bool>,
}

/// A row for each step, the last one first; layers that no step tells of have one each. Nothing
/// when the configuration can't be read.
pub(crate) fn rows(
    content: &ImageContent,
    now: Timestamp,
    human: bool,
    whole: bool,
) -> Option<Vec<Value>> {
    let config: Config = serde_json::from_slice(&content.config_json).ok()?;
    let mut layers = content.layers.iter();
    let mut steps: Vec<(Step, Option<&Descriptor>)> = Vec::new();
    for step in config.history.unwrap_or_default() {
        let layer = if step.empty_layer.unwrap_or(false) { None } else { layers.next() };
        steps.push((step, layer));
    }
    steps.extend(layers.map(|layer| (Step::default(), Some(layer))));
    let digest = content.config.as_ref().map_or("", |config| config.digest.as_str());
    let id = if whole { escaped(digest) } else { short(digest) };
    let ids = std::iter::once(id).chain(std::iter::repeat(MISSING.to_owned()));
    let steps = steps.iter().rev().zip(ids);
    Some(steps.map(|((step, layer), id)| row(step, *layer, id, now, human, whole)).collect())
}

fn row(
    step: &Step,
    layer: Option<&Descriptor>,
    id: String,
    now: Timestamp,
    human: bool,
    whole: bool,
) -> Value {
    let at = step.created.as_deref().and_then(moment);
    let since = match &at {
        None => NOT_KNOWN.to_owned(),
        at if human => format!("{} ago", human_duration(seconds_since(at.as_ref(), now))),
        at => utc(at.as_ref()),
    };
    let text = |text: &Option<String>| escaped(&text.as_deref().unwrap_or("").replace('\t', " "));
    let by = text(&step.created_by);
    let size = layer.map_or(0, |layer| layer.size);
    record([
        ("Comment", text(&step.comment).into()),
        ("CreatedAt", at.as_ref().map_or_else(String::new, |at| utc(Some(at))).into()),
        ("CreatedBy", if whole { by } else { cut(&by, CREATED_BY_LEN) }.into()),
        ("CreatedSince", since.into()),
        ("ID", id.into()),
        ("Size", if human { decimal_size(size, DIGITS) } else { size.to_string() }.into()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::Listing;
    use crate::view::image::tests::content;

    fn shown(content: &ImageContent, human: bool) -> String {
        let now: Timestamp = "2026-01-02T00:00:00Z".parse().unwrap();
        let format = "{{.ID}}|{{.CreatedSince}}|{{.CreatedBy}}|{{.Size}}|{{.Comment}}";
        let rows = rows(content, now, human, false).unwrap();
        Listing::new(Some(format), "", &COLUMNS).unwrap().render(&rows).unwrap()
    }

    #[test]
    fn steps_have_the_sizes_of_their_layers() {
        assert_eq!(
            shown(&content(), true),
            "cccccccccccc|N/A|RUN \\u{1b}[2J x|100B|buildkit\n\
             <missing>|24 hours ago|ENV A=1|0B|\n\
             <missing>|24 hours ago|ADD rootfs|2.05kB|\n"
        );
        assert!(shown(&content(), false).contains("|2026-01-01T00:00:00Z|ADD rootfs|2048|"));
    }

    #[test]
    fn layers_without_a_history_are_shown_all_the_same() {
        let bare = ImageContent { config_json: b"{}".to_vec(), ..content() };
        assert_eq!(shown(&bare, true), "cccccccccccc|N/A||100B|\n<missing>|N/A||2.05kB|\n");
        let torn = ImageContent { config_json: b"{\"history\": 1}".to_vec(), ..content() };
        assert!(rows(&torn, Timestamp::now(), true, true).is_none());
    }
}
