//! Where a cluster can be reached.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest name that DNS has.
const HOST_BYTES_MAX: usize = 253;

/// `HOST:PORT` of a cluster's peer port. The host is a DNS name, an IPv4 address or an IPv6 address in brackets.
///
/// Invariant: at most 259 bytes of printable ASCII, lower-case, with a port that is not 0.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PeerAddress {
    // Without the brackets of an IPv6 address, as resolvers take it.
    host: Box<str>,
    port: u16,
}

impl PeerAddress {
    /// The host, an IPv6 address without its brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}

/// Why a string is no address of a peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPeerAddress {
    /// There is no port.
    #[error("{0:?} has no port: write HOST:PORT, such as elton.example.org:9001")]
    NoPort(String),
    /// The port is no number from 1 to 65535.
    #[error("{0:?} is no port: write a number from 1 to 65535")]
    Port(String),
    /// The host is no name and no address.
    #[error("{0:?} is no host: write a DNS name, an IPv4 address or an IPv6 address in brackets, such as [::1]:9001")]
    Host(String),
}

impl FromStr for PeerAddress {
    type Err = InvalidPeerAddress;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let (host, port) = s.rsplit_once(':').ok_or_else(|| InvalidPeerAddress::NoPort(s.to_owned()))?;
        // An IPv6 address without brackets would lose its last group to the port.
        if !host.starts_with('[') && host.contains(':') {
            return Err(InvalidPeerAddress::Host(s.to_owned()));
        }
        let host = checked_host(host).ok_or_else(|| InvalidPeerAddress::Host(host.to_owned()))?;
        let is_number = port.bytes().all(|digit| digit.is_ascii_digit());
        match port.parse() {
            Ok(number) if number > 0 && is_number => Ok(PeerAddress { host: host.into(), port: number }),
            _ => Err(InvalidPeerAddress::Port(port.to_owned())),
        }
    }
}

fn checked_host(host: &str) -> Option<String> {
    if let Some(bracketed) = host.strip_prefix('[') {
        let address: Ipv6Addr = bracketed.strip_suffix(']')?.parse().ok()?;
        return Some(address.to_string());
    }
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    let labels_have_length = host.trim_end_matches('.').split('.').all(|label| (1..=63).contains(&label.len()));
    let fits = host.len() <= HOST_BYTES_MAX && labels_have_length && host.bytes().all(is_name);
    fits.then(|| host.to_ascii_lowercase())
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl TryFrom<String> for PeerAddress {
    type Error = InvalidPeerAddress;

    fn try_from(s: String) -> Result<Self, Self::Error> {
        s.parse()
    }
}

impl From<PeerAddress> for String {
    fn from(address: PeerAddress) -> Self {
        address.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_round_trip() {
        for address in ["elton.example.org:9001", "10.0.0.1:1", "[::1]:65535", "[2001:db8::7]:9001", "host_1:9001"] {
            assert_eq!(address.parse::<PeerAddress>().expect(address).to_string(), address);
        }
        assert_eq!("Elton.Example:9001".parse::<PeerAddress>().expect("a name").host(), "elton.example");
        assert_eq!("[0:0::1]:9001".parse::<PeerAddress>().expect("an address").host(), "::1");
    }

    #[test]
    fn what_is_no_address_is_refused_with_a_reason() {
        use InvalidPeerAddress::{Host, NoPort, Port};
        let parse = |s: &str| s.parse::<PeerAddress>().expect_err(s);
        assert_eq!(parse("elton.example"), NoPort("elton.example".to_owned()));
        assert!(matches!(parse("::1:9001"), Host(_)));
        for host in ["", "a b", "http://a", "[::1", "[a]", "a..b", "a/b", &"a".repeat(254)] {
            assert!(matches!(parse(&format!("{host}:9001")), Host(_)), "{host}");
        }
        for port in ["", "0", "65536", "+1", "http"] {
            assert_eq!(parse(&format!("a:{port}")), Port(port.to_owned()));
        }
    }
}
