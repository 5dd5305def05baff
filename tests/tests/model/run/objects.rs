//! Puts, deletes, tags and copies of objects.

use federation::master::{CopyRequest, DeleteRequest, PutRequest, Version};
use federation::types::Attributes;

use super::super::super::store::{self, actor, content, newest, path, staged};
use super::super::op::{Cond, Pick};
use super::super::state::{self, Key, Name, Object};
use super::super::words::{bucket_name, describe, expected, find, name_of, named, pick_of, tags, version_name, which};
use super::{Run, Verdict, same};

impl Run {
    pub(super) fn put(&mut self, b: u8, k: u8, c: u8, t: u8, cond: Cond) -> Verdict {
        let (b, key, wall) = (usize::from(b), self.key(k), self.wall());
        let object = self.object(vec![usize::from(c) % store::CONTENTS], false, tags(t));
        let precondition = self.precondition(b, &key, cond);
        let real = self.wait(async {
            let body = staged(self.master().blobs(), content(c.into())).await;
            let description = describe(&object);
            let request = PutRequest { body, md5: content(c.into()).md5, checksum: None, description, precondition };
            self.master().put(&actor(), &bucket_name(b), &path(&key), request).await
        });
        let model = match &mut self.buckets[b] {
            Some(bucket) => bucket.put(wall, &key, cond, object),
            None => Err("NoSuchBucket"),
        };
        same!(named(real).map(|written| written.number.0), expected(model), "put");
        Ok(())
    }

    pub(super) fn delete(&mut self, b: u8, keys: Vec<(Key, Option<Name>, Cond)>) -> Verdict {
        let (b, wall) = (usize::from(b), self.wall());
        let requests = keys.iter().map(|(key, name, cond)| DeleteRequest {
            path: path(key),
            version: name.map(version_name),
            precondition: self.precondition(b, key, *cond),
        });
        let real = self.wait(self.master().delete(&actor(), &bucket_name(b), requests.collect()));
        let real = named(real).map(|results| {
            let results = results.into_iter();
            let result = results.map(|result| named(result).map(|done| (done.number.0, done.name, done.marker)));
            result.collect::<Vec<_>>()
        });
        let model = self.buckets[b].as_mut().ok_or("NoSuchBucket").map(|bucket| {
            let results = keys.iter().map(|(key, name, cond)| match name {
                None => {
                    let (number, marker) = bucket.delete(wall, key, *cond).map_err(ToOwned::to_owned)?;
                    Ok((number, marker.map(version_name), marker.is_some()))
                }
                Some(name) => {
                    let (number, marker) = bucket.remove(wall, key, *name);
                    Ok((number, Some(version_name(*name)), marker))
                }
            });
            results.collect::<Vec<Result<_, String>>>()
        });
        same!(real, expected(model), "delete");
        Ok(())
    }

    pub(super) fn set_tags(&mut self, b: u8, k: u8, pick: Pick, t: u8) -> Verdict {
        let (key, wall) = (self.key(k), self.wall());
        let name = self.pick(b, &key, pick);
        let b = usize::from(b);
        let attributes = Attributes { tags: Some(tags(t)), ..Attributes::default() };
        let master = self.master();
        let real = self.wait(master.set_attributes(&actor(), &bucket_name(b), &path(&key), which(name), attributes));
        let model = match &mut self.buckets[b] {
            Some(bucket) => bucket.set_tags(wall, &key, name, tags(t)),
            None => Err("NoSuchBucket"),
        };
        same!(named(real).map(|(number, _)| number.0), expected(model), "tags of {:?}", key.escape_ascii().to_string());
        Ok(())
    }

    /// The version that a copy is made from, in both worlds.
    pub(super) fn source(
        &self,
        f: usize,
        key: &[u8],
        at: Option<u8>,
        pick: Pick,
    ) -> Verdict<Option<(Version, state::Version)>> {
        let number = at.and_then(|at| Some(self.buckets[f].as_ref()?.number(at)));
        let from = number.map_or_else(|| newest(&bucket_name(f)), |number| store::at(&bucket_name(f), number));
        let (model, name) = match &self.buckets[f] {
            None => (Err("NoSuchBucket"), None),
            Some(bucket) => match bucket.at(number.unwrap_or(bucket.last)) {
                (_, true) => return Ok(None),
                (Err(error), _) => (Err(error), None),
                (Ok(state), _) => {
                    let name = state.keys.get(key).and_then(|versions| pick_of(versions, pick));
                    (find(state, key, name), name)
                }
            },
        };
        let real = self.wait(self.master().head(&from, &path(key), which(name)));
        same!(
            real.as_ref().map(|version| version.number.0).map_err(name_of),
            expected(model.as_ref().map(|version| version.number).map_err(|error| *error)),
            "the source of a copy"
        );
        Ok(real.ok().zip(model.ok()))
    }

    pub(super) fn copy(&mut self, (f, fk, at, pick): (u8, u8, Option<u8>, Pick), b: u8, k: u8, cond: Cond) -> Verdict {
        let (from, to, b, wall) = (self.key(fk), self.key(k), usize::from(b), self.wall());
        let Some((source, version)) = self.source(f.into(), &from, at, pick)? else { return Ok(()) };
        let request = CopyRequest {
            description: None,
            tags: None,
            checksum: None,
            precondition: self.precondition(b, &to, cond),
        };
        let real = self.wait(self.master().copy(&actor(), &source, &bucket_name(b), &path(&to), request));
        let tags = version.tags();
        let object = version.object.map(|object| Object { tags, ..object }).ok_or("a copy of a marker")?;
        let model = match &mut self.buckets[b] {
            Some(bucket) => bucket.put(wall, &to, cond, object),
            None => Err("NoSuchBucket"),
        };
        same!(named(real).map(|written| written.number.0), expected(model), "copy");
        Ok(())
    }
}
