//! Invitations: one string that is copied from one cluster's terminal to another's.
//!
//! `elton1-` and, in URL-safe base64: the length of the address (2 bytes), the inviting cluster's fingerprint (32), the
//! secret (32), the address, and a checksum (4). The length comes first, so that a token cut short is seen to be.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::ids::IdSource;
use crate::types::{ClusterId, PeerAddress};

const PREFIX: &str = "elton1-";
const LENGTH_BYTES: usize = 2;
const ADDRESS_AT: usize = LENGTH_BYTES + 32 + 32;
const CHECKSUM_BYTES: usize = 4;
/// A host of 253 bytes, a colon and a port; or an IPv6 address, which is shorter.
const ADDRESS_BYTES_MAX: usize = 253 + 1 + 5;

/// Contexts of the hashes, so that none can stand for another.
const CHECKSUM_CONTEXT: &str = "elton invitation 1 checksum";
const SECRET_CONTEXT: &str = "elton invitation 1 secret";

/// What a cluster needs to join another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invitation {
    /// Where the inviting cluster is.
    pub address: PeerAddress,
    /// Who it is.
    pub cluster: ClusterId,
    /// What shows that the joining cluster was invited.
    pub secret: Secret,
}

/// The secret of an invitation.
#[derive(Clone)]
pub struct Secret([u8; 32]);

impl Secret {
    /// A new secret.
    #[must_use]
    pub fn generate(ids: &dyn IdSource) -> Self {
        let mut bytes = [0; 32];
        ids.fill(&mut bytes);
        Secret(bytes)
    }

    /// The secret that a joining cluster showed.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Secret(bytes)
    }

    /// What the joining cluster shows to the inviting one, over their secured connection and nowhere else.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// What the inviting cluster keeps.
    #[must_use]
    pub fn hash(&self) -> SecretHash {
        SecretHash(blake3::derive_key(SECRET_CONTEXT, &self.0).into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.hash() == other.hash()
    }
}

impl Eq for Secret {}

/// The hash of a secret. Compared in constant time, as [`blake3::Hash`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SecretHash(blake3::Hash);

impl SecretHash {
    /// The hash as it was kept.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        SecretHash(bytes.into())
    }

    /// The hash, to be kept.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }
}

/// Why a string is no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidToken {
    /// It is something else.
    #[error("this is no invitation: one begins with {PREFIX} and is the last line that `elton peer invite` prints")]
    NoToken,
    /// It is of a later version.
    #[error("this invitation was made by a newer elton; update this cluster's elton first")]
    Newer,
    /// A character that no token has.
    #[error("{character:?} at position {position} is in no invitation; copy it again, without spaces and line breaks")]
    Character {
        /// The character.
        character: char,
        /// Where it is, from 1.
        position: usize,
    },
    /// Its end is missing.
    #[error("the invitation is cut short: {have} of {want} characters are here; copy it again, to its end")]
    Truncated {
        /// Characters that are here.
        have: usize,
        /// Characters that there should be.
        want: usize,
    },
    /// Something follows it.
    #[error("{0} characters too many follow the invitation; copy it again, without what comes after")]
    TooLong(usize),
    /// The checksum differs.
    #[error("the invitation was mistyped or damaged (its checksum differs); copy it again rather than typing it")]
    Mistyped,
}

impl fmt::Display for Invitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = self.address.to_string();
        let length = u16::try_from(address.len()).expect("an address has at most 259 bytes");
        let mut bytes = Vec::with_capacity(ADDRESS_AT + address.len() + CHECKSUM_BYTES);
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&self.cluster.0);
        bytes.extend_from_slice(self.secret.expose());
        bytes.extend_from_slice(address.as_bytes());
        bytes.extend_from_slice(&checksum(&bytes));
        write!(f, "{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl FromStr for Invitation {
    type Err = InvalidToken;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let token = s.trim();
        let text = token.strip_prefix(PREFIX).ok_or_else(|| not_ours(token))?;
        check_characters(text)?;
        check_length(text)?;
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| InvalidToken::Mistyped)?;
        let (stated, sum) = bytes.split_last_chunk().ok_or(InvalidToken::Mistyped)?;
        if checksum(stated) != *sum {
            return Err(InvalidToken::Mistyped);
        }
        decode(stated).ok_or(InvalidToken::Mistyped)
    }
}

fn not_ours(token: &str) -> InvalidToken {
    if PREFIX.starts_with(token) && !token.is_empty() {
        return InvalidToken::Truncated { have: token.len(), want: characters(0) };
    }
    let version = token.strip_prefix("elton").and_then(|rest| rest.split_once('-')).map(|(version, _)| version);
    match version.map(str::parse::<u32>) {
        Some(Ok(version)) if version > 1 => InvalidToken::Newer,
        _ => InvalidToken::NoToken,
    }
}

fn check_characters(text: &str) -> Result<(), InvalidToken> {
    let is_known = |character: char| character.is_ascii_alphanumeric() || matches!(character, '-' | '_');
    match text.chars().enumerate().find(|&(_, character)| !is_known(character)) {
        Some((at, character)) => Err(InvalidToken::Character { character, position: PREFIX.len() + at + 1 }),
        None => Ok(()),
    }
}

/// Compares the length with the one that the first characters state.
fn check_length(text: &str) -> Result<(), InvalidToken> {
    let have = PREFIX.len() + text.len();
    // Four characters are three bytes.
    let Some(head) = text.get(..4) else {
        return Err(InvalidToken::Truncated { have, want: characters(0) });
    };
    let head = URL_SAFE_NO_PAD.decode(head).map_err(|_| InvalidToken::Mistyped)?;
    let address = usize::from(u16::from_be_bytes([head[0], head[1]]));
    if address > ADDRESS_BYTES_MAX {
        return Err(InvalidToken::Mistyped);
    }
    let want = characters(address);
    match have.cmp(&want) {
        std::cmp::Ordering::Less => Err(InvalidToken::Truncated { have, want }),
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Greater => Err(InvalidToken::TooLong(have - want)),
    }
}

/// The length of a token whose address has that many bytes.
fn characters(address: usize) -> usize {
    PREFIX.len() + ((ADDRESS_AT + address + CHECKSUM_BYTES) * 4).div_ceil(3)
}

fn decode(bytes: &[u8]) -> Option<Invitation> {
    let (_, rest) = bytes.split_at_checked(LENGTH_BYTES)?;
    let (cluster, rest) = rest.split_first_chunk()?;
    let (secret, address) = rest.split_first_chunk()?;
    let address = std::str::from_utf8(address).ok()?.parse().ok()?;
    Some(Invitation { address, cluster: ClusterId(*cluster), secret: Secret(*secret) })
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let hash = blake3::derive_key(CHECKSUM_CONTEXT, bytes);
    *hash.first_chunk().expect("32 bytes are more than 4")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::SeededIds;

    fn invitation() -> Invitation {
        let address = "elton.example.org:9001".parse().expect("an address");
        Invitation { address, cluster: ClusterId([9; 32]), secret: Secret::generate(&SeededIds::new(1)) }
    }

    #[test]
    fn tokens_round_trip_as_one_word() {
        let invitation = invitation();
        for address in ["elton.example.org:9001", "[2001:db8::7]:1", "a:65535"] {
            let invitation = Invitation { address: address.parse().expect("an address"), ..invitation.clone() };
            let token = invitation.to_string();
            assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)), "{token}");
            assert_eq!(token.parse(), Ok(invitation.clone()));
            assert_eq!(format!("  {token}\n").parse(), Ok(invitation));
        }
    }

    #[test]
    fn a_token_cut_short_says_so_at_every_length() {
        let token = invitation().to_string();
        for have in 1..token.len() {
            let parsed = token[..have].parse::<Invitation>();
            assert!(matches!(parsed, Err(InvalidToken::Truncated { have: h, .. }) if h == have), "{have}: {parsed:?}");
        }
        assert_eq!(format!("{token}abc").parse::<Invitation>(), Err(InvalidToken::TooLong(3)));
    }

    #[test]
    fn no_single_typo_is_taken_for_a_token() {
        let token = invitation().to_string();
        for at in PREFIX.len()..token.len() {
            let typo = if token.as_bytes()[at] == b'A' { "B" } else { "A" };
            let mut mistyped = token.clone();
            mistyped.replace_range(at..=at, typo);
            assert!(mistyped.parse::<Invitation>().is_err(), "position {at}");
        }
    }

    #[test]
    fn what_is_no_token_is_refused_with_a_reason() {
        let parse = |s: &str| s.parse::<Invitation>().expect_err(s);
        assert_eq!(parse(""), InvalidToken::NoToken);
        assert_eq!(parse("photos@42"), InvalidToken::NoToken);
        assert_eq!(parse("elton2-abc"), InvalidToken::Newer);
        let token = invitation().to_string();
        let broken = format!("{} {}", &token[..20], &token[20..]);
        assert_eq!(parse(&broken), InvalidToken::Character { character: ' ', position: 21 });
    }

    #[test]
    fn secrets_are_compared_by_hash_and_never_shown() {
        let secret = Secret::from_bytes([7; 32]);
        assert_eq!(secret.hash(), Secret::from_bytes(*secret.expose()).hash());
        assert_ne!(secret.hash(), Secret::from_bytes([8; 32]).hash());
        assert_eq!(SecretHash::from_bytes(*secret.hash().as_bytes()), secret.hash());
        assert_ne!(secret.hash().as_bytes(), secret.expose());
        let shown = format!("{:?}", Invitation { secret, ..invitation() });
        assert!(shown.contains("Secret(…)") && !shown.contains("7, 7"), "{shown}");
    }
}
