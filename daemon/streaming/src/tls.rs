//! TLS from two files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::server::StartError;

pub(crate) use tokio_rustls::TlsAcceptor as Acceptor;

/// The files, in PEM.
#[derive(Clone, Debug)]
pub struct Tls {
    /// The certificate, and those that lead to an authority's.
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Tls {
    /// # Errors
    /// When the files can't be served with as they are now.
    pub fn check(&self) -> Result<(), StartError> {
        acceptor(self).map(drop)
    }
}

pub(crate) fn acceptor(tls: &Tls) -> Result<Acceptor, StartError> {
    let chain = CertificateDer::pem_file_iter(&tls.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| failed(&tls.certificate, &error))?;
    if chain.is_empty() {
        return Err(failed(&tls.certificate, &"there is no certificate in it"));
    }
    let key = PrivateKeyDer::from_pem_file(&tls.key).map_err(|error| failed(&tls.key, &error))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(&tls.certificate, &error))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| failed(&tls.key, &error))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Acceptor::from(Arc::new(config)))
}

fn failed(path: &Path, problem: &dyn std::fmt::Display) -> StartError {
    StartError::Tls { path: path.to_owned(), problem: problem.to_string() }
}
