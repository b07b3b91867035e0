//! Qualified names of devices: `VENDOR/CLASS=NAME` (CDI's specification, "kind" and "device names").

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::Error;

/// What keys of annotations that name devices begin with; a value is a list of names with commas.
pub const ANNOTATION_PREFIX: &str = "cdi.k8s.io/";

/// `vendor.com/class=name`
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceName {
    /// `vendor.com/class`
    pub kind: String,
    pub name: String,
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.kind, self.name)
    }
}

impl FromStr for DeviceName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = |why| Error::Name { name: text.to_owned(), why };
        let (kind, name) = text.split_once('=').ok_or(wrong("it has no \"=\""))?;
        check_kind(kind).map_err(wrong)?;
        check_name(name).map_err(wrong)?;
        Ok(Self { kind: kind.to_owned(), name: name.to_owned() })
    }
}

/// `vendor.com/class`
pub(crate) fn check_kind(kind: &str) -> Result<(), &'static str> {
    let (vendor, class) = kind.split_once('/').ok_or("its kind is not VENDOR/CLASS")?;
    let is_word = |word: &str| {
        let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        word.starts_with(|c: char| c.is_ascii_alphabetic())
            && word.ends_with(|c: char| c.is_ascii_alphanumeric())
            && word.chars().all(inner)
    };
    match (is_word(vendor), is_word(class)) {
        (true, true) => Ok(()),
        (false, _) => Err("its vendor is no name: letters and digits, and '_', '-', '.' between"),
        (true, false) => Err("its class is no name: letters and digits, and '_', '-', '.' between"),
    }
}

/// What stands behind the `=`.
pub(crate) fn check_name(name: &str) -> Result<(), &'static str> {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ':');
    let ends = name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.ends_with(|c: char| c.is_ascii_alphanumeric());
    match ends && name.chars().all(inner) {
        true => Ok(()),
        false => Err("its name is none: letters and digits, and '_', '-', '.', ':' between"),
    }
}

/// The devices that annotations name, in the order of their keys.
///
/// # Errors
/// A value has something else in it than names.
pub fn of_annotations<'a>(
    annotations: impl IntoIterator<Item = (&'a String, &'a String)>,
) -> Result<Vec<DeviceName>, Error> {
    let ours: BTreeMap<&String, &String> =
        annotations.into_iter().filter(|(key, _)| key.starts_with(ANNOTATION_PREFIX)).collect();
    let mut devices = Vec::new();
    for (key, value) in ours {
        for name in value.split(',') {
            let named = name.trim().parse();
            devices.push(named.map_err(|source| Error::Annotation {
                key: key.clone(),
                source: Box::new(source),
            })?);
        }
    }
    Ok(devices)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_a_vendor_a_class_and_a_name() {
        for text in ["vendor.com/gpu=0", "a/b=all", "v-1.example/a.b_c=GPU-4f:1"] {
            assert_eq!(text.parse::<DeviceName>().unwrap().to_string(), text);
        }
        for (text, why) in [
            ("vendor.com/gpu", "no \"=\""),
            ("gpu=0", "VENDOR/CLASS"),
            ("/gpu=0", "vendor"),
            ("1v/gpu=0", "vendor"),
            ("v.com/=0", "class"),
            ("v.com/a/b=0", "class"),
            ("v.com/gpu=", "name"),
            ("v.com/gpu=a b", "name"),
            ("v.com/gpu=../0", "name"),
            ("v.com/gpu=0-", "name"),
        ] {
            let said = text.parse::<DeviceName>().unwrap_err().to_string();
            assert!(said.contains(why) && said.contains(text), "{text}: {said}");
        }
    }

    #[test]
    fn annotations_carry_lists() {
        let of = |pairs: &[(&str, &str)]| {
            let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
            let map: BTreeMap<String, String> = pairs.iter().map(owned).collect();
            let list = of_annotations(&map)?;
            Ok::<_, Error>(list.iter().map(DeviceName::to_string).collect::<Vec<_>>())
        };
        let pairs = [("cdi.k8s.io/b", "v/c=2, v/c=3"), ("cdi.k8s.io/a", "v/c=1"), ("other/a", "x")];
        assert_eq!(of(&pairs).unwrap(), ["v/c=1", "v/c=2", "v/c=3"]);
        let said = of(&[("cdi.k8s.io/a", "v/c=1,")]).unwrap_err().to_string();
        assert!(said.contains("cdi.k8s.io/a"), "{said}");
    }
}
