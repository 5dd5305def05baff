//! Who may sign requests: access keys and their secrets.

use std::fmt;

pub use s3s::auth::SecretKey;

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

impl fmt::Debug for RootCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RootCredentials").field("access_key", &self.access_key).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_root_key_has_a_secret_and_debug_hides_it() {
        let root = RootCredentials::new("root", SecretKey::from("very secret"));
        assert_eq!(root.secret("root").map(|secret| secret.expose().to_owned()), Some("very secret".to_owned()));
        assert!(root.secret("Root").is_none());
        assert!(!format!("{root:?}").contains("very secret"));
    }
}
