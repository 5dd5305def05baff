//! Listings of objects and of versions, a page at a time.

use super::key::{self, name_of};
use super::lens::{Lens, Scan};
use super::request::{After, AfterVersion, ListItem, ListPage, ListQuery, VersionItem, VersionsQuery};
use super::{Master, layer};
use crate::catalog::rows::{CurrentRow, HistoryRow, Record};
use crate::catalog::{CatalogError, KeyRange, Table, keys};
use crate::error::{Result, VersionName};
use crate::types::{BucketAt, Number, ObjectPath, Summary};

/// What a path is rolled up to: all of it up to and with the first delimiter after the prefix.
pub(crate) fn common_prefix<'a>(path: &'a [u8], prefix: &[u8], delimiter: Option<&[u8]>) -> Option<&'a [u8]> {
    let delimiter = delimiter.filter(|delimiter| !delimiter.is_empty())?;
    let rest = path.get(prefix.len()..)?;
    let at = rest.windows(delimiter.len()).position(|window| window == delimiter)?;
    Some(&path[..prefix.len() + at + delimiter.len()])
}

impl Master {
    /// A page of the live objects of a state. At most `list_rows_max` rows are looked at for it.
    pub async fn list(&self, at: &BucketAt, query: ListQuery) -> Result<ListPage<ListItem, After>> {
        let (at, rows_max) = (at.clone(), self.limits.list_rows_max);
        self.writer
            .read(move |view| {
                let lens = Lens::open(view, &at)?;
                let mut scan = lens.scan(&query.prefix)?;
                match &query.after {
                    None => {}
                    Some(After::Key(path)) => scan.seek_after(path)?,
                    Some(After::Prefix(prefix)) => scan.seek_past(prefix)?,
                }
                let (items, next) = list(&mut scan, &query, rows_max)?;
                Ok(ListPage { items, next, number: lens.number() })
            })
            .await
    }

    /// A page of the versions and delete markers of a state.
    pub async fn list_versions(
        &self,
        at: &BucketAt,
        query: VersionsQuery,
    ) -> Result<ListPage<VersionItem, AfterVersion>> {
        layer::settle(self, &at.bucket).await?;
        let (at, rows_max) = (at.clone(), self.limits.list_rows_max);
        self.writer
            .read(move |view| {
                let lens = Lens::open(view, &at)?;
                let (items, next) = list_versions(&lens, &query, rows_max)?;
                Ok(ListPage { items, next, number: lens.number() })
            })
            .await
    }
}

fn list(scan: &mut Scan<'_>, query: &ListQuery, rows_max: usize) -> Result<(Vec<ListItem>, Option<After>)> {
    let mut items = Vec::new();
    if query.max == 0 {
        return Ok((items, None));
    }
    let mut last = None;
    while let Some((path, live)) = scan.next(rows_max)? {
        if items.len() == query.max {
            return Ok((items, last));
        }
        match common_prefix(path.as_bytes(), &query.prefix, query.delimiter.as_deref()) {
            Some(common) => {
                let common = common.to_vec();
                scan.seek_past(&common)?;
                last = Some(After::Prefix(common.clone()));
                items.push(ListItem::Prefix(common));
            }
            None => {
                last = Some(After::Key(path.as_bytes().to_vec()));
                items.push(ListItem::Object(path, live.summary));
            }
        }
    }
    if scan.examined < rows_max {
        return Ok((items, None));
    }
    // The page ran into its limit of rows: it goes on after the last path looked at, shown or not.
    let looked_at = scan.last.as_ref().map(|path| path.as_bytes().to_vec());
    let next = match (looked_at, last) {
        (Some(path), Some(After::Prefix(prefix))) if path.starts_with(&prefix) => Some(After::Prefix(prefix)),
        (Some(path), _) => Some(After::Key(path)),
        (None, last) => last,
    };
    Ok((items, next))
}

/// A version of a path, as the walk over versions meets it.
struct Met {
    path: ObjectPath,
    summary: Summary,
    marker: bool,
}

/// A walk over all versions that S3 lists, by path, newest first.
struct VersionWalk<'a> {
    lens: &'a Lens<'a>,
    prefix: Vec<u8>,
    current: std::iter::Peekable<crate::catalog::RowIterator<'a>>,
    history: std::iter::Peekable<crate::catalog::RowIterator<'a>>,
    examined: usize,
    /// The last row that was looked at, by path and since.
    last: Option<(ObjectPath, Number)>,
}

impl<'a> VersionWalk<'a> {
    fn open(lens: &'a Lens<'a>, prefix: &[u8]) -> Result<Self, CatalogError> {
        let range = KeyRange::prefix(&keys::objects_with(lens.id, prefix));
        Ok(VersionWalk {
            lens,
            prefix: prefix.to_vec(),
            current: lens.rows.range(Table::Current, range.clone())?.peekable(),
            history: lens.rows.range(Table::History, range)?.peekable(),
            examined: 0,
            last: None,
        })
    }

    fn seek(&mut self, current: Vec<u8>, history: Vec<u8>) -> Result<(), CatalogError> {
        let range = KeyRange::prefix(&keys::objects_with(self.lens.id, &self.prefix));
        let from = |key: Vec<u8>| match &range.from {
            std::ops::Bound::Included(begin) if *begin > key => range.clone(),
            _ => range.clone().starting(std::ops::Bound::Included(key)),
        };
        self.current = self.lens.rows.range(Table::Current, from(current))?.peekable();
        self.history = self.lens.rows.range(Table::History, from(history))?.peekable();
        Ok(())
    }

    fn seek_after(&mut self, path: &[u8]) -> Result<(), CatalogError> {
        let key = keys::after_path(self.lens.id, path);
        self.seek(key.clone(), key)
    }

    fn seek_past(&mut self, prefix: &[u8]) -> Result<(), CatalogError> {
        match keys::successor(&keys::objects_with(self.lens.id, prefix)) {
            Some(key) => self.seek(key.clone(), key),
            None => self.seek(vec![0xff; 17], vec![0xff; 17]),
        }
    }

    fn next(&mut self, rows_max: usize) -> Result<Option<Met>, CatalogError> {
        while self.examined < rows_max {
            let current = peek(&mut self.current, Table::Current)?;
            let history = peek(&mut self.history, Table::History)?;
            // A path's live version comes before its past ones.
            let takes_current = match (&current, &history) {
                // The end, and not the limit: `examined` stays below it.
                (None, None) => return Ok(None),
                (Some(current), Some(history)) => current <= history,
                (current, _) => current.is_some(),
            };
            self.examined += 1;
            let met = if takes_current { self.take_current(current)? } else { self.take_history(history)? };
            if met.is_some() {
                return Ok(met);
            }
        }
        Ok(None)
    }

    /// Whether a page may end at the last row looked at: where that row's number is the name of a version that was
    /// uncovered since, the next page would begin at the version's later place.
    fn may_end(&self) -> Result<bool, CatalogError> {
        let Some((path, since)) = &self.last else { return Ok(true) };
        let place = key::find(self.lens.rows, self.lens.id, path, VersionName::Number(*since), self.lens.at)?;
        Ok(place.is_none_or(|place| place.since() == *since))
    }

    fn take_current(&mut self, path: Option<ObjectPath>) -> Result<Option<Met>, CatalogError> {
        let (Some(row), Some(path)) = (self.current.next(), path) else { return Ok(None) };
        let row = CurrentRow::decode(&row?.1)?;
        self.last = Some((path.clone(), row.since));
        Ok((row.since <= self.lens.at).then_some(Met { path, summary: row.summary, marker: false }))
    }

    fn take_history(&mut self, path: Option<ObjectPath>) -> Result<Option<Met>, CatalogError> {
        let (Some(row), Some(path)) = (self.history.next(), path) else { return Ok(None) };
        let (key, value) = row?;
        let (since, row) = (key::since_of(&key)?, HistoryRow::decode(&value)?);
        self.last = Some((path.clone(), since));
        let shown = since <= self.lens.at && row.shown_at(self.lens.at);
        Ok(shown.then_some(Met { path, summary: row.summary, marker: row.marker }))
    }
}

fn peek(
    rows: &mut std::iter::Peekable<crate::catalog::RowIterator<'_>>,
    table: Table,
) -> Result<Option<ObjectPath>, CatalogError> {
    if let Some(error) = rows.next_if(Result::is_err) {
        return error.map(|_| None);
    }
    match rows.peek() {
        Some(Ok((key, _))) => {
            keys::split_object(key).map(|(path, _)| Some(path)).ok_or_else(|| key::damaged_key(table))
        }
        _ => Ok(None),
    }
}

type VersionPage = (Vec<VersionItem>, Option<AfterVersion>);

fn list_versions(lens: &Lens<'_>, query: &VersionsQuery, rows_max: usize) -> Result<VersionPage> {
    let mut items = Vec::new();
    if query.max == 0 {
        return Ok((items, None));
    }
    let mut walk = VersionWalk::open(lens, &query.prefix)?;
    // The path whose newest version has been met, so that its later ones are not called the latest.
    let mut begun: Option<ObjectPath> = None;
    match &query.after {
        None => {}
        Some(AfterVersion::Key(path)) => walk.seek_after(path)?,
        Some(AfterVersion::Prefix(prefix)) => walk.seek_past(prefix)?,
        Some(AfterVersion::Version(path, name)) => begun = resume(&mut walk, path, *name)?,
    }
    let (mut last, mut rows_max) = (None, rows_max);
    loop {
        let Some(met) = walk.next(rows_max)? else {
            if walk.examined < rows_max {
                return Ok((items, None));
            }
            if !walk.may_end()? {
                rows_max += 1;
                continue;
            }
            break;
        };
        if items.len() == query.max {
            return Ok((items, last));
        }
        if let Some(common) = common_prefix(met.path.as_bytes(), &query.prefix, query.delimiter.as_deref()) {
            let common = common.to_vec();
            walk.seek_past(&common)?;
            last = Some(AfterVersion::Prefix(common.clone()));
            items.push(VersionItem::Prefix(common));
            continue;
        }
        let latest = begun.as_ref() != Some(&met.path);
        begun = Some(met.path.clone());
        last = Some(AfterVersion::Version(met.path.as_bytes().to_vec(), name_of(&met.summary)));
        items.push(VersionItem::Version { path: met.path, summary: met.summary, latest, marker: met.marker });
    }
    // The page ran into its limit of rows: it goes on after the last row looked at, shown or not.
    let next = match (walk.last, last) {
        (Some((path, _)), Some(AfterVersion::Prefix(prefix))) if path.as_bytes().starts_with(&prefix) => {
            Some(AfterVersion::Prefix(prefix))
        }
        (Some((path, since)), _) => Some(AfterVersion::Version(path.as_bytes().to_vec(), VersionName::Number(since))),
        (None, last) => last,
    };
    Ok((items, next))
}

/// Goes on after a version of a path. Returns the path if more versions of it may follow.
fn resume(walk: &mut VersionWalk<'_>, path: &[u8], name: VersionName) -> Result<Option<ObjectPath>> {
    let Ok(lawful) = ObjectPath::try_from(path) else {
        walk.seek_after(path)?;
        return Ok(None);
    };
    let lens = walk.lens;
    let since = match (key::find(lens.rows, lens.id, &lawful, name, lens.at)?, name) {
        (Some(place), _) => place.since(),
        // Removed meanwhile: what is older than its number comes next.
        (None, VersionName::Number(number)) => number,
        (None, VersionName::Null) => {
            walk.seek_after(path)?;
            return Ok(None);
        }
    };
    if since == Number::ZERO {
        walk.seek_after(path)?;
        return Ok(None);
    }
    let older = keys::history(lens.id, &lawful, Number(since.0 - 1));
    walk.seek(keys::after_path(lens.id, path), older)?;
    let shown = is_shown_from(lens, &lawful, since)?;
    Ok(Some(lawful).filter(|_| shown))
}

/// Whether S3 lists a version of the path that is as new as `since` or newer.
fn is_shown_from(lens: &Lens<'_>, path: &ObjectPath, since: Number) -> Result<bool, CatalogError> {
    if key::current(lens.rows, lens.id, path)?.is_some_and(|row| row.since <= lens.at) {
        return Ok(true);
    }
    for row in key::history(lens.rows, lens.id, path, lens.at)? {
        let (begin, row) = row?;
        if begin < since {
            break;
        }
        if row.shown_at(lens.at) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_rolls_up_to_its_first_delimiter_after_the_prefix() {
        assert_eq!(common_prefix(b"a/b/c", b"", Some(b"/")), Some(b"a/".as_slice()));
        assert_eq!(common_prefix(b"a/b/c", b"a/", Some(b"/")), Some(b"a/b/".as_slice()));
        assert_eq!(common_prefix(b"a/b", b"a/", Some(b"/")), None);
        assert_eq!(common_prefix(b"a//b", b"a/", Some(b"/")), Some(b"a//".as_slice()));
        assert_eq!(common_prefix(b"aXYb", b"", Some(b"XY")), Some(b"aXY".as_slice()));
        assert_eq!(common_prefix(b"a/b", b"", None), None);
    }
}
