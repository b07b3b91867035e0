//! Changes to an image's configuration, in the words of a dockerfile: for import and commit.
//!
//! Dockerfile reference of docker: `CMD`, `ENTRYPOINT`, `ENV`, `EXPOSE`, `LABEL`, `STOPSIGNAL`,
//! `USER`, `VOLUME`, `WORKDIR`. Everything else builds images, which this does not.

use bosun_image::Execution;

use crate::error::{Error, Result};

/// The shell of the forms that need one.
const SHELL: [&str; 2] = ["/bin/sh", "-c"];

/// Applies instructions, in order.
///
/// # Errors
/// Names the instruction that is none, or is not written as it should be.
pub(super) fn apply(execution: &mut Execution, changes: &[String]) -> Result<()> {
    changes.iter().try_for_each(|change| apply_one(execution, change))
}

fn apply_one(execution: &mut Execution, change: &str) -> Result<()> {
    let wrong = |why: &str| Error::InvalidArgument {
        what: "change",
        problem: format!("{change:?}: {why}"),
    };
    let text = change.trim();
    let (word, rest) = text.split_once([' ', '\t']).unwrap_or((text, ""));
    let rest = rest.trim();
    let word = word.to_ascii_uppercase();
    if rest.is_empty() && !matches!(word.as_str(), "CMD" | "ENTRYPOINT") {
        return Err(wrong("an instruction and its arguments are wanted, as in `USER www-data`"));
    }
    match word.as_str() {
        "CMD" => execution.cmd = Some(command(rest, execution.shell.as_deref())),
        "ENTRYPOINT" => {
            execution.entrypoint = Some(command(rest, execution.shell.as_deref()));
        }
        "ENV" => {
            for (name, value) in pairs(rest).ok_or_else(|| wrong("want NAME=VALUE …"))? {
                let same = |entry: &String| entry.split('=').next() == Some(name.as_str());
                let entry = format!("{name}={value}");
                match execution.env.iter().position(same) {
                    Some(at) => execution.env[at] = entry,
                    None => execution.env.push(entry),
                }
            }
        }
        "LABEL" => {
            let labels = pairs(rest).ok_or_else(|| wrong("want KEY=VALUE …"))?;
            execution.labels.extend(labels);
        }
        "EXPOSE" => {
            for port in rest.split_whitespace() {
                let port = exposed(port).ok_or_else(|| wrong("want PORT[/tcp|/udp] …"))?;
                add(&mut execution.exposed_ports, port);
            }
        }
        "VOLUME" => {
            for path in list(rest).unwrap_or_else(|| words(rest)) {
                if !path.starts_with('/') {
                    return Err(wrong("a volume is an absolute path"));
                }
                add(&mut execution.volumes, path);
            }
        }
        "STOPSIGNAL" => {
            rest.parse::<crate::spec::Signal>().map_err(|_| wrong("no such signal"))?;
            execution.stop_signal = Some(rest.to_owned());
        }
        "USER" => rest.clone_into(&mut execution.user),
        "WORKDIR" => {
            execution.working_dir = match rest.starts_with('/') {
                true => rest.to_owned(),
                // As docker: from where the last one led to.
                false => format!("{}/{rest}", execution.working_dir.trim_end_matches('/')),
            };
        }
        _ => {
            return Err(wrong(
                "known are CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME and WORKDIR",
            ));
        }
    }
    Ok(())
}

/// The exec form is a JSON list; anything else is for the shell.
fn command(text: &str, shell: Option<&[String]>) -> Vec<String> {
    if text.is_empty() {
        return Vec::new();
    }
    list(text).unwrap_or_else(|| {
        let shell = match shell {
            Some(shell) => shell.to_vec(),
            None => SHELL.map(str::to_owned).to_vec(),
        };
        shell.into_iter().chain([text.to_owned()]).collect()
    })
}

fn list(text: &str) -> Option<Vec<String>> {
    serde_json::from_str(text).ok()
}

/// `NAME=VALUE …`, or `NAME VALUE` as it once was.
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let all = words(text);
    let split = |word: &String| {
        let (name, value) = word.split_once('=')?;
        (!name.is_empty()).then(|| (name.to_owned(), value.to_owned()))
    };
    if all.first()?.contains('=') {
        return all.iter().map(split).collect();
    }
    let (name, value) = text.split_once(char::is_whitespace)?;
    Some(vec![(name.to_owned(), value.trim().to_owned())])
}

/// Words at blanks; quotes keep them together, a backslash keeps the next character as it is.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (character, quote) {
            ('\\', None | Some('"')) => {
                let next = characters.next().unwrap_or('\\');
                word.get_or_insert_default().push(next);
            }
            (c, Some(open)) if c == open => quote = None,
            ('"' | '\'', None) => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// `PORT/PROTOCOL`, with the protocol that goes without saying.
fn exposed(text: &str) -> Option<String> {
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let known = matches!(protocol, "tcp" | "udp" | "sctp");
    port.parse::<u16>().ok().filter(|port| *port > 0 && known)?;
    Some(format!("{port}/{protocol}"))
}

fn add(list: &mut Vec<String>, value: String) {
    if let Err(at) = list.binary_search(&value) {
        list.insert(at, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(changes: &[&str]) -> Result<Execution> {
        let mut execution = Execution::default();
        let changes: Vec<String> = changes.iter().map(|text| (*text).to_owned()).collect();
        apply(&mut execution, &changes).map(|()| execution)
    }

    #[test]
    fn instructions_are_read_as_in_a_dockerfile() {
        let execution = applied(&[
            "CMD [\"a\", \"b c\"]",
            "entrypoint exec top -b",
            "ENV A=1 B=\"two words\" C=it\\ is",
            "ENV A 2 and more",
            "EXPOSE 80 53/udp 80/tcp",
            "LABEL a.b=c \"d e\"='f'",
            "VOLUME [\"/data\"]",
            "VOLUME /logs /data",
            "USER 1000:www-data",
            "WORKDIR /srv",
            "WORKDIR app",
            "STOPSIGNAL SIGQUIT",
        ])
        .unwrap();
        assert_eq!(execution.cmd.unwrap(), ["a", "b c"]);
        assert_eq!(execution.entrypoint.unwrap(), ["/bin/sh", "-c", "exec top -b"]);
        assert_eq!(execution.env, ["A=2 and more", "B=two words", "C=it is"]);
        assert_eq!(execution.exposed_ports, ["53/udp", "80/tcp"]);
        assert_eq!(execution.labels["d e"], "f");
        assert_eq!(execution.volumes, ["/data", "/logs"]);
        assert_eq!(
            (execution.user.as_str(), execution.working_dir.as_str()),
            ("1000:www-data", "/srv/app")
        );
        assert_eq!(execution.stop_signal.as_deref(), Some("SIGQUIT"));
    }

    #[test]
    fn what_is_no_instruction_is_named() {
        for change in
            ["RUN rm -rf /", "USER", "EXPOSE http", "ENV =x", "VOLUME data", "STOPSIGNAL 99x"]
        {
            let said = applied(&[change]).unwrap_err().to_string();
            assert!(said.contains(&format!("{change:?}")), "{said}");
        }
    }
}
