//! Bringing what will be read before it is.

use std::sync::Arc;

use futures_util::stream::{FuturesUnordered, StreamExt as _};

use super::{Fs, Statistics, lock};
use crate::directory::{Directory, Item};
use crate::error::{Error, Result};
use crate::inode::ROOT;

/// How many objects are brought at the same time.
const OBJECTS_MAX: usize = 16;

impl Fs {
    /// Brings all objects whose key is wanted into the cache. `progress` hears of each. Returns how many there were and how many bytes they have.
    pub async fn warm(
        &self,
        wanted: impl Fn(&[u8]) -> bool,
        mut progress: impl FnMut(Statistics),
    ) -> Result<Statistics> {
        let top = lock(&self.directories).get(&ROOT).ok_or(Error::NotDirectory)?;
        let mut open: Vec<Arc<Directory>> = vec![top];
        let mut done = Statistics::default();
        let mut flying = FuturesUnordered::new();
        while let Some(directory) = open.pop() {
            let mut after: Option<Vec<u8>> = None;
            loop {
                let batch = self.within(directory.batch(&self.reader, after.as_deref())).await?;
                for entry in batch.entries {
                    match entry.item {
                        Item::Directory { name, root } => open.push(Arc::new(directory.below(&name, root))),
                        Item::Object { name, entry, .. } => {
                            let key = [directory.path.as_slice(), &name].concat();
                            if !wanted(&key) {
                                continue;
                            }
                            while flying.len() >= OBJECTS_MAX {
                                count(&mut done, flying.next().await, &mut progress)?;
                            }
                            let directory = directory.clone();
                            flying.push(async move {
                                let body = self.body(&directory, &name, &entry).await?;
                                // A large body takes longer than any operation may; each of its requests has its end.
                                body.fetch_all().await?;
                                Ok(body.size())
                            });
                        }
                    }
                }
                match batch.next {
                    Some(next) => after = Some(next),
                    None => break,
                }
            }
        }
        while !flying.is_empty() {
            count(&mut done, flying.next().await, &mut progress)?;
        }
        Ok(done)
    }
}

fn count(done: &mut Statistics, size: Option<Result<u64>>, progress: &mut impl FnMut(Statistics)) -> Result<()> {
    if let Some(size) = size {
        done.bytes += size?;
        done.objects += 1;
        progress(*done);
    }
    Ok(())
}
