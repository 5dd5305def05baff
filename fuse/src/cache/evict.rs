//! Keeping the cache below its limit.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::{is_named, missing_is_none};

/// Something that could go.
struct Candidate {
    path: PathBuf,
    bytes: u64,
    /// When it was opened last, in nanoseconds.
    used: i128,
}

/// How long the eviction of another mount is waited for by who needs it.
const TURN_TIME_MAX: Duration = Duration::from_secs(2);

/// Removes what was opened longest ago and nobody has open, until at most `limit` bytes are left. Returns how many bodies
/// went. One process does so at a time; the others leave it to that one.
pub(super) fn evict(folder: &Path, limit: u64) -> io::Result<u64> {
    match turn(folder)? {
        Some(_turn) => evict_in_turn(folder, |_| limit),
        None => Ok(0),
    }
}

/// Removes one half of what is there, or all of it, except what somebody has open: because the disk is full.
pub(super) fn give_back(folder: &Path, all: bool) -> io::Result<u64> {
    let until = Instant::now() + TURN_TIME_MAX;
    loop {
        if let Some(_turn) = turn(folder)? {
            return evict_in_turn(folder, |total| if all { 0 } else { total / 2 });
        }
        if Instant::now() >= until {
            return Ok(0);
        }
        thread::sleep(Duration::from_millis(5));
    }
}

fn turn(folder: &Path) -> io::Result<Option<File>> {
    let turn = File::create(folder.join("evict.lock"))?;
    match turn.try_lock() {
        Ok(()) => Ok(Some(turn)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn evict_in_turn(folder: &Path, limit_of: impl Fn(u64) -> u64) -> io::Result<u64> {
    let (mut candidates, mut total) = (Vec::new(), 0_u64);
    for part in fs::read_dir(folder.join("bodies"))? {
        collect(&part?.path(), &mut candidates, &mut total)?;
    }
    collect(&folder.join("parts"), &mut candidates, &mut total)?;
    collect(&folder.join("unfinished"), &mut candidates, &mut total)?;
    candidates.sort_by_key(|candidate| candidate.used);
    let (mut evicted, limit) = (0, limit_of(total));
    for Candidate { path, bytes, .. } in candidates {
        if total <= limit {
            break;
        }
        if remove(&path)? {
            total = total.saturating_sub(bytes);
            evicted += 1;
        }
    }
    Ok(evicted)
}

fn collect(folder: &Path, candidates: &mut Vec<Candidate>, total: &mut u64) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        // Others remove and rename here, too.
        let Some(metadata) = missing_is_none(entry.metadata())?.filter(fs::Metadata::is_file) else { continue };
        let bytes = metadata.blocks() * 512;
        *total += bytes;
        let path = entry.path();
        // Map and trees go with their body.
        if path.extension().is_none_or(|extension| extension == "data") {
            let used = i128::from(metadata.atime()) * 1_000_000_000 + i128::from(metadata.atime_nsec());
            candidates.push(Candidate { path, bytes, used });
        }
    }
    Ok(())
}

/// Removes a file unless somebody has it open.
fn remove(path: &Path) -> io::Result<bool> {
    let Some(file) = missing_is_none(File::open(path))? else { return Ok(true) };
    // Until it was locked it may have got another name, and its name another file.
    if file.try_lock().is_err() || !is_named(path, &file)? {
        return Ok(false);
    }
    if path.extension().is_some() {
        for companion in ["map", "trees"] {
            missing_is_none(fs::remove_file(path.with_extension(companion)))?;
        }
    }
    missing_is_none(fs::remove_file(path))?;
    Ok(true)
}
