//! What a directory is ordered by.

use std::fmt;

use super::Flaw;

/// The name of an object, or the name of a directory and a `/`: the bytes that its paths have there.
///
/// Invariant: a `/` stands nowhere but at the end. So the order of keys is the order of the paths below them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key(Box<[u8]>);

impl Key {
    pub(super) fn parse(bytes: &[u8]) -> Result<Key, Flaw> {
        match bytes.iter().position(|byte| *byte == b'/') {
            Some(slash) if slash + 1 < bytes.len() => Err(Flaw::Name),
            _ => Ok(Key(bytes.into())),
        }
    }

    /// The key that a path goes through in a directory, `rest` being what follows the directory in the path.
    pub(super) fn first_of(rest: &[u8]) -> Key {
        let end = rest.iter().position(|byte| *byte == b'/').map_or(rest.len(), |slash| slash + 1);
        Key(rest[..end].into())
    }

    pub(super) fn is_directory(&self) -> bool {
        self.0.ends_with(b"/")
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}
