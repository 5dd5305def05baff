//! The certificate of `--tls-self-signed`: made once, kept in DIR/tls, shown from then on.
//!
//! `ca.pem` is what clients trust. Its key signs `cert.pem` and is forgotten at once, so trusting it trusts this one
//! server and nobody else.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};

use crate::data_dir::{DataDir, Secrecy, read_if_there, write_durably};

/// How long a made certificate is good for, in years.
const LIFE_YEARS: i32 = 10;
/// The line of `cert.pem` that says whom it is for. PEM readers skip what is outside of its blocks.
const NAMES: &str = "# Names: ";

/// Why the certificate cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file could not be read or written.
    #[error("{path} cannot be read or written: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A name cannot stand in a certificate, or the key could not be made.
    #[error("no certificate can be made for {names}: {source}")]
    Make {
        /// For which names.
        names: String,
        /// Why.
        source: rcgen::Error,
    },
}

/// A chain and its key, PEM.
#[derive(Debug)]
pub struct Certificate {
    /// The chain.
    pub chain: String,
    /// The key.
    pub key: String,
    /// Names that are asked for and that the kept certificate is not for.
    pub missing: Vec<String>,
}

/// The kept certificate, or a new one for `names`. `year` is the current one.
pub fn self_signed(data: &DataDir, names: &[String], year: i32) -> Result<Certificate, CertificateError> {
    let read = |path: PathBuf| read_if_there(&path).map_err(|source| CertificateError::Io { path, source });
    let (chain, key, ca) = (read(data.certificate())?, read(data.certificate_key())?, read(data.ca_certificate())?);
    if let (Some(chain), Some(key), Some(_)) = (chain, key, ca) {
        let kept: Vec<&str> =
            chain.lines().find_map(|line| line.strip_prefix(NAMES)).unwrap_or("").split(", ").collect();
        let missing = names.iter().filter(|name| !kept.contains(&name.as_str())).cloned().collect();
        return Ok(Certificate { chain, key, missing });
    }
    let made = make(names, year).map_err(|source| CertificateError::Make { names: names.join(", "), source })?;
    let write = |path: PathBuf, text: &str, secrecy| {
        write_durably(&path, text.as_bytes(), secrecy).map_err(|source| CertificateError::Io { path, source })
    };
    // The chain comes last: until it is there, all three are made anew.
    write(data.certificate_key(), &made.key, Secrecy::Secret)?;
    write(data.ca_certificate(), &made.ca, Secrecy::Public)?;
    write(data.certificate(), &made.chain, Secrecy::Public)?;
    Ok(Certificate { chain: made.chain, key: made.key, missing: Vec::new() })
}

/// The names that a server on `listen` goes by.
#[must_use]
pub fn names(listen: IpAddr, host: &str, further: &[String]) -> Vec<String> {
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    if !listen.is_unspecified() {
        names.push(listen.to_string());
    }
    // A host's name may be anything; only what DNS allows can stand in a certificate.
    let lawful = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    if !host.is_empty() && host.bytes().all(lawful) {
        names.push(host.to_owned());
    }
    names.extend_from_slice(further);
    let mut seen = std::collections::HashSet::new();
    names.retain(|name| seen.insert(name.clone()));
    names
}

/// Whether a certificate can be for `name`: an IP address, or a DNS name that may begin with `*.`.
///
/// Underscores, which names of hosts do not have, are allowed as verifiers allow them: services of containers have some.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(letter) && !label.starts_with('-') && !label.ends_with('-')
    };
    name.parse::<IpAddr>().is_ok()
        || (name.len() <= 253 && name.strip_prefix("*.").unwrap_or(name).split('.').all(label))
}

struct Made {
    ca: String,
    chain: String,
    key: String,
}

fn make(names: &[String], year: i32) -> Result<Made, rcgen::Error> {
    let named = |params: &mut CertificateParams, name: &str| {
        params.not_before = date_time_ymd(year - 1, 1, 1);
        params.not_after = date_time_ymd(year + LIFE_YEARS, 1, 1);
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
    };
    let mut authority = CertificateParams::new(Vec::new())?;
    named(&mut authority, "Elton self-signed authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;

    let key = KeyPair::generate()?;
    let mut server = CertificateParams::new(names.to_vec())?;
    named(&mut server, "Elton");
    server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    // Strict verifiers, such as Python's since 3.13, ask for it.
    server.use_authority_key_identifier_extension = true;
    let certificate = server.signed_by(&key, &authority)?;
    Ok(Made {
        ca: authority.pem(),
        chain: format!("{NAMES}{}\n{}{}", names.join(", "), certificate.pem(), authority.pem()),
        key: key.serialize_pem(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_names() -> Vec<String> {
        names(IpAddr::from([192, 0, 2, 7]), "my_host!", &["elton.example".to_owned(), "localhost".to_owned()])
    }

    #[test]
    fn names_are_unique_and_lawful() {
        assert_eq!(all_names(), ["localhost", "127.0.0.1", "::1", "192.0.2.7", "elton.example"]);
    }

    #[test]
    fn only_what_dns_and_ip_allow_is_a_name() {
        for good in ["elton", "elton.example.org", "*.example.org", "my_service", "192.0.2.7", "2001:db8::1"] {
            assert!(is_name(good), "{good}");
        }
        let long = "a".repeat(64);
        for bad in ["", "bad name!!", "a..b", "-a", "a-", "*", "a.*.b", "elton:9000", "http://elton", &long, "ü"] {
            assert!(!is_name(bad), "{bad}");
        }
    }

    #[test]
    fn the_certificate_is_made_once_and_serves() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let data = DataDir::new(Some(folder.path()));
        let made = self_signed(&data, &all_names(), 2026).expect("made");
        assert!(gateway::tls::acceptor(made.chain.as_bytes(), made.key.as_bytes()).is_ok());
        let kept = self_signed(&data, &["other.example".to_owned()], 2026).expect("kept");
        assert_eq!((kept.chain, kept.missing), (made.chain, vec!["other.example".to_owned()]));
    }
}
