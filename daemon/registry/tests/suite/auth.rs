//! Credentials: taken where they belong, and seen nowhere else.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bosun_registry::{Credentials, Error, Registry, Secret};

use super::fake::{Fake, Reply, Request, blob};
use super::{manifest, options, password, read, repository_of};

/// `user:hunter2`
const BASIC: &str = "Basic dXNlcjpodW50ZXIy";

fn is(request: &Request, authorization: &str) -> bool {
    request.header("authorization") == Some(authorization)
}

/// Whether a secret is anywhere in a request.
fn shows(request: &Request, secret: &str) -> bool {
    format!("{request:?}{}", String::from_utf8_lossy(&request.body)).contains(secret)
}

#[tokio::test]
async fn a_password_is_shown_when_asked_for() {
    let fake = Fake::start(|request| {
        if is(request, BASIC) {
            Reply::ok(manifest())
        } else {
            Reply::challenge("Basic realm=\"r\"")
        }
    })
    .await;
    let registry = Registry::new(options());
    let right =
        repository_of(&registry, &fake.host(), Some(password(&fake.host(), "hunter2"))).await;
    right.resolve().await.unwrap();
    right.resolve().await.unwrap();
    assert_eq!(fake.seen().len(), 3, "once it is known, it is shown at once");
    assert!(fake.seen()[0].header("authorization").is_none());

    for who in [Some(password(&fake.host(), "wrong-secret")), None] {
        let wrong = repository_of(&registry, &fake.host(), who).await;
        let error = wrong.resolve().await.unwrap_err();
        assert!(matches!(error, Error::Unauthorized { .. }), "{error:?}");
        let text = format!("{error} {error:?}");
        assert!(text.contains("ctl login") && !text.contains("wrong-secret"), "{text}");
    }
}

/// A registry with a token service on the same address; tokens are good for their scope.
async fn token_registry(realm: Option<String>) -> Fake {
    let own = Arc::new(Mutex::new(String::new()));
    let address = Arc::clone(&own);
    let fake = Fake::start(move |request| {
        let realm = realm.clone().unwrap_or_else(|| own.lock().unwrap().clone());
        if request.path.starts_with("/token") {
            let scope = request.path.contains("scope=repository%3Aa%2Fb%3Apull");
            return match (request.method.as_str(), scope) {
                ("GET", true)
                    if is(request, BASIC) || request.header("authorization").is_none() =>
                {
                    Reply::ok(r#"{"token":"pull-token","expires_in":300}"#)
                }
                ("POST", _) if shows(request, "refresh_token=identity") => {
                    Reply::ok(r#"{"access_token":"pull-token"}"#)
                }
                _ => Reply::new(401, r#"{"details":"incorrect username or password"}"#),
            };
        }
        if is(request, "Bearer pull-token") {
            return Reply::ok(manifest());
        }
        let scope = "repository:a/b:pull";
        Reply::challenge(&format!("Bearer realm=\"{realm}\",service=\"s s\",scope=\"{scope}\""))
    })
    .await;
    *address.lock().unwrap() = fake.url("/token");
    fake
}

#[tokio::test]
async fn a_token_is_fetched_once_for_a_scope() {
    let fake = token_registry(None).await;
    let registry = Registry::new(options());
    let repository =
        repository_of(&registry, &fake.host(), Some(password(&fake.host(), "hunter2"))).await;
    repository.resolve().await.unwrap();
    repository.resolve().await.unwrap();
    let paths = fake.paths();
    assert_eq!(paths.len(), 4, "{paths:?}");
    let asked = "GET /token?service=s+s&scope=repository%3Aa%2Fb%3Apull&account=user";
    assert_eq!(paths[1], asked);
    assert!(is(&fake.seen()[1], BASIC));

    // Another user does not ride on it.
    let other = repository_of(&registry, &fake.host(), Some(password(&fake.host(), "x"))).await;
    assert!(matches!(other.resolve().await, Err(Error::Unauthorized { .. })));
    let nobody = repository_of(&registry, &fake.host(), None).await;
    nobody.resolve().await.unwrap();
    let asked_again = fake.paths().iter().filter(|path| path.contains("/token")).count();
    assert_eq!(asked_again, 3);
}

#[tokio::test]
async fn identity_and_registry_tokens_are_shown_each_in_its_way() {
    let fake = token_registry(None).await;
    let registry = Registry::new(options());
    let identity = Credentials::new(&fake.host(), Secret::IdentityToken("identity".into()));
    repository_of(&registry, &fake.host(), Some(identity)).await.resolve().await.unwrap();
    let seen = fake.seen();
    assert_eq!(seen[1].method, "POST");
    let form = String::from_utf8_lossy(&seen[1].body).into_owned();
    assert!(form.contains("grant_type=refresh_token&service=s%20s&client_id=bosun"), "{form}");

    let direct = Credentials::new(&fake.host(), Secret::RegistryToken("pull-token".into()));
    repository_of(&registry, &fake.host(), Some(direct)).await.resolve().await.unwrap();
    assert_eq!(fake.seen().len(), 4, "shown at once");
    let wrong = Credentials::new(&fake.host(), Secret::RegistryToken("wrong".into()));
    let wrong = repository_of(&registry, &fake.host(), Some(wrong)).await;
    assert!(matches!(wrong.resolve().await, Err(Error::Unauthorized { .. })));
    assert_eq!(fake.seen().len(), 5);
}

#[tokio::test]
async fn a_token_that_ends_in_the_middle_is_fetched_anew_once() {
    let (bytes, descriptor) = blob(10_000);
    let served = bytes.clone();
    let (tokens, asked) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&asked);
    let own = Arc::new(Mutex::new(String::new()));
    let address = Arc::clone(&own);
    let fake = Fake::start(move |request| {
        if request.path.starts_with("/token") {
            let number = tokens.fetch_add(1, Ordering::SeqCst);
            return Reply::ok(format!(r#"{{"token":"t{number}","expires_in":600}}"#));
        }
        match (request.header("authorization"), request.header("range")) {
            (Some("Bearer t0"), None) => Reply::ok(&*served).cut(4000),
            (Some("Bearer t1"), Some("bytes=4000-")) => {
                Reply::new(206, &served[4000..]).with("Content-Range", "bytes 4000-9999/10000")
            }
            _ => {
                count.fetch_add(1, Ordering::SeqCst);
                let realm = own.lock().unwrap().clone();
                Reply::challenge(&format!("Bearer realm=\"{realm}\",service=\"s\""))
            }
        }
    })
    .await;
    *address.lock().unwrap() = fake.url("/token");
    let registry = Registry::new(options());
    let repository = repository_of(&registry, &fake.host(), None).await;
    let mut blob = repository.blob(&descriptor, 0).await.unwrap();
    assert!(read(&mut blob).await.unwrap() == bytes);
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_registry_that_never_is_content_gets_one_answer() {
    let fake = Fake::start(|request| {
        if request.path.starts_with("/token") {
            return Reply::ok(r#"{"token":"t"}"#);
        }
        let host = request.header("host").unwrap();
        Reply::challenge(&format!("Bearer realm=\"http://{host}/token\""))
    })
    .await;
    let registry = Registry::new(options());
    let repository = repository_of(&registry, &fake.host(), None).await;
    assert!(matches!(repository.resolve().await, Err(Error::Unauthorized { .. })));
    assert_eq!(fake.seen().len(), 3, "{:?}", fake.paths());
}

#[tokio::test]
async fn a_redirect_to_another_origin_carries_nothing() {
    // Another port is another origin.
    let storage = Fake::start(|_| Reply::ok(manifest())).await;
    let to = storage.url("/elsewhere");
    let fake = Fake::start(move |request| {
        if is(request, BASIC) {
            Reply::redirect(&to)
        } else {
            Reply::challenge("Basic realm=\"r\"")
        }
    })
    .await;
    let registry = Registry::new(options());
    let who = || Some(password(&fake.host(), "hunter2"));
    repository_of(&registry, &fake.host(), who()).await.resolve().await.unwrap();
    assert!(is(&fake.seen()[1], BASIC));
    let seen = storage.seen();
    assert_eq!(seen.len(), 1);
    assert!(!shows(&seen[0], "dXNlcjpodW50ZXIy") && seen[0].header("authorization").is_none());
}

#[tokio::test]
async fn a_host_that_was_redirected_to_may_ask_and_gets_nothing() {
    let evil = Fake::start(|request| {
        let host = request.header("host").unwrap();
        match request.path.as_str() {
            "/basic" => Reply::challenge("Basic realm=\"r\""),
            _ => Reply::challenge(&format!("Bearer realm=\"http://{host}/token\"")),
        }
    })
    .await;
    for (path, at_once) in
        [("/basic", false), ("/bearer", false), ("/basic", true), ("/bearer", true)]
    {
        let to = evil.url(path);
        let fake = Fake::start(move |request| {
            if at_once || is(request, BASIC) {
                Reply::redirect(&to)
            } else {
                Reply::challenge("Basic")
            }
        })
        .await;
        let registry = Registry::new(options());
        let who = Some(password(&fake.host(), "hunter2"));
        let error = repository_of(&registry, &fake.host(), who).await.resolve().await.unwrap_err();
        assert!(matches!(error, Error::Unauthorized { .. }), "{error:?}");
    }
    assert_eq!(evil.seen().len(), 4, "{:?}", evil.paths());
    assert!(evil.seen().iter().all(|request| request.header("authorization").is_none()));
}

#[tokio::test]
async fn a_redirect_that_comes_back_home_does_not_bring_credentials_back() {
    let home: Arc<Mutex<String>> = Arc::default();
    let back = Arc::clone(&home);
    let middle = Fake::start(move |_| Reply::redirect(&back.lock().unwrap())).await;
    let to = middle.url("/");
    let fake = Fake::start(move |request| match request.path.as_str() {
        "/chosen" => Reply::ok(manifest()),
        _ if is(request, BASIC) => Reply::redirect(&to),
        _ => Reply::challenge("Basic"),
    })
    .await;
    *home.lock().unwrap() = fake.url("/chosen");
    let who = Some(password(&fake.host(), "hunter2"));
    let registry = Registry::new(options());
    repository_of(&registry, &fake.host(), who).await.resolve().await.unwrap();
    let seen = fake.seen();
    assert_eq!(seen[2].path, "/chosen");
    assert!(seen[2].header("authorization").is_none());
}

#[tokio::test]
async fn a_mirror_gets_no_credentials_however_it_asks() {
    let mirror = Fake::start(|request| {
        let host = request.header("host").unwrap();
        match request.path.starts_with("/token") {
            true => Reply::new(401, ""),
            false => Reply::new(401, "")
                .with("WWW-Authenticate", "Basic realm=\"r\"")
                .with("WWW-Authenticate", format!("Bearer realm=\"http://{host}/token\"")),
        }
    })
    .await;
    let fake = Fake::start(|request| {
        if is(request, BASIC) {
            Reply::ok(manifest())
        } else {
            Reply::challenge("Basic realm=\"r\"")
        }
    })
    .await;
    let directory = tempfile::tempdir().unwrap();
    let host = directory.path().join(fake.host());
    std::fs::create_dir(&host).unwrap();
    let text = format!("server = \"{}\"\n[host.\"{}\"]\n", fake.url(""), mirror.url(""));
    std::fs::write(host.join("hosts.toml"), text).unwrap();
    let certs_dirs = vec![directory.path().to_owned()];
    let registry = Registry::new(bosun_registry::Options { certs_dirs, ..options() });
    let who = Some(password(&fake.host(), "hunter2"));
    repository_of(&registry, &fake.host(), who).await.resolve().await.unwrap();
    assert!(mirror.seen().len() >= 2, "{:?}", mirror.paths());
    for request in mirror.seen() {
        assert!(request.header("authorization").is_none(), "{request:?}");
        assert!(!shows(&request, "hunter2") && !shows(&request, "dXNlcj"), "{request:?}");
    }
}

#[tokio::test]
async fn a_token_service_without_tls_or_on_a_strange_address_gets_nothing() {
    let registry = Registry::new(options());
    for realm in ["http://192.0.2.1/token", "ftp://127.0.0.1/", "not an address", ""] {
        let fake = token_registry(Some(realm.to_owned())).await;
        let who = Some(password(&fake.host(), "hunter2"));
        let error = repository_of(&registry, &fake.host(), who).await.resolve().await.unwrap_err();
        assert!(matches!(error, Error::Token { .. }), "{realm}: {error:?}");
        assert_eq!(fake.seen().len(), 1);
    }
}

#[tokio::test]
async fn a_token_services_redirect_carries_nothing() {
    let evil = Fake::start(|_| Reply::ok(r#"{"token":"pull-token"}"#)).await;
    let to = evil.url("/");
    let fake = Fake::start(move |request| {
        let host = request.header("host").unwrap();
        match request.path.as_str() {
            path if path.starts_with("/token") => Reply::redirect(&to),
            _ if is(request, "Bearer pull-token") => Reply::ok(manifest()),
            _ => Reply::challenge(&format!("Bearer realm=\"http://{host}/token\"")),
        }
    })
    .await;
    let registry = Registry::new(options());
    let who = Some(password(&fake.host(), "hunter2"));
    repository_of(&registry, &fake.host(), who).await.resolve().await.unwrap();
    assert!(evil.seen()[0].header("authorization").is_none());
    // A form with a refresh token is not sent on at all.
    let who = Credentials::new(&fake.host(), Secret::IdentityToken("identity".into()));
    let result = repository_of(&registry, &fake.host(), Some(who)).await.resolve().await;
    assert!(matches!(result, Err(Error::Token { .. })), "{result:?}");
    assert_eq!(evil.seen().len(), 1);
}

#[tokio::test]
async fn credentials_of_another_host_are_refused() {
    let registry = Registry::new(options());
    let reference = "127.0.0.1:1/a:b".parse().unwrap();
    let result = registry.repository(&reference, Some(password("127.0.0.1:2", "x"))).await;
    assert!(matches!(result, Err(Error::ForeignCredentials { .. })));
    let docker = password("https://index.docker.io/v1/", "x");
    assert!(registry.repository(&"alpine".parse().unwrap(), Some(docker)).await.is_ok());
}

#[tokio::test]
async fn a_login_tells_whether_the_credentials_are_taken() {
    let basic =
        Fake::start(
            |request| {
                if is(request, BASIC) { Reply::ok("{}") } else { Reply::challenge("Basic") }
            },
        )
        .await;
    let registry = Registry::new(options());
    let taken = registry.login(password(&basic.host(), "hunter2")).await.unwrap();
    assert_eq!((taken, basic.paths()[0].as_str()), (None, "GET /v2/"));
    let error = registry.login(password(&basic.host(), "wrong")).await.unwrap_err();
    assert!(matches!(error, Error::Unauthorized { .. }), "{error}");

    let bearer = Fake::start(|request| {
        let host = request.header("host").unwrap();
        match request.path.as_str() {
            path if path.starts_with("/token") && is(request, BASIC) => {
                assert!(path.contains("offline_token=true"), "{path}");
                Reply::ok(r#"{"token":"t","refresh_token":"keep-me"}"#)
            }
            path if path.starts_with("/token") => Reply::new(401, ""),
            _ if is(request, "Bearer t") => Reply::ok("{}"),
            _ => Reply::challenge(&format!("Bearer realm=\"http://{host}/token\"")),
        }
    })
    .await;
    let kept = registry.login(password(&bearer.host(), "hunter2")).await.unwrap();
    assert_eq!(kept.as_deref(), Some("keep-me"));
    let error = registry.login(password(&bearer.host(), "wrong")).await.unwrap_err();
    assert!(matches!(error, Error::Unauthorized { .. }), "{error}");
}
