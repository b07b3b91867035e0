//! How docker writes a registry where it keeps its credentials.

/// The host of docker's own registry in an image's name.
const HUB: &str = "docker.io";
const HUB_KEY: &str = "https://index.docker.io/v1/";
const HUB_HOSTS: [&str; 3] = [HUB, "index.docker.io", "registry-1.docker.io"];

/// The key of a host: itself, but for docker's own registry.
pub(super) fn of(host: &str) -> String {
    if host == HUB { HUB_KEY.to_owned() } else { host.to_owned() }
}

/// Whether a key is meant for this host: `HOST`, `https://HOST`, `HOST/v1/` and the like.
pub(super) fn is_of(key: &str, host: &str) -> bool {
    host_of(key) == host
}

/// The host, as an image's name has it, of what a user or docker wrote.
pub(crate) fn host_of(text: &str) -> String {
    let text = text.strip_prefix("https://").or(text.strip_prefix("http://")).unwrap_or(text);
    let host = text.split('/').next().unwrap_or_default();
    if HUB_HOSTS.contains(&host) { HUB.to_owned() } else { host.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_host_is_its_own() {
        for (key, host, want) in [
            ("https://index.docker.io/v1/", "docker.io", true),
            ("index.docker.io", "docker.io", true),
            ("docker.io", "docker.io", true),
            ("reg.example:5000", "reg.example:5000", true),
            ("https://reg.example:5000/v1/", "reg.example:5000", true),
            ("http://reg.example:5000", "reg.example:5000", true),
            ("reg.example:5000/v2/", "reg.example:5000", true),
            ("reg.example", "reg.example:5000", false),
            ("reg.example.evil", "reg.example", false),
            ("https://evil/reg.example", "reg.example", false),
            ("reg.example", "docker.io", false),
            ("", "docker.io", false),
        ] {
            assert_eq!(is_of(key, host), want, "{key} {host}");
        }
        assert_eq!(of("docker.io"), "https://index.docker.io/v1/");
        assert_eq!(of("reg.example:5000"), "reg.example:5000");
    }
}
