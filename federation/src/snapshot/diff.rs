//! What differs between two trees.

use std::cmp::Ordering;
use std::collections::HashSet;

use super::cursor::{Cursor, Next};
use super::page::{Node, Root, Row};
use super::{DEPTH_MAX, Entry, Missing, PageHash, Pages, TreeError};
use crate::types::ObjectPath;

/// How many missing pages are asked for at once.
const MISSING_MAX: usize = 64;

/// A path that two trees say different things of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The path.
    pub path: ObjectPath,
    /// What the first tree says of it.
    pub before: Option<Entry>,
    /// What the second one says.
    pub after: Option<Entry>,
}

/// The paths that differ between two trees, in order. From the empty tree these are all paths of the other.
///
/// Directories and pages that are equal are passed over unread.
pub fn diff<'a>(pages: &'a dyn Pages, before: &Root, after: &Root) -> Diff<'a> {
    let root = Some((before.clone(), after.clone())).filter(|(before, after)| before != after);
    Diff { pages, root, path: Vec::new(), open: Vec::new() }
}

/// The differences between two trees. After [`TreeError::Need`] it may be asked again when the pages are there; after
/// another error it gives the same error again.
pub struct Diff<'a> {
    pages: &'a dyn Pages,
    /// The trees, until they are open.
    root: Option<(Root, Root)>,
    /// The path of the innermost open directory.
    path: Vec<u8>,
    open: Vec<Pair>,
}

/// A directory in both trees; empty where it is in one of them only.
struct Pair {
    /// The length of the path that it is in.
    parent: usize,
    before: Cursor,
    after: Cursor,
}

/// What comes next in a pair of directories.
enum Plan {
    /// Neither has more.
    Leave,
    /// What both stand before is equal.
    Pass,
    /// Pages have to be entered to see which rows they have.
    Enter { before: bool, after: bool },
    /// A row that is in one of them only, or differs.
    Differ { before: bool, after: bool },
}

impl Iterator for Diff<'_> {
    type Item = Result<Difference, TreeError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step().transpose()
    }
}

impl Diff<'_> {
    fn step(&mut self) -> Result<Option<Difference>, TreeError> {
        if let Some((before, after)) = &self.root {
            let pair = Pair::open(self.pages, (Some(before), Some(after)), &self.path, 0)?;
            self.open.push(pair);
            self.root = None;
        }
        while let Some(pair) = self.open.last_mut() {
            match plan(pair.before.next(), pair.after.next()) {
                Plan::Leave => {
                    self.path.truncate(pair.parent);
                    self.open.pop();
                }
                Plan::Pass => {
                    pair.before.take();
                    pair.after.take();
                }
                Plan::Enter { before, after } => pair.enter(self.pages, &self.path, before, after)?,
                Plan::Differ { before, after } => {
                    if let Some(difference) = self.differ(before, after)? {
                        return Ok(Some(difference));
                    }
                }
            }
        }
        Ok(None)
    }

    /// Takes the rows that differ: directories are gone into, objects are a difference.
    fn differ(&mut self, before: bool, after: bool) -> Result<Option<Difference>, TreeError> {
        let depth = self.open.len();
        let Some(pair) = self.open.last_mut() else { return Ok(None) };
        let one = pair.before.next().filter(|_| before).map(|next| next.row);
        let other = pair.after.next().filter(|_| after).map(|next| next.row);
        let Some(key) = one.or(other).map(|row| &row.key) else { return Ok(None) };
        let path = [self.path.as_slice(), key.as_bytes()].concat();
        if key.is_directory() {
            if depth > DEPTH_MAX {
                return Err(TreeError::TooDeep { directory: path });
            }
            let below = Pair::open(self.pages, (one.and_then(root), other.and_then(root)), &path, self.path.len())?;
            pair.take(before, after);
            self.open.push(below);
            self.path = path;
            return Ok(None);
        }
        let path = ObjectPath::try_from(path).map_err(crate::Error::from)?;
        let (before, after) = pair.take(before, after);
        Ok(Some(Difference { path, before: before.and_then(entry), after: after.and_then(entry) }))
    }
}

impl Pair {
    fn open(
        pages: &dyn Pages,
        (before, after): (Option<&Root>, Option<&Root>),
        path: &[u8],
        parent: usize,
    ) -> Result<Pair, TreeError> {
        let open =
            |root: Option<&Root>| root.map_or_else(|| Ok(Cursor::empty()), |root| Cursor::open(pages, root, path));
        let [before, after] = both(open(before), open(after))?;
        Ok(Pair { parent, before, after })
    }

    fn take(&mut self, before: bool, after: bool) -> (Option<Row>, Option<Row>) {
        let take = |wanted: bool, cursor: &mut Cursor| if wanted { cursor.take() } else { None };
        (take(before, &mut self.before), take(after, &mut self.after))
    }

    /// The pages of the open index pages that are to be entered and that the other one does not have.
    fn only_in_one(&self, before: bool, after: bool) -> Vec<PageHash> {
        let known = |cursor: &Cursor| cursor.pointers().map(|pointer| pointer.page).collect::<HashSet<_>>();
        let (one, other) = (known(&self.before), known(&self.after));
        let only = |wanted: bool, cursor: &Cursor, there: &HashSet<PageHash>| {
            let new = cursor.pointers().map(|pointer| pointer.page).filter(|page| wanted && !there.contains(page));
            new.collect::<Vec<_>>()
        };
        [only(before, &self.before, &other), only(after, &self.after, &one)].concat()
    }

    /// Enters the pages that they stand before. If one is missing, those behind it that are missing and that only one
    /// of the trees has are asked for as well: they will have to be entered.
    fn enter(&mut self, pages: &dyn Pages, path: &[u8], before: bool, after: bool) -> Result<(), TreeError> {
        let ahead = self.only_in_one(before, after);
        let one = if before { self.before.enter(pages, path) } else { Ok(()) };
        let other = if after { self.after.enter(pages, path) } else { Ok(()) };
        let mut missing = match both(one, other) {
            Ok(_) => return Ok(()),
            Err(TreeError::Need(missing)) => missing,
            Err(error) => return Err(error),
        };
        for page in ahead {
            if missing.len() >= MISSING_MAX {
                break;
            }
            if pages.get(&page)?.is_none() {
                Missing::add(&mut missing, vec![Missing { page, directory: path.to_vec() }]);
            }
        }
        Err(TreeError::Need(missing))
    }
}

/// Both results, or all that is missing for them.
fn both<T>(one: Result<T, TreeError>, other: Result<T, TreeError>) -> Result<[T; 2], TreeError> {
    match (one, other) {
        (Ok(one), Ok(other)) => Ok([one, other]),
        (Err(TreeError::Need(mut missing)), Err(TreeError::Need(more))) => {
            Missing::add(&mut missing, more);
            Err(TreeError::Need(missing))
        }
        (Err(error), Ok(_)) | (Ok(_), Err(error)) => Err(error),
        // What is wrong for good goes before what may come.
        (Err(TreeError::Need(_)), Err(error)) | (Err(error), Err(_)) => Err(error),
    }
}

fn plan(before: Option<Next<'_>>, after: Option<Next<'_>>) -> Plan {
    // Entering the higher page only, one comes to where equal pages are next to each other.
    let (before_level, after_level) = (before.map_or(0, |next| next.level), after.map_or(0, |next| next.level));
    match (before, after) {
        (None, None) => Plan::Leave,
        // Rows of other directories' pages never meet here, so equal pointers have equal rows below them.
        (Some(before), Some(after)) if before_level == after_level && before.row == after.row => Plan::Pass,
        _ if before_level.max(after_level) > 0 => Plan::Enter {
            before: before_level > 0 && before_level >= after_level,
            after: after_level > 0 && after_level >= before_level,
        },
        (Some(before), Some(after)) => match before.row.key.cmp(&after.row.key) {
            Ordering::Less => Plan::Differ { before: true, after: false },
            Ordering::Greater => Plan::Differ { before: false, after: true },
            Ordering::Equal => Plan::Differ { before: true, after: true },
        },
        (before, after) => Plan::Differ { before: before.is_some(), after: after.is_some() },
    }
}

fn root(row: &Row) -> Option<&Root> {
    match &row.node {
        Node::Directory(root) => Some(root),
        Node::Object(_) | Node::Page(_) => None,
    }
}

fn entry(row: Row) -> Option<Entry> {
    match row.node {
        Node::Object(entry) => Some(entry),
        Node::Directory(_) | Node::Page(_) => None,
    }
}
