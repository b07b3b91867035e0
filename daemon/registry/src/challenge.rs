//! Challenges: what a registry wants to see (RFC 9110, WWW-Authenticate).

use reqwest::{Response, header};

/// What to answer with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    Basic,
    /// A token of the service at `realm` (distribution specification, token authentication).
    Bearer {
        realm: String,
        service: String,
        scope: String,
    },
}

/// What an answer asks for.
pub(crate) fn of(response: &Response) -> Option<Challenge> {
    const LONGEST: usize = 8 << 10;
    let all = response.headers().get_all(header::WWW_AUTHENTICATE);
    let texts = all.iter().filter_map(|value| value.to_str().ok());
    parse(texts.filter(|text| text.len() <= LONGEST))
}

/// The best challenge of all that the headers have: a token before a password.
fn parse<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Challenge> {
    let all: Vec<_> = headers.flat_map(challenges).collect();
    let bearer = all.iter().find(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    if let Some((_, parameters)) = bearer {
        let get = |name: &str| {
            let found = parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.clone()).unwrap_or_default()
        };
        let (realm, service, scope) = (get("realm"), get("service"), get("scope"));
        return Some(Challenge::Bearer { realm, service, scope });
    }
    let basic = all.iter().any(|(scheme, _)| scheme.eq_ignore_ascii_case("basic"));
    basic.then_some(Challenge::Basic)
}

type Parameters = Vec<(String, String)>;

/// All challenges of one header. What can't be read ends it.
fn challenges(header: &str) -> Vec<(String, Parameters)> {
    let mut found: Vec<(String, Parameters)> = Vec::new();
    let mut rest = header.trim_start_matches([' ', '\t', ',']);
    while !rest.is_empty() {
        let end = rest.find(|c: char| !is_token(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if word.is_empty() {
            break;
        }
        match (after.trim_start().strip_prefix('='), found.last_mut()) {
            (Some(after), Some((_, parameters))) => {
                let Some((value, after)) = value(after.trim_start()) else { break };
                parameters.push((word.to_owned(), value));
                rest = after;
            }
            (Some(_), None) => break,
            (None, _) => {
                found.push((word.to_owned(), Vec::new()));
                rest = after;
            }
        }
        rest = rest.trim_start_matches([' ', '\t', ',']);
    }
    found
}

/// A token or a quoted string, and what follows it.
fn value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return Some((text[..end].to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut letters = quoted.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(letters.next()?.1),
            letter => value.push(letter),
        }
    }
    None
}

fn is_token(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(letter)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: &str, scope: &str) -> Option<Challenge> {
        let (realm, service, scope) = (realm.into(), service.into(), scope.into());
        Some(Challenge::Bearer { realm, service, scope })
    }

    #[test]
    fn any_header_gets_an_answer() {
        let letters: Vec<char> = "aB =\",\\é\t\u{1}".chars().collect();
        let mut seed = 1_u32;
        for _ in 0..20_000 {
            let text: String = (0..12)
                .map(|_| {
                    seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    letters[(seed >> 16) as usize % letters.len()]
                })
                .collect();
            assert_eq!(parse([text.as_str()].into_iter()), None, "{text:?}");
        }
    }

    #[test]
    fn challenges_are_read_as_registries_write_them() {
        let table: [(&[&str], Option<Challenge>); 12] = [
            (&["Basic realm=\"x\""], Some(Challenge::Basic)),
            (&["basic"], Some(Challenge::Basic)),
            (
                &["Bearer realm=\"https://a/t\",service=\"s\",scope=\"repository:a/b:pull,push\""],
                bearer("https://a/t", "s", "repository:a/b:pull,push"),
            ),
            (
                &["Bearer realm=https://a/t , service = \"s\\\"t\""],
                bearer("https://a/t", "s\"t", ""),
            ),
            (&["Basic realm=\"x\", Bearer realm=\"r\""], bearer("r", "", "")),
            (&["Basic realm=\"x\"", "BEARER Realm=\"r\""], bearer("r", "", "")),
            (&["Bearer realm=\"r\", error=\"invalid_token\", Basic"], bearer("r", "", "")),
            (&["Negotiate"], None),
            (&["realm=\"x\""], None),
            (&["Bearer realm=\"unfinished"], bearer("", "", "")),
            (&["\u{1}\u{2}"], None),
            (&[], None),
        ];
        for (headers, wanted) in table {
            assert_eq!(parse(headers.iter().copied()), wanted, "{headers:?}");
        }
    }
}
