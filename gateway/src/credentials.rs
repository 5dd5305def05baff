//! Who may sign requests: access keys and their secrets.

use std::fmt;
use std::sync::{Arc, OnceLock};

pub use s3s::auth::SecretKey;
use tracing::Span;

/// Where secrets are looked up.
pub trait CredentialStore: Send + Sync + 'static {
    /// The secret that belongs to `access_key`; `None` if there is no such key.
    fn secret(&self, access_key: &str) -> Option<SecretKey>;
}

/// The root keys of a cluster: the one pair that may do everything.
#[derive(Clone)]
pub struct RootCredentials {
    access_key: String,
    secret_key: SecretKey,
}

impl RootCredentials {
    /// The pair of `access_key` and `secret_key`.
    #[must_use]
    pub fn new(access_key: impl Into<String>, secret_key: SecretKey) -> Self {
        RootCredentials { access_key: access_key.into(), secret_key }
    }

    /// The access key.
    #[must_use]
    pub fn access_key(&self) -> &str {
        &self.access_key
    }

    /// The secret that belongs to it.
    #[must_use]
    pub fn secret_key(&self) -> &SecretKey {
        &self.secret_key
    }
}

impl CredentialStore for RootCredentials {
    fn secret(&self, access_key: &str) -> Option<SecretKey> {
        (access_key == self.access_key).then(|| self.secret_key.clone())
    }
}

/// Who signed a request, once the signature was verified: the log must not repeat what a header merely claims.
///
/// It stands in the request's extensions; whoever has verified the signature notes the key.
#[derive(Clone, Debug)]
pub struct Signer(Arc<Noted>);

#[derive(Debug)]
struct Noted {
    access_key: OnceLock<String>,
    span: Span,
}

impl Signer {
    /// Nobody so far. The key is recorded as `access_key` in `span`, so that all that is logged from then on names it.
    #[must_use]
    pub fn new(span: Span) -> Self {
        Signer(Arc::new(Noted { access_key: OnceLock::new(), span }))
    }

    /// The signature was verified, and was made with `access_key`. A request has one signer: only the first note counts.
    pub fn note(&self, access_key: &str) {
        if self.0.access_key.set(access_key.to_owned()).is_ok() {
            self.0.span.record("access_key", access_key);
        }
    }

    /// The key, once it is proved.
    #[must_use]
    pub fn access_key(&self) -> Option<&str> {
        self.0.access_key.get().map(String::as_str)
    }

    /// Notes the signer of a request with these `extensions`, if it has a verified one.
    pub fn note_in(extensions: &http::Extensions, credentials: Option<&s3s::auth::Credentials>) {
        if let (Some(signer), Some(credentials)) = (extensions.get::<Signer>(), credentials) {
            signer.note(&credentials.access_key);
        }
    }
}

impl fmt::Debug for RootCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RootCredentials").field("access_key", &self.access_key).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_one_signer() {
        let extensions = {
            let mut extensions = http::Extensions::new();
            extensions.insert(Signer::new(Span::none()));
            extensions
        };
        let signer = extensions.get::<Signer>().expect("inserted").clone();
        Signer::note_in(&extensions, None);
        assert_eq!(signer.access_key(), None);
        signer.note("first");
        signer.note("second");
        assert_eq!(signer.access_key(), Some("first"));
    }

    #[test]
    fn only_the_root_key_has_a_secret_and_debug_hides_it() {
        let root = RootCredentials::new("root", SecretKey::from("very secret"));
        assert_eq!(root.secret("root").map(|secret| secret.expose().to_owned()), Some("very secret".to_owned()));
        assert!(root.secret("Root").is_none());
        assert!(!format!("{root:?}").contains("very secret"));
    }
}
