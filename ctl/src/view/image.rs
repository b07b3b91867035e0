//! Images as rows of `ctl images` and as docker's JSON.

use std::collections::BTreeSet;

use bosun_image::Reference;
use bosun_proto::v1::{Descriptor, Image, ImageContent};
use jiff::Timestamp;
use serde_json::Value as Json;

use super::decimal_size;
use super::duration::human_duration;
use super::listing::Column;
use super::moment::{local_words, seconds_since, utc};
use crate::output::escaped;
use crate::progress::short;
use crate::template::{Value, hidden, record};

/// What docker shows where there is nothing.
pub(super) const NONE: &str = "<none>";
const NOT_KNOWN: &str = "N/A";
/// Significant digits of a size.
const DIGITS: u32 = 3;

/// The headings of docker's fields.
pub(crate) const COLUMNS: [Column; 10] = [
    Column { field: "Containers", heading: "CONTAINERS" },
    Column { field: "CreatedAt", heading: "CREATED AT" },
    Column { field: "CreatedSince", heading: "CREATED" },
    Column { field: "Digest", heading: "DIGEST" },
    Column { field: "ID", heading: "IMAGE ID" },
    Column { field: "Repository", heading: "REPOSITORY" },
    Column { field: "SharedSize", heading: "SHARED SIZE" },
    Column { field: "Size", heading: "SIZE" },
    Column { field: "Tag", heading: "TAG" },
    Column { field: "UniqueSize", heading: "UNIQUE SIZE" },
];

/// A name as people write it; what is no name stays as it is, harmless to a terminal.
pub(crate) fn familiar(name: &str) -> String {
    name.parse::<Reference>().map_or_else(|_| escaped(name), |reference| reference.familiar())
}

/// The rows of a list, the youngest first. A digest alone has a row of its own only where no tag
/// stands for the same image, unless digests are what is asked for.
pub(crate) fn rows(
    mut images: Vec<Image>,
    now: Timestamp,
    digests: bool,
    whole: bool,
) -> Vec<Value> {
    let tagged: BTreeSet<(String, String)> = images
        .iter()
        .filter(|image| named(image).1.is_some())
        .map(|image| (named(image).0, id(image).to_owned()))
        .collect();
    images.retain(|image| {
        let (repository, tag) = named(image);
        digests || tag.is_some() || !tagged.contains(&(repository, id(image).to_owned()))
    });
    images.sort_by_cached_key(|image| {
        let at = created(image).map(|at| (at.seconds, at.nanos));
        (std::cmp::Reverse(at), image.name.clone())
    });
    images.iter().map(|image| row(image, now, whole)).collect()
}

fn row(image: &Image, now: Timestamp, whole: bool) -> Value {
    let (repository, tag) = named(image);
    let created = created(image);
    let since = created.as_ref().map_or_else(
        || NOT_KNOWN.to_owned(),
        |at| format!("{} ago", human_duration(seconds_since(Some(at), now))),
    );
    let id = if whole { escaped(id(image)) } else { short(id(image)) };
    record([
        ("Containers", image.containers.len().to_string().into()),
        ("CreatedAt", local_words(created.as_ref()).into()),
        ("CreatedSince", since.into()),
        ("Digest", target(image).digest.into()),
        ("ID", id.into()),
        ("Repository", repository.into()),
        ("SharedSize", NOT_KNOWN.into()),
        ("Size", decimal_size(size(image), DIGITS).into()),
        ("Tag", tag.unwrap_or_else(|| NONE.to_owned()).into()),
        ("UniqueSize", NOT_KNOWN.into()),
    ])
}

/// The repository as people write it, and the tag.
fn named(image: &Image) -> (String, Option<String>) {
    match image.name.parse::<Reference>() {
        Ok(name) => {
            let tag = name.tag().map(str::to_owned);
            (repository(&name), tag)
        }
        Err(_) if image.name.is_empty() => (NONE.to_owned(), None),
        Err(_) => (escaped(&image.name), None),
    }
}

fn repository(name: &Reference) -> String {
    // A familiar name keeps its tag; without one it would get `latest`.
    let familiar = name.with_tag("x").map(|tagged| tagged.familiar()).unwrap_or_default();
    familiar.strip_suffix(":x").map_or_else(|| name.repository(), str::to_owned)
}

/// The digest of the configuration; of what is not here, that of its target.
pub(crate) fn id(image: &Image) -> &str {
    let config = image.content.as_ref().and_then(|content| content.config.as_ref());
    config.or(image.target.as_ref()).map_or("", |descriptor| descriptor.digest.as_str())
}

fn target(image: &Image) -> Descriptor {
    image.target.clone().unwrap_or_default()
}

/// Unpacked, as docker counts; what is not unpacked counts as it was downloaded.
fn size(image: &Image) -> u64 {
    image.content.as_ref().map_or(0, |content| match content.unpacked_size {
        0 => content.size,
        unpacked => unpacked,
    })
}

/// When it was made, by its configuration. Builds without a clock say year 1 or the epoch.
fn created(image: &Image) -> Option<prost_types::Timestamp> {
    let config = image.content.as_ref().and_then(config)?;
    moment(config.get("created")?.as_str()?)
}

pub(super) fn moment(text: &str) -> Option<prost_types::Timestamp> {
    let at: Timestamp = text.parse().ok()?;
    let at = prost_types::Timestamp { seconds: at.as_second(), nanos: at.subsec_nanosecond() };
    (at.seconds > 0).then_some(at)
}

/// The configuration, when it is an object.
pub(super) fn config(content: &ImageContent) -> Option<serde_json::Map<String, Json>> {
    serde_json::from_slice(&content.config_json).ok()
}

/// docker's JSON; what is bosun's alone stands under `Bosun`. Nothing when the configuration can't
/// be read. `namesakes` are where its other names are looked for.
pub(crate) fn inspection(image: &Image, namesakes: &[Image]) -> Option<Value> {
    let content = image.content.clone().unwrap_or_default();
    let config = match content.config_json.as_slice() {
        [] => serde_json::Map::new(),
        _ => config(&content)?,
    };
    let text = |field| config.get(field).and_then(Json::as_str).unwrap_or_default().to_owned();
    let (mut tags, mut digests) = (BTreeSet::new(), BTreeSet::new());
    for other in namesakes.iter().filter(|other| id(other) == id(image)).chain([image]) {
        let Ok(name) = other.name.parse::<Reference>() else { continue };
        if name.tag().is_some() {
            tags.insert(name.familiar());
        }
        digests.insert(format!("{}@{}", repository(&name), target(other).digest));
    }
    let last_tag = utc(image.updated_at.as_ref());
    Some(record([
        ("Id", id(image).into()),
        ("ID", hidden(id(image))),
        ("RepoTags", tags.into_iter().collect::<Vec<_>>().into()),
        ("RepoDigests", digests.into_iter().collect::<Vec<_>>().into()),
        ("Parent", "".into()),
        ("Comment", comment(&config).into()),
        ("Created", text("created").into()),
        ("Author", text("author").into()),
        ("Config", run_config(config.get("config"))),
        ("Architecture", text("architecture").into()),
        ("Variant", text("variant").into()),
        ("Os", text("os").into()),
        ("Size", size(image).into()),
        (
            "RootFS",
            record([("Type", "layers".into()), ("Layers", content.diff_ids.clone().into())]),
        ),
        ("Metadata", record([("LastTagTime", last_tag.into())])),
        ("Descriptor", descriptor(image.target.as_ref())),
        ("Bosun", own(image, &content)),
    ]))
}

/// What containers are made with, in docker's order; absent is null.
fn run_config(config: Option<&Json>) -> Value {
    const FIELDS: [&str; 11] = [
        "User",
        "ExposedPorts",
        "Env",
        "Entrypoint",
        "Cmd",
        "Volumes",
        "WorkingDir",
        "Labels",
        "StopSignal",
        "Healthcheck",
        "Shell",
    ];
    let field = |name: &'static str| {
        let value = config.and_then(|config| config.get(name));
        let textual = matches!(name, "User" | "WorkingDir" | "StopSignal");
        let value = match value {
            None | Some(Json::Null) if textual => "".into(),
            None => Value::Null,
            Some(value) => value.into(),
        };
        (name, value)
    };
    Value::Record(FIELDS.map(field).into())
}

/// Of the last step, as docker has it.
fn comment(config: &serde_json::Map<String, Json>) -> String {
    let last = config.get("history").and_then(Json::as_array).and_then(|steps| steps.last());
    let comment = last.and_then(|step| step.get("comment")).and_then(Json::as_str);
    comment.unwrap_or_default().to_owned()
}

fn descriptor(descriptor: Option<&Descriptor>) -> Value {
    descriptor.map_or(Value::Null, |descriptor| {
        record([
            ("mediaType", descriptor.media_type.as_str().into()),
            ("digest", descriptor.digest.as_str().into()),
            ("size", descriptor.size.into()),
        ])
    })
}

fn own(image: &Image, content: &ImageContent) -> Value {
    record([
        ("Name", image.name.as_str().into()),
        ("Platform", content.platform.as_str().into()),
        ("Manifest", descriptor(content.manifest.as_ref())),
        ("Layers", Value::List(content.layers.iter().map(|one| descriptor(Some(one))).collect())),
        ("Snapshot", content.snapshot.as_str().into()),
        ("ContentSize", content.size.into()),
        ("UnpackedSize", content.unpacked_size.into()),
        ("Containers", image.containers.clone().into()),
        ("Labels", (&image.labels).into()),
        ("CreatedAt", utc(image.created_at.as_ref()).into()),
    ])
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::template::Template;
    use crate::view::Listing;

    pub(in crate::view) fn content() -> ImageContent {
        let digest = |digit: &str| format!("sha256:{}", digit.repeat(64));
        let one = |digest, size| Descriptor { media_type: "m".to_owned(), digest, size };
        ImageContent {
            manifest: Some(one(digest("a"), 500)),
            config: Some(one(digest("c"), 700)),
            platform: "linux/amd64".to_owned(),
            diff_ids: vec![digest("1"), digest("2")],
            layers: vec![one(digest("3"), 2048), one(digest("4"), 100)],
            config_json: br#"{
                "created": "2026-01-02T15:04:05Z", "author": "me", "architecture": "amd64",
                "os": "linux",
                "config": {"Cmd": ["sh"], "Env": ["A=1"], "ExposedPorts": {"80/tcp": {}}},
                "history": [
                    {"created": "2026-01-01T00:00:00Z", "created_by": "ADD rootfs"},
                    {"created": "2026-01-01T00:00:00Z", "created_by": "ENV A=1", "empty_layer": true},
                    {"created": "0001-01-01T00:00:00Z", "created_by": "RUN \u001b[2J\tx", "comment": "buildkit"}
                ]
            }"#
            .to_vec(),
            size: 3348,
            unpacked_size: 119_483_216,
            snapshot: digest("5"),
        }
    }

    fn image(name: &str) -> Image {
        Image {
            name: name.to_owned(),
            target: Some(Descriptor {
                media_type: "index".to_owned(),
                digest: format!("sha256:{}", "b".repeat(64)),
                size: 9,
            }),
            content: Some(content()),
            ..Image::default()
        }
    }

    fn by_digest() -> Image {
        image(&format!("docker.io/library/debian@sha256:{}", "b".repeat(64)))
    }

    #[test]
    fn the_table_is_dockers() {
        let now: Timestamp = "2026-01-05T15:04:05Z".parse().unwrap();
        let listing = Listing::new(None, crate::commands::image::images::TABLE, &COLUMNS).unwrap();
        let absent = Image { content: None, ..image("reg.example:5000/a/b:1") };
        let images = vec![absent, by_digest(), image("docker.io/library/debian:12")];
        assert_eq!(
            listing.render(&rows(images.clone(), now, false, false)).unwrap(),
            "\
REPOSITORY             TAG       IMAGE ID       CREATED      SIZE
debian                 12        cccccccccccc   3 days ago   119MB
reg.example:5000/a/b   1         bbbbbbbbbbbb   N/A          0B
"
        );
        assert_eq!(rows(images, now, true, false).len(), 3, "digests have rows of their own");
        let alone = listing.render(&rows(vec![by_digest()], now, false, false)).unwrap();
        assert!(alone.contains("debian       <none>    cccccccccccc"), "{alone}");
    }

    #[test]
    fn fields_are_where_docker_has_them() {
        let namesakes = [image("docker.io/library/debian:bookworm"), by_digest()];
        for (template, want) in [
            ("{{.RepoTags}}", "[debian:12 debian:bookworm]"),
            ("{{len .RepoDigests}}", "1"),
            ("{{slice .ID 0 10}} {{.Os}}/{{.Architecture}}", "sha256:ccc linux/amd64"),
            ("{{.Config.Cmd}} {{index .Config.Env 0}}", "[sh] A=1"),
            ("{{json .Config.ExposedPorts}}", r#"{"80/tcp":{}}"#),
            ("{{json .Config.Entrypoint}} {{json .Config.User}}", r#"null """#),
            ("{{len .RootFS.Layers}} {{.Size}} {{.Author}}", "2 119483216 me"),
            ("{{.Comment}} {{.Descriptor.size}}", "buildkit 9"),
            ("{{.Bosun.Platform}} {{.Bosun.ContentSize}}", "linux/amd64 3348"),
        ] {
            let shown = inspection(&image("docker.io/library/debian:12"), &namesakes).unwrap();
            let got = Template::parse(template).unwrap().render(&shown);
            assert_eq!(got.as_deref(), Ok(want), "{template}");
        }
        let torn = ImageContent { config_json: b"[".to_vec(), ..content() };
        assert_eq!(inspection(&Image { content: Some(torn), ..image("a") }, &[]), None);
    }

    #[test]
    fn names_are_as_people_write_them() {
        for (name, want) in [
            ("docker.io/library/alpine:latest", "alpine:latest"),
            ("docker.io/me/web:1", "me/web:1"),
            ("reg.example/a:1", "reg.example/a:1"),
            ("NOT A NAME\u{7}", "NOT A NAME\\u{7}"),
        ] {
            assert_eq!(familiar(name), want, "{name}");
        }
    }
}
