//! Reading bodies for other clusters: a member of a bucket of this cluster, or the home of a bucket that is linked here.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, TryStreamExt, stream};

use super::body::ByteStream;
use super::elsewhere::Place;
use super::piece::piece_of;
use super::request::{Opened, Version};
use super::{Master, shared};
use crate::blobs::{GROUP_BYTES, LEAF_BYTES, leaf_values};
use crate::catalog::rows::{BucketRow, Change, ChangeRow, GrantRow, LinkRow, Record};
use crate::catalog::{View, keys};
use crate::error::{Error, Result};
use crate::peer::BodyQuestion;
use crate::types::{MemberId, Piece};

/// Bytes for another cluster.
pub(crate) struct Given {
    /// What was asked for.
    pub(crate) bytes: ByteStream,
    /// How many they are.
    pub(crate) length: u64,
    /// Whether they are passed on: not all of the body was here.
    pub(crate) relayed: bool,
}

/// Whether bodies that are not here are brought for another cluster that asks for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relaying {
    /// They are, and are kept.
    On,
    /// The asker hears who has them.
    Off,
}

impl Master {
    /// A range of a body that another cluster asks for.
    pub(crate) async fn shared_range(
        &self,
        member: MemberId,
        asked: &BodyQuestion,
        range: Range<u64>,
        relaying: Relaying,
    ) -> Result<Given> {
        let (opened, relayed) = self.open_for(self.asked_for(member, asked).await?, relaying).await?;
        if range.end > opened.body.length() {
            return Err(Error::InvalidRequest { reason: "the body ends before the range does".to_owned() });
        }
        let length = range.end - range.start;
        Ok(Given { bytes: opened.body.begin(range).await?, length, relayed })
    }

    /// Opens a body for another cluster; also says whether it is passed on.
    async fn open_for(&self, version: Version, relaying: Relaying) -> Result<(Opened, bool)> {
        let mut opened = self.open_version(version).await?;
        match (opened.body.relay(), relaying) {
            (None, _) => Ok((opened, false)),
            (Some(_), Relaying::On) => Ok((opened, true)),
            (Some(wanted), Relaying::Off) => Err(Error::NotRelayed {
                holders: wanted.holders.iter().map(ToString::to_string).collect(),
                home: "this cluster".to_owned(),
            }),
        }
    }

    /// Several ranges of a body that another cluster asks for, one after the other.
    pub(crate) async fn shared_ranges(
        &self,
        member: MemberId,
        asked: &BodyQuestion,
        ranges: Vec<Range<u64>>,
        relaying: Relaying,
    ) -> Result<Given> {
        let version = self.asked_for(member, asked).await?;
        let (_, relayed) = self.open_for(version.clone(), relaying).await?;
        if ranges.iter().any(|range| range.end > version.record.size) {
            return Err(Error::InvalidRequest { reason: "the body ends before a range does".to_owned() });
        }
        let length = ranges.iter().map(|range| range.end - range.start).sum();
        let master = self.clone();
        let bytes = stream::iter(ranges).then(move |range| {
            let (master, version) = (master.clone(), version.clone());
            async move { master.open_for(version, relaying).await?.0.body.begin(range).await }
        });
        Ok(Given { bytes: begun(Box::pin(bytes.try_flatten())).await?, length, relayed })
    }

    /// The values of the leaves of groups of a body that another cluster asks for.
    pub(crate) async fn shared_leaves(
        &self,
        member: MemberId,
        asked: &BodyQuestion,
        groups: Vec<u64>,
        relaying: Relaying,
    ) -> Result<Given> {
        let version = self.asked_for(member, asked).await?;
        let (_, relayed) = self.open_for(version.clone(), relaying).await?;
        let size = version.record.size;
        let mut length = 0;
        let mut ranges = Vec::new();
        for group in groups {
            let start = group.checked_mul(GROUP_BYTES as u64).filter(|start| *start < size);
            let beyond = || Error::InvalidRequest { reason: "the body ends before a group begins".to_owned() };
            let start = start.ok_or_else(beyond)?;
            let end = size.min(start + GROUP_BYTES as u64);
            length += (end - start).div_ceil(LEAF_BYTES as u64) * blake3::OUT_LEN as u64;
            ranges.push((group, start..end));
        }
        let master = self.clone();
        let values = stream::iter(ranges).then(move |(group, range)| {
            let (master, version) = (master.clone(), version.clone());
            async move {
                let mut chunks = master.open_for(version, relaying).await?.0.body.read(range);
                let mut bytes = BytesMut::with_capacity(GROUP_BYTES);
                while let Some(chunk) = chunks.next().await {
                    bytes.extend_from_slice(&chunk?);
                }
                let values = move || Bytes::from(leaf_values(group, &bytes));
                Ok::<_, Error>(master.blobs.blocking().run(values).await)
            }
        });
        Ok(Given { bytes: begun(Box::pin(values)).await?, length, relayed })
    }

    /// The hash tree of a large body that another cluster asks for.
    pub(crate) async fn shared_tree(
        &self,
        member: MemberId,
        asked: &BodyQuestion,
        relaying: Relaying,
    ) -> Result<Given> {
        let version = self.asked_for(member, asked).await?;
        let (_, relayed) = self.open_for(version.clone(), relaying).await?;
        let tree = self.tree_of_body(version, relayed).await?;
        Ok(Given { length: tree.len() as u64, bytes: Box::pin(stream::iter([Ok(tree)])), relayed })
    }

    /// The body that is asked for, as a version of its own, if the asker may read it.
    async fn asked_for(&self, member: MemberId, asked: &BodyQuestion) -> Result<Version> {
        let (asked, blobs) = (asked.clone(), self.blobs.clone());
        self.writer
            .read(move |view| {
                let refused = || Error::NoSuchSharedBucket { bucket: asked.bucket };
                let row = BucketRow::load(view, &keys::bucket(asked.bucket))?.filter(|row| !row.deleted);
                let row = row.ok_or_else(refused)?;
                let piece = if row.linked {
                    // What a member wrote it serves to the bucket's home, which knows who may read it.
                    let link = LinkRow::load(view, &keys::bucket(asked.bucket))?;
                    link.filter(|link| link.home == member).ok_or_else(refused)?;
                    shared::here(view, asked.bucket, asked.hash)?
                } else {
                    GrantRow::load(view, &keys::grant(asked.bucket, member))?.ok_or_else(refused)?;
                    piece_of_version(view, &blobs, &asked)?
                };
                let missing = || Error::NoSuchVersion { path: asked.path.clone(), version: asked.number.to_string() };
                let piece = piece.ok_or_else(missing)?;
                let BodyQuestion { bucket, path, number, ordinal, .. } = asked;
                Ok(Place { bucket, path, number, ordinal }.version_of(piece))
            })
            .await
    }
}

/// A stream of which the first bytes have come: whoever says that there are bytes can still say that there are none.
async fn begun(mut bytes: ByteStream) -> Result<ByteStream> {
    let first = bytes.next().await.transpose()?;
    Ok(Box::pin(stream::iter(first.map(Ok)).chain(bytes)))
}

/// The piece of a version of this cluster's log that has the content, if it has.
fn piece_of_version(view: &dyn View, blobs: &crate::blobs::Blobs, asked: &BodyQuestion) -> Result<Option<Piece>> {
    let row = ChangeRow::load(view, &keys::change(asked.bucket, asked.number, asked.ordinal))?;
    let Some(ChangeRow { change: Change::Put(record), path: Some(path), .. }) = row else { return Ok(None) };
    if path != asked.path {
        return Ok(None);
    }
    piece_of(view, blobs, &record.body, asked.hash)
}
