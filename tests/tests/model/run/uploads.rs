//! Uploads in parts, from their beginning to their end.

use std::collections::BTreeMap;
use std::rc::Rc;

use federation::master::{CompleteRequest, NamedPart, PartBody, PartRequest, UploadRequest};

use super::super::super::store::{self, actor, content, etag, path, staged};
use super::super::op::{Cond, Pick};
use super::super::state::{Object, Upload};
use super::super::words::{bucket_name, describe, expected, name_of, named, tags};
use super::{Run, Verdict, same};

/// Parts of an object whose list of parts is a body of its own.
const MANY_PARTS: u16 = 101;

impl Run {
    pub(super) fn begin_upload(&mut self, b: usize, k: u8) -> Verdict<bool> {
        let (key, wall) = (self.key(k), self.wall());
        let object = self.object(vec![usize::from(k)], true, tags(k % 3));
        let request = UploadRequest {
            path: path(&key),
            description: describe(&object),
            checksum: None,
            checksum_declared: false,
        };
        let real = self.wait(self.master().begin_upload(&actor(), &bucket_name(b), request));
        let exists = self.buckets[b].is_some();
        same!(real.as_ref().map_err(name_of).err(), (!exists).then(|| "NoSuchBucket".to_owned()), "begin an upload");
        if let Ok(info) = real {
            let Object { metadata, tags, .. } = object;
            let upload = Upload { bucket: b, key, metadata, tags, parts: BTreeMap::new(), begun: wall };
            self.uploads.push((info.upload, upload));
        }
        Ok(exists)
    }

    pub(super) fn upload(&self, u: u8) -> Option<usize> {
        (!self.uploads.is_empty()).then(|| usize::from(u) % self.uploads.len())
    }

    pub(super) fn part(&mut self, u: u8, n: u16, c: usize) -> Verdict {
        let Some(u) = self.upload(u) else { return Ok(()) };
        self.put_part(u, n, c)
    }

    pub(super) fn put_part(&mut self, u: usize, n: u16, c: usize) -> Verdict {
        let (id, upload) = &self.uploads[u];
        let real = self.wait(async {
            let body = PartBody::Staged(staged(self.master().blobs(), content(c)).await);
            let request = PartRequest { body, md5: content(c).md5, checksum: None };
            self.master().put_part(&bucket_name(upload.bucket), &path(&upload.key), *id, n, request).await
        });
        same!(named(real).map(|part| part.size), Ok(content(c).bytes.len() as u64), "a part");
        self.uploads[u].1.parts.insert(n, c % store::CONTENTS);
        Ok(())
    }

    pub(super) fn part_copy(&mut self, u: u8, n: u16, b: u8, k: u8) -> Verdict {
        let Some(u) = self.upload(u) else { return Ok(()) };
        let from = self.key(k);
        let Some((source, version)) = self.source(b.into(), &from, None, Pick::Newest)? else { return Ok(()) };
        let Some(object) = version.object else { return Ok(()) };
        let (id, upload) = &self.uploads[u];
        let md5 = content(object.contents[0]).md5;
        let request = PartRequest { body: PartBody::Reference(Box::new(source)), md5, checksum: None };
        let real = self.wait(self.master().put_part(&bucket_name(upload.bucket), &path(&upload.key), *id, n, request));
        let model = if object.multipart { Err("InvalidRequest") } else { Ok(object.size()) };
        same!(named(real).map(|part| part.size), expected(model), "a copied part");
        if model.is_ok() {
            self.uploads[u].1.parts.insert(n, object.contents[0]);
        }
        Ok(())
    }

    pub(super) fn complete(&mut self, u: u8, mask: u8, extra: bool, cond: Cond) -> Verdict {
        let Some(u) = self.upload(u) else { return Ok(()) };
        let parts = self.uploads[u].1.parts.clone();
        let mut chosen: Vec<(u16, Option<usize>)> =
            parts.into_iter().filter(|(n, _)| mask >> (n % 8) & 1 == 1).map(|(n, c)| (n, Some(c))).collect();
        if extra {
            chosen.push((9999, None));
        }
        self.complete_with(u, &chosen, cond)
    }

    pub(super) fn complete_with(&mut self, u: usize, chosen: &[(u16, Option<usize>)], cond: Cond) -> Verdict {
        let wall = self.wall();
        let (id, upload) = self.uploads[u].clone();
        let b = upload.bucket;
        let parts = chosen.iter().map(|(number, c)| NamedPart {
            number: *number,
            etag: c.map(|c| etag(&[c], false)),
            checksum: None,
        });
        let precondition = self.precondition(b, &upload.key, cond);
        let request = CompleteRequest { parts: parts.collect(), checksum: None, size: None, precondition };
        let complete = || {
            let (bucket, key, request) = (bucket_name(b), path(&upload.key), request.clone());
            self.wait(async { self.master().complete_upload(&actor(), &bucket, &key, id, request).await })
        };
        let real = complete();
        if real.is_ok() {
            let again = complete().ok();
            same!(again.as_ref(), real.as_ref().ok(), "the answer to a completion that is repeated");
        }
        let too_small = chosen.iter().rev().skip(1).any(|(_, c)| c.is_some_and(|c| content(c).bytes.is_empty()));
        let contents: Option<Vec<usize>> = chosen.iter().map(|(_, c)| *c).collect();
        let model = match (contents, &mut self.buckets[b]) {
            (_, None) => Err("NoSuchBucket"),
            (Some(contents), _) if contents.is_empty() => Err("InvalidRequest"),
            _ if too_small => Err("PartTooSmall"),
            (None, _) => Err("InvalidPart"),
            (Some(contents), Some(bucket)) => {
                let Upload { metadata, tags, .. } = upload.clone();
                let object = Object { contents: Rc::new(contents), multipart: true, metadata, tags, modified: 0 };
                bucket.put(wall, &upload.key, cond, object)
            }
        };
        same!(named(real).map(|written| written.number.0), expected(model), "complete");
        if model.is_ok() {
            self.uploads.remove(u);
        }
        Ok(())
    }

    pub(super) fn many_parts(&mut self, b: u8, k: u8, c: u8, last: u8) -> Verdict {
        if !self.begin_upload(b.into(), k)? {
            return Ok(());
        }
        let u = self.uploads.len() - 1;
        let small = 1 + usize::from(c) % 3;
        for n in 1..MANY_PARTS {
            self.put_part(u, n, small + usize::from(n % 2))?;
        }
        self.put_part(u, MANY_PARTS, last.into())?;
        let chosen: Vec<_> = self.uploads[u].1.parts.iter().map(|(n, c)| (*n, Some(*c))).collect();
        self.complete_with(u, &chosen, Cond::None)
    }

    pub(super) fn abort(&mut self, u: u8) -> Verdict {
        let Some(u) = self.upload(u) else { return Ok(()) };
        let (id, upload) = self.uploads.remove(u);
        let (bucket, key) = (bucket_name(upload.bucket), path(&upload.key));
        same!(named(self.wait(self.master().abort_upload(&bucket, &key, id))), Ok(()), "abort");
        let again = self.wait(self.master().abort_upload(&bucket, &key, id));
        same!(named(again), Err("NoSuchUpload".to_owned()), "abort again");
        Ok(())
    }
}
