//! Which keys are good in a handshake.

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, PeerIncompatible, PeerMisbehaved,
    SignatureScheme,
};

use super::tls_error;
use crate::peer::transport::Admission;
use crate::peer::who::fingerprint;
use crate::types::ClusterId;

/// Why a key was refused in a handshake.
#[derive(Debug, thiserror::Error)]
pub(in crate::peer) enum KeyRefused {
    /// The dialler proved a key that is not admitted.
    #[error("cluster {0} is no peer and no invitation is open")]
    NotAdmitted(ClusterId),
    /// The listener showed another key than the one that was dialled.
    #[error("the key of cluster {0} was shown")]
    Unexpected(ClusterId),
}

impl KeyRefused {
    fn into_tls(self) -> rustls::Error {
        CertificateError::Other(OtherError(Arc::new(self))).into()
    }

    /// The refusal that `error` of a handshake is, if it is one.
    pub(in crate::peer) fn of(error: &io::Error) -> Option<&KeyRefused> {
        match tls_error(error)? {
            rustls::Error::InvalidCertificate(CertificateError::Other(other)) => other.0.downcast_ref(),
            _ => None,
        }
    }
}

/// Checks that whoever showed `key` has it.
fn prove(
    algorithms: &WebPkiSupportedAlgorithms,
    message: &[u8],
    key: &[u8],
    signature: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, rustls::Error> {
    if signature.scheme != SignatureScheme::ED25519 {
        return Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into());
    }
    verify_tls13_signature_with_raw_key(message, &SubjectPublicKeyInfoDer::from(key), signature, algorithms)
}

/// TLS 1.2 is not spoken; were it ever configured, its signatures would be refused here.
fn no_tls12() -> Result<HandshakeSignatureValid, rustls::Error> {
    Err(PeerIncompatible::Tls12NotOfferedOrEnabled.into())
}

/// The dialler's check: the one key that it expects.
#[derive(Debug)]
pub(super) struct PinnedKey {
    algorithms: WebPkiSupportedAlgorithms,
    expect: ClusterId,
}

impl PinnedKey {
    pub(super) fn new(provider: &CryptoProvider, expect: ClusterId) -> Self {
        PinnedKey { algorithms: provider.signature_verification_algorithms, expect }
    }
}

impl ServerCertVerifier for PinnedKey {
    fn verify_server_cert(
        &self,
        key: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let found = fingerprint(key);
        if found == self.expect {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(KeyRefused::Unexpected(found).into_tls())
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        prove(&self.algorithms, message, key, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// The listener's check: the keys that are admitted.
pub(super) struct AdmittedKeys {
    algorithms: WebPkiSupportedAlgorithms,
    admission: Admission,
}

impl AdmittedKeys {
    pub(super) fn new(provider: &CryptoProvider, admission: Admission) -> Self {
        AdmittedKeys { algorithms: provider.signature_verification_algorithms, admission }
    }
}

impl fmt::Debug for AdmittedKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdmittedKeys")
    }
}

impl ClientCertVerifier for AdmittedKeys {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _key: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        // Who it is counts once it is proved, below: who has no key cannot ask which ones are admitted.
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let proved = prove(&self.algorithms, message, key, signature)?;
        let cluster = fingerprint(key);
        if (self.admission)(cluster) { Ok(proved) } else { Err(KeyRefused::NotAdmitted(cluster).into_tls()) }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
