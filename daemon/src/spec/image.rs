//! What an image's configuration says, merged under what the user asked for.
//!
//! docker's rules: the user's entry point makes the image's command void; variables and labels add
//! up, the user's over the image's; everything else of the image counts where the user says nothing.
//! The configuration comes from whoever made the image: labels in reserved namespaces are dropped
//! (CVE-2026-53488), volumes stay inside the container, and what is malformed is an error that names
//! the image.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bosun_image::Execution;

use super::{ContainerOptions, Error, Port, Protocol, Volume, mounts};

/// Merges; answers what the user should know.
///
/// # Errors
/// Names the part of the image's configuration that can't be used.
pub fn merge_image(
    options: &mut ContainerOptions,
    image: &str,
    execution: &Execution,
) -> Result<Vec<String>, Error> {
    let mut warnings = Vec::new();
    match &options.entrypoint {
        Some(_) => {}
        None => {
            options.entrypoint.clone_from(&execution.entrypoint);
            if options.command.is_empty() {
                options.command = execution.cmd.clone().unwrap_or_default();
            }
        }
    }
    let (usable, odd): (Vec<_>, Vec<_>) = execution
        .env
        .iter()
        .cloned()
        .partition(|entry| entry.find('=').is_some_and(|at| at > 0) && !entry.contains('\0'));
    for entry in odd {
        warnings.push(format!("image {image}: variable {entry:?} is not NAME=VALUE: left out"));
    }
    options.env.splice(0..0, usable);
    if options.user.is_empty() {
        options.user.clone_from(&execution.user);
    }
    if options.working_dir.is_empty() {
        options.working_dir = match execution.working_dir.as_str() {
            "" => String::new(),
            path if path.starts_with('/') => path.to_owned(),
            path => format!("/{path}"),
        };
    }
    if options.stop_signal.is_none()
        && let Some(signal) = execution.stop_signal.as_deref().filter(|signal| !signal.is_empty())
    {
        options.stop_signal = Some(signal.parse().map_err(|_| Error::InImage {
            image: image.to_owned(),
            what: "stop signal",
            value: signal.to_owned(),
        })?);
    }
    merge_labels(options, image, &execution.labels, &mut warnings);
    options.volumes = volumes(options, image, &execution.volumes)?;
    if options.publish_all {
        publish_all(options, image, &execution.exposed_ports)?;
    }
    Ok(warnings)
}

fn merge_labels(
    options: &mut ContainerOptions,
    image: &str,
    labels: &BTreeMap<String, String>,
    warnings: &mut Vec<String>,
) {
    let mut labels = labels.clone();
    for dropped in bosun_image::take_reserved(&mut labels) {
        warnings.push(format!("image {image}: label {dropped:?} is reserved: left out"));
    }
    for (key, value) in labels {
        options.labels.entry(key).or_insert(value);
    }
}

/// A volume for each path of the image that the user mounts nothing at.
fn volumes(
    options: &ContainerOptions,
    image: &str,
    paths: &[String],
) -> Result<Vec<Volume>, Error> {
    let mut volumes: Vec<Volume> = Vec::new();
    for path in paths {
        let refused =
            || Error::InImage { image: image.to_owned(), what: "volume", value: path.clone() };
        let destination = inside(path).ok_or_else(refused)?;
        if mounts::is_of_the_kernel(&destination) {
            return Err(refused());
        }
        let is_mounted = options
            .mounts
            .iter()
            .any(|mount| inside(&mount.destination).as_ref() == Some(&destination));
        if !is_mounted && !volumes.iter().any(|volume| volume.destination == destination) {
            volumes.push(Volume { name: volumes.len().to_string(), destination });
        }
    }
    Ok(volumes)
}

/// A path as it is in the container: `..` never leads above its root. `None` for the root itself.
fn inside(path: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    (!parts.is_empty() && !path.contains('\0')).then(|| format!("/{}", parts.join("/")))
}

fn publish_all(
    options: &mut ContainerOptions,
    image: &str,
    exposed: &[String],
) -> Result<(), Error> {
    for text in exposed {
        let refused = || Error::InImage {
            image: image.to_owned(),
            what: "exposed port",
            value: text.clone(),
        };
        let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let protocol = match protocol {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            _ => return Err(refused()),
        };
        // A range, as docker has them.
        let (first, last) = port.split_once('-').unwrap_or((port, port));
        let number = |text: &str| text.parse::<u16>().map_err(|_| refused());
        for port in number(first)?..=number(last)? {
            let is_published =
                |known: &Port| known.container_port == port && known.protocol == protocol;
            if !options.ports.iter().any(is_published) {
                options.ports.push(Port::parse("", 0, port.into(), protocol)?);
            }
        }
    }
    Ok(())
}

impl Volume {
    /// Where its files are, below the directory of the container.
    #[must_use]
    pub fn source(&self, container_dir: &std::path::Path) -> PathBuf {
        container_dir.join("volumes").join(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{BindMount, Signal};

    fn execution() -> Execution {
        let words = |text: &str| -> Vec<String> { text.split(' ').map(str::to_owned).collect() };
        Execution {
            user: "www-data".to_owned(),
            exposed_ports: words("53/udp 80/tcp"),
            env: words("PATH=/bin A=1"),
            entrypoint: Some(words("/entry -x")),
            cmd: Some(words("serve all")),
            volumes: words("/../../data /logs"),
            working_dir: "/srv".to_owned(),
            labels: [("kind", "image"), ("io.bosun/x", "1"), ("containerd.io/restart.loguri", "y")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
            stop_signal: Some("SIGQUIT".to_owned()),
            ..Execution::default()
        }
    }

    #[test]
    fn the_image_s_word_counts_where_the_user_says_nothing() {
        let mut options = ContainerOptions::default();
        let warnings = merge_image(&mut options, "a", &execution()).unwrap();
        assert_eq!(options.args(), ["/entry", "-x", "serve", "all"]);
        assert_eq!((options.user.as_str(), options.working_dir.as_str()), ("www-data", "/srv"));
        assert_eq!(options.stop_signal, Some("QUIT".parse::<Signal>().unwrap()));
        assert_eq!(options.labels.len(), 1);
        assert_eq!(
            options.volumes.iter().map(|v| v.destination.as_str()).collect::<Vec<_>>(),
            ["/data", "/logs"]
        );
        assert!(options.ports.is_empty());
        assert_eq!(warnings.len(), 2, "{warnings:?}");
    }

    #[test]
    fn the_user_s_word_counts_over_the_image_s() {
        let mut options = ContainerOptions {
            entrypoint: Some(vec!["/mine".to_owned()]),
            env: vec!["A=2".to_owned()],
            user: "0".to_owned(),
            working_dir: "/".to_owned(),
            stop_signal: Some(Signal::TERM),
            labels: [("kind".to_owned(), "mine".to_owned())].into(),
            mounts: vec![BindMount { destination: "/data/".to_owned(), ..BindMount::default() }],
            publish_all: true,
            ..ContainerOptions::default()
        };
        merge_image(&mut options, "a", &execution()).unwrap();
        assert_eq!(options.args(), ["/mine"]);
        assert_eq!(options.env, ["PATH=/bin", "A=1", "A=2"]);
        assert_eq!((options.user.as_str(), options.working_dir.as_str()), ("0", "/"));
        assert_eq!(options.labels["kind"], "mine");
        assert_eq!(options.volumes.len(), 1);
        assert_eq!(options.ports.len(), 2);
        assert!(options.ports.iter().all(|port| port.host_port.is_none()));
    }

    #[test]
    fn a_command_of_the_user_s_goes_to_the_image_s_entry_point() {
        let mut options =
            ContainerOptions { command: vec!["mine".to_owned()], ..ContainerOptions::default() };
        merge_image(&mut options, "a", &execution()).unwrap();
        assert_eq!(options.args(), ["/entry", "-x", "mine"]);
    }

    #[test]
    fn what_an_image_must_not_say_is_named_with_it() {
        for (change, wanted) in [
            (Execution { volumes: vec!["/".to_owned()], ..Execution::default() }, "volume"),
            (
                Execution { volumes: vec!["/x/../proc/sys".to_owned()], ..Execution::default() },
                "/x/../proc/sys",
            ),
            (
                Execution { stop_signal: Some("SIGNOT".to_owned()), ..Execution::default() },
                "SIGNOT",
            ),
        ] {
            let said = merge_image(&mut ContainerOptions::default(), "img:1", &change).unwrap_err();
            let said = said.to_string();
            assert!(said.contains("img:1") && said.contains(wanted), "{said}");
        }
    }
}
