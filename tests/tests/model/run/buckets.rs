//! Buckets and their configuration.

use federation::master::{BucketChange, Versioning};

use super::super::super::store::actor;
use super::super::state::{self, Bucket};
use super::super::words::{bucket_name, expected, named};
use super::{Run, Verdict, same};

impl Run {
    pub(super) fn versioning(&mut self, b: usize, on: bool) -> Verdict {
        let (real, model) = if on {
            (Versioning::Enabled, state::Versioning::Enabled)
        } else {
            (Versioning::Suspended, state::Versioning::Suspended)
        };
        self.configure(b, BucketChange::Versioning(real), "Versioning", |bucket| bucket.versioning = model)
    }

    pub(super) fn configure(
        &mut self,
        b: usize,
        change: BucketChange,
        name: &'static str,
        model: impl FnOnce(&mut state::State),
    ) -> Verdict {
        let wall = self.wall();
        let real = self.wait(self.master().change_bucket(&actor(), &bucket_name(b), change));
        let model = self.buckets[b].as_mut().ok_or("NoSuchBucket").map(|bucket| bucket.configure(wall, name, model));
        same!(named(real).map(|number| number.0), expected(model), "configure");
        Ok(())
    }

    pub(super) fn create_bucket(&mut self, b: usize) -> Verdict {
        let wall = self.wall();
        let real = self.wait(self.master().create_bucket(&actor(), &bucket_name(b), ""));
        let model = match &self.buckets[b] {
            Some(_) => Err("BucketExists"),
            None => Ok(self.past[b]),
        };
        same!(named(real).map(|info| info.number.0), expected(model), "create a bucket");
        if let Ok(first) = model {
            self.buckets[b] = Some(Bucket::new(first, wall));
            self.lives[b] += 1;
        }
        Ok(())
    }

    pub(super) fn delete_bucket(&mut self, b: usize) -> Verdict {
        if self.buckets[b].is_some() {
            // A bucket with an open layer may not be deleted yet, which the model has no word for.
            self.settle(b)?;
        }
        let real = self.wait(self.master().delete_bucket(&actor(), &bucket_name(b)));
        let uploads = self.uploads.iter().any(|(_, upload)| upload.bucket == b);
        let model = match &self.buckets[b] {
            None => Err("NoSuchBucket"),
            Some(bucket) if !bucket.now().keys.is_empty() || !bucket.tags.is_empty() || uploads => {
                Err("BucketNotEmpty")
            }
            Some(_) => Ok(()),
        };
        same!(named(real), expected(model), "delete a bucket");
        if model.is_ok()
            && let Some(bucket) = self.buckets[b].take()
        {
            self.past[b] = bucket.last;
        }
        Ok(())
    }
}
