//! Who clusters are to each other: their keys, how they are invited, and what is known of them since.

mod identity;
mod membership;
mod token;

pub(super) use identity::fingerprint;
pub use identity::{Identity, InvalidIdentity};
pub use membership::{INVITATION_LIFE, KnownCluster, Membership};
pub use token::{InvalidToken, Invitation, Secret, SecretHash};
