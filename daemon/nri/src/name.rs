//! Names of plugins: `10-example`, an index of two digits and a name.

use std::fmt;

/// A name that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NameError {
    #[error("its index {0:?} is not two digits")]
    Index(String),
    #[error("its name {0:?} is not of letters, digits, '-', '_', '.' and '+'")]
    Base(String),
}

/// By the index plugins are in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Name {
    pub(crate) index: String,
    pub(crate) base: String,
}

impl Name {
    pub(crate) fn new(index: &str, base: &str) -> Result<Self, NameError> {
        if index.len() != 2 || !index.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(NameError::Index(index.to_owned()));
        }
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte);
        if base.is_empty() || !base.bytes().all(plain) {
            return Err(NameError::Base(base.to_owned()));
        }
        Ok(Self { index: index.to_owned(), base: base.to_owned() })
    }

    /// Of a file.
    pub(crate) fn parse(text: &str) -> Result<Self, NameError> {
        let (index, base) = text.split_once('-').unwrap_or((text, ""));
        Self::new(index, base)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.index, self.base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_two_digits_and_a_name_is_a_word() {
        assert_eq!(Name::parse("10-a-b").unwrap(), Name::new("10", "a-b").unwrap());
        assert_eq!(Name::parse("00-v0.1+x_y").unwrap().to_string(), "00-v0.1+x_y");
        for odd in
            ["", "10", "10-", "1-a", "100-a", "ab-c", "1a-c", "١٠-a", "10-a b", "10-ä", "10-/a"]
        {
            assert!(Name::parse(odd).is_err(), "{odd:?}");
        }
    }
}
