//! Where a server is.

use std::fmt;

use http::Uri;

use super::ClientError;

/// Where `elton serve` answers unless it is told otherwise.
pub const DEFAULT: &str = "http://127.0.0.1:9000";

/// A server's address: scheme, host and port, nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    https: bool,
    /// Without the brackets of IPv6 addresses.
    host: String,
    port: Option<u16>,
}

impl Endpoint {
    /// Reads a URL.
    pub fn parse(given: &str) -> Result<Self, ClientError> {
        let wrong = |reason: &str| ClientError::Endpoint { given: given.to_owned(), reason: reason.to_owned() };
        let uri: Uri = given.parse().map_err(|error: http::uri::InvalidUri| wrong(&error.to_string()))?;
        let https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(wrong("it does not begin with http:// or https://")),
        };
        let authority = uri.authority().ok_or_else(|| wrong("it names no host"))?;
        if authority.as_str().contains('@') {
            return Err(wrong("keys do not belong in it"));
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(wrong("it has a path"));
        }
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        if host.is_empty() {
            return Err(wrong("it names no host"));
        }
        Ok(Endpoint { https, host, port: authority.port_u16() })
    }

    /// Whether it speaks TLS.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.https
    }

    /// The host's name or address.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(if self.https { 443 } else { 80 })
    }

    /// As the `Host` header names it.
    #[must_use]
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        match self.port {
            Some(port) => format!("{host}:{port}"),
            None => host,
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.https { "https" } else { "http" }, self.authority())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_and_written() {
        for (given, port) in [("http://127.0.0.1:9000", 9000), ("https://elton.example", 443), ("http://[::1]:1/", 1)] {
            let endpoint = Endpoint::parse(given).expect("lawful");
            assert_eq!(endpoint.to_string(), given.trim_end_matches('/'));
            assert_eq!(endpoint.port(), port);
        }
        assert_eq!(Endpoint::parse("http://[::1]:1").expect("lawful").host(), "::1");
    }

    #[test]
    fn what_is_no_server_is_refused() {
        for given in ["127.0.0.1:9000", "ftp://host", "http://host/path", "http://key@host", "", "http://"] {
            assert!(Endpoint::parse(given).is_err(), "{given}");
        }
    }
}
