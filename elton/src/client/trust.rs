//! Whose certificates a command trusts.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

use super::ClientError;
use crate::data_dir::DataDir;

/// Where systems keep the certificates that they trust.
const SYSTEM_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
    "/etc/ssl/ca-bundle.pem",
];

/// A connector that trusts `given`; without it the data directory's own certificate and the system's.
pub fn connector(given: Option<&Path>, data: &DataDir) -> Result<TlsConnector, ClientError> {
    let mut roots = RootCertStore::empty();
    match given {
        Some(path) => add(&mut roots, path)?,
        None => {
            if data.ca_certificate().exists() {
                add(&mut roots, &data.ca_certificate())?;
            }
            if let Some(bundle) = system_bundle() {
                add(&mut roots, &bundle)?;
            }
        }
    }
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

fn system_bundle() -> Option<PathBuf> {
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    named.into_iter().chain(SYSTEM_BUNDLES.iter().map(PathBuf::from)).find(|path| path.exists())
}

fn add(roots: &mut RootCertStore, path: &Path) -> Result<(), ClientError> {
    let unusable = |reason: String| ClientError::CaCertificate { path: path.to_owned(), reason };
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| unusable(error.to_string()))?;
    let certificates: Vec<_> = certificates.collect::<Result<_, _>>().map_err(|error| unusable(error.to_string()))?;
    // Bundles hold certificates of other times that cannot be parsed any more; one that can is enough.
    let (added, _) = roots.add_parsable_certificates(certificates);
    if added == 0 { Err(unusable("it has no certificate in PEM form".to_owned())) } else { Ok(()) }
}
