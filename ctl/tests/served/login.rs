//! Credentials: kept where docker keeps them, sent to the host that they are for.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::ctl::{Ran, command, fed, ran};
use crate::daemon::{Daemon, Fake, start};

/// `ctl` with a docker configuration and programs of its own.
fn ctl(daemon: &Daemon, home: &Path, words: &str) -> Command {
    let mut command = command(&daemon.socket, words);
    let path = std::env::var("PATH").unwrap();
    command.env("PATH", format!("{}:{path}", home.join("bin").display()));
    command.env("HOME", home).env_remove("DOCKER_CONFIG");
    command
}

fn config(home: &Path) -> String {
    fs::read_to_string(home.join(".docker/config.json")).unwrap()
}

fn write_config(home: &Path, text: &str) {
    fs::create_dir_all(home.join(".docker")).unwrap();
    fs::write(home.join(".docker/config.json"), text).unwrap();
}

/// A helper that keeps one secret in a file, and says how it was called.
fn helper(home: &Path) {
    let bin = home.join("bin");
    fs::create_dir_all(&bin).unwrap();
    let script = format!(
        "#!/bin/sh\ncd '{}'\necho \"$@\" >> calls\ncase $1 in\n\
         store) cat > secret ;;\n\
         get) read -r key; grep -q \"\\\"$key\\\"\" secret 2>/dev/null && cat secret || \
         {{ echo 'credentials not found in native keychain'; exit 1; }} ;;\n\
         erase) rm -f secret ;;\nesac\n",
        home.display()
    );
    let path = bin.join("docker-credential-x");
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn login(daemon: &Daemon, home: &Path, password: &str, host: &str) -> Ran {
    let words = format!("login -u me --password-stdin {host}");
    fed(ctl(daemon, home, &words), format!("{password}\n").as_bytes())
}

#[test]
fn a_login_is_verified_and_kept_for_the_owner_alone() {
    let fake = Fake::default();
    let (daemon, dir) = start(&fake);
    let home = dir.path();
    write_config(home, "{\"detachKeys\": \"ctrl-a\"}");
    let wrong = login(&daemon, home, "hunter2", "reg.example:5000");
    assert_eq!(wrong.code, 1);
    assert_eq!(wrong.err, "ctl: registry reg.example:5000: the name or the password is wrong\n");
    assert!(!config(home).contains("auths"), "a wrong password is not kept");

    let right = login(&daemon, home, "secret", "https://reg.example:5000/v1/");
    assert_eq!((right.code, right.out.as_str()), (0, "Login Succeeded\n"), "{}", right.err);
    assert!(right.err.contains("stored unencrypted in"), "{}", right.err);
    // me:secret
    assert!(config(home).contains("\"auth\": \"bWU6c2VjcmV0\""), "{}", config(home));
    assert!(config(home).contains("detachKeys"), "{}", config(home));
    let mode = fs::metadata(home.join(".docker/config.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let out = ran(ctl(&daemon, home, "logout reg.example:5000"));
    assert_eq!(out.out, "Removing login credentials for reg.example:5000\n", "{}", out.err);
    assert!(!config(home).contains("bWU6c2VjcmV0"), "{}", config(home));
}

#[test]
fn a_token_takes_the_place_of_the_password() {
    let fake = Fake::default();
    fake.book().identity_token = "token".to_owned();
    let (daemon, dir) = start(&fake);
    let home = dir.path();
    assert_eq!(login(&daemon, home, "secret", "").code, 0);
    assert!(config(home).contains("\"https://index.docker.io/v1/\""), "{}", config(home));
    assert!(config(home).contains("\"identitytoken\": \"token\""), "{}", config(home));
    assert!(!config(home).contains("bWU6c2VjcmV0"), "{}", config(home));
    // What is kept is tried before anybody is asked.
    let again = ran(ctl(&daemon, home, "login"));
    assert_eq!((again.code, again.out.as_str()), (0, "Login Succeeded\n"), "{}", again.err);
}

#[test]
fn nobody_is_asked_without_a_terminal() {
    let fake = Fake::default();
    let (daemon, dir) = start(&fake);
    for (words, code, err) in [
        ("login reg.example", 1, "cannot ask for username: stdin is not a terminal"),
        ("login -u me reg.example", 1, "give it with --password-stdin"),
        ("login -u me --password-stdin reg.example", 125, "the password is empty"),
        ("login --password-stdin reg.example", 1, "--username"),
        ("login -u me -p secret word", 125, "registry \"word\": want a host"),
    ] {
        let ran = ran(ctl(&daemon, dir.path(), words));
        assert_eq!(ran.code, code, "{words}: {}", ran.err);
        assert!(ran.err.contains(err), "{words}: {}", ran.err);
    }
    assert!(fake.book().auths.is_empty());
}

#[test]
fn a_helper_keeps_what_it_is_named_for() {
    let fake = Fake::default();
    let (daemon, dir) = start(&fake);
    let home = dir.path();
    helper(home);
    write_config(home, "{\"credHelpers\": {\"reg.example\": \"x\"}}");
    let kept = login(&daemon, home, "secret", "reg.example");
    assert_eq!((kept.code, kept.err.as_str()), (0, ""), "no warning: it is safe there");
    assert!(!config(home).contains("auth\""), "{}", config(home));
    let pulled = ran(ctl(&daemon, home, "pull -q reg.example/web:1"));
    assert_eq!(pulled.code, 0, "{}", pulled.err);
    let sent = fake.book().auths.pop().unwrap().unwrap();
    assert_eq!((sent.username.as_str(), sent.password.as_str()), ("me", "secret"));
    assert_eq!(ran(ctl(&daemon, home, "logout reg.example")).code, 0);
    assert!(!home.join("secret").exists());
    let calls = fs::read_to_string(home.join("calls")).unwrap();
    assert_eq!(calls, "store\nget\nerase\n", "no secret is an argument");
}

#[test]
fn credentials_are_sent_for_their_own_host_only() {
    let fake = Fake::default();
    let (daemon, dir) = start(&fake);
    let home = dir.path();
    write_config(
        home,
        r#"{"auths": {"reg.example:5000": {"auth": "bWU6c2VjcmV0"},
            "https://index.docker.io/v1/": {"auth": "aHViOmh1Yg=="}}}"#,
    );
    for (words, want) in [
        ("pull -q reg.example:5000/web:1", Some(("reg.example:5000", "me"))),
        ("pull -q reg.example/web:1", None),
        ("pull -q reg.example.org:5000/web:1", None),
        ("pull -q alpine", Some(("docker.io", "hub"))),
        ("push -q alpine reg.example:5000/web:1", Some(("reg.example:5000", "me"))),
        ("push -q reg.example:5000/web:1 other.example/web:1", None),
        ("create -q --pull always alpine", Some(("docker.io", "hub"))),
    ] {
        let ran = ran(ctl(&daemon, home, words));
        assert_eq!(ran.code, 0, "{words}: {}", ran.err);
        let sent = fake.book().auths.pop().unwrap();
        let sent = sent.as_ref().map(|auth| (auth.host.as_str(), auth.username.as_str()));
        assert_eq!(sent, want, "{words}");
    }
}

#[test]
fn a_store_that_fails_is_a_warning_and_quotes_nothing() {
    let fake = Fake::default();
    let (daemon, dir) = start(&fake);
    let home = dir.path();
    let bin = home.join("bin");
    fs::create_dir_all(&bin).unwrap();
    fs::write(bin.join("docker-credential-y"), "#!/bin/sh\nprintf 'locked\\033[2J\\n'; exit 1\n")
        .unwrap();
    fs::set_permissions(bin.join("docker-credential-y"), fs::Permissions::from_mode(0o755))
        .unwrap();
    for (text, warning) in [
        ("{\"credsStore\": \"y\"}", "docker-credential-y get: locked\\u{1b}[2J"),
        ("{\"credsStore\": \"none\"}", "cannot run docker-credential-none: "),
        ("{\"credsStore\": \"../x\"}", "is no name of a credential helper"),
        ("[\"hunter2\"]", "is not docker's configuration: line 1"),
    ] {
        write_config(home, text);
        let pulled = ran(ctl(&daemon, home, "pull -q alpine"));
        assert_eq!(pulled.code, 0, "{text}: {}", pulled.err);
        assert!(
            pulled.err.starts_with("ctl: warning: going on without credentials: "),
            "{}",
            pulled.err
        );
        assert!(pulled.err.contains(warning), "{text}: {}", pulled.err);
        assert!(!pulled.err.contains("hunter2"));
        assert_eq!(fake.book().auths.pop(), Some(None));
    }
}
