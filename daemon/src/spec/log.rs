//! How output is kept, as docker's `--log-driver` and `--log-opt` say it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Error;

/// How output is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "driver")]
pub enum LogOptions {
    JsonFile {
        /// Bytes after which the file is rotated; absent is never.
        #[serde(rename = "max-size")]
        max_size: Option<u64>,
        /// How many files are kept, the current one included; at least 1.
        #[serde(rename = "max-file")]
        max_files: u32,
    },
    /// As the kubelet reads it, at a path that it names and rotates; not chosen with `--log-driver`.
    Cri {
        path: PathBuf,
    },
    None,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self::JsonFile { max_size: None, max_files: 1 }
    }
}

impl LogOptions {
    /// The driver and its options, as docker writes them.
    #[must_use]
    pub fn to_docker(&self) -> (&'static str, BTreeMap<String, String>) {
        let options = match self {
            Self::None => return ("none", BTreeMap::new()),
            Self::Cri { path } => {
                let path = path.to_string_lossy().into_owned();
                return ("cri", BTreeMap::from([("path".to_owned(), path)]));
            }
            Self::JsonFile { max_size: None, max_files: 1 } => BTreeMap::new(),
            Self::JsonFile { max_size, max_files } => max_size
                .map(|size| ("max-size".to_owned(), size.to_string()))
                .into_iter()
                .chain([("max-file".to_owned(), max_files.to_string())])
                .collect(),
        };
        ("json-file", options)
    }

    /// # Errors
    /// Names the driver or the option.
    pub fn parse(driver: &str, options: &BTreeMap<String, String>) -> Result<Self, Error> {
        match driver {
            "none" => match options.first_key_value() {
                Some((name, _)) => Err(Error::LogOption { driver: "none", name: name.clone() }),
                None => Ok(Self::None),
            },
            "" | "json-file" => {
                let (mut max_size, mut max_files) = (None, 1);
                for (name, value) in options {
                    match name.as_str() {
                        "max-size" => max_size = size(value)?,
                        "max-file" => max_files = count(value)?,
                        _ => {
                            let name = name.clone();
                            return Err(Error::LogOption { driver: "json-file", name });
                        }
                    }
                }
                if max_files > 1 && max_size.is_none() {
                    return Err(Error::Contradiction {
                        what: "log option max-file",
                        why: "without max-size no file is ever rotated: set max-size as well",
                    });
                }
                Ok(Self::JsonFile { max_size, max_files })
            }
            driver => Err(Error::LogDriver { driver: driver.to_owned() }),
        }
    }
}

/// `10m`: a number and b, k, m or g in powers of 1024; -1 is unlimited.
fn size(text: &str) -> Result<Option<u64>, Error> {
    if text == "-1" {
        return Ok(None);
    }
    let malformed = || Error::malformed("log option max-size", text, "a size above 0, such as 10m");
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches(|char: char| char.is_ascii_alphabetic());
    let shift = match &lower[digits.len()..] {
        "" | "b" => 0,
        "k" | "kb" => 10,
        "m" | "mb" => 20,
        "g" | "gb" => 30,
        _ => return Err(malformed()),
    };
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    let number: Option<u64> = digits.parse().ok().filter(|_| plain);
    number
        .and_then(|number| number.checked_mul(1 << shift))
        .filter(|size| *size > 0)
        .map(Some)
        .ok_or_else(malformed)
}

fn count(text: &str) -> Result<u32, Error> {
    text.parse()
        .ok()
        .filter(|count| *count > 0)
        .ok_or_else(|| Error::malformed("log option max-file", text, "a number of files above 0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(driver: &str, options: &[(&str, &str)]) -> Result<LogOptions, Error> {
        let options: BTreeMap<String, String> =
            options.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        LogOptions::parse(driver, &options)
    }

    #[test]
    fn sizes_and_counts_are_docker_s() {
        let rotated = |max_size, max_files| LogOptions::JsonFile { max_size, max_files };
        assert_eq!(parsed("", &[]).unwrap(), rotated(None, 1));
        assert_eq!(parsed("none", &[]).unwrap(), LogOptions::None);
        for (text, bytes) in [("10m", 10 << 20), ("1K", 1024), ("2g", 2 << 30), ("77", 77)] {
            assert_eq!(
                parsed("json-file", &[("max-size", text)]).unwrap(),
                rotated(Some(bytes), 1)
            );
        }
        let both = parsed("", &[("max-size", "1m"), ("max-file", "3")]).unwrap();
        assert_eq!(both, rotated(Some(1 << 20), 3));
        for options in [both, LogOptions::default(), LogOptions::None] {
            let (driver, map) = options.to_docker();
            assert_eq!(LogOptions::parse(driver, &map).unwrap(), options);
        }
    }

    #[test]
    fn what_is_not_known_is_named() {
        let said = |driver: &str, options: &[(&str, &str)]| {
            parsed(driver, options).unwrap_err().to_string()
        };
        assert!(said("syslog", &[]).contains("log driver \"syslog\""));
        assert!(said("", &[("compress", "true")]).contains("log option \"compress\""));
        assert!(said("none", &[("max-size", "1m")]).contains("log option \"max-size\""));
        for size in ["", "m", "0", "-2", "1t", "+1", "99999999999g"] {
            assert!(said("", &[("max-size", size)]).contains(&format!("{size:?}")), "{size}");
        }
        assert!(said("", &[("max-size", "1m"), ("max-file", "0")]).contains("\"0\""));
        assert!(said("", &[("max-file", "3")]).contains("set max-size as well"));
    }
}
