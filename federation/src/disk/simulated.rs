//! A disk in memory that can lose its power at any operation.
//!
//! The model is as hostile as POSIX allows and a little more: what was not synced is kept or lost sector by
//! sector, each sector as it was after any of the writes to it; a file's length is any that it had since its last sync;
//! each name is kept or lost for itself. Every operation that changes something is logged, so a crash can
//! be made at any earlier one as well.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Disk, DiskFile};

mod pages;
mod state;

use state::{Change, FileNumber, State};

/// What a disk has free unless told otherwise, in bytes.
const FREE_BYTES: u64 = 1 << 40;

/// What a crash leaves of that which was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrashPlan {
    /// Nothing: only what was synced survives.
    Synced,
    /// All of it: the process died and the machine stayed up.
    Everything,
    /// Any of it: each sector, each length and each name is kept or lost for itself.
    Random,
}

/// A disk in memory that can lose its power. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct SimulatedDisk(Arc<Mutex<Machine>>);

#[derive(Debug)]
struct Machine {
    /// What the disk held when it was made.
    base: State,
    /// What was done to it since.
    log: Vec<Change>,
    /// What it holds now.
    state: State,
    off: bool,
    free: u64,
    /// How many more changes succeed.
    healthy_ops: Option<u64>,
    failing_syncs: bool,
}

impl Default for Machine {
    fn default() -> Self {
        Machine::new(State::default(), FREE_BYTES)
    }
}

impl Machine {
    fn new(state: State, free: u64) -> Machine {
        Machine {
            base: state.clone(),
            log: Vec::new(),
            state,
            off: false,
            free,
            healthy_ops: None,
            failing_syncs: false,
        }
    }

    fn check_power(&self) -> io::Result<()> {
        if self.off { Err(io::Error::other("power is off")) } else { Ok(()) }
    }

    /// Makes one change, if the disk is in the mood for it.
    fn change(&mut self, change: Change) -> io::Result<()> {
        self.check_power()?;
        match &mut self.healthy_ops {
            Some(0) => return Err(io::Error::other("the disk failed, as it was told to")),
            Some(ops) => *ops -= 1,
            None => {}
        }
        if self.failing_syncs && change.is_sync() {
            // A failed sync leaves pages that look clean and are not on the disk.
            let lost = Change::SyncLost(Box::new(change));
            self.state.apply(&lost)?;
            self.log.push(lost);
            return Err(io::Error::other("the sync failed, as it was told to"));
        }
        let before = self.state.bytes();
        if self.state.bytes_after(&change).saturating_sub(before) > self.free {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.state.apply(&change)?;
        self.free = (self.free + before).saturating_sub(self.state.bytes());
        self.log.push(change);
        Ok(())
    }
}

impl SimulatedDisk {
    /// An empty disk with 1 TiB free.
    #[must_use]
    pub fn new() -> SimulatedDisk {
        SimulatedDisk::default()
    }

    /// How many changes were made: creations, writes, lengths, names and syncs, not reads.
    #[must_use]
    pub fn ops(&self) -> usize {
        self.machine().log.len()
    }

    /// Cuts the power: every further operation on this disk fails, and the returned disk has what is left.
    #[must_use]
    pub fn crash(&self, random: &mut dyn FnMut() -> u64, plan: CrashPlan) -> SimulatedDisk {
        let mut machine = self.machine();
        machine.off = true;
        SimulatedDisk::with(machine.state.after_crash(random, plan), machine.free)
    }

    /// What a crash would have left had it come after the first `ops` changes. This disk goes on as it was.
    #[must_use]
    pub fn crash_at(&self, ops: usize, random: &mut dyn FnMut() -> u64, plan: CrashPlan) -> SimulatedDisk {
        let machine = self.machine();
        let mut state = machine.base.clone();
        for change in machine.log.iter().take(ops) {
            state.apply(change).expect("a change that was made once can be made again on the same state");
        }
        SimulatedDisk::with(state.after_crash(random, plan), machine.free)
    }

    /// Forgets the log, so that long runs stay small: earlier operations can no longer be crashed at.
    pub fn forget_ops(&self) {
        let mut machine = self.machine();
        machine.base = machine.state.clone();
        machine.log.clear();
    }

    /// Lets files grow by `bytes` in all from now on; what files shrink by or are removed comes on top.
    pub fn set_free_space(&self, bytes: u64) {
        self.machine().free = bytes;
    }

    /// Lets every change fail after `ops` further ones; `None` heals the disk.
    pub fn fail_after(&self, ops: Option<u64>) {
        self.machine().healthy_ops = ops;
    }

    /// Lets syncs fail. What a failed sync was for may still be read but is never durable, whatever syncs come later.
    pub fn fail_syncs(&self, failing: bool) {
        self.machine().failing_syncs = failing;
    }

    /// Changes a byte of a file behind everybody's back, on the disk and in memory: bit rot.
    pub fn damage(&self, path: &Path, offset: u64) -> io::Result<()> {
        let path = place(path)?;
        let mut machine = self.machine();
        let file = machine.state.file(&path)?;
        machine.state.damage(file, offset)
    }

    fn with(state: State, free: u64) -> SimulatedDisk {
        SimulatedDisk(Arc::new(Mutex::new(Machine::new(state, free))))
    }

    fn machine(&self) -> MutexGuard<'_, Machine> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handle(&self, number: FileNumber, writable: bool) -> Arc<dyn DiskFile> {
        Arc::new(SimulatedFile { disk: self.clone(), number, writable })
    }
}

/// The path without its dots.
fn place(path: &Path) -> io::Result<PathBuf> {
    path.components()
        .filter(|component| !matches!(component, Component::CurDir))
        .map(|component| match component {
            Component::Normal(_) => Ok(component),
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "a path on a disk is relative and stays within it")),
        })
        .collect()
}

impl Disk for SimulatedDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let path = place(path)?;
        let mut machine = self.machine();
        machine.change(Change::Create(path.clone()))?;
        let number = machine.state.file(&path)?;
        Ok(self.handle(number, true))
    }

    fn open(&self, path: &Path, writable: bool) -> io::Result<Arc<dyn DiskFile>> {
        let machine = self.machine();
        machine.check_power()?;
        let number = machine.state.file(&place(path)?)?;
        Ok(self.handle(number, writable))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.machine().change(Change::Rename(place(from)?, place(to)?))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.machine().change(Change::Remove(place(path)?))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.machine().change(Change::CreateDir(place(path)?))
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.machine().change(Change::RemoveDir(place(path)?))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let machine = self.machine();
        machine.check_power()?;
        machine.state.list(&place(path)?)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.machine().change(Change::SyncDir(place(path)?))
    }

    fn free_space(&self) -> io::Result<u64> {
        let machine = self.machine();
        machine.check_power()?;
        Ok(machine.free)
    }
}

#[derive(Debug)]
struct SimulatedFile {
    disk: SimulatedDisk,
    number: FileNumber,
    writable: bool,
}

impl SimulatedFile {
    fn change(&self, change: Change) -> io::Result<()> {
        if !self.writable {
            return Err(io::Error::from(io::ErrorKind::PermissionDenied));
        }
        self.disk.machine().change(change)
    }
}

impl DiskFile for SimulatedFile {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let machine = self.disk.machine();
        machine.check_power()?;
        machine.state.content(self.number).read(bytes, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.change(Change::Write(self.number, offset, bytes.into()))
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.change(Change::SetLen(self.number, length))
    }

    fn len(&self) -> io::Result<u64> {
        let machine = self.disk.machine();
        machine.check_power()?;
        Ok(machine.state.content(self.number).len() as u64)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.machine().change(Change::Sync(self.number))
    }

    fn descriptor(&self) -> io::Result<Option<OwnedFd>> {
        Ok(None)
    }
}

/// Numbers that look random, the same ones for the same seed (splitmix64): for [`SimulatedDisk::crash`].
pub fn seeded(mut seed: u64) -> impl FnMut() -> u64 {
    move || {
        seed = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::disk::conformance;

    fn p(path: &str) -> &Path {
        Path::new(path)
    }

    fn read(disk: &dyn Disk, path: &str) -> Option<Vec<u8>> {
        let file = disk.open(p(path), false).ok()?;
        let mut bytes = vec![0; file.len().expect("open") as usize];
        file.read_at(&mut bytes, 0).expect("within the file");
        Some(bytes)
    }

    #[test]
    fn conforms() {
        conformance::run(&SimulatedDisk::new());
    }

    #[test]
    fn a_disk_after_a_crash_conforms() {
        conformance::run(&SimulatedDisk::new().crash(&mut seeded(1), CrashPlan::Random));
    }

    #[test]
    fn what_was_synced_survives_and_nothing_else_must() {
        let disk = SimulatedDisk::new();
        let file = disk.create(p("a")).expect("created");
        file.write_at(b"kept", 0).expect("written");
        file.sync_data().expect("synced");
        disk.sync_dir(p("")).expect("synced");
        file.write_at(b"lost", 0).expect("written");
        disk.create(p("b")).expect("created");

        let after = disk.crash(&mut seeded(0), CrashPlan::Synced);
        assert_eq!(read(&after, "a").as_deref(), Some(&b"kept"[..]));
        assert_eq!(read(&after, "b"), None);
        assert_eq!(file.read_at(&mut [0], 0).expect_err("off").to_string(), "power is off");
        assert!(disk.list(p("")).is_err());
        assert!(disk.sync_dir(p("")).is_err());
    }

    #[test]
    fn a_killed_process_loses_nothing() {
        let disk = SimulatedDisk::new();
        disk.create(p("a")).expect("created").write_at(b"kept", 0).expect("written");
        let after = disk.crash(&mut seeded(0), CrashPlan::Everything);
        assert_eq!(read(&after, "a").as_deref(), Some(&b"kept"[..]));
    }

    #[test]
    fn random_crashes_tear_reorder_and_drop() {
        let disk = SimulatedDisk::new();
        let file = disk.create(p("a")).expect("created");
        disk.sync_dir(p("")).expect("synced");
        file.write_at(&[1; 1024], 0).expect("written");
        file.sync_data().expect("synced");
        file.write_at(&[2; 1024], 0).expect("written");
        file.write_at(&[3; 1024], 512).expect("written");
        let mut outcomes = BTreeSet::new();
        for seed in 0..300 {
            let bytes = read(&disk.crash_at(disk.ops(), &mut seeded(seed), CrashPlan::Random), "a")
                .expect("its name was synced");
            assert!(bytes.len() == 1024 || bytes.len() == 1536);
            let sectors: Vec<u8> = bytes
                .chunks(512)
                .map(|sector| {
                    assert!(sector.iter().all(|byte| *byte == sector[0]), "a sector is never torn");
                    sector[0]
                })
                .collect();
            assert!([1, 2].contains(&sectors[0]));
            assert!([1, 2, 3].contains(&sectors[1]));
            outcomes.insert(sectors);
        }
        // Two of the first sector, three of the second, and of the third none, zeros or what was written.
        assert_eq!(outcomes.len(), 2 * 3 * 3);
    }

    #[test]
    fn names_are_kept_or_lost_for_themselves() {
        let disk = SimulatedDisk::new();
        disk.create(p("old")).expect("created");
        disk.sync_dir(p("")).expect("synced");
        disk.create(p("new")).expect("created");
        disk.rename(p("old"), p("renamed")).expect("renamed");
        let mut outcomes = BTreeSet::new();
        for seed in 0..100 {
            let mut names =
                disk.crash_at(disk.ops(), &mut seeded(seed), CrashPlan::Random).list(p("")).expect("listed");
            names.sort();
            outcomes.insert(names.join(" "));
        }
        assert_eq!(outcomes.into_iter().collect::<Vec<_>>(), ["new old", "new renamed", "old", "renamed"]);
    }

    #[test]
    fn a_crash_can_be_made_at_any_earlier_operation() {
        let disk = SimulatedDisk::new();
        let file = disk.create(p("a")).expect("created");
        disk.sync_dir(p("")).expect("synced");
        for round in 1..=3_u8 {
            file.write_at(&[round], 0).expect("written");
            file.sync_data().expect("synced");
        }
        assert_eq!(disk.ops(), 8);
        let kept: Vec<_> =
            (0..=8).map(|ops| read(&disk.crash_at(ops, &mut seeded(9), CrashPlan::Synced), "a")).collect();
        let some = |bytes: &[u8]| Some(bytes.to_vec());
        assert_eq!(
            kept,
            [None, None, some(&[]), some(&[]), some(&[1]), some(&[1]), some(&[2]), some(&[2]), some(&[3])]
        );
        assert!(file.write_at(&[4], 0).is_ok(), "the disk itself goes on");
    }

    #[test]
    fn a_failed_sync_is_never_made_good_by_a_later_one() {
        let disk = SimulatedDisk::new();
        let file = disk.create(p("a")).expect("created");
        disk.sync_dir(p("")).expect("synced");
        file.write_at(&[1; 512], 0).expect("written");
        disk.fail_syncs(true);
        assert!(file.sync_data().is_err());
        disk.fail_syncs(false);
        file.write_at(&[2; 512], 512).expect("written");
        file.sync_data().expect("synced");
        assert_eq!(read(&disk, "a").expect("there")[0], 1, "the page still shows it");
        let after = disk.crash(&mut seeded(0), CrashPlan::Synced);
        assert_eq!(read(&after, "a").expect("there"), [[0; 512], [2; 512]].concat());
    }

    #[test]
    fn space_runs_out_and_comes_back() {
        let disk = SimulatedDisk::new();
        disk.set_free_space(1000);
        let file = disk.create(p("a")).expect("created");
        file.write_at(&[1; 1000], 0).expect("written");
        assert_eq!(disk.free_space().expect("on"), 0);
        assert_eq!(file.write_at(&[1], 1000).expect_err("full").kind(), io::ErrorKind::StorageFull);
        file.write_at(&[2; 1000], 0).expect("no growth");
        disk.remove(p("a")).expect("removed");
        drop(file);
        assert_eq!(disk.free_space().expect("on"), 1000);
    }

    #[test]
    fn operations_fail_when_told_to() {
        let disk = SimulatedDisk::new();
        disk.fail_after(Some(1));
        let file = disk.create(p("a")).expect("the one that works");
        assert!(file.write_at(&[1], 0).is_err());
        assert!(file.sync_data().is_err());
        disk.fail_after(None);
        file.write_at(&[1], 0).expect("healed");
    }
}
