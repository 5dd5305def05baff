//! What clients did and heard, and whether one register per key could have behaved so.

use std::collections::HashSet;
use std::time::Duration;

/// What a client asked of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// To hold this content from now on.
    Put(u64),
    /// The same, if it holds nothing.
    PutNew(u64),
    /// The same, if it holds that.
    PutOver(u64, u64),
    /// To hold nothing.
    Delete,
    /// What it holds.
    Get,
}

/// What a client heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It was done, under this number.
    Done(u64),
    /// The condition did not hold.
    Refused,
    /// It holds this, or nothing.
    Holds(Option<u64>),
    /// Nothing that says what became of it.
    Unknown,
}

/// One operation of one client.
#[derive(Clone, Debug)]
pub struct Operation {
    pub key: usize,
    /// Through which cluster.
    pub at: usize,
    pub asked: Asked,
    pub heard: Heard,
    pub from: Duration,
    /// When it was heard; an operation without an outcome may take place at any later time.
    pub to: Duration,
}

impl Operation {
    fn may_never_happen(&self) -> bool {
        self.heard == Heard::Unknown
    }

    /// What the register holds after the operation, if it may take place while it holds `now`.
    fn step(&self, now: Option<u64>) -> Option<Option<u64>> {
        let unknown = self.heard == Heard::Unknown;
        let done = matches!(self.heard, Heard::Done(_)) || unknown;
        match (&self.asked, &self.heard) {
            (Asked::Get, Heard::Holds(value)) => (*value == now).then_some(now),
            (Asked::Get, _) => Some(now),
            (Asked::Put(value), _) if done => Some(Some(*value)),
            (Asked::Delete, _) if done => Some(None),
            (Asked::PutNew(value), _) if done => match now {
                None => Some(Some(*value)),
                Some(_) => unknown.then_some(now),
            },
            (Asked::PutOver(old, value), _) if done => match now == Some(*old) {
                true => Some(Some(*value)),
                false => unknown.then_some(now),
            },
            (Asked::PutNew(_), Heard::Refused) => now.is_some().then_some(now),
            (Asked::PutOver(old, _), Heard::Refused) => (now != Some(*old)).then_some(now),
            _ => None,
        }
    }
}

/// A bounded read: which content it found, and when.
#[derive(Clone, Debug)]
pub struct Bounded {
    pub key: usize,
    pub found: Option<u64>,
    pub from: Duration,
}

/// What all clients did.
#[derive(Debug, Default)]
pub struct Notes {
    pub operations: Vec<Operation>,
    pub bounded: Vec<Bounded>,
}

impl Notes {
    /// Nobody heard what a cluster said from then on: it lost its power before it could. A tick begins when the one before it
    /// ends, so that what was said at that moment may be of either.
    pub fn forget(&mut self, at: usize, since: Duration) {
        let lost = self.operations.iter_mut().filter(|operation| operation.at == at && operation.to >= since);
        lost.for_each(|operation| operation.heard = Heard::Unknown);
    }
}

/// Finds an order of a key's operations in which each takes place between its call and its answer, as Wing and Gong do.
pub fn is_linearizable(operations: &[Operation]) -> bool {
    assert!(operations.len() <= 128, "one bit for each operation");
    let mut seen = HashSet::new();
    let mut open = vec![(0u128, None)];
    while let Some((done, now)) = open.pop() {
        if !seen.insert((done, now)) {
            continue;
        }
        let left = |index: usize| done & (1 << index) == 0;
        let certain = |(index, operation): (usize, &Operation)| left(index) && !operation.may_never_happen();
        if !operations.iter().enumerate().any(certain) {
            return true;
        }
        // Nothing can come before what ended before it began.
        let first_end =
            operations.iter().enumerate().filter(|(index, operation)| left(*index) && !operation.may_never_happen());
        let first_end = first_end.map(|(_, operation)| operation.to).min().unwrap_or(Duration::MAX);
        for (index, operation) in operations.iter().enumerate() {
            if left(index)
                && operation.from <= first_end
                && let Some(next) = operation.step(now)
            {
                open.push((done | 1 << index, next));
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(asked: Asked, heard: Heard, from: u64, to: u64) -> Operation {
        Operation { key: 0, at: 0, asked, heard, from: Duration::from_secs(from), to: Duration::from_secs(to) }
    }

    #[test]
    fn what_a_register_can_do_is_told_from_what_it_cannot() {
        let put = operation(Asked::Put(1), Heard::Done(1), 0, 2);
        let fresh = operation(Asked::Get, Heard::Holds(Some(1)), 1, 3);
        let stale = operation(Asked::Get, Heard::Holds(None), 3, 4);
        assert!(is_linearizable(&[put.clone(), fresh.clone()]));
        assert!(!is_linearizable(&[put.clone(), fresh, stale.clone()]));
        let early = operation(Asked::Get, Heard::Holds(None), 1, 4);
        assert!(is_linearizable(&[put, early]));
        let unknown = operation(Asked::Put(2), Heard::Unknown, 0, 1);
        let late = operation(Asked::Get, Heard::Holds(Some(2)), 5, 6);
        assert!(is_linearizable(&[unknown.clone(), stale.clone(), late.clone()]));
        assert!(!is_linearizable(&[unknown, late, operation(Asked::Get, Heard::Holds(None), 7, 8)]));
        let both =
            [operation(Asked::PutNew(1), Heard::Done(1), 0, 5), operation(Asked::PutNew(2), Heard::Done(2), 0, 5)];
        assert!(!is_linearizable(&both));
    }
}
