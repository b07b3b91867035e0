//! Images: an image id with all its names, as the kubelet sees it.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bosun_image::Reference;
use bosun_registry::{Credentials, Secret};

use crate::cri::{invalid, wire};
use crate::error::Result;
use crate::images::Named;

/// The label of an image that the kubelet is not to collect, as with containerd.
const PINNED: &str = "io.cri-containerd.pinned";

/// What a specification of an image names.
pub(crate) fn reference_text(spec: Option<&wire::ImageSpec>) -> Result<String> {
    let text = spec.map(|spec| spec.image.trim().to_owned()).unwrap_or_default();
    if text.is_empty() {
        return Err(invalid("image", "no image is named"));
    }
    Ok(text)
}

/// One entry for each image id. Names whose documents can't be read are left out.
pub(crate) fn images(named: &[Named]) -> Vec<wire::Image> {
    let mut images: BTreeMap<String, wire::Image> = BTreeMap::new();
    for one in named {
        let Some(resolved) = &one.image else { continue };
        let id = resolved.manifest.config.digest.to_string();
        let image = images.entry(id.clone()).or_insert_with(|| {
            let (uid, username) = user(&resolved.config.config.user);
            wire::Image {
                size: resolved.size(),
                spec: Some(wire::ImageSpec::default()),
                id,
                uid,
                username,
                ..wire::Image::default()
            }
        });
        image.pinned |= one.row.labels.get(PINNED).is_some_and(|value| value == "pinned");
        let Ok(reference) = one.row.name.parse::<Reference>() else { continue };
        if reference.tag().is_some() {
            image.repo_tags.push(one.row.name.clone());
        }
        let digest = reference.at_digest(one.row.target.digest.clone()).name();
        if !image.repo_digests.contains(&digest) {
            image.repo_digests.push(digest);
        }
    }
    images.into_values().collect()
}

/// The user of a configuration: a number or a name, without its group.
fn user(text: &str) -> (Option<wire::Int64Value>, String) {
    let user = text.split(':').next().unwrap_or_default();
    match user.parse() {
        Ok(value) => (Some(wire::Int64Value { value }), String::new()),
        Err(_) => (None, user.to_owned()),
    }
}

/// What a pull shows to the registry; nothing when nothing is said.
///
/// # Errors
/// `auth` is not `USER:PASSWORD` in base64.
pub(crate) fn credentials(
    auth: Option<wire::AuthConfig>,
    reference: &Reference,
) -> Result<Option<Credentials>> {
    let Some(auth) = auth else { return Ok(None) };
    // Of the registry that the image is at: the kubelet has chosen by that.
    let host = reference.domain();
    let secret = if !auth.registry_token.is_empty() {
        Secret::RegistryToken(auth.registry_token)
    } else if !auth.identity_token.is_empty() {
        Secret::IdentityToken(auth.identity_token)
    } else if !auth.username.is_empty() {
        Secret::Password { username: auth.username, password: auth.password }
    } else if !auth.auth.is_empty() {
        let malformed = || invalid("auth", "it is not USER:PASSWORD in base64");
        let bytes = STANDARD.decode(auth.auth.trim()).map_err(|_| malformed())?;
        let text = String::from_utf8(bytes).map_err(|_| malformed())?;
        let (user, password) = text.split_once(':').ok_or_else(malformed)?;
        let password = password.trim_end_matches('\0').to_owned();
        Secret::Password { username: user.to_owned(), password }
    } else {
        return Ok(None);
    };
    Ok(Some(Credentials::new(host, secret)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_a_number_or_a_name() {
        assert_eq!(user("1002:5"), (Some(wire::Int64Value { value: 1002 }), String::new()));
        assert_eq!(user("www-data:www"), (None, "www-data".to_owned()));
        assert_eq!(user(""), (None, String::new()));
    }

    #[test]
    fn credentials_are_read_in_every_form_and_never_in_half() {
        let reference: Reference = "registry.example.org/a:1".parse().unwrap();
        let of = |auth| credentials(Some(auth), &reference);
        let plain = wire::AuthConfig {
            username: "u".to_owned(),
            password: "p".to_owned(),
            ..wire::AuthConfig::default()
        };
        let encoded =
            wire::AuthConfig { auth: STANDARD.encode("u:p"), ..wire::AuthConfig::default() };
        assert!(of(plain.clone()).unwrap() == of(encoded).unwrap());
        assert!(of(plain).unwrap().is_some());
        let odd = wire::AuthConfig { auth: "%".to_owned(), ..wire::AuthConfig::default() };
        assert!(of(odd).is_err());
        assert!(of(wire::AuthConfig::default()).unwrap().is_none());
    }
}
