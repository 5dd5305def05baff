//! What a directory of a snapshot shows: names to objects and directories, both ways.

use federation::snapshot::{self, Child, ChildNode, Entry, Named, Root};
use federation::types::Number;

use crate::error::Result;
use crate::escape::{self, Escape, Shown};
use crate::pages::TreeReader;

/// What rclone calls an object that is a symbolic link (`rclone --links`).
const RCLONE_LINK: &[u8] = b".rclonelink";
/// The longest target of a symbolic link that Linux has.
pub(crate) const LINK_BYTES_MAX: u64 = 4095;
/// How many entries are read at once.
pub(crate) const BATCH: usize = 1024;

/// A directory of a snapshot.
#[derive(Clone, Debug)]
pub(crate) struct Directory {
    /// The state that it is of.
    pub(crate) number: Number,
    /// Its path, empty or with a `/` at the end.
    pub(crate) path: Vec<u8>,
    /// Its root.
    pub(crate) root: Root,
}

/// What a directory has under a shown name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    /// An object of this name; `link` if rclone says that it is a symbolic link.
    Object { name: Vec<u8>, entry: Entry, link: bool },
    /// A directory of this name.
    Directory { name: Vec<u8>, root: Root },
}

/// An entry of a directory, as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryEntry {
    /// The name that is shown.
    pub shown: Vec<u8>,
    pub(crate) item: Item,
}

/// Some entries, and behind which key the next ones stand; none at the end.
pub(crate) struct Batch {
    pub(crate) entries: Vec<DirectoryEntry>,
    pub(crate) next: Option<Vec<u8>>,
}

impl Directory {
    /// What it has under a shown name.
    pub(crate) async fn look_up(&self, reader: &TreeReader, shown: &[u8]) -> Result<Option<Item>> {
        match escape::read(shown) {
            Shown::Plain(name) => {
                let found = self.named(reader, &name).await?;
                match pick(found, name.clone(), Escape::Alone) {
                    Some(Item::Object { name, entry, link: false }) => {
                        // It is shown without its suffix, unless that name is taken.
                        Ok((!self.is_link(reader, &name, &entry).await?).then_some(Item::Object {
                            name,
                            entry,
                            link: false,
                        }))
                    }
                    Some(item) => Ok(Some(item)),
                    None => self.look_up_link(reader, &name).await,
                }
            }
            Shown::Escaped(name, escape) => {
                let found = self.named(reader, &name).await?;
                Ok(pick(found, name, escape))
            }
            Shown::Long { beginning, escape } => self.look_up_long(reader, shown, &beginning, escape).await,
            Shown::Nothing => Ok(None),
        }
    }

    /// The object of a name, whatever it is shown as, and whether it is one of rclone's links.
    pub(crate) async fn object(&self, reader: &TreeReader, name: &[u8]) -> Result<Option<(Entry, bool)>> {
        let Some(entry) = self.named(reader, name).await?.object else { return Ok(None) };
        let link = self.is_link(reader, name, &entry).await?;
        Ok(Some((entry, link)))
    }

    /// The directory of a name.
    pub(crate) async fn directory(&self, reader: &TreeReader, name: &[u8]) -> Result<Option<Directory>> {
        Ok(self.named(reader, name).await?.directory.map(|root| self.below(name, root)))
    }

    /// The directory of a name that is known to be there.
    pub(crate) fn below(&self, name: &[u8], root: Root) -> Directory {
        Directory { number: self.number, path: [self.path.as_slice(), name, b"/"].concat(), root }
    }

    /// The object without a name in it, which has its attributes.
    pub(crate) async fn marker(&self, reader: &TreeReader) -> Result<Option<Entry>> {
        Ok(self.named(reader, b"").await?.object)
    }

    /// Some of its entries, behind a key.
    pub(crate) async fn batch(&self, reader: &TreeReader, after: Option<&[u8]>) -> Result<Batch> {
        let children = self.children(reader, after, BATCH).await?;
        let next = children.last().filter(|_| children.len() == BATCH).map(Child::key);
        let mut entries = Vec::with_capacity(children.len());
        for child in &children {
            entries.extend(self.entry(reader, child, &children, next.is_none()).await?);
        }
        Ok(Batch { entries, next })
    }

    async fn entry(
        &self,
        reader: &TreeReader,
        child: &Child,
        siblings: &[Child],
        all: bool,
    ) -> Result<Option<DirectoryEntry>> {
        let name = child.name.clone();
        let entry = match &child.node {
            ChildNode::Directory(root) => {
                let shown = escape::show(&name, Escape::Alone);
                return Ok(Some(DirectoryEntry { shown, item: Item::Directory { name, root: root.clone() } }));
            }
            ChildNode::Object(entry) => entry.clone(),
        };
        // Without bytes it only says how the directory is.
        if name.is_empty() && entry.size == 0 {
            return Ok(None);
        }
        if self.is_link(reader, &name, &entry).await? {
            let shown = name[..name.len() - RCLONE_LINK.len()].to_vec();
            return Ok(Some(DirectoryEntry { shown, item: Item::Object { name, entry, link: true } }));
        }
        let key = [name.as_slice(), b"/"].concat();
        let beside = match siblings.binary_search_by(|sibling| sibling.key().cmp(&key)) {
            _ if name.is_empty() => true,
            Ok(_) => true,
            Err(place) if all || place < siblings.len() => false,
            Err(_) => self.named(reader, &name).await?.directory.is_some(),
        };
        let shown = escape::show(&name, if beside { Escape::BesideDirectory } else { Escape::Alone });
        Ok(Some(DirectoryEntry { shown, item: Item::Object { name, entry, link: false } }))
    }

    /// Whether rclone says that an object is a symbolic link, and its name without the suffix is free.
    async fn is_link(&self, reader: &TreeReader, name: &[u8], entry: &Entry) -> Result<bool> {
        let Some(short) = link_name(name).filter(|_| can_be_link(entry)) else { return Ok(false) };
        let taken = self.named(reader, short).await?;
        Ok(taken.object.is_none() && taken.directory.is_none())
    }

    async fn look_up_link(&self, reader: &TreeReader, shown: &[u8]) -> Result<Option<Item>> {
        let name = [shown, RCLONE_LINK].concat();
        let object = self.named(reader, &name).await?.object.filter(can_be_link);
        Ok(object.filter(|_| link_name(&name).is_some()).map(|entry| Item::Object { name, entry, link: true }))
    }

    /// A long name is shown by its hash: what begins as it does is shown and compared.
    async fn look_up_long(
        &self,
        reader: &TreeReader,
        shown: &[u8],
        beginning: &[u8],
        escape: Escape,
    ) -> Result<Option<Item>> {
        let mut after = beginning.to_vec();
        loop {
            let children = self.children(reader, Some(&after), BATCH).await?;
            for child in &children {
                if !child.name.starts_with(beginning) {
                    return Ok(None);
                }
                if escape::show(&child.name, escape) == shown {
                    let found = self.named(reader, &child.name).await?;
                    return Ok(pick(found, child.name.clone(), escape));
                }
            }
            match children.last() {
                Some(last) if children.len() == BATCH => after = last.key(),
                _ => return Ok(None),
            }
        }
    }

    async fn named(&self, reader: &TreeReader, name: &[u8]) -> Result<Named> {
        reader.read(self.number, |pages| snapshot::named(pages, &self.root, &self.path, name)).await
    }

    async fn children(&self, reader: &TreeReader, after: Option<&[u8]>, max: usize) -> Result<Vec<Child>> {
        reader.read(self.number, |pages| snapshot::children(pages, &self.root, &self.path, after, max)).await
    }
}

/// What of a name is meant: a directory goes before an object, which is reached by the other escape then.
fn pick(found: Named, name: Vec<u8>, escape: Escape) -> Option<Item> {
    match (found.directory, found.object, escape) {
        (Some(root), _, Escape::Alone) => Some(Item::Directory { name, root }),
        // The object without a name is never alone in its directory: it is the directory's.
        (None, Some(_), Escape::Alone) if name.is_empty() => None,
        (None, Some(entry), Escape::Alone) => Some(Item::Object { name, entry, link: false }),
        (directory, Some(entry), Escape::BesideDirectory) => {
            let apart = directory.is_some() || (name.is_empty() && entry.size > 0);
            apart.then_some(Item::Object { name, entry, link: false })
        }
        (_, None, _) => None,
    }
}

fn link_name(name: &[u8]) -> Option<&[u8]> {
    let short = name.strip_suffix(RCLONE_LINK)?;
    // What would have to be escaped keeps its suffix.
    matches!(escape::read(short), Shown::Plain(_)).then_some(short)
}

fn can_be_link(entry: &Entry) -> bool {
    (1..=LINK_BYTES_MAX).contains(&entry.size)
}
