//! What a cluster is: an Ed25519 key. Where the key is kept is the binary's business.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::crypto::ring::sign::any_eddsa_type;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::sign::SigningKey;
use sha2::{Digest as _, Sha256};

use crate::ids::IdSource;
use crate::types::ClusterId;

/// PKCS#8 of an Ed25519 key, version 1, up to the 32 bytes of the key itself (RFC 8410, section 7).
const PKCS8_ED25519: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// A cluster's key. Whoever has it is the cluster.
pub struct Identity {
    pkcs8: PrivatePkcs8KeyDer<'static>,
    signing: Arc<dyn SigningKey>,
    cluster: ClusterId,
}

/// Why a key cannot be a cluster's.
#[derive(Debug, thiserror::Error)]
pub enum InvalidIdentity {
    /// The text is no PEM.
    #[error("no private key in PEM form (-----BEGIN PRIVATE KEY-----) was found; restore it from a backup")]
    Pem(#[source] rustls::pki_types::pem::Error),
    /// The key is of another kind, or damaged.
    #[error("the private key is no Ed25519 key in PKCS#8 form; restore it from a backup")]
    Key(#[source] rustls::Error),
}

impl Identity {
    /// A new cluster.
    #[must_use]
    pub fn generate(ids: &dyn IdSource) -> Self {
        let mut seed = [0; 32];
        ids.fill(&mut seed);
        let der = [&PKCS8_ED25519[..], &seed[..]].concat();
        Self::from_der(der.into()).expect("any 32 bytes are an Ed25519 key")
    }

    /// The cluster whose key `pem` is, as [`to_pkcs8`](Self::to_pkcs8) or `openssl genpkey` wrote it.
    pub fn from_pkcs8(pem: &str) -> Result<Self, InvalidIdentity> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).map_err(InvalidIdentity::Pem)?;
        Self::from_der(der)
    }

    fn from_der(pkcs8: PrivatePkcs8KeyDer<'static>) -> Result<Self, InvalidIdentity> {
        let signing = any_eddsa_type(&pkcs8).map_err(InvalidIdentity::Key)?;
        let public = signing.public_key().expect("an Ed25519 key knows its public key");
        let cluster = fingerprint(public.as_ref());
        Ok(Identity { pkcs8, signing, cluster })
    }

    /// The key as PKCS#8 in PEM form: a secret, to be kept in a file that only its owner can read.
    #[must_use]
    pub fn to_pkcs8(&self) -> String {
        let base64 = STANDARD.encode(self.pkcs8.secret_pkcs8_der());
        let mut pem = String::from("-----BEGIN PRIVATE KEY-----\n");
        for line in base64.as_bytes().chunks(64) {
            pem.extend(line.iter().map(|&character| char::from(character)));
            pem.push('\n');
        }
        pem + "-----END PRIVATE KEY-----\n"
    }

    /// The name that the world knows the cluster by.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    pub(in crate::peer) fn signing_key(&self) -> Arc<dyn SigningKey> {
        self.signing.clone()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

/// The fingerprint of a public key in DER SubjectPublicKeyInfo form.
pub(in crate::peer) fn fingerprint(public: &[u8]) -> ClusterId {
    ClusterId(Sha256::digest(public).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{SeededIds, SystemIds};

    #[test]
    fn identities_round_trip_and_differ() {
        let identity = Identity::generate(&SystemIds);
        let again = Identity::from_pkcs8(&identity.to_pkcs8()).expect("its own form");
        assert_eq!(again.cluster(), identity.cluster());
        assert_ne!(Identity::generate(&SystemIds).cluster(), identity.cluster());
    }

    /// Key and SubjectPublicKeyInfo from RFC 8410, section 10; the fingerprint is `openssl pkey -pubout -outform DER
    /// | sha256sum`. It must never change: peers know the cluster by it.
    #[test]
    fn the_fingerprint_is_the_hash_of_the_subject_public_key_info() {
        let pem = "-----BEGIN PRIVATE KEY-----\n\
                   MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
                   -----END PRIVATE KEY-----\n";
        let public =
            STANDARD.decode("MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=").expect("from the RFC");
        let identity = Identity::from_pkcs8(pem).expect("from the RFC");
        assert_eq!(identity.cluster(), fingerprint(&public));
        assert_eq!(identity.to_pkcs8(), pem);
        assert_eq!(identity.cluster().to_string(), "a1e9156054e04fac899ae9f275132cdc07a5dbc4ea2c2ad3a1ffc6e0d253681f");
    }

    #[test]
    fn what_is_no_key_is_refused_and_debug_hides_the_key() {
        assert!(matches!(Identity::from_pkcs8("nothing"), Err(InvalidIdentity::Pem(_))));
        let short = "-----BEGIN PRIVATE KEY-----\nMC4CAQAw\n-----END PRIVATE KEY-----\n";
        assert!(matches!(Identity::from_pkcs8(short), Err(InvalidIdentity::Key(_))));
        let identity = Identity::generate(&SeededIds::new(1));
        assert_eq!(format!("{identity:?}"), format!("Identity {{ cluster: {}, .. }}", identity.cluster()));
    }
}
