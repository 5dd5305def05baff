//! What differs between two states of a bucket.

use super::Master;
use super::lens::{Lens, Live, Scan};
use super::request::{Difference, ListPage};
use crate::catalog::{KeyRange, Table, View, keys};
use crate::error::{Error, Result};
use crate::types::{BucketAt, ObjectPath, Pair};

impl Master {
    /// What differs between two states of a bucket, by path. A page may be empty and still have a next one.
    pub async fn diff(
        &self,
        a: &BucketAt,
        b: &BucketAt,
        prefix: &[u8],
        after: Option<ObjectPath>,
        max: usize,
    ) -> Result<ListPage<Difference, ObjectPath>> {
        if a.bucket != b.bucket {
            return Err(Error::InvalidRequest {
                reason: format!("only states of one bucket can be compared, not of {} and {}", a.bucket, b.bucket),
            });
        }
        let (a, b, prefix, rows_max) = (a.clone(), b.clone(), prefix.to_vec(), self.limits.list_rows_max);
        self.writer
            .read(move |view| {
                let states = States::open(view, &a, &b, &prefix)?;
                let (mut left, mut right) = (states.before.scan(&prefix)?, states.after.scan(&prefix)?);
                if let Some(after) = &after {
                    left.seek_after(after.as_bytes())?;
                    right.seek_after(after.as_bytes())?;
                }
                differences(&states, &mut left, &mut right, max, rows_max)
            })
            .await
    }
}

/// Two states of a bucket.
struct States<'a> {
    before: Lens<'a>,
    after: Lens<'a>,
    /// Whether any object below the prefix was ever given other tags than it was written with.
    retagged: bool,
}

impl<'a> States<'a> {
    fn open(view: &'a dyn View, a: &BucketAt, b: &BucketAt, prefix: &[u8]) -> Result<Self> {
        let (before, after) = (Lens::open(view, a)?, Lens::open(view, b)?);
        let attributes = KeyRange::prefix(&keys::objects_with(after.id, prefix));
        let retagged = view.range(Table::Attributes, attributes)?.next().transpose()?.is_some();
        Ok(States { before, after, retagged })
    }

    /// What differs of a key that is live in at least one of them.
    fn compare(&self, path: &ObjectPath, before: Option<Live>, after: Option<Live>) -> Result<Option<Difference>> {
        let tags = match (&before, &after) {
            (Some(was), Some(is)) if was.summary.version == is.summary.version => {
                match self.compare_tags(path, was, is)? {
                    Some(tags) => Some(tags),
                    None => return Ok(None),
                }
            }
            _ => None,
        };
        let summary = |live: Option<Live>| live.map(|live| live.summary);
        Ok(Some(Difference { path: path.clone(), before: summary(before), after: summary(after), tags }))
    }

    /// The tags of one version in both states, if they differ.
    fn compare_tags(&self, path: &ObjectPath, was: &Live, is: &Live) -> Result<Option<(Vec<Pair>, Vec<Pair>)>> {
        if !self.retagged {
            return Ok(None);
        }
        let set = |state: &Lens<'_>, live: &Live| Ok::<_, Error>(state.attributes(path, live.summary.version)?.tags);
        let (before, after) = (set(&self.before, was)?, set(&self.after, is)?);
        if before == after {
            return Ok(None);
        }
        // What was never set since it was written is what it was written with.
        let written = self.after.record(is)?.tags;
        let (before, after) = (before.unwrap_or_else(|| written.clone()), after.unwrap_or(written));
        Ok((before != after).then_some((before, after)))
    }
}

fn differences(
    states: &States<'_>,
    left: &mut Scan<'_>,
    right: &mut Scan<'_>,
    max: usize,
    rows_max: usize,
) -> Result<ListPage<Difference, ObjectPath>> {
    let number = states.after.number();
    let mut items = Vec::new();
    let (mut before, mut after) = (left.next(rows_max)?, right.next(rows_max)?);
    loop {
        // Where one walk ran into the limit, only paths up to where it came are settled: it saw nothing live there, and
        // what the other walk has up to there still counts.
        let left_stopped = before.is_none() && left.examined >= rows_max;
        let right_stopped = after.is_none() && right.examined >= rows_max;
        let came = [(left_stopped, &left.last), (right_stopped, &right.last)];
        let stopped = came.iter().filter(|(stopped, _)| *stopped).filter_map(|(_, last)| last.as_ref()).min();
        let upcoming = [&before, &after].into_iter().flatten().map(|(path, _)| path).min();
        if let Some(stopped) = stopped
            && upcoming.is_none_or(|path| path > stopped)
        {
            return Ok(ListPage { items, next: Some(stopped.clone()), number });
        }
        if items.len() >= max && upcoming.is_some() {
            let next = items.last().map(|item: &Difference| item.path.clone());
            return Ok(ListPage { items, next, number });
        }
        let order = match (&before, &after) {
            (None, None) => return Ok(ListPage { items, next: None, number }),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some((before, _)), Some((after, _))) => before.cmp(after),
        };
        let gone = if order.is_le() { std::mem::replace(&mut before, left.next(rows_max)?) } else { None };
        let came = if order.is_ge() { std::mem::replace(&mut after, right.next(rows_max)?) } else { None };
        if let Some(path) = gone.as_ref().or(came.as_ref()).map(|(path, _)| path.clone()) {
            items.extend(states.compare(&path, gone.map(|(_, live)| live), came.map(|(_, live)| live))?);
        }
    }
}
