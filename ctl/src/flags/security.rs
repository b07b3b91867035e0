//! What confines a container.

use super::FlagError;

/// `apparmor=PROFILE`, as docker's; the profile. Of docker's other options there is none yet.
pub(crate) fn security_option(text: &str) -> Result<String, FlagError> {
    match text.split_once('=') {
        Some(("apparmor", profile)) if !profile.is_empty() => Ok(profile.to_owned()),
        Some(_) | None => Err(FlagError::SecurityOption(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_of_apparmor_by_name() {
        assert_eq!(security_option("apparmor=web"), Ok("web".to_owned()));
        assert_eq!(security_option("apparmor=:ns:a=b"), Ok(":ns:a=b".to_owned()));
        for text in ["", "apparmor", "apparmor=", "seccomp=unconfined", "no-new-privileges"] {
            let refused = FlagError::SecurityOption(text.to_owned());
            assert_eq!(security_option(text), Err(refused), "{text}");
        }
    }
}
