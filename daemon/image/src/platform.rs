//! Platforms: where an image runs, and which manifest of an index is the one to take.
//!
//! Names and preferences are containerd's, so that both choose the same manifest of the same index.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, shortened};
use crate::{Descriptor, Kind, bounded};

/// Operating system and processor, in Go's words (`linux`, `amd64`), as all images have them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Platform {
    #[serde(default, deserialize_with = "bounded::or_default")]
    pub os: String,
    #[serde(default, deserialize_with = "bounded::or_default")]
    pub architecture: String,
    /// Of the processor: `v7`. Empty is none.
    #[serde(
        default,
        deserialize_with = "bounded::or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub variant: String,
    /// Only Windows' images have one.
    #[serde(
        default,
        rename = "os.version",
        deserialize_with = "bounded::or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub os_version: String,
}

impl Platform {
    /// What the program was compiled for.
    #[must_use]
    pub fn host() -> Self {
        Self::new(std::env::consts::OS, std::env::consts::ARCH, "")
    }

    /// A platform of these names, normalised.
    #[must_use]
    pub fn new(os: &str, architecture: &str, variant: &str) -> Self {
        let (os, architecture, variant) =
            (os.to_lowercase(), architecture.to_lowercase(), variant.to_lowercase());
        let os = if os == "macos" { "darwin".to_owned() } else { os };
        let (architecture, variant) = normal(&architecture, &variant);
        let (architecture, variant) = (architecture.to_owned(), variant.to_owned());
        Self { os, architecture, variant, os_version: String::new() }
    }

    /// The same platform under the names that everybody uses.
    #[must_use]
    pub fn normalised(&self) -> Self {
        let os_version = self.os_version.clone();
        Self { os_version, ..Self::new(&self.os, &self.architecture, &self.variant) }
    }

    /// Whether what was made for `image` runs here.
    #[must_use]
    pub fn matches(&self, image: &Self) -> bool {
        self.rank(image).is_some()
    }

    /// How far what was made for `image` is from the best for this platform; 0 is the best, nothing
    /// does not run.
    #[must_use]
    pub fn rank(&self, image: &Self) -> Option<u32> {
        let (wanted, image) = (self.normalised(), image.normalised());
        if wanted.os != image.os
            || !wanted.os_version.is_empty() && wanted.os_version != image.os_version
        {
            return None;
        }
        let (wanted_level, image_level) = (level(&wanted)?, level(&image)?);
        match (wanted.architecture.as_str(), image.architecture.as_str()) {
            ("amd64", "amd64") if wanted.variant.is_empty() && image_level > wanted_level => {
                // Made for a newer processor than asked for: the last resort, where it is this one.
                (image_level <= processor_level()).then_some(100 + image_level)
            }
            (wanted, image) if wanted == image => wanted_level.checked_sub(image_level),
            ("amd64", "386") => Some(200),
            ("arm64", "arm") => Some(200 + 8_u32.checked_sub(image_level)?),
            _ => None,
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if self.variant.is_empty() { Ok(()) } else { write!(f, "/{}", self.variant) }
    }
}

impl FromStr for Platform {
    type Err = Error;

    /// `linux/arm64/v8`, `linux/amd64`; an architecture or a system alone means this machine's other.
    fn from_str(text: &str) -> Result<Self, Error> {
        let parts: Vec<_> = text.split('/').collect();
        let word = |part: &&str| {
            !part.is_empty()
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        };
        if !parts.iter().all(word) {
            return Err(Error::Platform { text: shortened(text) });
        }
        let host = Self::host();
        match parts[..] {
            [os, architecture, variant] => Ok(Self::new(os, architecture, variant)),
            [os, architecture] => Ok(Self::new(os, architecture, "")),
            [os] if is_system(os) => Ok(Self { os: os.to_lowercase(), ..host }),
            [architecture] if is_architecture(architecture) => {
                Ok(Self::new(&host.os, architecture, ""))
            }
            _ => Err(Error::Platform { text: shortened(text) }),
        }
    }
}

/// The entry of an index to take for a platform: the best that runs there, of equals the first. An
/// entry that names no platform is the last resort; its configuration will tell.
#[must_use]
pub fn choose<'a>(entries: &'a [Descriptor], wanted: &Platform) -> Option<&'a Descriptor> {
    entries
        .iter()
        .filter(|entry| matches!(entry.kind(), Kind::Index | Kind::Manifest))
        .filter(|entry| !is_attestation(entry))
        .filter_map(|entry| match &entry.platform {
            Some(platform) => wanted.rank(platform).map(|rank| (rank, entry)),
            None => Some((u32::MAX, entry)),
        })
        .min_by_key(|(rank, _)| *rank)
        .map(|(_, entry)| entry)
}

/// What buildkit puts beside an image's manifests; it says `unknown/unknown`, which runs nowhere.
fn is_attestation(entry: &Descriptor) -> bool {
    entry
        .annotations
        .get("vnd.docker.reference.type")
        .is_some_and(|kind| kind == "attestation-manifest")
}

fn normal<'a>(architecture: &'a str, variant: &'a str) -> (&'a str, &'a str) {
    match (architecture, variant) {
        ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
        ("x86_64" | "x86-64" | "amd64", variant) => ("amd64", variant),
        ("x86" | "i386" | "i486" | "i586" | "i686" | "386", _) => ("386", ""),
        ("aarch64" | "arm64", "" | "8" | "v8" | "v8.0") => ("arm64", "v8"),
        ("aarch64" | "arm64", "9" | "v9" | "v9.0") => ("arm64", "v9"),
        ("aarch64" | "arm64", variant) => ("arm64", variant),
        ("armhf", _) | ("arm", "" | "7" | "v7") => ("arm", "v7"),
        ("armel", _) | ("arm", "6") => ("arm", "v6"),
        ("arm", "5") => ("arm", "v5"),
        ("arm", "8") => ("arm", "v8"),
        ("powerpc64" | "ppc64el", variant) => ("ppc64le", variant),
        other => other,
    }
}

/// The number of a normalised variant, by which one processor runs what was made for a lesser one.
fn level(platform: &Platform) -> Option<u32> {
    match platform.variant.as_str() {
        "" => Some(u32::from(platform.architecture == "amd64")),
        variant => variant.strip_prefix('v')?.split('.').next()?.parse().ok(),
    }
}

/// This processor's level of the x86-64 psABI; 1 on others.
fn processor_level() -> u32 {
    #[cfg(target_arch = "x86_64")]
    {
        use std::is_x86_feature_detected as has;
        let v2 = has!("cmpxchg16b") && has!("popcnt") && has!("sse4.2") && has!("ssse3");
        let v3 = has!("avx2")
            && has!("bmi1")
            && has!("bmi2")
            && has!("f16c")
            && has!("fma")
            && has!("lzcnt")
            && has!("movbe");
        let v4 = has!("avx512f")
            && has!("avx512bw")
            && has!("avx512cd")
            && has!("avx512dq")
            && has!("avx512vl");
        match (v2, v2 && v3, v2 && v3 && v4) {
            (_, _, true) => 4,
            (_, true, false) => 3,
            (true, false, false) => 2,
            (false, false, false) => 1,
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    1
}

fn is_system(text: &str) -> bool {
    matches!(text.to_lowercase().as_str(), "linux" | "windows" | "darwin" | "freebsd")
}

fn is_architecture(text: &str) -> bool {
    let lower = text.to_lowercase();
    matches!(
        normal(&lower, "").0,
        "amd64"
            | "386"
            | "arm64"
            | "arm"
            | "ppc64le"
            | "riscv64"
            | "s390x"
            | "loong64"
            | "mips64le"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media_type::{OCI_LAYER, OCI_MANIFEST};

    #[test]
    fn platforms_are_written_in_many_ways_and_read_as_one() {
        let table = [
            ("linux/amd64", "linux/amd64"),
            ("linux/x86_64", "linux/amd64"),
            ("Linux/AMD64/v1", "linux/amd64"),
            ("linux/amd64/v3", "linux/amd64/v3"),
            ("linux/arm64", "linux/arm64/v8"),
            ("linux/aarch64/8", "linux/arm64/v8"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/armhf", "linux/arm/v7"),
            ("linux/armel", "linux/arm/v6"),
            ("linux/arm/6", "linux/arm/v6"),
            ("linux/i386", "linux/386"),
            ("macos/arm64", "darwin/arm64/v8"),
            ("arm64", "linux/arm64/v8"),
            ("s390x", "linux/s390x"),
        ];
        for (text, wanted) in table {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), wanted, "{text}");
        }
        for text in ["", "/", "linux/", "a/b/c/d", "linux/am d64", "nonsense", "linux//v8"] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_best_that_runs_is_chosen() {
        let table: [(&str, &[&str], Option<usize>); 13] = [
            ("linux/amd64", &["linux/arm64/v8", "linux/amd64"], Some(1)),
            ("linux/amd64", &["linux/386", "linux/amd64"], Some(1)),
            ("linux/amd64", &["linux/386", "linux/arm/v7"], Some(0)),
            ("linux/amd64/v3", &["linux/amd64", "linux/amd64/v2", "linux/amd64/v4"], Some(1)),
            ("linux/amd64", &["linux/amd64/v2", "linux/amd64"], Some(1)),
            ("linux/arm64", &["linux/arm/v7", "linux/arm64"], Some(1)),
            ("linux/arm64", &["linux/arm/v6", "linux/arm/v7"], Some(1)),
            ("linux/arm/v7", &["linux/arm/v5", "linux/arm/v6", "linux/arm64"], Some(1)),
            ("linux/arm/v6", &["linux/arm/v7"], None),
            ("linux/amd64", &["windows/amd64", "unknown/unknown"], None),
            ("linux/amd64", &["unknown/unknown", "-"], Some(1)),
            ("linux/amd64", &["-", "linux/amd64"], Some(1)),
            ("linux/amd64", &[], None),
        ];
        for (wanted, offered, choice) in table {
            let entry = |platform: &&str| {
                let mut entry = Descriptor::of(OCI_MANIFEST, platform.as_bytes());
                let parts: Vec<_> = platform.split('/').collect();
                entry.platform = (*platform != "-").then(|| Platform {
                    os: parts[0].into(),
                    architecture: parts[1].into(),
                    variant: parts.get(2).copied().unwrap_or_default().into(),
                    os_version: String::new(),
                });
                entry
            };
            let entries: Vec<_> = offered.iter().map(entry).collect();
            let chosen = choose(&entries, &wanted.parse().unwrap());
            assert_eq!(chosen, choice.map(|index| &entries[index]), "{wanted} of {offered:?}");
        }
    }

    #[test]
    fn attestations_and_layers_are_never_chosen() {
        let mut attestation = Descriptor::of(OCI_MANIFEST, b"a");
        attestation
            .annotations
            .insert("vnd.docker.reference.type".into(), "attestation-manifest".into());
        assert_eq!(
            choose(&[attestation, Descriptor::of(OCI_LAYER, b"l")], &Platform::host()),
            None
        );
    }

    #[test]
    fn a_newer_processor_is_the_last_resort() {
        let wanted: Platform = "linux/amd64".parse().unwrap();
        let v9: Platform = Platform { variant: "v9".into(), ..wanted.clone() };
        assert!(!wanted.matches(&v9));
        let here = Platform { variant: format!("v{}", processor_level()), ..wanted.clone() };
        assert_eq!(wanted.matches(&here), cfg!(target_arch = "x86_64") || here.variant == "v1");
    }
}
