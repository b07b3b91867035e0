//! `--env`, `--env-file`, `--label` and other KEY=VALUE words.

use std::ffi::OsString;
use std::path::Path;

use super::FlagError;

/// The variables of the files, then those of the flags, as `NAME=value`. A NAME alone takes the
/// caller's value through `caller`, and is left out when the caller has none.
pub(crate) fn environment(
    files: &[impl AsRef<Path>],
    words: &[String],
    caller: impl Fn(&str) -> Option<OsString>,
) -> Result<Vec<String>, FlagError> {
    let mut all = Vec::new();
    for path in files {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(|error| FlagError::EnvFile {
            path: path.display().to_string(),
            reason: error.to_string(),
        })?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        for (index, line) in text.lines().enumerate() {
            let line = line.trim_start();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let malformed = || FlagError::EnvLine {
                path: path.display().to_string(),
                line: index + 1,
                text: line.to_owned(),
            };
            // Quotes are kept and `export` is not known (docker's rule).
            let name = line.split('=').next().unwrap_or(line);
            if name.contains(char::is_whitespace) {
                return Err(malformed());
            }
            all.extend(variable(line, &caller)?.ok_or_else(malformed)?);
        }
    }
    for word in words {
        all.extend(variable(word, &caller)?.ok_or_else(|| FlagError::Env(word.clone()))?);
    }
    Ok(all)
}

/// `None` when malformed, `Some(None)` when the caller has no such variable.
fn variable(
    word: &str,
    caller: &impl Fn(&str) -> Option<OsString>,
) -> Result<Option<Option<String>>, FlagError> {
    match word.split_once('=') {
        Some(("", _)) => Ok(None),
        Some(_) => Ok(Some(Some(word.to_owned()))),
        None if word.is_empty() => Ok(None),
        None => {
            let value = caller(word).map(OsString::into_string).transpose();
            let value = value.map_err(|_| FlagError::EnvNotText(word.to_owned()))?;
            Ok(Some(value.map(|value| format!("{word}={value}"))))
        }
    }
}

/// KEY=VALUE.
pub(crate) fn key_value(text: &str) -> Result<(String, String), FlagError> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        Some(_) | None => Err(FlagError::KeyValue(text.to_owned())),
    }
}

/// KEY=VALUE, or KEY with an empty value.
pub(crate) fn label(text: &str) -> Result<(String, String), FlagError> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    if key.is_empty() {
        return Err(FlagError::Label(text.to_owned()));
    }
    Ok((key.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    const NO_FILES: &[&str] = &[];

    fn caller(name: &str) -> Option<OsString> {
        match name {
            "HOME" => Some("/root".into()),
            "BYTES" => Some(OsString::from_vec(vec![0xff])),
            _ => None,
        }
    }

    #[test]
    fn a_value_that_is_no_text_is_refused_rather_than_altered() {
        let error = environment(NO_FILES, &["BYTES".to_owned()], caller);
        assert_eq!(error, Err(FlagError::EnvNotText("BYTES".to_owned())));
    }

    #[test]
    fn a_name_alone_takes_the_callers_value() {
        let words = ["A=1", "B=", "HOME", "GONE", "C=x=y"].map(str::to_owned);
        assert_eq!(
            environment(NO_FILES, &words, caller).unwrap(),
            ["A=1", "B=", "HOME=/root", "C=x=y"]
        );
        for bad in ["=x", ""] {
            let error = environment(NO_FILES, &[bad.to_owned()], caller);
            assert_eq!(error, Err(FlagError::Env(bad.to_owned())), "{bad:?}");
        }
    }

    #[test]
    fn files_come_first_and_keep_quotes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("env");
        std::fs::write(&path, "\u{feff}# comment\n\n  A=\"1 2\"\nHOME\nGONE\n").unwrap();
        let words = ["A=3".to_owned()];
        assert_eq!(
            environment(&[&path], &words, caller).unwrap(),
            ["A=\"1 2\"", "HOME=/root", "A=3"]
        );
    }

    #[test]
    fn a_bad_line_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("env");
        std::fs::write(&path, "A=1\nexport B=2\n").unwrap();
        let error = environment(&[&path], &[], caller).unwrap_err().to_string();
        assert!(error.contains("line 2") && error.contains("export B=2"), "{error}");
        let error = environment(&[dir.path().join("none")], &[], caller).unwrap_err().to_string();
        assert!(error.starts_with("cannot read the environment file"), "{error}");
    }

    #[test]
    fn labels_may_lack_a_value_and_options_may_not() {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(label("a=b=c"), Ok(pair("a", "b=c")));
        assert_eq!(label("a"), Ok(pair("a", "")));
        assert!(label("=b").is_err());
        assert_eq!(key_value("max-size=1m"), Ok(pair("max-size", "1m")));
        assert!(key_value("max-size").is_err());
        assert!(key_value("=1m").is_err());
    }
}
