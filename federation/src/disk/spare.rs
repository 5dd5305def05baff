//! Space kept aside for a disk that others have filled to the last byte.
//!
//! Giving space back writes first: the catalog notes what goes before it goes. On a disk without a free block it could
//! not, so a file holds a few blocks, which are let go of when they are needed and taken again where there is room.

use std::io;
use std::path::Path;

use super::Disk;

const FILE: &str = "spare";
/// How much is kept aside: some commits of the collector, in bytes.
pub const SPARE_BYTES: u64 = 4 * 1024 * 1024;

/// Lets go of the spare space if the disk is full. Says whether there was any.
pub fn release(disk: &dyn Disk) -> io::Result<bool> {
    if disk.free_space()? >= SPARE_BYTES {
        return Ok(false);
    }
    match disk.remove(Path::new(FILE)) {
        Ok(()) => {
            tracing::warn!(bytes = SPARE_BYTES, "the disk is full; the space that was kept aside is given up");
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Keeps space aside, unless that would leave less than `reserve`. Without a reserve there is none.
pub fn keep(disk: &dyn Disk, reserve: u64) -> io::Result<()> {
    if reserve == 0 || disk.free_space()? < reserve.saturating_add(SPARE_BYTES) {
        return Ok(());
    }
    let file = match disk.open(Path::new(FILE), true) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => disk.create(Path::new(FILE))?,
        file => file?,
    };
    if file.len()? == SPARE_BYTES {
        return Ok(());
    }
    // Bytes that no file system shortens: zeros may take no blocks at all.
    let mut bytes = vec![0; usize::try_from(SPARE_BYTES).unwrap_or(0)];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    file.write_at(&bytes, 0)?;
    file.sync_data()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::SimulatedDisk;

    #[test]
    fn what_is_kept_is_let_go_of_when_the_disk_is_full() {
        let disk = SimulatedDisk::new();
        let there = || disk.list(Path::new("")).expect("lists").contains(&FILE.to_owned());
        disk.set_free_space(2 * SPARE_BYTES - 1);
        keep(&disk, SPARE_BYTES).expect("there is too little room");
        assert!(!there());
        disk.set_free_space(2 * SPARE_BYTES);
        keep(&disk, 0).expect("without a reserve there is none");
        assert!(!there());
        keep(&disk, SPARE_BYTES).expect("there is room");
        assert!(there() && !release(&disk).expect("it is not full"));
        disk.set_free_space(SPARE_BYTES - 1);
        assert!(release(&disk).expect("it is full") && !there());
        assert!(!release(&disk).expect("nothing is left"));
    }
}
