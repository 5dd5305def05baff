//! The nouns that every part of Elton shares. Strings and integers are parsed into these once, at the edges.

mod address;
mod hex;
mod ids;
mod name;
mod path;
mod record;
mod share;
mod time;

pub use address::*;
pub(crate) use hex::decode_hex;
pub use hex::serde_hex_or_bytes;
pub use ids::*;
pub use name::*;
pub use path::*;
pub use record::*;
pub use share::*;
pub use time::*;
