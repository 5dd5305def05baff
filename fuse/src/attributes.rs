//! The attributes of files, from the metadata that s3fs, rclone and eltonfs keep with objects.
//!
//! | key (`x-amz-meta-`) | s3fs | rclone with `--metadata` |
//! |---|---|---|
//! | `mode` | decimal, kind included: `33188` | octal, kind included: `100644` |
//! | `uid`, `gid` | decimal | decimal |
//! | `mtime` | seconds, perhaps with a fraction | seconds with a fraction, or RFC 3339 |
//! | `xattr` | percent-encoded JSON: names to values in base64 | |
//!
//! Metadata comes from whoever may write to the bucket, so it is not believed further than it can do no harm: what cannot
//! be read is as if it were not there, and see [`Ownership`].

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use federation::snapshot::Entry;
use federation::types::Timestamp;
use percent_encoding::percent_decode_str;

const KIND_BITS: u32 = 0o170_000;
/// Permissions, set-id and sticky bits.
const PERMISSION_BITS: u32 = 0o7777;

/// Extended attributes of a file of other make than `user.` are shown below this, unless attributes are trusted.
const UNTRUSTED: &str = "user.elton.untrusted.";

/// The most bytes of extended attributes that are read of one object.
const XATTR_BYTES_MAX: usize = 64 * 1024;

/// The most bytes of names, each with a NUL, that are shown of those. Linux refuses to list more than 64 KiB, and programs
/// that copy a file fail then; the rest is for the mount's own.
const XATTR_LIST_BYTES_MAX: usize = 63 * 1024;

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link; its body is the target.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character device.
    CharacterDevice,
    /// A block device.
    BlockDevice,
}

/// Whose files are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ownership {
    /// The user whose mount it is: the owner of what names no other.
    pub uid: u32,
    /// Their group.
    pub gid: u32,
    /// Whether owners that the metadata names are shown. Without it everything belongs to the user whose mount it is.
    pub foreign: bool,
    /// Whether `trusted.` and `security.` attributes are shown under their own names.
    pub trust: bool,
}

/// A file's attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// What it is.
    pub kind: Kind,
    /// Permissions, set-id and sticky bits.
    pub permissions: u16,
    /// The owner.
    pub uid: u32,
    /// The owner's group.
    pub gid: u32,
    /// Seconds of the time of last change.
    pub seconds: i64,
    /// And nanoseconds.
    pub nanoseconds: u32,
    /// Its size in bytes.
    pub size: u64,
}

impl Attributes {
    /// Those of an object.
    #[must_use]
    pub fn of_object(entry: &Entry, ownership: Ownership) -> Attributes {
        let mode = metadata(entry, "mode").and_then(parse_mode);
        // A directory here would have nothing in it, and the object's bytes would be lost.
        let kind = mode.and_then(kind_of).filter(|kind| *kind != Kind::Directory).unwrap_or(Kind::File);
        Attributes::new(Some(entry), kind, mode, ownership, entry.modified)
    }

    /// Those of a directory; `marker` is the object without a name in it, and `modified` the snapshot's time.
    #[must_use]
    pub fn of_directory(marker: Option<&Entry>, ownership: Ownership) -> Attributes {
        let mode = marker.and_then(|marker| metadata(marker, "mode")).and_then(parse_mode);
        let modified = marker.map_or(Timestamp(0), |marker| marker.modified);
        Attributes { size: 0, ..Attributes::new(marker, Kind::Directory, mode, ownership, modified) }
    }

    fn new(
        entry: Option<&Entry>,
        kind: Kind,
        mode: Option<u32>,
        ownership: Ownership,
        modified: Timestamp,
    ) -> Attributes {
        let usual = if kind == Kind::Directory { 0o755 } else { 0o644 };
        let id = |name| entry.and_then(|entry| metadata(entry, name)).and_then(|text| text.parse().ok());
        let id = |name, own| if ownership.foreign { id(name).unwrap_or(own) } else { own };
        let of_modified = ((modified.0 / 1000) as i64, (modified.0 % 1000) as u32 * 1_000_000);
        let mtime = entry.and_then(|entry| metadata(entry, "mtime")).and_then(parse_time).unwrap_or(of_modified);
        Attributes {
            kind,
            permissions: mode.map_or(usual, |mode| mode & PERMISSION_BITS) as u16,
            uid: id("uid", ownership.uid),
            gid: id("gid", ownership.gid),
            seconds: mtime.0,
            nanoseconds: mtime.1,
            size: entry.map_or(0, |entry| entry.size),
        }
    }
}

fn metadata<'a>(entry: &'a Entry, name: &str) -> Option<&'a str> {
    entry.metadata.iter().find(|pair| pair.0 == name).map(|pair| pair.1.as_str())
}

/// s3fs writes decimal digits, rclone octal ones. Which it is shows in the kind: few numbers have a lawful one both ways,
/// and those are read as s3fs's.
fn parse_mode(text: &str) -> Option<u32> {
    let octal = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= KIND_BITS | PERMISSION_BITS);
    let decimal = text.parse().ok().filter(|mode: &u32| *mode <= KIND_BITS | PERMISSION_BITS);
    let has_kind = |mode: &u32| kind_of(*mode).is_some();
    let bare = || if text.starts_with('0') { octal } else { decimal.or(octal) };
    decimal.filter(has_kind).or_else(|| octal.filter(has_kind)).or_else(bare)
}

fn kind_of(mode: u32) -> Option<Kind> {
    match mode & KIND_BITS {
        0o100_000 => Some(Kind::File),
        0o040_000 => Some(Kind::Directory),
        0o120_000 => Some(Kind::Symlink),
        0o010_000 => Some(Kind::Fifo),
        0o140_000 => Some(Kind::Socket),
        0o020_000 => Some(Kind::CharacterDevice),
        0o060_000 => Some(Kind::BlockDevice),
        _ => None,
    }
}

/// Seconds and nanoseconds.
fn parse_time(text: &str) -> Option<(i64, u32)> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    if let Ok(seconds) = seconds.parse::<i64>() {
        if fraction.bytes().any(|byte| !byte.is_ascii_digit()) {
            return None;
        }
        let digits: String = fraction.chars().chain(std::iter::repeat('0')).take(9).collect();
        let nanoseconds: u32 = digits.parse().ok()?;
        // Before 1970 the fraction counts downwards.
        return Some(match (text.starts_with('-'), nanoseconds) {
            (true, 1..) => (seconds.checked_sub(1)?, 1_000_000_000 - nanoseconds),
            _ => (seconds, nanoseconds),
        });
    }
    let time: jiff::Timestamp = text.parse().ok()?;
    let nanoseconds = time.as_nanosecond();
    let seconds = nanoseconds.div_euclid(1_000_000_000);
    Some((i64::try_from(seconds).ok()?, u32::try_from(nanoseconds.rem_euclid(1_000_000_000)).ok()?))
}

/// An object's extended attributes, and under `user.elton.etag` the entity tag that S3 shows.
#[must_use]
pub fn extended(entry: &Entry, ownership: Ownership) -> Vec<(String, Vec<u8>)> {
    let mut all = vec![("user.elton.etag".to_owned(), entry.etag.to_string().into_bytes())];
    let mut listed = 0;
    all.extend(metadata(entry, "xattr").into_iter().flat_map(stored).filter_map(|(name, value)| {
        // What begins so is said by the mount and by nobody else.
        let ours = name.starts_with("user.elton.");
        let plain = !ours && (name.starts_with("user.") || ownership.trust);
        let shown = if plain { name } else { format!("{UNTRUSTED}{name}") };
        if !(1..=255).contains(&shown.len()) || shown.contains('\0') {
            return None;
        }
        listed += shown.len() + 1;
        (listed <= XATTR_LIST_BYTES_MAX).then_some((shown, value))
    }));
    all.sort();
    all.dedup_by(|one, other| one.0 == other.0);
    all
}

fn stored(text: &str) -> Vec<(String, Vec<u8>)> {
    if text.len() > XATTR_BYTES_MAX {
        return Vec::new();
    }
    let json = percent_decode_str(text).decode_utf8_lossy();
    let pairs: std::collections::BTreeMap<String, String> = serde_json::from_str(&json).unwrap_or_default();
    pairs.into_iter().filter_map(|(name, value)| Some((name, STANDARD.decode(value).ok()?))).collect()
}

#[cfg(test)]
mod tests {
    use federation::snapshot::Content;
    use federation::types::ETag;
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    const OWN: Ownership = Ownership { uid: 7, gid: 8, foreign: true, trust: false };

    fn entry(metadata: &[(&str, &str)]) -> Entry {
        Entry {
            size: 0,
            etag: ETag { md5: [0; 16], parts: None },
            modified: Timestamp(1_770_000_000_123),
            null: false,
            checksum: None,
            content: Content::Empty,
            metadata: metadata.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        }
    }

    #[test]
    fn objects_without_metadata_are_ordinary_files() {
        let attributes = Attributes::of_object(&entry(&[]), OWN);
        assert_eq!((attributes.kind, attributes.permissions), (Kind::File, 0o644));
        assert_eq!((attributes.uid, attributes.gid), (7, 8));
        assert_eq!((attributes.seconds, attributes.nanoseconds), (1_770_000_000, 123_000_000));
        let directory = Attributes::of_directory(None, OWN);
        assert_eq!((directory.kind, directory.permissions), (Kind::Directory, 0o755));
    }

    #[test]
    fn modes_are_read_as_s3fs_and_rclone_write_them() {
        for (text, mode) in [
            ("33188", 0o100_644),
            ("100644", 0o100_644),
            ("41471", 0o120_777),
            ("120777", 0o120_777),
            ("16877", 0o040_755),
            ("40755", 0o040_755),
            ("36333", 0o106_755),
            ("420", 0o644),
            ("0600", 0o600),
        ] {
            assert_eq!(parse_mode(text), Some(mode), "{text}");
        }
        for text in ["", "x", "-1", "99999999999", "0x10"] {
            assert_eq!(parse_mode(text), None, "{text}");
        }
    }

    #[test]
    fn times_are_read_in_every_form() {
        for (text, time) in [
            ("1700000000", (1_700_000_000, 0)),
            ("1700000000.5", (1_700_000_000, 500_000_000)),
            ("1700000000.123456789", (1_700_000_000, 123_456_789)),
            ("-1.25", (-2, 750_000_000)),
            ("2023-11-14T22:13:20.5Z", (1_700_000_000, 500_000_000)),
        ] {
            assert_eq!(parse_time(text), Some(time), "{text}");
        }
        for text in ["", "soon", "1.x", "1e9"] {
            assert_eq!(parse_time(text), None, "{text}");
        }
    }

    #[test]
    fn owners_are_shown_only_where_asked_for() {
        let entry = entry(&[("gid", "2"), ("mode", "35309"), ("uid", "1")]);
        let foreign = Attributes::of_object(&entry, OWN);
        assert_eq!((foreign.uid, foreign.gid, foreign.permissions), (1, 2, 0o4755));
        let own = Attributes::of_object(&entry, Ownership { foreign: false, ..OWN });
        assert_eq!((own.uid, own.gid), (7, 8));
    }

    #[test]
    fn an_object_is_never_a_directory() {
        assert_eq!(Attributes::of_object(&entry(&[("mode", "16877")]), OWN).kind, Kind::File);
        assert_eq!(Attributes::of_directory(Some(&entry(&[("mode", "33188")])), OWN).kind, Kind::Directory);
    }

    #[test]
    fn dangerous_extended_attributes_lose_their_name() {
        let stored = "%7B%22user.a%22%3A%22YWJj%22%2C%22security.capability%22%3A%22AQ%3D%3D%22%7D";
        let entry = entry(&[("xattr", stored)]);
        let names = |trust| {
            let all = extended(&entry, Ownership { trust, ..OWN });
            all.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
        };
        assert_eq!(names(false), ["user.a", "user.elton.etag", "user.elton.untrusted.security.capability"]);
        assert_eq!(names(true), ["security.capability", "user.a", "user.elton.etag"]);
        assert_eq!(extended(&self::entry(&[("xattr", "{}x")]), OWN).len(), 1);
    }

    /// What a client, or a cluster that lies, may have said of a file: anything, and what is nearly right.
    fn texts() -> impl Strategy<Value = String> {
        let pieces =
            vec!["-", "+", ".", "0", "1", "7", "8", "9", "100644", "9223372036854775807", "Z", "T", ":", "e", " "];
        let near = vec(select(pieces), 0..8).prop_map(|pieces| pieces.concat());
        let number = prop_oneof![
            any::<i64>().prop_map(|number| number.to_string()),
            "[0-7]{1,22}",
            "-?[0-9]{1,20}\\.[0-9]{0,12}"
        ];
        let date = "[-+]?[0-9]{4,6}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]{1,12})?(Z|[-+][0-9]{2}:[0-9]{2})";
        prop_oneof![any::<String>(), near, number, date]
    }

    /// Extended attributes as s3fs writes them, and as nobody should.
    fn xattrs() -> impl Strategy<Value = String> {
        let kinds = "(user|trusted|security|system)\\.[a-z.]{0,250}";
        let names = prop_oneof![kinds, "user\\.elton\\.[a-z]{0,9}", any::<String>(), "[a-z]{0,4}"];
        let values = prop_oneof![vec(any::<u8>(), 0..40).prop_map(|value| STANDARD.encode(value)), any::<String>()];
        let object = btree_map(names, values, 0..60).prop_map(|pairs| serde_json::to_string(&pairs).expect("strings"));
        let escaped = object.prop_map(|text| utf8_percent_encode(&text, NON_ALPHANUMERIC).to_string());
        prop_oneof![4 => escaped, 1 => any::<String>(), 1 => "[\\[{\":,]{0,300}"]
    }

    proptest! {
        // `PROPTEST_CASES` says how many.
        #[test]
        fn whatever_metadata_says_attributes_are_lawful(
            said in vec((select(vec!["mode", "uid", "gid", "mtime"]), texts()), 0..5),
            size in any::<u64>(),
            modified in any::<u64>(),
            foreign in any::<bool>(),
        ) {
            let said: Vec<_> = said.iter().map(|(name, text)| (*name, text.as_str())).collect();
            let entry = Entry { size, modified: Timestamp(modified), ..entry(&said) };
            let ownership = Ownership { foreign, ..OWN };
            let object = Attributes::of_object(&entry, ownership);
            prop_assert!(object.kind != Kind::Directory && object.size == size);
            let directory = Attributes::of_directory(Some(&entry), ownership);
            prop_assert_eq!(directory.kind, Kind::Directory);
            for shown in [object, directory] {
                prop_assert!(u32::from(shown.permissions) <= PERMISSION_BITS && shown.nanoseconds < 1_000_000_000);
                prop_assert!(foreign || (shown.uid, shown.gid) == (OWN.uid, OWN.gid));
            }
        }

        #[test]
        fn times_turn_back(seconds in -200_000_000_000..200_000_000_000_i64, nanoseconds in 0..1_000_000_000_u32) {
            let before = seconds < 0 && nanoseconds > 0;
            let (whole, fraction) = if before { (seconds + 1, 1_000_000_000 - nanoseconds) } else { (seconds, nanoseconds) };
            let sign = if whole == 0 && seconds < 0 { "-" } else { "" };
            prop_assert_eq!(parse_time(&format!("{sign}{whole}.{fraction:09}")), Some((seconds, nanoseconds)));
        }

        #[test]
        fn whatever_metadata_says_extended_attributes_can_be_listed(text in xattrs(), trust in any::<bool>()) {
            let all = extended(&entry(&[("xattr", &text)]), Ownership { trust, ..OWN });
            let names: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
            prop_assert!(names.is_sorted_by(|one, next| one < next), "{names:?}");
            prop_assert!(names.iter().all(|name| (1..=255).contains(&name.len()) && !name.contains('\0')));
            prop_assert!(names.iter().map(|name| name.len() + 1).sum::<usize>() <= 64 * 1024);
            prop_assert!(trust || names.iter().all(|name| name.starts_with("user.")), "{names:?}");
            let own = |name: &&&str| name.starts_with("user.elton.") && !name.starts_with(UNTRUSTED);
            prop_assert_eq!(names.iter().filter(own).collect::<Vec<_>>(), [&"user.elton.etag"]);
        }
    }

    #[test]
    fn more_names_than_can_be_listed_are_not_shown() {
        let pairs: std::collections::BTreeMap<_, _> = (0..5000).map(|at| (at.to_string(), "")).collect();
        let json = serde_json::to_string(&pairs).expect("strings");
        assert!(json.len() < XATTR_BYTES_MAX);
        let all = extended(&entry(&[("xattr", &json)]), OWN);
        let listed: usize = all.iter().map(|(name, _)| name.len() + 1).sum();
        assert!((60 * 1024..64 * 1024).contains(&listed), "{listed}");
    }
}
