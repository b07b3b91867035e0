//! Credentials: where they come from, that they work, and that they go nowhere else.

use integration::ctl::Ctl;
use integration::daemon::Daemon;
use integration::executable;
use integration::fake_registry::{Answer, Auth, FakeRegistry, basic};
use integration::http_server::Request;
use integration::image::{Image, Recipe, noise};
use integration::registry::{PASSWORD, Registry, USER};
use integration::tar::Entry;

const SECRET: &str = "swordfish-93";

fn image() -> Image {
    Recipe::new().files(&[Entry::file("noise", noise(9, 20_000))]).image()
}

/// A client with a docker configuration of its own.
fn client(daemon: &Daemon) -> Ctl {
    let directory = daemon.scratch().join("docker");
    std::fs::create_dir_all(&directory).unwrap();
    daemon.client().with_environment("DOCKER_CONFIG", &directory.display().to_string())
}

fn config(daemon: &Daemon) -> String {
    std::fs::read_to_string(daemon.scratch().join("docker/config.json")).unwrap_or_default()
}

fn authorizations(requests: &[Request]) -> Vec<&str> {
    requests.iter().filter_map(|request| request.header("authorization")).collect()
}

/// Neither plain nor encoded in anything that the daemon wrote: its log, its database.
#[track_caller]
fn not_written_down(daemon: &Daemon, user: &str, password: &str) {
    let files = ["meta.db", "meta.db-wal"].map(|name| std::fs::read(daemon.root().join(name)));
    let mut texts: Vec<Vec<u8>> = files.into_iter().flatten().collect();
    texts.push(daemon.log().into_bytes());
    let encoded = basic(user, password);
    for secret in [password, encoded.trim_start_matches("Basic "), "token-0"] {
        for text in &texts {
            let found = text.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{secret:?} is in the log or in the database");
        }
    }
}

/// Logs in with a wrong and the right password, pushes, pulls, logs out.
fn lives_behind_a_password(registry: fn(&integration::netns::NetNs) -> Registry) {
    let daemon = Daemon::start();
    let (registry, ctl) = (registry(daemon.netns()), client(&daemon));
    let (host, image) = (registry.host(), image());
    let name = registry.push("private/thing", "1", &image);
    ctl.run(&format!("pull {name}")).fails(1, &[&name, "login"]);

    let login = format!("login -u {USER} --password-stdin {host}");
    ctl.feed(&login, "wrong").fails(1, &[&host]);
    assert!(!config(&daemon).contains(&host), "{}", config(&daemon));
    ctl.feed(&login, PASSWORD).ok();
    ctl.run(&format!("pull {name}")).ok();
    ctl.run(&format!("tag {name} {host}/private/other:2")).ok();
    ctl.run(&format!("push {host}/private/other:2")).ok();
    assert!(registry.manifest("private/other", "2").is_some());
    // Another user of the machine has not logged in.
    daemon.ctl(&format!("rmi {name}")).ok();
    daemon
        .client()
        .with_environment("DOCKER_CONFIG", "/nonexistent")
        .run(&format!("pull {name}"))
        .fails(1, &[&name]);

    ctl.run(&format!("logout {host}")).ok();
    assert!(!config(&daemon).contains(&host), "{}", config(&daemon));
    ctl.run(&format!("pull {name}")).fails(1, &[&name]);
    not_written_down(&daemon, USER, PASSWORD);
}

#[test]
fn a_registry_with_passwords() {
    lives_behind_a_password(Registry::with_basic_auth);
}

#[test]
fn a_registry_with_tokens() {
    lives_behind_a_password(Registry::with_token_auth);
}

#[test]
fn a_certificate_is_checked_against_the_configured_authority() {
    let daemon = Daemon::start();
    let registry = Registry::with_tls(daemon.netns());
    let name = registry.push("a", "1", &image());
    let host = registry.host();
    let hosts = |more: &str| {
        daemon.hosts_toml(&host, &format!("server = \"https://{host}\"\n{more}"));
    };
    hosts("");
    daemon.ctl(&format!("pull {name}")).fails(1, &[&name, "certificate"]);
    let ca = format!("ca = \"{}\"\n", registry.authority().display());
    hosts(&ca);
    daemon.ctl(&format!("pull {name}")).ok();
    daemon.ctl(&format!("rmi {name}")).ok();
    hosts(&format!("[host.\"https://{host}\"]\n{ca}"));
    daemon.ctl(&format!("pull {name}")).ok();
    daemon.ctl(&format!("rmi {name}")).ok();
    // The authority of another registry is none of this one's.
    let other = Registry::with_tls(daemon.netns());
    hosts(&format!("ca = \"{}\"\n", other.authority().display()));
    daemon.ctl(&format!("pull {name}")).fails(1, &["certificate"]);
    hosts("skip_verify = true\n");
    daemon.ctl(&format!("pull {name}")).ok();
    hosts("ca = \"/no/such/file.pem\"\n");
    daemon.ctl(&format!("rmi {name}")).ok();
    daemon.ctl(&format!("pull {name}")).fails(1, &["/no/such/file.pem"]);
}

#[test]
fn a_registry_that_speaks_tls_on_loopback_is_found_without_configuration() {
    let daemon = Daemon::start();
    let registry = Registry::with_tls(daemon.netns());
    let name = registry.push("a", "1", &image());
    // Whatever it tries first: the end is not plain text to a registry that has a certificate.
    daemon.ctl(&format!("pull {name}")).fails(1, &[&name]);
}

/// A registry with passwords whose layers are somewhere else.
fn with_layers_elsewhere(auth: Auth) -> (Daemon, FakeRegistry, FakeRegistry, String) {
    let daemon = Daemon::start();
    let registry = FakeRegistry::start(daemon.netns());
    let store = FakeRegistry::start_at(daemon.netns(), [127, 0, 0, 2].into());
    let image = image();
    let name = registry.add("a", "1", &image);
    store.add("a", "1", &image);
    let layer = &image.layers()[0].digest;
    let there = format!("http://{}/v2/a/blobs/{layer}?signature=1", store.host());
    registry.always(&format!("GET /v2/a/blobs/{layer}"), Answer::redirect(&there));
    registry.require(auth);
    (daemon, registry, store, name)
}

fn bearer(realm: &str) -> Auth {
    Auth::Bearer { user: "me".to_owned(), password: SECRET.to_owned(), realm: realm.to_owned() }
}

fn password() -> Auth {
    Auth::Basic { user: "me".to_owned(), password: SECRET.to_owned() }
}

/// CVE-2020-15157.
#[test]
fn a_redirect_takes_no_credentials_along() {
    for auth in [password(), bearer("")] {
        let (daemon, registry, store, name) = with_layers_elsewhere(auth);
        let ctl = client(&daemon);
        ctl.run(&format!("login -u me -p {SECRET} {}", registry.host())).ok();
        ctl.run(&format!("pull {name}")).ok();
        assert!(store.count("/blobs/") > 0);
        assert_eq!(authorizations(&store.requests()), [""; 0]);
        assert!(!authorizations(&registry.requests()).is_empty());
        not_written_down(&daemon, "me", SECRET);
    }
}

#[test]
fn a_redirect_that_asks_for_credentials_gets_none() {
    let (daemon, registry, store, name) = with_layers_elsewhere(password());
    store.require(password());
    let ctl = client(&daemon);
    ctl.run(&format!("login -u me -p {SECRET} {}", registry.host())).ok();
    let output = ctl.run(&format!("pull {name}"));
    assert_ne!(output.code, Some(0));
    assert!(store.count("/blobs/") > 0);
    assert_eq!(authorizations(&store.requests()), [""; 0]);
    assert!(!output.stderr.contains(SECRET));
}

#[test]
fn a_redirect_back_may_not_carry_them_over_another_port() {
    let (daemon, registry, _, name) = with_layers_elsewhere(password());
    let neighbour = FakeRegistry::start(daemon.netns());
    neighbour.add("a", "1", &image());
    registry.forgive();
    let layer = image().layers()[0].digest.clone();
    let there = format!("http://{}/v2/a/blobs/{layer}", neighbour.host());
    registry.always(&format!("GET /v2/a/blobs/{layer}"), Answer::redirect(&there));
    let ctl = client(&daemon);
    ctl.run(&format!("login -u me -p {SECRET} {}", registry.host())).ok();
    ctl.run(&format!("pull {name}")).ok();
    assert_eq!(authorizations(&neighbour.requests()), [""; 0], "another port is another host");
}

#[test]
fn a_mirror_gets_no_credentials_of_the_registry() {
    let daemon = Daemon::start();
    let (mirror, origin) = (
        FakeRegistry::start_at(daemon.netns(), [127, 0, 0, 2].into()),
        FakeRegistry::start(daemon.netns()),
    );
    mirror.add("a", "1", &image());
    mirror.require(password());
    let name = origin.add("a", "1", &image());
    origin.require(password());
    let ctl = client(&daemon);
    ctl.run(&format!("login -u me -p {SECRET} {}", origin.host())).ok();
    daemon.hosts_toml(
        &origin.host(),
        &format!("server = \"http://{}\"\n[host.\"http://{}\"]\n", origin.host(), mirror.host()),
    );
    ctl.run(&format!("pull {name}")).ok();
    assert!(mirror.count("/manifests/") > 0, "the mirror is asked first");
    assert_eq!(authorizations(&mirror.requests()), [""; 0]);
    not_written_down(&daemon, "me", SECRET);
}

#[test]
fn a_token_is_for_its_registry_alone() {
    let daemon = Daemon::start();
    let service = FakeRegistry::start_at(daemon.netns(), [127, 0, 0, 4].into());
    service.require(bearer(""));
    let (one, two) = (FakeRegistry::start(daemon.netns()), FakeRegistry::start(daemon.netns()));
    let ctl = client(&daemon);
    one.add("a", "1", &image());
    two.add("a", "1", &image());
    for registry in [&one, &two] {
        registry.require(bearer(""));
        ctl.run(&format!("login -u me -p {SECRET} {}", registry.host())).ok();
        ctl.run(&format!("pull {}/a:1", registry.host())).ok();
    }
    let of_one: Vec<String> =
        authorizations(&one.requests()).iter().map(|&text| text.to_owned()).collect();
    assert!(of_one.iter().any(|text| text.starts_with("Bearer ")), "{of_one:?}");
    assert!(of_one.iter().filter(|text| text.starts_with("Basic ")).count() <= 4, "{of_one:?}");
    // Anonymous pulls get a token without a word about who one is.
    ctl.run(&format!("logout {}", one.host())).ok();
    one.forget_requests();
    daemon.ctl(&format!("rmi {}/a:1", one.host())).ok();
    ctl.run(&format!("pull {}/a:1", one.host())).ok();
    assert!(authorizations(&one.requests()).iter().all(|text| !text.starts_with("Basic ")));
    not_written_down(&daemon, "me", SECRET);
}

#[test]
fn one_token_serves_a_whole_pull() {
    let daemon = Daemon::start();
    let registry = FakeRegistry::start(daemon.netns());
    let layers = (0..6).fold(Recipe::new(), |recipe, number| {
        recipe.files(&[Entry::file(&format!("f{number}"), noise(number, 5_000))])
    });
    let name = registry.add("a", "1", &layers.image());
    registry.require(bearer(""));
    daemon.ctl(&format!("pull {name}")).ok();
    assert!(registry.count("/token") <= 2, "{} tokens", registry.count("/token"));
}

#[test]
fn credentials_come_from_a_helper() {
    let daemon = Daemon::start();
    let registry = FakeRegistry::start(daemon.netns());
    let name = registry.add("a", "1", &image());
    registry.require(password());
    let ctl = client(&daemon);
    let helper = daemon.scratch().join("docker-credential-test");
    let script = format!(
        "#!/bin/sh\nread host\necho \"$1 $host\" >> {}/asked\n[ \"$1\" = get ] && echo '{{\"Username\":\"me\",\"Secret\":\"{SECRET}\"}}'\nexit 0\n",
        daemon.scratch().display()
    );
    executable::write(&helper, script);
    let path = format!("{}:{}", daemon.scratch().display(), std::env::var("PATH").unwrap());
    let ctl = ctl.with_environment("PATH", &path);
    std::fs::write(
        daemon.scratch().join("docker/config.json"),
        format!("{{\"credHelpers\": {{\"{}\": \"test\"}}}}", registry.host()),
    )
    .unwrap();
    ctl.run(&format!("pull {name}")).ok();
    let asked = std::fs::read_to_string(daemon.scratch().join("asked")).unwrap();
    assert_eq!(asked.lines().next(), Some(&*format!("get {}", registry.host())));
    let other = FakeRegistry::start(daemon.netns());
    other.add("a", "1", &image());
    ctl.run(&format!("pull {}/a:1", other.host())).ok();
    assert_eq!(authorizations(&other.requests()), [""; 0]);
}

#[test]
fn the_file_is_dockers() {
    let daemon = Daemon::start();
    let registry = FakeRegistry::start(daemon.netns());
    registry.require(password());
    let (ctl, host) = (client(&daemon), registry.host());
    let file = daemon.scratch().join("docker/config.json");
    std::fs::write(
        &file,
        "{\"auths\": {\"other.test\": {\"auth\": \"YTpi\"}}, \"detachKeys\": \"ctrl-x\"}",
    )
    .unwrap();
    ctl.run(&format!("login -u me -p {SECRET} {host}")).ok();
    let kept: serde_json::Value = serde_json::from_str(&config(&daemon)).unwrap();
    let auth = basic("me", SECRET).trim_start_matches("Basic ").to_owned();
    assert_eq!(kept["auths"][&host]["auth"], auth);
    assert_eq!(kept["auths"]["other.test"]["auth"], "YTpi", "what else is there stays");
    assert_eq!(kept["detachKeys"], "ctrl-x");
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o077, 0);

    std::fs::write(&file, "{ not json").unwrap();
    ctl.run(&format!("pull {host}/a:1")).fails(1, &["config.json"]);
}
