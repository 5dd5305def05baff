//! Tags, commits, restores and what the collector leaves of the past.

use std::collections::BTreeMap;

use federation::clock::Clock;
use federation::master::{CollectOptions, Commit, StagedChange};

use super::super::super::store::{self, actor, content, newest, path, staged};
use super::super::state::{Key, Object};
use super::super::words::{bucket_name, expected, name_of, named, record, tag_name, tags};
use super::{KEEP_DEFAULT_SECONDS, Run, Verdict, same};

/// How far the wall clock may move against the time since boot, in milliseconds.
const DRIFT_MAX: u64 = 60_000;

/// A commit that is being put together, in both worlds.
#[derive(Default)]
pub(super) struct Staging {
    pub(super) commit: Option<Commit>,
    pub(super) changes: BTreeMap<Key, Option<Object>>,
    pub(super) count: u64,
    /// The life of the bucket it was begun for.
    pub(super) life: u64,
}

impl Run {
    pub(super) fn tag(&mut self, b: usize, tag: u8, at: Option<u8>) -> Verdict {
        let number = at.and_then(|at| Some(self.buckets[b].as_ref()?.number(at)));
        let from = number.map_or_else(|| newest(&bucket_name(b)), |number| store::at(&bucket_name(b), number));
        let name = tag_name(tag);
        let model = match &self.buckets[b] {
            None => Err("NoSuchBucket"),
            Some(bucket) => match bucket.at(number.unwrap_or(bucket.last)) {
                (_, true) => return Ok(()),
                (Err(error), _) => Err(error),
                (Ok(_), _) if bucket.tags.contains_key(name.as_str()) => Err("TagExists"),
                (Ok(_), _) => Ok(number.unwrap_or(bucket.last)),
            },
        };
        let real = self.wait(self.master().tag_snapshot(&actor(), &from, Some(name.clone()), "kept"));
        same!(named(real).map(|(number, _)| number.0), expected(model), "tag");
        if let (Ok(number), Some(bucket)) = (model, &mut self.buckets[b]) {
            bucket.tags.insert(name.as_str().to_owned(), number);
        }
        Ok(())
    }

    pub(super) fn untag(&mut self, b: usize, tag: u8) -> Verdict {
        let name = tag_name(tag);
        let real = self.wait(self.master().remove_tag(&bucket_name(b), &name));
        let model = match &mut self.buckets[b] {
            None => Err("NoSuchBucket"),
            Some(bucket) => bucket.tags.remove(name.as_str()).map(|_| ()).ok_or("NoSuchTag"),
        };
        same!(named(real), expected(model), "untag");
        Ok(())
    }

    pub(super) fn restore(&mut self, b: usize, at: u8, prefix: &[u8]) -> Verdict {
        let wall = self.wall();
        let number = self.buckets[b].as_ref().map_or(0, |bucket| bucket.number(at));
        if self.buckets[b].as_ref().is_some_and(|bucket| bucket.at(number).1) {
            return Ok(());
        }
        let source = store::at(&bucket_name(b), number);
        let (master, below) = (self.master().clone(), prefix.to_vec());
        let real = self.wait_publishing(async move { master.restore(&actor(), &source, &below).await });
        let model = match &mut self.buckets[b] {
            None => Err("NoSuchBucket"),
            Some(bucket) => bucket.restore(wall, number, prefix),
        };
        same!(named(real).map(|done| (done.number.0, done.changed)), expected(model), "restore {number}");
        Ok(())
    }

    pub(super) fn stage(&mut self, b: usize, changes: &[(u8, Option<u8>)]) -> Verdict {
        if self.staging[b].commit.is_none() {
            let real = self.wait(self.master().begin_commit(&bucket_name(b)));
            let model = if self.buckets[b].is_some() { None } else { Some("NoSuchBucket".to_owned()) };
            same!(real.as_ref().map_err(name_of).err(), model, "begin a commit");
            self.staging[b] = Staging { commit: real.ok(), life: self.lives[b], ..Staging::default() };
        }
        let Some(mut commit) = self.staging[b].commit.take() else { return Ok(()) };
        let objects: Vec<_> = changes
            .iter()
            .map(|(k, c)| {
                let object = c.map(|c| self.object(vec![usize::from(c) % store::CONTENTS], false, tags(c % 2)));
                (self.key(*k), object)
            })
            .collect();
        let real = self.wait(async {
            let mut staging = Vec::new();
            for (key, object) in &objects {
                let content = match object {
                    None => None,
                    Some(object) => {
                        let content = content(object.contents[0]);
                        let body = staged(self.master().blobs(), content).await;
                        Some((record(object, content.md5), Some(body)))
                    }
                };
                staging.push(StagedChange { path: path(key), content });
            }
            commit.stage(staging).await
        });
        let staging = &mut self.staging[b];
        staging.commit = Some(commit);
        if staging.life != self.lives[b] || self.buckets[b].is_none() {
            // Its bucket is gone; whether that is said now or at the end is all the same.
            return Ok(());
        }
        same!(named(real), Ok(()), "stage");
        staging.count += changes.len() as u64;
        staging.changes.extend(objects);
        Ok(())
    }

    pub(super) fn publish(&mut self, b: usize) -> Verdict {
        let wall = self.wall();
        let staging = std::mem::take(&mut self.staging[b]);
        let Some(commit) = staging.commit else { return Ok(()) };
        let real = self.wait_publishing(async move { commit.publish(&actor(), "together").await });
        let model = match &mut self.buckets[b] {
            Some(bucket) if staging.life == self.lives[b] => {
                Ok(bucket.commit(wall, "together", staging.count, staging.changes))
            }
            _ => Err("NoSuchBucket"),
        };
        same!(named(real).map(|number| number.0), expected(model), "publish");
        Ok(())
    }

    pub fn collect(&mut self, now: bool, only: Option<usize>, dry: bool) -> Verdict {
        let (wall, boot) = (self.wall(), self.clock.boottime());
        let options = CollectOptions { now, bucket: only.map(bucket_name), dry };
        let real = self.wait(self.master().collect(options));
        let mut warned = false;
        if !dry {
            let last = self.collected.replace((wall, boot));
            warned = last.is_some_and(|(last_wall, last_boot)| {
                let expected = last_wall + (boot - last_boot).as_millis() as u64;
                expected.abs_diff(wall) > DRIFT_MAX
            });
        }
        if only.is_some_and(|b| self.buckets[b].is_none()) {
            same!(named(real).map(|_| ()), Err("NoSuchBucket".to_owned()), "collect");
            return Ok(());
        }
        let mut ended = 0;
        for (b, bucket) in self.buckets.iter_mut().enumerate() {
            let Some(bucket) = bucket.as_mut().filter(|_| only.is_none_or(|only| only == b)) else { continue };
            let raises = dry || now || !warned;
            let target = if raises { bucket.target(wall, KEEP_DEFAULT_SECONDS, now) } else { bucket.floor };
            ended += target - bucket.floor;
            if !dry {
                bucket.raise(target);
            }
        }
        let real = named(real).map(|report| {
            let warning =
                report.warning.map(|text| if text.starts_with("the wall clock moved") { "clock".into() } else { text });
            (report.numbers_ended, warning)
        });
        same!(real, Ok((ended, warned.then(|| "clock".to_owned()))), "collect");
        Ok(())
    }

    pub fn settle(&mut self, b: usize) -> Verdict {
        let real = self.wait(self.master().settle(&bucket_name(b)));
        let model = match &mut self.buckets[b] {
            None => Err("NoSuchBucket"),
            Some(bucket) => {
                bucket.uncertain.clear();
                Ok(())
            }
        };
        same!(named(real), expected(model), "settle");
        Ok(())
    }
}
