//! What members of a bucket are told of its trees.

use std::collections::HashSet;

use super::super::Master;
use super::super::lens::Lens;
use super::super::request::{After, ListItem, ListPage, ListQuery};
use super::derive::is_near;
use super::pages::KeptPages;
use super::{Tree, kept_root};
use crate::error::{Error, Result};
use crate::peer::message::{PageBytes, TreeRoot, TreeTold};
use crate::snapshot::{self, PageHash, Pages, Recording, Root, TreeError};
use crate::types::{BlobHash, BucketAt, BucketId, BucketName, Number, SnapshotRef};

/// How many pages an answer brings along: the rest is asked for.
const PAGES_PER_ANSWER_MAX: usize = 512;

/// And how many bytes of them.
const BYTES_PER_ANSWER_MAX: usize = 4 * 1024 * 1024;

/// How many items a listing has whose pages are brought along.
const LISTED_MAX: usize = 1000;

impl Master {
    /// The root of a state, unless it is the one that the asker knows, with the pages that a listing of it takes beside
    /// those that the same listing takes of the known one. Where deriving the tree would keep the asker waiting, that
    /// goes on without it, and the answer to `query` is the listing itself.
    pub(crate) async fn tell_tree(
        &self,
        at: &BucketAt,
        known: Option<Number>,
        query: Option<ListQuery>,
    ) -> Result<TreeTold> {
        let query = query.map(|query| ListQuery { max: query.max.min(LISTED_MAX), ..query });
        let (state, near_max) = (at.clone(), self.limits.tree_near_rows_max);
        let (bucket, number, newest, near) = self
            .writer
            .read(move |view| {
                let lens = Lens::open(view, &state)?;
                let near = !lens.is_layered() && is_near(view, lens.id, &lens.row, lens.number(), near_max)?;
                Ok((lens.id, lens.number(), lens.row.last, near))
            })
            .await?;
        let told = TreeTold { number, newest, root: None, pages: Vec::new(), listing: None };
        if known == Some(number) {
            return Ok(told);
        }
        let root = match (near, &query) {
            (false, Some(_)) => {
                self.derive_in_background(bucket, number);
                None
            }
            (_, None) => Some(self.root_of(bucket, number).await?),
            (true, Some(_)) => match self.root_of(bucket, number).await {
                // A full disk is no reason to list nothing.
                Err(Error::NoSpace) => None,
                root => Some(root?),
            },
        };
        let (root, query) = match (root, query) {
            (Some(root), query) => (root, query),
            (None, query) => {
                let at = BucketAt::at(at.bucket.clone(), SnapshotRef::Number(number));
                let listing: ListPage<ListItem, After> = self.list(&at, query.unwrap_or_default()).await?;
                return Ok(TreeTold { listing: Some(listing), ..told });
            }
        };
        let tree = Tree { bucket, number, root };
        let pages = match query {
            Some(query) => self.pages_for(&tree, known, query).await?,
            None => Vec::new(),
        };
        Ok(TreeTold { root: Some(TreeRoot::from(&tree.root)), pages, ..told })
    }

    /// The pages that a listing takes.
    async fn pages_for(&self, tree: &Tree, known: Option<Number>, query: ListQuery) -> Result<Vec<PageBytes>> {
        let bucket = tree.bucket;
        let known = match known {
            Some(known) => self.writer.read(move |view| kept_root(view, bucket, known)).await?,
            None => None,
        };
        self.in_tree(tree, move |pages, root| {
            let mut had: HashSet<PageHash> = HashSet::new();
            if let Some(known) = &known {
                // What of it is damaged or gone is sent again.
                had.extend(taken(pages, known, &query).unwrap_or_default());
            }
            let (mut told, mut bytes) = (Vec::new(), 0);
            let all = match taken(pages, root, &query) {
                Ok(all) => all,
                Err(error) => return Ok(Err(error)),
            };
            for page in all.into_iter().filter(|page| had.insert(*page)).take(PAGES_PER_ANSWER_MAX) {
                let page = match pages.checked(&page, b"") {
                    Ok(page) => page,
                    Err(error) => return Ok(Err(error)),
                };
                bytes += page.len();
                if bytes > BYTES_PER_ANSWER_MAX {
                    break;
                }
                told.push(PageBytes(page));
            }
            Ok(Ok(told))
        })
        .await
    }

    /// Pages of a directory of a state, as a member asks for them.
    pub(crate) async fn tell_pages(
        &self,
        bucket: &BucketName,
        number: Number,
        directory: &[u8],
        pages: Vec<BlobHash>,
    ) -> Result<Vec<PageBytes>> {
        let pages = pages.into_iter().map(|page| PageHash(page.0)).collect();
        let found = self.tree_pages(bucket, number, directory, pages).await?;
        Ok(found.into_iter().map(PageBytes).collect())
    }

    fn derive_in_background(&self, bucket: BucketId, number: Number) {
        let master = self.clone();
        tokio::spawn(async move {
            match master.root_of(bucket, number).await {
                // Who asks again waits for it, or hears why not.
                Ok(_) | Err(Error::BelowFloor { .. } | Error::Conflict) => {}
                Err(error) => {
                    tracing::warn!(%bucket, error = &error as &dyn std::error::Error, "snapshot tree not derived");
                }
            }
        });
    }
}

/// The pages that a listing reads, in their order.
fn taken(pages: &KeptPages<'_>, root: &Root, query: &ListQuery) -> Result<Vec<PageHash>, TreeError> {
    let recording = Recording::new(pages as &dyn Pages);
    snapshot::list(&recording, root, query)?;
    Ok(recording.into_read())
}
