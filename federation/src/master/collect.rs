//! The collector: raises floors, drops what no snapshot can show any more, and gives its space back.
//!
//! The order is what keeps it safe. The floor is durable before anything below it goes. A row goes when its whole
//! life lies below the floor and no tag, pin or layer names a number in it. A large body goes two transactions
//! after its last reference: the first marks it, whoever claims it takes the mark away, and the second removes only
//! what is still marked. What a reader holds is passed over.

mod floor;
mod history;
mod leftovers;
mod space;

pub(super) use leftovers::Leftovers;

use super::Master;
use super::home::bucket;
use super::layer::fold_all;
use super::request::{CollectOptions, CollectReport};
use crate::catalog::rows::{BucketRow, Record};
use crate::catalog::{KeyRange, Rows, Table, keys};
use crate::error::Result;
use crate::mutant::{self, Mutant};
use crate::types::BucketId;

impl Master {
    /// Runs one pass of the collector. Passes follow each other; serving goes on meanwhile.
    pub async fn collect(&self, options: CollectOptions) -> Result<CollectReport> {
        let _one_at_a_time = self.collecting.lock().await;
        let mut report = CollectReport::default();
        if options.now && !options.dry {
            // Only where somebody waits for space: a pass that ends nothing would leave none for the one that does.
            self.release_spare().await?;
        }
        if !options.dry {
            report.warning = self.compare_clocks().await?;
        }
        let raises = options.now || report.warning.is_none();
        for (id, deleted) in self.collectable(&options).await? {
            // What is wrong with one bucket must not keep the space of the others.
            if let Err(error) = self.collect_bucket(id, deleted, &options, raises, &mut report).await {
                tracing::error!(bucket = %id, error = &error as &dyn std::error::Error, "bucket not collected");
                report.warning = Some(format!("bucket {id} could not be collected: {error}"));
            }
        }
        if !options.dry {
            self.sweep_staged().await?;
            self.forget_completions().await?;
            self.remove_leftovers(&mut report, options.now).await?;
            self.remove_marked(&mut report).await?;
            self.compact_segments(&mut report, options.now).await?;
            self.keep_spare().await;
        }
        Ok(report)
    }

    async fn collect_bucket(
        &self,
        id: BucketId,
        deleted: bool,
        options: &CollectOptions,
        raises: bool,
        report: &mut CollectReport,
    ) -> Result<()> {
        match (deleted, options.dry) {
            (true, true) => return Ok(()),
            (true, false) => {
                report.versions += self.remove_bucket_rows(id).await?;
                return Ok(());
            }
            (false, true) => {
                report.numbers_ended += self.ending(id, options.now).await?;
                return Ok(());
            }
            (false, false) => {}
        }
        // What a layer ends is in the log only once it is folded.
        fold_all(self, id).await?;
        if mutant::on(Mutant::CollectBeforeFloor) {
            let target = self.target_floor(id, options.now).await?;
            report.versions += self.drop_history(id, Some(target)).await?;
        }
        if let Err(error) = self.keep_trees(id).await {
            // They can be derived later, at more cost; what keeps them from it must not keep space from others.
            tracing::warn!(bucket = %id, error = &error as &dyn std::error::Error, "snapshot trees not derived");
        }
        if raises {
            // Like the floor, pins go by the wall clock.
            self.expire_pins(id).await?;
            report.numbers_ended += self.raise_floor(id, options.now).await?;
        }
        report.versions += self.drop_history(id, None).await?;
        report.versions += self.drop_released(id).await?;
        self.collect_trees(id).await?;
        Ok(())
    }

    async fn collectable(&self, options: &CollectOptions) -> Result<Vec<(BucketId, bool)>> {
        let only = options.bucket.clone();
        self.writer
            .read(move |view| {
                if let Some(name) = only {
                    return Ok(vec![(bucket(view, &name)?.0, false)]);
                }
                let mut ids = Vec::new();
                for row in view.range(Table::Buckets, KeyRange::prefix(&[]))? {
                    let (key, value) = row?;
                    let id = key.as_slice().try_into().map_err(|_| super::key::damaged_key(Table::Buckets))?;
                    ids.push((BucketId(id), BucketRow::decode(&value)?.deleted));
                }
                Ok(ids)
            })
            .await
    }
}

/// A bucket's row; `None` if it is gone.
fn bucket_row(rows: &(impl Rows + ?Sized), id: BucketId) -> Result<Option<BucketRow>> {
    Ok(BucketRow::load(rows, &keys::bucket(id))?)
}
