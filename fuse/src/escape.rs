//! Names that a file system cannot show, and how they are shown all the same.
//!
//! S3's keys are any bytes; a directory's names have 1 to 255, no NUL, are not `.` or `..`, and are each there once.
//! What does not fit has an escaped name beginning with [`MARK`], which can be turned back:
//!
//! | in the bucket | in the mount |
//! |---|---|
//! | `a//b`: a directory without a name | `a/%elton-name-/b` |
//! | `a/` with bytes: an object without a name | `a/%elton-file-` |
//! | `./b`, `../b`, `..` | `%elton-name-%2E/b`, `%elton-name-%2E%2E/b`, `%elton-name-%2E%2E` |
//! | a NUL in a name | `%elton-name-` and the name, NUL as `%00`, `%` as `%25` |
//! | `a` where `a/b` is, too | `%elton-file-a` beside the directory `a` |
//! | a name of over 255 bytes | `%elton-long-`, 32 digits of its hash, `-`, and what it begins with |
//! | a name that begins with `%elton-` | `%elton-name-%25elton-…` |
//!
//! No escaped name has a `/` in it and none is `.` or `..`, so none leads out of the mount.

use percent_encoding::percent_decode;

/// What every escaped name begins with.
pub const MARK: &[u8] = b"%elton-";

/// The longest name that Linux has.
pub const NAME_BYTES_MAX: usize = 255;

const NAME: &[u8] = b"%elton-name-";
const FILE: &[u8] = b"%elton-file-";
const LONG: &[u8] = b"%elton-long-";
const LONG_FILE: &[u8] = b"%elton-longfile-";
/// Hexadecimal digits of the hash of a long name.
const HASH_DIGITS: usize = 32;
/// How many of a long name's first bytes are shown, at most.
const LONG_BEGINNING: usize = 120;

/// Whether a name is that of an object whose plain name is taken by a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Escape {
    /// It has its name for itself.
    Alone,
    /// A directory has the same name, or it has none.
    BesideDirectory,
}

/// What a shown name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    /// This name.
    Plain(Vec<u8>),
    /// This name, escaped.
    Escaped(Vec<u8>, Escape),
    /// A long name that begins so. Which one is found by showing each.
    Long {
        /// What it begins with.
        beginning: Vec<u8>,
        /// As above.
        escape: Escape,
    },
    /// Nothing.
    Nothing,
}

/// How a name is shown.
#[must_use]
pub fn show(name: &[u8], escape: Escape) -> Vec<u8> {
    if escape == Escape::Alone && is_plain(name) {
        return name.to_vec();
    }
    let mark = if escape == Escape::Alone { NAME } else { FILE };
    let escaped = [mark, &encode(name)].concat();
    if escaped.len() <= NAME_BYTES_MAX && name.len() <= NAME_BYTES_MAX { escaped } else { show_long(name, escape) }
}

/// What a shown name stands for. Only that whose [`show`] is the same again does exist.
#[must_use]
pub fn read(shown: &[u8]) -> Shown {
    if !shown.starts_with(MARK) {
        return if is_plain(shown) { Shown::Plain(shown.to_vec()) } else { Shown::Nothing };
    }
    let long = |rest: &[u8], escape| match rest.split_at_checked(HASH_DIGITS + 1) {
        Some((_, beginning)) => Shown::Long { beginning: decode(beginning), escape },
        None => Shown::Nothing,
    };
    let escaped = |rest: &[u8], escape| {
        let name = decode(rest);
        if show(&name, escape) == shown { Shown::Escaped(name, escape) } else { Shown::Nothing }
    };
    if let Some(rest) = shown.strip_prefix(LONG_FILE) {
        long(rest, Escape::BesideDirectory)
    } else if let Some(rest) = shown.strip_prefix(LONG) {
        long(rest, Escape::Alone)
    } else if let Some(rest) = shown.strip_prefix(FILE) {
        escaped(rest, Escape::BesideDirectory)
    } else if let Some(rest) = shown.strip_prefix(NAME) {
        escaped(rest, Escape::Alone)
    } else {
        Shown::Nothing
    }
}

fn is_plain(name: &[u8]) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && !matches!(name, b"." | b"..")
        && !name.contains(&0)
        && !name.contains(&b'/')
        && !name.starts_with(MARK)
}

fn show_long(name: &[u8], escape: Escape) -> Vec<u8> {
    let mark = if escape == Escape::Alone { LONG } else { LONG_FILE };
    let hash = blake3::hash(name).to_hex();
    // Bytes, not characters: where it cuts one in two, the name is none the less lawful.
    let mut beginning = name.len().min(LONG_BEGINNING);
    while [mark, &hash.as_bytes()[..HASH_DIGITS], b"-", &encode(&name[..beginning])].concat().len() > NAME_BYTES_MAX {
        beginning -= 1;
    }
    [mark, &hash.as_bytes()[..HASH_DIGITS], b"-", &encode(&name[..beginning])].concat()
}

/// Percent-encodes what no name can have, `%`, and a name that is only dots.
fn encode(name: &[u8]) -> Vec<u8> {
    let dots = matches!(name, b"." | b"..");
    let mut encoded = Vec::with_capacity(name.len());
    for byte in name {
        match byte {
            0 => encoded.extend_from_slice(b"%00"),
            b'%' => encoded.extend_from_slice(b"%25"),
            b'/' => encoded.extend_from_slice(b"%2F"),
            b'.' if dots => encoded.extend_from_slice(b"%2E"),
            byte => encoded.push(*byte),
        }
    }
    encoded
}

fn decode(encoded: &[u8]) -> Vec<u8> {
    percent_decode(encoded).collect()
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    #[test]
    fn ordinary_names_are_shown_as_they_are() {
        for name in ["a", "ä", "a b", "%41", "...", ".hidden", "100%"] {
            assert_eq!(show(name.as_bytes(), Escape::Alone), name.as_bytes());
            assert_eq!(read(name.as_bytes()), Shown::Plain(name.into()));
        }
    }

    /// Shows a name both ways, and turns it back.
    fn turns_back(name: &[u8]) {
        for escape in [Escape::Alone, Escape::BesideDirectory] {
            let shown = show(name, escape);
            assert!((1..=NAME_BYTES_MAX).contains(&shown.len()), "{name:?}");
            assert!(!shown.contains(&0) && !shown.contains(&b'/') && shown != b"." && shown != b"..");
            match read(&shown) {
                Shown::Plain(back) => assert_eq!((back.as_slice(), escape), (name, Escape::Alone)),
                Shown::Escaped(back, found) => assert_eq!((back.as_slice(), found), (name, escape)),
                Shown::Long { beginning, escape: found } => {
                    assert!(name.starts_with(&beginning) && found == escape, "{name:?}");
                }
                Shown::Nothing => panic!("{name:?} is lost"),
            }
        }
    }

    #[test]
    fn whatever_is_shown_is_a_lawful_name_and_turns_back() {
        let long = "x".repeat(300).into_bytes();
        let zeros = vec![0; 300];
        let full = "y".repeat(250).into_bytes();
        let names: [&[u8]; 12] =
            [b"", b".", b"..", b"a\0b", b"%elton-", b"%elton-name-x", &long, &zeros, &full, b"a", b"\xff\0", b"%"];
        names.into_iter().for_each(turns_back);
    }

    /// Names of any bytes but `/`, in which what is escaped and what looks escaped is frequent.
    fn names() -> impl Strategy<Value = Vec<u8>> {
        let any = vec(any::<u8>().prop_filter("no key has it in a name", |byte| *byte != b'/'), 0..400);
        let pieces =
            select(vec!["%", "%25", "%00", "%2F", "%2e", ".", "\0", "a", "ä", "%elton-", "%elton-name-", "long-"]);
        let near = vec(pieces, 0..60).prop_map(|pieces| pieces.concat().into_bytes());
        // Around the length from which a name is shown by its hash.
        let edge = (225..260_usize, select(vec![b'x', b'%', 0])).prop_map(|(length, byte)| vec![byte; length]);
        prop_oneof![any, near, edge]
    }

    proptest! {
        // `PROPTEST_CASES` says how many.
        #[test]
        fn any_name_turns_back(name in names()) {
            turns_back(&name);
        }

        #[test]
        fn two_names_are_never_shown_alike(one in names(), other in names()) {
            prop_assume!(one != other);
            let shown = [&one, &other].map(|name| [Escape::Alone, Escape::BesideDirectory].map(|how| show(name, how)));
            prop_assert!(!shown[0].iter().any(|name| shown[1].contains(name)));
        }

        /// Whoever asks for a name asks for anything. What it stands for is shown as that and as nothing else.
        #[test]
        fn what_is_asked_for_stands_for_one_name_or_none(asked in names()) {
            match read(&asked) {
                Shown::Plain(name) => prop_assert!(name == asked && show(&name, Escape::Alone) == asked),
                Shown::Escaped(name, escape) => prop_assert_eq!(show(&name, escape), asked),
                Shown::Long { beginning, .. } => prop_assert!(beginning.len() <= asked.len()),
                Shown::Nothing => {}
            }
        }
    }

    #[test]
    fn what_we_would_not_show_is_nothing() {
        for shown in ["%elton-", "%elton-name-a", "%elton-name-%2e", "%elton-file-%41", "%elton-long-12", ".", "..", ""]
        {
            assert_eq!(read(shown.as_bytes()), Shown::Nothing, "{shown}");
        }
    }
}
