//! The model: a bucket is a list of states, and a state an ordered map of keys to the versions that S3 lists.
//!
//! It keeps every state whole. Nothing in it knows of rows, layers, segments or floors of storage.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::super::store::{content, etag};
use super::op::Cond;

pub type Tags = Vec<(String, String)>;
pub type Key = Vec<u8>;

/// S3 versioning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Versioning {
    Off,
    Enabled,
    Suspended,
}

/// What S3 calls a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Name {
    Null,
    Number(u64),
}

/// What an object holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// The contents that make it up, in order.
    pub contents: Rc<Vec<usize>>,
    pub multipart: bool,
    pub metadata: Tags,
    /// The tags it was written with.
    pub tags: Tags,
    pub modified: u64,
}

impl Object {
    pub fn size(&self) -> u64 {
        self.contents.iter().map(|index| content(*index).bytes.len() as u64).sum()
    }

    pub fn etag(&self) -> String {
        etag(&self.contents, self.multipart)
    }

    pub fn bytes(&self) -> Vec<u8> {
        let pieces: Vec<&[u8]> = self.contents.iter().map(|index| &*content(*index).bytes).collect();
        pieces.concat()
    }
}

/// A version or, without an object, a delete marker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    pub number: u64,
    pub null: bool,
    pub object: Option<Object>,
    /// Tags that were set since it was written.
    pub set_tags: Option<Tags>,
}

impl Version {
    pub fn name(&self) -> Name {
        if self.null { Name::Null } else { Name::Number(self.number) }
    }

    pub fn tags(&self) -> Tags {
        let written = self.object.as_ref().map(|object| object.tags.clone()).unwrap_or_default();
        self.set_tags.clone().unwrap_or(written)
    }
}

/// A state of a bucket.
#[derive(Clone, Debug)]
pub struct State {
    /// The versions of each key, oldest first; no key without versions.
    pub keys: BTreeMap<Key, Vec<Version>>,
    pub versioning: Versioning,
    pub tags: Option<Tags>,
}

/// What is at the top of a key.
pub enum Top<'a> {
    Live(&'a Version, &'a Object),
    Marker(&'a Version),
    Absent,
}

impl State {
    fn empty() -> State {
        State { keys: BTreeMap::new(), versioning: Versioning::Off, tags: None }
    }

    pub fn top(&self, key: &[u8]) -> Top<'_> {
        match self.keys.get(key).and_then(|versions| versions.last()) {
            None => Top::Absent,
            Some(version) => match &version.object {
                Some(object) => Top::Live(version, object),
                None => Top::Marker(version),
            },
        }
    }

    pub fn live(&self, key: &[u8]) -> Option<(&Version, &Object)> {
        match self.top(key) {
            Top::Live(version, object) => Some((version, object)),
            Top::Marker(_) | Top::Absent => None,
        }
    }

    /// The live objects in order.
    pub fn objects(&self) -> Vec<(&Key, &Version, &Object)> {
        self.keys.keys().filter_map(|key| self.live(key).map(|(version, object)| (key, version, object))).collect()
    }

    pub fn named(&self, key: &[u8], name: Name) -> Option<&Version> {
        self.keys.get(key)?.iter().find(|version| version.name() == name)
    }

    fn writes_null(&self) -> bool {
        self.versioning != Versioning::Enabled
    }

    fn push(&mut self, key: &[u8], version: Version) {
        let versions = self.keys.entry(key.to_vec()).or_default();
        if version.null {
            versions.retain(|version| !version.null);
        }
        versions.push(version);
    }

    fn put(&mut self, key: &[u8], number: u64, object: Object) {
        let null = self.writes_null();
        self.push(key, Version { number, null, object: Some(object), set_tags: None });
    }

    /// Deletes a key as S3 does; whether that changes anything.
    fn delete(&mut self, key: &[u8], number: u64) -> bool {
        if self.versioning == Versioning::Off {
            return self.keys.remove(key).is_some();
        }
        let null = self.writes_null();
        self.push(key, Version { number, null, object: None, set_tags: None });
        true
    }
}

/// What the log says of a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Logged {
    Put(Key, u64, String),
    Delete(Key, bool),
    Remove(Key, Name),
    Tags(Key, u64, Tags),
    Config(&'static str),
    Commit(String, u64),
    Restore(u64, Vec<u8>),
}

/// An upload in progress.
#[derive(Clone, Debug)]
pub struct Upload {
    pub bucket: usize,
    pub key: Key,
    pub metadata: Tags,
    pub tags: Tags,
    pub parts: BTreeMap<u16, usize>,
    pub begun: u64,
}

/// A bucket with all its states.
#[derive(Clone, Debug)]
pub struct Bucket {
    /// The states from the first on; those that are refused by now are still here.
    pub states: BTreeMap<u64, Rc<State>>,
    pub first: u64,
    pub last: u64,
    pub floor: u64,
    /// The wall and sequence time of each number.
    pub times: BTreeMap<u64, (u64, u64)>,
    pub floor_sequence: u64,
    pub created: u64,
    pub keep: Option<u64>,
    pub tags: BTreeMap<String, u64>,
    pub log: BTreeMap<u64, Logged>,
    /// Sources of restores that may not be folded yet: snapshots or not, as it happens.
    pub uncertain: BTreeSet<u64>,
}

/// What a write does in both worlds: a number, or the name of an error.
pub type Outcome<T = u64> = Result<T, &'static str>;

impl Bucket {
    pub fn new(first: u64, wall: u64) -> Bucket {
        Bucket {
            states: BTreeMap::from([(first, Rc::new(State::empty()))]),
            first,
            last: first,
            floor: first,
            times: BTreeMap::from([(first, (wall, wall))]),
            floor_sequence: wall,
            created: wall,
            keep: None,
            tags: BTreeMap::new(),
            log: BTreeMap::new(),
            uncertain: BTreeSet::new(),
        }
    }

    pub fn now(&self) -> &State {
        &self.states[&self.last]
    }

    /// The state of a number, or why there is none. The flag says that either answer may be given.
    pub fn at(&self, number: u64) -> (Outcome<&State>, bool) {
        if number > self.last || number < self.first {
            return (Err("NoSuchSnapshot"), false);
        }
        let kept = number >= self.floor || self.tags.values().any(|tagged| *tagged == number);
        let state = &*self.states[&number];
        if kept {
            return (Ok(state), false);
        }
        if self.uncertain.contains(&number) { (Ok(state), true) } else { (Err("BelowFloor"), false) }
    }

    /// The number that a time means.
    pub fn at_time(&self, time: u64) -> Outcome {
        if time < self.created {
            return Err("NoSuchSnapshot");
        }
        if time < self.floor_sequence {
            return Err("BelowFloor");
        }
        Ok(self.newest_not_after(time))
    }

    fn newest_not_after(&self, time: u64) -> u64 {
        let numbers = self.times.range(self.floor + 1..).filter(|(_, (_, sequence))| *sequence <= time);
        numbers.map(|(number, _)| *number).max().unwrap_or(self.floor)
    }

    /// Makes a change under the next number.
    fn change(&mut self, wall: u64, logged: Logged, change: impl FnOnce(&mut State, u64)) -> u64 {
        let number = self.last + 1;
        let mut state = self.now().clone();
        change(&mut state, number);
        let sequence = self.times[&self.last].1.max(wall);
        self.states.insert(number, Rc::new(state));
        self.times.insert(number, (wall, sequence));
        self.log.insert(number, logged);
        self.last = number;
        number
    }

    /// Whether a condition holds of the newest state.
    pub fn check(&self, key: &[u8], cond: Cond) -> Outcome<()> {
        let live = self.now().live(key).map(|(_, object)| object);
        let holds = match (cond, live) {
            (Cond::None, _) => true,
            (Cond::Absent, live) => live.is_none(),
            (Cond::Present | Cond::Same | Cond::Etag(_), None) => return Err("NoSuchKey"),
            (Cond::Present | Cond::Same, Some(_)) => true,
            (Cond::Etag(index), Some(object)) => object.etag() == etag(&[index.into()], false),
            (Cond::Size(index), live) => {
                live.is_some_and(|object| object.size() == content(index.into()).bytes.len() as u64)
            }
        };
        if holds { Ok(()) } else { Err("PreconditionFailed") }
    }

    pub fn put(&mut self, wall: u64, key: &[u8], cond: Cond, mut object: Object) -> Outcome {
        self.check(key, cond)?;
        object.modified = wall;
        let logged = Logged::Put(key.to_vec(), object.size(), object.etag());
        Ok(self.change(wall, logged, |state, number| state.put(key, number, object)))
    }

    /// The number of the change and the name of the marker, if one was made.
    pub fn delete(&mut self, wall: u64, key: &[u8], cond: Cond) -> Outcome<(u64, Option<Name>)> {
        self.check(key, cond)?;
        let state = self.now();
        if state.versioning == Versioning::Off {
            if state.live(key).is_none() {
                return Ok((self.last, None));
            }
            let number = self.change(wall, Logged::Delete(key.to_vec(), false), |state, number| {
                state.delete(key, number);
            });
            return Ok((number, None));
        }
        let number = self.change(wall, Logged::Delete(key.to_vec(), true), |state, number| {
            state.delete(key, number);
        });
        Ok((number, self.now().keys[key].last().map(Version::name)))
    }

    /// The number of the change and whether a marker was removed.
    pub fn remove(&mut self, wall: u64, key: &[u8], name: Name) -> (u64, bool) {
        let Some(version) = self.now().named(key, name) else { return (self.last, false) };
        let marker = version.object.is_none();
        let number = self.change(wall, Logged::Remove(key.to_vec(), name), |state, _| {
            if let Some(versions) = state.keys.get_mut(key) {
                versions.retain(|version| version.name() != name);
                if versions.is_empty() {
                    state.keys.remove(key);
                }
            }
        });
        (number, marker)
    }

    pub fn set_tags(&mut self, wall: u64, key: &[u8], name: Option<Name>, tags: Tags) -> Outcome {
        let found = match name {
            Some(name) => self.now().named(key, name).ok_or("NoSuchVersion")?,
            None => match self.now().top(key) {
                Top::Live(version, _) | Top::Marker(version) => version,
                Top::Absent => return Err("NoSuchKey"),
            },
        };
        if found.object.is_none() {
            return Err("DeleteMarker");
        }
        let (version, name) = (found.number, found.name());
        Ok(self.change(wall, Logged::Tags(key.to_vec(), version, tags.clone()), |state, _| {
            let versions = state.keys.get_mut(key).into_iter().flatten();
            versions.filter(|version| version.name() == name).for_each(|version| version.set_tags = Some(tags.clone()));
        }))
    }

    pub fn configure(&mut self, wall: u64, name: &'static str, change: impl FnOnce(&mut State)) -> u64 {
        self.change(wall, Logged::Config(name), |state, _| change(state))
    }

    /// A restore on its own: it spends no number where nothing differs.
    pub fn restore(&mut self, wall: u64, source: u64, prefix: &[u8]) -> Outcome<(u64, bool)> {
        if !self.differs(source, prefix)? {
            return Ok((self.last, false));
        }
        self.restore_numbered(wall, source, prefix).map(|number| (number, true))
    }

    fn differs(&self, source: u64, prefix: &[u8]) -> Outcome<bool> {
        let then = self.at(source).0?;
        let mut keys = self.now().keys.keys().chain(then.keys.keys()).filter(|key| key.starts_with(prefix));
        Ok(keys.any(|key| match (then.live(key), self.now().live(key)) {
            (None, None) => false,
            (Some((wanted, _)), Some((there, _))) => wanted.number != there.number || wanted.set_tags != there.set_tags,
            _ => true,
        }))
    }

    /// A restore that has a number, as one beside other changes may have whatever it found.
    pub fn restore_numbered(&mut self, wall: u64, source: u64, prefix: &[u8]) -> Outcome<u64> {
        let (state, uncertain) = self.at(source);
        let then = state?.clone();
        assert!(!uncertain, "the suite restores only what is known to be a snapshot");
        let keys: BTreeSet<Key> = self.now().keys.keys().chain(then.keys.keys()).cloned().collect();
        let keys: Vec<Key> = keys.into_iter().filter(|key| key.starts_with(prefix)).collect();
        if source < self.floor {
            self.uncertain.insert(source);
        }
        let number = self.change(wall, Logged::Restore(source, prefix.to_vec()), |state, number| {
            for key in &keys {
                match (then.live(key), state.live(key)) {
                    (None, None) => {}
                    (None, Some(_)) => {
                        state.delete(key, number);
                    }
                    (Some((wanted, _)), Some((there, _)))
                        if wanted.number == there.number && wanted.set_tags == there.set_tags => {}
                    (Some((wanted, object)), _) => {
                        let object = Object { tags: wanted.tags(), modified: wall, ..object.clone() };
                        state.put(key, number, object);
                    }
                }
            }
        });
        Ok(number)
    }

    /// A commit: for each key its object, or none to delete it; `count` is how many changes were staged for it.
    pub fn commit(&mut self, wall: u64, message: &str, count: u64, changes: BTreeMap<Key, Option<Object>>) -> u64 {
        self.change(wall, Logged::Commit(message.to_owned(), count), |state, number| {
            for (key, change) in changes {
                match change {
                    Some(object) => state.put(&key, number, object),
                    None if state.live(&key).is_some() => {
                        state.delete(&key, number);
                    }
                    None => {}
                }
            }
        })
    }

    /// The floor that a pass of the collector raises to.
    pub fn target(&self, wall: u64, keep_default: u64, now: bool) -> u64 {
        if now {
            return self.last;
        }
        let limit = wall.saturating_sub(self.keep.unwrap_or(keep_default) * 1000);
        if self.times[&self.last].1 > wall {
            // The clock was ahead once: up to the target every number is old enough, or claims to come from the future.
            let issued = (self.floor + 1..=self.last).map(|number| (number, self.times[&number].0));
            let may_end = issued.take_while(|(_, issued)| *issued <= limit || *issued > wall);
            return may_end.filter(|(_, issued)| *issued <= limit).last().map_or(self.floor, |(number, _)| number);
        }
        if limit < self.floor_sequence { self.floor } else { self.newest_not_after(limit) }
    }

    pub fn raise(&mut self, floor: u64) {
        if floor > self.floor {
            self.floor = floor;
            self.floor_sequence = self.times[&floor].1;
        }
        // The collector folds every layer first.
        self.uncertain.clear();
    }
}
