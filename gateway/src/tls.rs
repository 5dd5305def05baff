//! TLS for the S3 port: certificates from PEM, `ring` as the one crypto provider, HTTP/2 and HTTP/1.1 by ALPN.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

/// Why a certificate and key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// No certificate could be read.
    #[error("no certificate in PEM form (-----BEGIN CERTIFICATE-----) was found")]
    NoCertificate,
    /// The certificate's PEM is damaged.
    #[error("the certificate's PEM cannot be read")]
    Certificate(#[source] rustls::pki_types::pem::Error),
    /// No private key could be read.
    #[error("no usable private key in PEM form (PKCS#8, PKCS#1 or SEC1, not encrypted) was found")]
    Key(#[source] rustls::pki_types::pem::Error),
    /// The two do not make a TLS server.
    #[error("certificate and key do not go together")]
    Unusable(#[source] rustls::Error),
}

/// An acceptor that shows `certificate` (a chain, its own certificate first) and proves it with `key`, both PEM.
pub fn acceptor(certificate: &[u8], key: &[u8]) -> Result<TlsAcceptor, TlsError> {
    let chain =
        CertificateDer::pem_slice_iter(certificate).collect::<Result<Vec<_>, _>>().map_err(TlsError::Certificate)?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate);
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(TlsError::Key)?;
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(TlsError::Unusable)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_pem_is_refused_with_a_reason() {
        assert!(matches!(acceptor(b"nothing", b"nothing"), Err(TlsError::NoCertificate)));
    }
}
