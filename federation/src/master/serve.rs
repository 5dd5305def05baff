//! Reading bodies for other clusters: a member of a bucket of this cluster, or the home of a bucket that is linked here.

use std::ops::Range;

use bytes::Bytes;

use super::body::ByteStream;
use super::elsewhere::Place;
use super::piece::piece_of;
use super::request::Version;
use super::{Master, shared};
use crate::catalog::rows::{BucketRow, Change, ChangeRow, GrantRow, LinkRow, Record};
use crate::catalog::{View, keys};
use crate::error::{Error, Result};
use crate::peer::BodyQuestion;
use crate::types::{MemberId, Piece};

impl Master {
    /// A range of a body that another cluster asks for.
    pub(crate) async fn shared_range(
        &self,
        member: MemberId,
        asked: &BodyQuestion,
        range: Range<u64>,
    ) -> Result<ByteStream> {
        let opened = self.open_version(self.asked_for(member, asked).await?).await?;
        if range.end > opened.body.length() {
            return Err(Error::InvalidRequest { reason: "the body ends before the range does".to_owned() });
        }
        opened.body.begin(range).await
    }

    /// The hash tree of a large body that another cluster asks for.
    pub(crate) async fn shared_tree(&self, member: MemberId, asked: &BodyQuestion) -> Result<Bytes> {
        self.tree_of_body(self.asked_for(member, asked).await?).await
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

/// The piece of a version of this cluster's log that has the content, if it has.
fn piece_of_version(view: &dyn View, blobs: &crate::blobs::Blobs, asked: &BodyQuestion) -> Result<Option<Piece>> {
    let row = ChangeRow::load(view, &keys::change(asked.bucket, asked.number, asked.ordinal))?;
    let Some(ChangeRow { change: Change::Put(record), path: Some(path), .. }) = row else { return Ok(None) };
    if path != asked.path {
        return Ok(None);
    }
    piece_of(view, blobs, &record.body, asked.hash)
}
