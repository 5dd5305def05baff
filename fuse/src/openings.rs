//! Which files the kernel has open, and how it reads them.
//!
//! The kernel's rule for passthrough: of one file, all handles are read by the kernel from one backing file, or none is.
//! Mixing them gives EIO, so what the first open of a file decides holds until the last handle is released. The kernel
//! releases a handle only after its last mapping has gone, so counting handles is enough.
//!
//! What was decided may be kept for a while after that, so that files that are opened again and again are opened by one
//! look here. It holds the file on disk against eviction all the while: so it goes after [`LIVES`] turns however often it is
//! used, and no more is kept than some files and some bytes.

use std::collections::HashMap;
use std::sync::Arc;

use crate::inode::Inode;

/// For how many turns of the clock something is kept after its first open.
const LIVES: u64 = 2;

/// How much may be kept that nobody has open.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) files: usize,
    pub(crate) bytes: u64,
}

/// The files that are open, and those that were.
pub(crate) struct Openings<R> {
    files: HashMap<Inode, Opening<R>>,
    bounds: Bounds,
    /// How much nobody has open.
    idle_files: usize,
    idle_bytes: u64,
    turn: u64,
}

struct Opening<R> {
    reading: Arc<R>,
    handles: u64,
    /// How many bytes it holds in the cache, if it may be kept.
    keeps: Option<u64>,
    /// When it was opened first.
    since: u64,
}

impl<R> Openings<R> {
    pub(crate) fn new(bounds: Bounds) -> Openings<R> {
        Openings { files: HashMap::new(), bounds, idle_files: 0, idle_bytes: 0, turn: 0 }
    }

    /// Opens a file for which it is decided how it is read, if knowing that `is_enough`.
    pub(crate) fn open_again(&mut self, inode: Inode, is_enough: impl FnOnce(&R) -> bool) -> Option<Arc<R>> {
        let opening = self.files.get_mut(&inode).filter(|opening| is_enough(&opening.reading))?;
        if opening.handles == 0 {
            self.idle_files -= 1;
            self.idle_bytes -= opening.keeps.unwrap_or(0);
        }
        opening.handles += 1;
        Some(opening.reading.clone())
    }

    /// Opens a file; `decide` is asked how only if nothing decides otherwise. It also says how many bytes of the cache
    /// that holds, if it may be kept.
    pub(crate) fn open(&mut self, inode: Inode, decide: impl FnOnce() -> (R, Option<u64>)) -> Arc<R> {
        if let Some(reading) = self.open_again(inode, |_| true) {
            return reading;
        }
        let (reading, keeps) = decide();
        let reading = Arc::new(reading);
        let opening = Opening { reading: reading.clone(), handles: 1, keeps, since: self.turn };
        self.files.insert(inode, opening);
        reading
    }

    /// Releases a handle. Returns what is not needed any more.
    pub(crate) fn release(&mut self, inode: Inode) -> Option<Arc<R>> {
        let opening = self.files.get_mut(&inode)?;
        opening.handles = opening.handles.saturating_sub(1);
        if opening.handles > 0 {
            return None;
        }
        let young = self.turn - opening.since < LIVES;
        let bytes = opening.keeps.filter(|bytes| {
            young && self.idle_files < self.bounds.files && self.idle_bytes.saturating_add(*bytes) <= self.bounds.bytes
        });
        match bytes {
            Some(bytes) => {
                self.idle_files += 1;
                self.idle_bytes += bytes;
                None
            }
            None => self.files.remove(&inode).map(|opening| opening.reading),
        }
    }

    /// Lets go of a file whose number may soon be another's.
    pub(crate) fn forget(&mut self, inode: Inode) -> Option<Arc<R>> {
        let opening = self.files.remove(&inode)?;
        if opening.handles == 0 {
            self.idle_files -= 1;
            self.idle_bytes -= opening.keeps.unwrap_or(0);
        }
        Some(opening.reading)
    }

    /// Some time has passed. Returns what was kept for long enough.
    pub(crate) fn turn(&mut self) -> Vec<Arc<R>> {
        self.turn += 1;
        let turn = self.turn;
        self.keep(|opening| turn - opening.since < LIVES)
    }

    /// Lets go of all that nobody has open.
    pub(crate) fn let_go(&mut self) -> Vec<Arc<R>> {
        self.keep(|_| false)
    }

    fn keep(&mut self, wanted: impl Fn(&Opening<R>) -> bool) -> Vec<Arc<R>> {
        let mut gone = Vec::new();
        self.files.retain(|_, opening| {
            let stays = opening.handles > 0 || wanted(opening);
            if !stays {
                self.idle_files -= 1;
                self.idle_bytes -= opening.keeps.unwrap_or(0);
                gone.push(opening.reading.clone());
            }
            stays
        });
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { files: 2, bytes: 10 };

    fn decided<R>() -> (R, Option<u64>) {
        panic!("it is decided")
    }

    #[test]
    fn the_first_open_decides_until_the_last_release() {
        let mut openings = Openings::new(BOUNDS);
        let first = openings.open(5, || ("one", None));
        let second = openings.open(5, decided);
        assert!(Arc::ptr_eq(&first, &second));
        assert_eq!(openings.release(5), None);
        assert_eq!(openings.open_again(5, |_| false), None);
        assert_eq!(openings.open_again(5, |_| true).as_deref(), Some(&"one"));
        assert_eq!(openings.release(5), None);
        assert_eq!(openings.release(5).as_deref(), Some(&"one"));
        assert_eq!(openings.open_again(5, |_| true), None);
        assert_eq!(*openings.open(5, || ("late", None)), "late");
        assert_eq!(*openings.open(6, || ("other", None)), "other");
    }

    #[test]
    fn what_may_be_kept_is_opened_again_without_a_decision() {
        let mut openings = Openings::new(BOUNDS);
        for inode in 2..5 {
            openings.open(inode, || ("kept", Some(4)));
        }
        // The third is one too many, by number and by bytes.
        assert_eq!((2..5).filter_map(|inode| openings.release(inode)).count(), 1);
        assert_eq!(*openings.open(2, decided), "kept");
        assert_eq!(openings.open_again(4, |_| true), None);
        // What is open counts for nothing.
        openings.open(4, || ("kept", Some(6)));
        assert_eq!(openings.release(4), None);
        assert_eq!(openings.release(2).as_deref(), Some(&"kept"));
        assert_eq!(openings.forget(4).as_deref(), Some(&"kept"));
        openings.open(4, || ("kept", Some(7)));
        assert_eq!(openings.release(4).as_deref(), Some(&"kept"));
        assert_eq!((openings.idle_files, openings.idle_bytes), (1, 4));
        // Where room is wanted, what nobody has open goes, and nothing else.
        assert!(openings.open_again(3, |_| true).is_some());
        assert!(openings.let_go().is_empty());
        openings.release(3);
        assert_eq!(openings.let_go().len(), 1);
        assert_eq!((openings.files.len(), openings.idle_files, openings.idle_bytes), (0, 0, 0));
    }

    #[test]
    fn nothing_is_kept_for_long() {
        let mut openings = Openings::new(BOUNDS);
        openings.open(2, || ("used all the time", Some(1)));
        openings.open(3, || ("released late", Some(1)));
        for _ in 1..LIVES {
            openings.release(2);
            assert!(openings.turn().is_empty());
            assert!(openings.open_again(2, |_| true).is_some());
        }
        openings.release(2);
        assert_eq!(openings.turn().len(), 1);
        assert_eq!(openings.open_again(2, |_| true), None);
        assert_eq!(openings.release(3).as_deref(), Some(&"released late"));
        assert_eq!((openings.files.len(), openings.idle_files, openings.idle_bytes), (0, 0, 0));
    }
}
