//! Hosts: where an image's registry is reached, and what to do there.
//!
//! `certs.d/HOST/hosts.toml` in containerd's format names mirrors and what TLS needs; without it,
//! docker's plain `certs.d/HOST/*.crt`, `*.cert`, `*.key` count; without both, the host itself.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Certificate, Identity, Url};
use serde::Deserialize;
use toml::Spanned;

use crate::clients::Tls;
use crate::{Error, Result};

const DOCKER: &str = "docker.io";
const DOCKER_SERVER: &str = "registry-1.docker.io";
const FILE: &str = "hosts.toml";
/// Of `hosts.toml`, or of a certificate.
const LARGEST_FILE: u64 = 1 << 20;

/// One place to ask.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    /// Host and port, for people.
    pub(crate) host: String,
    /// Ends in `/`; paths of the distribution specification are below it.
    pub(crate) base: Url,
    pub(crate) capabilities: Capabilities,
    pub(crate) headers: HeaderMap,
    pub(crate) tls: Tls,
    /// On loopback, and nobody said how it speaks: without TLS, if it has none.
    pub(crate) may_be_plain: bool,
    /// The host of the image's name: credentials go here. Others are told the name (`ns`).
    pub(crate) own: bool,
    /// Asked before the server; its failures are no errors.
    pub(crate) mirror: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Capabilities {
    /// By digest.
    pub(crate) pull: bool,
    /// By tag.
    pub(crate) resolve: bool,
    pub(crate) push: bool,
}

impl Capabilities {
    const ALL: Self = Self { pull: true, resolve: true, push: true };
}

/// All places to ask for the images of a host, in order; the last is its server.
///
/// # Errors
/// [`Error::Hosts`]: a file that can't be read or makes no sense.
pub(crate) async fn endpoints(directories: &[PathBuf], host: &str) -> Result<Vec<Endpoint>> {
    let (directories, host) = (directories.to_owned(), host.to_owned());
    let read = tokio::task::spawn_blocking(move || read(&directories, &host));
    read.await.unwrap_or_else(|error| Err(problem(Path::new(FILE), &error.to_string())))
}

fn read(directories: &[PathBuf], host: &str) -> Result<Vec<Endpoint>> {
    let Some(directory) = directory_of(directories, host) else {
        return Ok(vec![server(host, Tls::default(), Path::new(FILE))?]);
    };
    let file = directory.join(FILE);
    if file.exists() {
        let text = String::from_utf8(contents(&file)?);
        let text = text.map_err(|_| problem(&file, "is not UTF-8"))?;
        return parse(&text, &file, host);
    }
    let tls = dockers_certificates(&directory)?;
    let has_tls = tls != Tls::default();
    let mut server = server(host, tls, &file)?;
    server.may_be_plain &= !has_tls;
    Ok(vec![server])
}

/// The host's own directory under any of its names, or the one for all hosts.
fn directory_of(directories: &[PathBuf], host: &str) -> Option<PathBuf> {
    let mut names = Vec::new();
    if let Some((name, port)) = host.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')) {
        names.push(format!("{name}_{port}_").replace(':', ""));
    }
    names.push(host.to_owned());
    let own = directories.iter().flat_map(|root| names.iter().map(|name| root.join(name)));
    let common = directories.iter().map(|root| root.join("_default"));
    own.chain(common).find(|directory| directory.is_dir())
}

fn server(host: &str, tls: Tls, file: &Path) -> Result<Endpoint> {
    let at = if host == DOCKER { DOCKER_SERVER } else { host };
    let base = base_url(&format!("https://{at}"), false, file)?;
    let may_be_plain = is_loopback(&base);
    let (host, own, mirror) = (authority(&base), true, false);
    let (capabilities, headers) = (Capabilities::ALL, HeaderMap::new());
    Ok(Endpoint { host, base, capabilities, headers, tls, may_be_plain, own, mirror })
}

#[derive(Deserialize)]
struct File {
    server: Option<String>,
    #[serde(default)]
    host: BTreeMap<String, Spanned<Table>>,
    #[serde(flatten)]
    top: Table,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct Table {
    capabilities: Option<Vec<String>>,
    ca: Option<OneOrMany>,
    client: Option<Clients>,
    skip_verify: bool,
    header: BTreeMap<String, OneOrMany>,
    override_path: bool,
    dial_timeout: Option<String>,
}

#[derive(Clone, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

/// A file with both, files with both, or pairs of certificate and key.
#[derive(Clone, Deserialize)]
#[serde(untagged)]
enum Clients {
    One(String),
    Many(Vec<OneOrMany>),
}

impl OneOrMany {
    fn into_list(self) -> Vec<String> {
        match self {
            Self::One(text) => vec![text],
            Self::Many(list) => list,
        }
    }
}

fn parse(text: &str, file: &Path, host: &str) -> Result<Vec<Endpoint>> {
    let parsed: File = toml::from_str(text).map_err(|error| problem(file, &error.to_string()))?;
    // Mirrors are asked in the order of the file, which a map does not keep.
    let mut mirrors: Vec<_> = parsed.host.into_iter().collect();
    mirrors.sort_by_key(|(_, table)| table.span().start);
    let mut endpoints = Vec::new();
    for (address, table) in mirrors {
        endpoints.push(endpoint(&address, table.into_inner(), file, host, true)?);
    }
    let last = match parsed.server {
        Some(address) => endpoint(&address, parsed.top, file, host, false)?,
        None => {
            let own = server(host, Tls::default(), file)?;
            let may_be_plain = own.may_be_plain;
            let made = endpoint(own.base.as_str(), parsed.top, file, host, false)?;
            Endpoint { may_be_plain, ..made }
        }
    };
    endpoints.push(last);
    Ok(endpoints)
}

fn endpoint(
    address: &str,
    table: Table,
    file: &Path,
    host: &str,
    mirror: bool,
) -> Result<Endpoint> {
    let base = base_url(address, table.override_path, file)?;
    let tls = Tls {
        authorities: pem(file, table.ca.map(OneOrMany::into_list).unwrap_or_default())?,
        identity: identity(file, table.client)?,
        skip_verify: table.skip_verify,
        dial_timeout: table.dial_timeout.map(|text| duration(&text, file)).transpose()?,
    };
    Ok(Endpoint {
        host: authority(&base),
        own: is_own(&base, host),
        capabilities: capabilities(table.capabilities, file)?,
        headers: headers(table.header, file)?,
        may_be_plain: false,
        base,
        tls,
        mirror,
    })
}

fn base_url(address: &str, override_path: bool, file: &Path) -> Result<Url> {
    let with_scheme =
        if address.contains("://") { address.to_owned() } else { format!("https://{address}") };
    let mut url = Url::parse(&with_scheme)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
        .ok_or_else(|| problem(file, &format!("{address:?} is no address of a registry")))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(problem(file, "an address must not hold credentials: log in instead"));
    }
    url.set_query(None);
    url.set_fragment(None);
    let path = url.path().trim_end_matches('/').to_owned();
    let version = if override_path || path.ends_with("/v2") { "" } else { "/v2" };
    url.set_path(&format!("{path}{version}/"));
    Ok(url)
}

fn capabilities(names: Option<Vec<String>>, file: &Path) -> Result<Capabilities> {
    let Some(names) = names else { return Ok(Capabilities::ALL) };
    let mut found = Capabilities { pull: false, resolve: false, push: false };
    for name in names {
        match name.to_lowercase().as_str() {
            "pull" => found.pull = true,
            "resolve" => found.resolve = true,
            "push" => found.push = true,
            // Of newer versions of containerd; not asked for here.
            "referrers" => {}
            _ => return Err(problem(file, &format!("unknown capability {name:?}"))),
        }
    }
    Ok(found)
}

fn headers(table: BTreeMap<String, OneOrMany>, file: &Path) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, values) in table {
        for value in values.into_list() {
            let unusable = || problem(file, &format!("header {name:?} can't be sent"));
            let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| unusable())?;
            let mut value = HeaderValue::from_str(&value).map_err(|_| unusable())?;
            value.set_sensitive(true);
            headers.append(key, value);
        }
    }
    Ok(headers)
}

fn pem(file: &Path, names: Vec<String>) -> Result<Vec<Vec<u8>>> {
    names.iter().map(|name| certificates(&beside(file, name))).collect()
}

/// A file of certificates, and at least one.
fn certificates(path: &Path) -> Result<Vec<u8>> {
    let pem = contents(path)?;
    match Certificate::from_pem_bundle(&pem) {
        Ok(found) if !found.is_empty() => Ok(pem),
        Ok(_) | Err(_) => Err(problem(path, "holds no certificate: want PEM")),
    }
}

/// Certificate and key in one text. The first pair is the one that is offered.
fn identity(file: &Path, clients: Option<Clients>) -> Result<Option<Vec<u8>>> {
    let first = match clients {
        None => return Ok(None),
        Some(Clients::One(name)) => OneOrMany::One(name),
        Some(Clients::Many(list)) => match list.into_iter().next() {
            Some(first) => first,
            None => return Ok(None),
        },
    };
    let paths: Vec<_> = first.into_list().iter().map(|name| beside(file, name)).collect();
    let [certificate, .., key] = &paths[..] else {
        let both = paths.first().ok_or_else(|| problem(file, "\"client\" names no file"))?;
        return pair(both, both).map(Some);
    };
    pair(certificate, key).map(Some)
}

/// Certificate and key of a client, in one text.
fn pair(certificate: &Path, key: &Path) -> Result<Vec<u8>> {
    let mut pem = contents(certificate)?;
    if key != certificate {
        pem.push(b'\n');
        pem.extend(contents(key)?);
    }
    match Identity::from_pem(&pem) {
        Ok(_) => Ok(pem),
        Err(_) => Err(problem(certificate, "is no certificate that fits with its key: want PEM")),
    }
}

fn dockers_certificates(directory: &Path) -> Result<Tls> {
    let unreadable = |error: std::io::Error| problem(directory, &error.to_string());
    let entries = std::fs::read_dir(directory).map_err(unreadable)?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    let mut tls = Tls::default();
    for path in files {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("crt") => tls.authorities.push(certificates(&path)?),
            Some("cert") if tls.identity.is_none() => {
                tls.identity = Some(pair(&path, &path.with_extension("key"))?);
            }
            Some(_) | None => {}
        }
    }
    Ok(tls)
}

fn contents(path: &Path) -> Result<Vec<u8>> {
    use std::io::Read;
    let unreadable = |error: std::io::Error| problem(path, &error.to_string());
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(LARGEST_FILE + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > LARGEST_FILE {
        return Err(problem(path, "is larger than 1 MiB"));
    }
    Ok(bytes)
}

fn beside(file: &Path, name: &str) -> PathBuf {
    file.parent().unwrap_or(Path::new("")).join(name)
}

/// As Go writes them: `3s`, `500ms`, `1m`.
fn duration(text: &str, file: &Path) -> Result<Duration> {
    let end = text.find(|letter: char| letter.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = match unit {
        "ms" => Some(0.001),
        "s" => Some(1.0),
        "m" => Some(60.0),
        _ => None,
    };
    unit.zip(number.parse::<f64>().ok())
        .and_then(|(unit, number)| Duration::try_from_secs_f64(unit * number).ok())
        .filter(|time| !time.is_zero())
        .ok_or_else(|| problem(file, &format!("{text:?} is no duration: want for example \"3s\"")))
}

/// Whether an address is the host of an image's name.
fn is_own(base: &Url, host: &str) -> bool {
    if host == DOCKER {
        return base.scheme() == "https" && authority(base) == DOCKER_SERVER;
    }
    Url::parse(&format!("{}://{host}", base.scheme())).is_ok_and(|own| same_place(&own, base))
}

fn same_place(left: &Url, right: &Url) -> bool {
    left.host_str() == right.host_str()
        && left.port_or_known_default() == right.port_or_known_default()
}

/// Same scheme, host and port: what credentials for the one are good for.
pub(crate) fn same_origin(left: &Url, right: &Url) -> bool {
    left.scheme() == right.scheme() && same_place(left, right)
}

/// Host, and port if it is not the scheme's own.
pub(crate) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// This machine by its address: 127.0.0.0/8, ::1 and `localhost`.
pub(crate) fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || address.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn problem(path: &Path, problem: &str) -> Error {
    Error::Hosts { path: path.to_owned(), problem: problem.to_owned() }
}
