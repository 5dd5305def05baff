//! Keeping the cache below its limit.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::{is_named, missing_is_none};

/// Something that could go.
struct Candidate {
    path: PathBuf,
    bytes: u64,
    /// When it was opened last, in nanoseconds.
    used: i128,
}

/// Removes what was opened longest ago and nobody has open, until at most `limit` bytes are left. Returns how many bodies
/// went. One process does so at a time; the others leave it to that one.
pub(super) fn evict(folder: &Path, limit: u64) -> io::Result<u64> {
    let turn = File::create(folder.join("evict.lock"))?;
    if turn.try_lock().is_err() {
        return Ok(0);
    }
    let (mut candidates, mut total) = (Vec::new(), 0_u64);
    for part in fs::read_dir(folder.join("bodies"))? {
        collect(&part?.path(), &mut candidates, &mut total)?;
    }
    collect(&folder.join("parts"), &mut candidates, &mut total)?;
    collect(&folder.join("unfinished"), &mut candidates, &mut total)?;
    candidates.sort_by_key(|candidate| candidate.used);
    let mut evicted = 0;
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
    missing_is_none(fs::remove_file(path))?;
    if path.extension().is_some() {
        for companion in ["map", "trees"] {
            missing_is_none(fs::remove_file(path.with_extension(companion)))?;
        }
    }
    Ok(true)
}
