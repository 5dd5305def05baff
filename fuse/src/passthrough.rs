//! The kernel's rule for passthrough: of one file, all handles are read by the kernel from one backing file, or none is.
//!
//! Mixing them gives EIO, so what the first open of a file decides holds until the last handle is released. The kernel
//! releases a handle only after its last mapping has gone, so counting handles is enough.

use std::collections::HashMap;
use std::sync::Arc;

use crate::inode::Inode;

/// Which files are open, and how.
pub(crate) struct Openings<B> {
    files: HashMap<Inode, Opening<B>>,
}

struct Opening<B> {
    /// What the kernel reads from; nothing if it asks us.
    backing: Option<Arc<B>>,
    handles: u64,
}

impl<B> Openings<B> {
    pub(crate) fn new() -> Openings<B> {
        Openings { files: HashMap::new() }
    }

    /// Opens a file. `back` is asked for a backing file only if no handle decides otherwise.
    pub(crate) fn open(&mut self, inode: Inode, back: impl FnOnce() -> Option<B>) -> Option<Arc<B>> {
        let opening = self.files.entry(inode).or_insert_with(|| Opening { backing: back().map(Arc::new), handles: 0 });
        opening.handles += 1;
        opening.backing.clone()
    }

    /// Releases a handle.
    pub(crate) fn release(&mut self, inode: Inode) {
        if let Some(opening) = self.files.get_mut(&inode) {
            opening.handles -= 1;
            if opening.handles == 0 {
                self.files.remove(&inode);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_open_decides_until_the_last_release() {
        let mut openings = Openings::new();
        let first = openings.open(5, || Some("one")).expect("backed");
        let second = openings.open(5, || panic!("it is decided")).expect("backed");
        assert!(Arc::ptr_eq(&first, &second));
        openings.release(5);
        assert!(openings.open(5, || panic!("it is decided")).is_some());
        openings.release(5);
        openings.release(5);
        assert_eq!(openings.open(5, || None), None);
        assert_eq!(openings.open(5, || Some("late")), None);
        assert_eq!(openings.open(6, || Some("other")).as_deref(), Some(&"other"));
        openings.release(5);
        openings.release(5);
        assert_eq!(openings.open(5, || Some("now")).as_deref(), Some(&"now"));
    }
}
