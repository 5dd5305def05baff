//! How keys are spelled: bytes whose order is the order of what they say.
//!
//! Numbers are big-endian. Within a path 0x00 is written 00 FF and a path ends with 00 01, so that a path sorts
//! before every longer one and never runs into what follows it. `~n` is `u64::MAX - n`: newest first.

use crate::types::{
    BlobHash, BucketId, BucketName, LayerId, MemberId, Number, ObjectPath, PinId, SegmentId, TagName, UploadId,
};

use super::rows::ConfigTag;
use crate::snapshot::PageHash;

/// The first key after all that begin with `prefix`; none if there is no such key.
#[must_use]
pub fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let kept = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut next = prefix[..=kept].to_vec();
    next[kept] += 1;
    Some(next)
}

fn push_escaped(key: &mut Vec<u8>, bytes: &[u8]) {
    for &byte in bytes {
        key.push(byte);
        if byte == 0 {
            key.push(0xff);
        }
    }
}

fn push_path(key: &mut Vec<u8>, path: &[u8]) {
    push_escaped(key, path);
    key.extend([0, 1]);
}

/// Splits an escaped path off the front of a key; what remains is what followed it.
#[must_use]
pub fn take_path(key: &[u8]) -> Option<(ObjectPath, &[u8])> {
    let mut path = Vec::with_capacity(key.len());
    let mut at = 0;
    loop {
        let zero = at + key.get(at..)?.iter().position(|byte| *byte == 0)?;
        path.extend(&key[at..zero]);
        match key.get(zero + 1)? {
            0xff => path.push(0),
            1 => return Some((path.try_into().ok()?, &key[zero + 2..])),
            _ => return None,
        }
        at = zero + 2;
    }
}

/// A key that begins with a bucket's id.
fn of_bucket(bucket: BucketId, more: usize) -> Vec<u8> {
    let mut key = Vec::with_capacity(16 + more);
    key.extend(bucket.0);
    key
}

/// `buckets`, and the prefix of everything of a bucket.
#[must_use]
pub fn bucket(bucket: BucketId) -> Vec<u8> {
    bucket.0.to_vec()
}

/// `names`
#[must_use]
pub fn name(name: &BucketName) -> Vec<u8> {
    name.as_str().as_bytes().to_vec()
}

/// `current`, `nulls`, and the prefix of all rows of an object in `history`, `attributes` and `uploads`.
#[must_use]
pub fn object(bucket: BucketId, path: &ObjectPath) -> Vec<u8> {
    let mut key = of_bucket(bucket, path.as_bytes().len() + 2);
    push_path(&mut key, path.as_bytes());
    key
}

/// The prefix of all objects whose path begins with `prefix`.
#[must_use]
pub fn objects_with(bucket: BucketId, prefix: &[u8]) -> Vec<u8> {
    let mut key = of_bucket(bucket, prefix.len() + 2);
    push_escaped(&mut key, prefix);
    key
}

/// The first key after every row of the path `path`, which need not be lawful.
#[must_use]
pub fn after_path(bucket: BucketId, path: &[u8]) -> Vec<u8> {
    let mut key = of_bucket(bucket, path.len() + 2);
    push_escaped(&mut key, path);
    key.extend([0, 2]);
    key
}

/// The path of a key that begins with a bucket's id and a path, and what follows it.
#[must_use]
pub fn split_object(key: &[u8]) -> Option<(ObjectPath, &[u8])> {
    take_path(key.get(16..)?)
}

/// `history`
#[must_use]
pub fn history(bucket: BucketId, path: &ObjectPath, since: Number) -> Vec<u8> {
    let mut key = object(bucket, path);
    key.extend((!since.0).to_be_bytes());
    key
}

/// The number of a key's last eight bytes where these are `~n`.
#[must_use]
pub fn descending(tail: &[u8]) -> Option<Number> {
    Some(Number(!u64::from_be_bytes(tail.try_into().ok()?)))
}

/// `changes`
#[must_use]
pub fn change(bucket: BucketId, number: Number, ordinal: u32) -> Vec<u8> {
    let mut key = of_bucket(bucket, 12);
    key.extend(number.0.to_be_bytes());
    key.extend(ordinal.to_be_bytes());
    key
}

/// The number and ordinal of a key of `changes`.
#[must_use]
pub fn split_change(key: &[u8]) -> Option<(Number, u32)> {
    let (number, ordinal) = key.get(16..)?.split_at_checked(8)?;
    Some((Number(u64::from_be_bytes(number.try_into().ok()?)), u32::from_be_bytes(ordinal.try_into().ok()?)))
}

/// The prefix of `attributes` of one version.
#[must_use]
pub fn attributes_of(bucket: BucketId, path: &ObjectPath, version: Number) -> Vec<u8> {
    let mut key = object(bucket, path);
    key.extend(version.0.to_be_bytes());
    key
}

/// `attributes`
#[must_use]
pub fn attributes(bucket: BucketId, path: &ObjectPath, version: Number, change: Number) -> Vec<u8> {
    let mut key = attributes_of(bucket, path, version);
    key.extend((!change.0).to_be_bytes());
    key
}

/// The prefix of `config` of one configuration.
#[must_use]
pub fn config_of(bucket: BucketId, name: ConfigTag) -> Vec<u8> {
    let mut key = of_bucket(bucket, 9);
    key.push(name as u8);
    key
}

/// `config`
#[must_use]
pub fn config(bucket: BucketId, name: ConfigTag, change: Number) -> Vec<u8> {
    let mut key = config_of(bucket, name);
    key.extend((!change.0).to_be_bytes());
    key
}

/// The prefix of `slots` of one segment.
#[must_use]
pub fn segment(segment: SegmentId) -> Vec<u8> {
    segment.0.to_be_bytes().to_vec()
}

/// `slots`
#[must_use]
pub fn slot(segment: SegmentId, offset: u32) -> Vec<u8> {
    [segment.0.to_be_bytes(), offset.to_be_bytes()].concat()
}

/// The segment and offset of a key of `slots`.
#[must_use]
pub fn split_slot(key: &[u8]) -> Option<(SegmentId, u32)> {
    let (segment, offset) = key.split_at_checked(4)?;
    Some((SegmentId(u32::from_be_bytes(segment.try_into().ok()?)), u32::from_be_bytes(offset.try_into().ok()?)))
}

/// `blobs`, and the prefix of `blob-refs` of one content.
#[must_use]
pub fn blob(hash: BlobHash) -> Vec<u8> {
    hash.0.to_vec()
}

/// `blob-refs`
#[must_use]
pub fn blob_ref(hash: BlobHash, bucket: BucketId) -> Vec<u8> {
    [&hash.0[..], &bucket.0[..]].concat()
}

/// `held`
#[must_use]
pub fn held(bucket: BucketId, end: Number, since: Number, path: &ObjectPath) -> Vec<u8> {
    let mut key = of_bucket(bucket, 18 + path.as_bytes().len());
    key.extend(end.0.to_be_bytes());
    key.extend(since.0.to_be_bytes());
    push_path(&mut key, path.as_bytes());
    key
}

/// The end, the since and the path of a key of `held`.
#[must_use]
pub fn split_held(key: &[u8]) -> Option<(Number, Number, ObjectPath)> {
    let (end, rest) = key.get(16..)?.split_at_checked(8)?;
    let (since, rest) = rest.split_at_checked(8)?;
    let (path, _) = take_path(rest)?;
    Some((Number(u64::from_be_bytes(end.try_into().ok()?)), Number(u64::from_be_bytes(since.try_into().ok()?)), path))
}

/// `tags`
#[must_use]
pub fn tag(bucket: BucketId, tag: &TagName) -> Vec<u8> {
    let mut key = of_bucket(bucket, 31);
    key.extend(tag.as_str().as_bytes());
    key
}

/// `pins`
#[must_use]
pub fn pin(bucket: BucketId, pin: PinId) -> Vec<u8> {
    [bucket.0, pin.0].concat()
}

/// `pages`
#[must_use]
pub fn page(bucket: BucketId, page: &PageHash) -> Vec<u8> {
    [&bucket.0[..], &page.0].concat()
}

/// The page of a key of `pages`.
#[must_use]
pub fn split_page(key: &[u8]) -> Option<PageHash> {
    Some(PageHash(key.get(16..)?.try_into().ok()?))
}

/// `roots`
#[must_use]
pub fn root(bucket: BucketId, number: Number) -> Vec<u8> {
    let mut key = of_bucket(bucket, 8);
    key.extend(number.0.to_be_bytes());
    key
}

/// The number of a key of `roots`.
#[must_use]
pub fn split_root(key: &[u8]) -> Option<Number> {
    Some(Number(u64::from_be_bytes(key.get(16..)?.try_into().ok()?)))
}

/// `uploads`
#[must_use]
pub fn upload(bucket: BucketId, path: &ObjectPath, upload: UploadId) -> Vec<u8> {
    let mut key = object(bucket, path);
    key.extend(upload.0);
    key
}

/// The prefix of `parts` of one upload.
#[must_use]
pub fn parts_of(upload: UploadId) -> Vec<u8> {
    upload.0.to_vec()
}

/// `parts`
#[must_use]
pub fn part(upload: UploadId, number: u16) -> Vec<u8> {
    let mut key = parts_of(upload);
    key.extend(number.to_be_bytes());
    key
}

/// The part number of a key of `parts`.
#[must_use]
pub fn split_part(key: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(key.get(16..)?.try_into().ok()?))
}

/// `layers`
#[must_use]
pub fn layer(bucket: BucketId, number: Number) -> Vec<u8> {
    let mut key = of_bucket(bucket, 8);
    key.extend(number.0.to_be_bytes());
    key
}

/// The prefix of `staged` of one layer, or of its paths that begin with `prefix`.
#[must_use]
pub fn staged_with(layer: LayerId, prefix: &[u8]) -> Vec<u8> {
    objects_with(BucketId(layer.0), prefix)
}

/// `staged`
#[must_use]
pub fn staged(layer: LayerId, path: &ObjectPath) -> Vec<u8> {
    object(BucketId(layer.0), path)
}

/// The row of `meta` that says for which bucket a commit's rows are being staged.
#[must_use]
pub fn commit_begun(layer: LayerId) -> Vec<u8> {
    [b"commit-".as_slice(), &layer.0].concat()
}

/// The row of `meta` that says below which counter a member knows every outcome.
#[must_use]
pub fn settled(member: MemberId) -> Vec<u8> {
    [b"settled-".as_slice(), &member.0].concat()
}

/// `idempotency`
#[must_use]
pub fn idempotency(member: MemberId, counter: u64) -> Vec<u8> {
    let mut key = member.0.to_vec();
    key.extend(counter.to_be_bytes());
    key
}

/// `clusters`
#[must_use]
pub fn member(member: MemberId) -> Vec<u8> {
    member.0.to_vec()
}

/// `grants`
#[must_use]
pub fn grant(bucket: BucketId, member: MemberId) -> Vec<u8> {
    [bucket.0, member.0].concat()
}

/// `bodies`
#[must_use]
pub fn body(bucket: BucketId, hash: BlobHash) -> Vec<u8> {
    [&bucket.0[..], &hash.0].concat()
}

/// The bucket and content of a key of `bodies`.
#[must_use]
pub fn split_body(key: &[u8]) -> Option<(BucketId, BlobHash)> {
    let (bucket, hash) = key.split_at_checked(16)?;
    Some((BucketId(bucket.try_into().ok()?), BlobHash(hash.try_into().ok()?)))
}

/// `publishes`
#[must_use]
pub fn publish(counter: u64) -> Vec<u8> {
    counter.to_be_bytes().to_vec()
}

/// The prefix of `idempotency` of one member.
#[must_use]
pub fn idempotency_of(member: MemberId) -> Vec<u8> {
    member.0.to_vec()
}

/// `tombstones`
#[must_use]
pub fn tombstone(bucket: BucketId, path: &ObjectPath, version: Number) -> Vec<u8> {
    attributes_of(bucket, path, version)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn paths() -> impl Strategy<Value = ObjectPath> {
        prop::collection::vec(prop_oneof![Just(0u8), Just(1), Just(2), Just(b'/'), Just(0xff), any::<u8>()], 1..6)
            .prop_map(|bytes| ObjectPath::try_from(bytes).expect("one to five bytes"))
    }

    proptest! {
        #[test]
        fn keys_sort_as_paths_do_and_read_back(a in paths(), b in paths(), n: u64) {
            let bucket = BucketId([7; 16]);
            prop_assert_eq!(object(bucket, &a).cmp(&object(bucket, &b)), a.cmp(&b));
            let key = history(bucket, &a, Number(n));
            let (path, tail) = split_object(&key).expect("written by this module");
            prop_assert_eq!(path, a.clone());
            prop_assert_eq!(descending(tail), Some(Number(n)));
            prop_assert_eq!(key < after_path(bucket, a.as_bytes()), true);
            if a != b {
                prop_assert_eq!(after_path(bucket, a.as_bytes()) < object(bucket, &b), a < b);
            }
            prop_assert_eq!(split_held(&held(bucket, Number(n), Number(3), &a)), Some((Number(n), Number(3), a)));
        }

        #[test]
        fn a_prefix_holds_exactly_what_begins_with_it(path in paths(), prefix in paths()) {
            let bucket = BucketId([0xff; 16]);
            let low = objects_with(bucket, prefix.as_bytes());
            let key = object(bucket, &path);
            let inside = key >= low && successor(&low).is_none_or(|high| key < high);
            prop_assert_eq!(inside, path.as_bytes().starts_with(prefix.as_bytes()));
        }
    }
}
