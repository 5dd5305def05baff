//! Snapshot trees against the model, read as a mount reads them: a root, and the pages it asks for, directory by directory.

use std::collections::BTreeMap;

use federation::master::{ListQuery, Tree};
use federation::snapshot::{
    Content, Entry, Listed, MemoryPages, Missing, PagesMut, Root, TreeError, build, list, lookup,
};
use federation::types::{BlobHash, BucketAt};

use super::super::store::{content, path};
use super::run::{Run, Verdict, same};
use super::state::{Object, State};
use super::words::{bucket_name, named};

/// More pages than any tree here has.
const ROUNDS_MAX: usize = 200;

/// What a tree says of an object.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    key: Vec<u8>,
    size: u64,
    etag: String,
    modified: u64,
    null: bool,
    hashes: Vec<BlobHash>,
}

fn seen(key: &[u8], entry: &Entry) -> Seen {
    let hashes = match &entry.content {
        Content::Empty => Vec::new(),
        Content::Whole(hash) => vec![*hash],
        Content::Parts(parts) => parts.iter().map(|part| part.hash).collect(),
        // What the list says is in its body.
        Content::PartList { .. } => Vec::new(),
    };
    Seen {
        key: key.to_vec(),
        size: entry.size,
        etag: entry.etag.to_string(),
        modified: entry.modified.0,
        null: entry.null,
        hashes,
    }
}

fn wanted(key: &[u8], null: bool, object: &Object) -> Seen {
    let hash = |index: &usize| BlobHash(*blake3::hash(&content(*index).bytes).as_bytes());
    let listed = object.contents.len() > 100;
    let contents = object.contents.iter().filter(|index| !listed && !content(**index).bytes.is_empty());
    Seen {
        key: key.to_vec(),
        size: object.size(),
        etag: object.etag(),
        modified: object.modified,
        null,
        hashes: contents.map(hash).collect(),
    }
}

impl Run {
    /// The tree of a state, after a sequence's own step.
    pub fn look_at_tree(&self, b: usize, number: Option<u64>) -> Verdict {
        self.wait(async {
            let Some(bucket) = self.buckets[b].as_ref() else { return Ok(()) };
            let number = number.unwrap_or(bucket.last);
            let at = super::super::store::at(&bucket_name(b), number);
            match self.resolve(&at, bucket, number).await? {
                Some(state) => self.compare_tree(&at, state, number).await,
                None => {
                    let tree = named(self.master().tree(&at).await).map(|tree| tree.number.0);
                    let real = named(self.master().resolve(&at).await).map(|number| number.0);
                    same!(tree, real, "the tree of {at}");
                    Ok(())
                }
            }
        })
    }

    /// All that a tree shows; and that it is the one tree of what it shows.
    pub(super) async fn compare_tree(&self, at: &BucketAt, state: &State, number: u64) -> Verdict {
        let tree = self.master().tree(at).await.map_err(|error| format!("the tree of {at}: {error:?}"))?;
        same!(tree.number.0, number, "the number of the tree of {at}");
        let mut pages = MemoryPages::default();
        let query = ListQuery { max: 1000, ..ListQuery::default() };
        let listing = self.with_pages(at, &tree, &mut pages, |pages| list(pages, &tree.root, &query)).await?;
        let mut entries = BTreeMap::new();
        for item in listing.items {
            match item {
                Listed::Object(path, entry) => entries.insert(path, entry),
                Listed::Prefix(prefix) => return Err(format!("{at}: the prefix {prefix:?} without a delimiter")),
            };
        }
        let real: Vec<_> = entries.iter().map(|(path, entry)| seen(path.as_bytes(), entry)).collect();
        let objects = state.objects().into_iter();
        let model: Vec<_> = objects.map(|(key, version, object)| wanted(key, version.null, object)).collect();
        same!(real, model, "the tree of {at}");
        for key in &self.world.keys {
            let key = path(key);
            let found = self.with_pages(at, &tree, &mut pages, |pages| lookup(pages, &tree.root, &key)).await?;
            same!(found.as_ref(), entries.get(&key), "{key} in the tree of {at}");
        }
        let afresh: Result<Root, TreeError> = build(&mut MemoryPages::default(), entries.into_iter().map(Ok));
        same!(named_tree(afresh)?, tree.root, "the root of {at}, derived from its neighbours,");
        Ok(())
    }

    /// Repeats what misses pages until it has them all.
    async fn with_pages<T>(
        &self,
        at: &BucketAt,
        tree: &Tree,
        pages: &mut MemoryPages,
        read: impl Fn(&MemoryPages) -> Result<T, TreeError>,
    ) -> Verdict<T> {
        for _ in 0..ROUNDS_MAX {
            let missing = match read(pages) {
                Err(TreeError::Need(missing)) => missing,
                read => return named_tree(read),
            };
            for Missing { page, directory } in missing {
                let found = self.master().tree_pages(&at.bucket, tree.number, &directory, vec![page]).await;
                for bytes in found.map_err(|error| format!("page {page} of {at}: {error:?}"))? {
                    pages.put(page, bytes).map_err(|error| format!("memory: {error:?}"))?;
                }
            }
        }
        Err(format!("reading the tree of {at} does not end"))
    }
}

fn named_tree<T>(read: Result<T, TreeError>) -> Verdict<T> {
    read.map_err(|error| format!("{error:?}"))
}
