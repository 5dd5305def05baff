//! What a simulated disk holds: what may be read, what is durable, and what is pending between the two.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::CrashPlan;
use super::pages::Pages;

/// What a disk writes whole or not at all, in bytes.
const SECTOR: usize = 512;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FileNumber(usize);

/// One change, as it is logged.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Create(PathBuf),
    Write(FileNumber, u64, Arc<[u8]>),
    SetLen(FileNumber, u64),
    Sync(FileNumber),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
    CreateDir(PathBuf),
    RemoveDir(PathBuf),
    SyncDir(PathBuf),
    /// A sync that failed.
    SyncLost(Box<Change>),
}

impl Change {
    pub(super) fn is_sync(&self) -> bool {
        matches!(self, Change::Sync(_) | Change::SyncDir(_))
    }
}

#[derive(Clone, Debug)]
pub(super) struct State {
    files: Vec<FileState>,
    folders: BTreeMap<PathBuf, Folder>,
    /// The lengths of the files that have a name.
    bytes: u64,
}

impl Default for State {
    fn default() -> Self {
        State { files: Vec::new(), folders: BTreeMap::from([(PathBuf::new(), Folder::default())]), bytes: 0 }
    }
}

#[derive(Clone, Debug, Default)]
struct FileState {
    content: Pages,
    synced: Pages,
    /// What leads from `synced` to `content`.
    pending: Vec<Edit>,
    named: bool,
}

#[derive(Clone, Debug)]
enum Edit {
    Write(usize, Arc<[u8]>),
    SetLen(usize),
}

#[derive(Clone, Debug, Default)]
struct Folder {
    names: BTreeMap<String, FileNumber>,
    synced: BTreeMap<String, FileNumber>,
    /// What leads from `synced` to `names`.
    pending: Vec<NameEdit>,
    /// Removed, but its parent was not synced since.
    removed: bool,
}

#[derive(Clone, Debug)]
enum NameEdit {
    Set(String, FileNumber),
    Unset(String),
    Move(String, String, FileNumber),
}

impl NameEdit {
    fn apply(&self, names: &mut BTreeMap<String, FileNumber>) {
        match self {
            NameEdit::Set(name, file) => {
                names.insert(name.clone(), *file);
            }
            NameEdit::Unset(name) => {
                names.remove(name);
            }
            NameEdit::Move(from, to, file) => {
                names.remove(from);
                names.insert(to.clone(), *file);
            }
        }
    }
}

impl Edit {
    fn apply(&self, content: &mut Pages) {
        match self {
            Edit::Write(offset, bytes) => content.write(*offset, bytes),
            Edit::SetLen(length) => content.resize(*length),
        }
    }

    /// The length of a file of `length` after the edit.
    fn length_after(&self, length: usize) -> usize {
        match self {
            Edit::Write(offset, bytes) => length.max(offset + bytes.len()),
            Edit::SetLen(length) => *length,
        }
    }

    /// What of the bytes from `start` to `end` the edit changes.
    fn touched(&self, start: usize, end: usize) -> std::ops::Range<usize> {
        let (from, to) = match self {
            Edit::Write(offset, bytes) => (*offset, offset + bytes.len()),
            Edit::SetLen(length) => (*length, usize::MAX),
        };
        from.clamp(start, end)..to.clamp(start, end)
    }

    /// Makes the edit within one sector only.
    fn apply_within(&self, content: &mut Pages, sector: usize) {
        let start = sector * SECTOR;
        let touched = self.touched(start, content.len().min(start + SECTOR));
        match self {
            Edit::Write(offset, bytes) if !touched.is_empty() => {
                let source = touched.start - offset..touched.end - offset;
                content.write(touched.start, &bytes[source]);
            }
            Edit::Write(..) => {}
            Edit::SetLen(_) => content.clear(touched),
        }
    }
}

impl FileState {
    fn edit(&mut self, edit: Edit) {
        edit.apply(&mut self.content);
        self.pending.push(edit);
    }

    fn sync(&mut self) {
        for edit in self.pending.drain(..) {
            edit.apply(&mut self.synced);
        }
    }

    fn after_crash(&self, random: &mut dyn FnMut() -> u64, plan: CrashPlan) -> Pages {
        match plan {
            CrashPlan::Synced => self.synced.clone(),
            CrashPlan::Everything => self.content.clone(),
            CrashPlan::Random => self.torn(random),
        }
    }

    /// Each sector as it was after some of the edits to it, and any of the lengths.
    fn torn(&self, random: &mut dyn FnMut() -> u64) -> Pages {
        let mut lengths = vec![self.synced.len()];
        for edit in &self.pending {
            lengths.push(edit.length_after(lengths[lengths.len() - 1]));
        }
        let mut content = self.synced.clone();
        content.resize(lengths.iter().copied().max().unwrap_or(0));

        let mut edits_of: BTreeMap<usize, Vec<&Edit>> = BTreeMap::new();
        for edit in &self.pending {
            let touched = edit.touched(0, content.len());
            for sector in touched.start / SECTOR..touched.end.div_ceil(SECTOR) {
                edits_of.entry(sector).or_default().push(edit);
            }
        }
        for (sector, edits) in edits_of {
            for edit in &edits[..below(random, edits.len() + 1)] {
                edit.apply_within(&mut content, sector);
            }
        }
        content.resize(lengths[below(random, lengths.len())]);
        content
    }
}

fn below(random: &mut dyn FnMut() -> u64, bound: usize) -> usize {
    // The high bits: those of a generator of little quality are its better ones.
    ((random() >> 32) as usize) % bound
}

impl Folder {
    fn edit(&mut self, edit: NameEdit) {
        edit.apply(&mut self.names);
        self.pending.push(edit);
    }

    fn after_crash(&self, random: &mut dyn FnMut() -> u64, plan: CrashPlan) -> BTreeMap<String, FileNumber> {
        let mut names = self.synced.clone();
        for edit in &self.pending {
            if keeps(random, plan) {
                edit.apply(&mut names);
            }
        }
        names
    }
}

fn keeps(random: &mut dyn FnMut() -> u64, plan: CrashPlan) -> bool {
    match plan {
        CrashPlan::Synced => false,
        CrashPlan::Everything => true,
        CrashPlan::Random => below(random, 2) == 1,
    }
}

impl State {
    pub(super) fn content(&self, file: FileNumber) -> &Pages {
        &self.files[file.0].content
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What [`State::bytes`] would be after `change`, where it grows.
    pub(super) fn bytes_after(&self, change: &Change) -> u64 {
        let grown = |file: &FileNumber, length: u64| {
            let file = &self.files[file.0];
            if file.named { length.saturating_sub(file.content.len() as u64) } else { 0 }
        };
        self.bytes
            + match change {
                Change::Write(file, offset, bytes) => grown(file, offset + bytes.len() as u64),
                Change::SetLen(file, length) => grown(file, *length),
                _ => 0,
            }
    }

    /// The file of that name.
    pub(super) fn file(&self, path: &Path) -> io::Result<FileNumber> {
        let (folder, name) = split(path)?;
        self.folder(folder)?.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(super) fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let files = self.folder(path)?.names.keys().cloned();
        let folders = self.subfolders(path).filter(|(_, folder)| !folder.removed);
        let folders = folders.filter_map(|(path, _)| Some(path.file_name()?.to_str()?.to_owned()));
        Ok(files.chain(folders).collect())
    }

    pub(super) fn damage(&mut self, file: FileNumber, offset: u64) -> io::Result<()> {
        let file = &mut self.files[file.0];
        file.sync();
        let at = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        file.content.flip(at)?;
        file.synced.flip(at)
    }

    pub(super) fn apply(&mut self, change: &Change) -> io::Result<()> {
        match change {
            Change::Create(path) => self.create(path),
            Change::Write(file, offset, bytes) => {
                let offset = usize::try_from(*offset).map_err(|_| io::ErrorKind::FileTooLarge)?;
                self.edit(*file, Edit::Write(offset, Arc::clone(bytes)));
                Ok(())
            }
            Change::SetLen(file, length) => {
                let length = usize::try_from(*length).map_err(|_| io::ErrorKind::FileTooLarge)?;
                self.edit(*file, Edit::SetLen(length));
                Ok(())
            }
            Change::Sync(file) => {
                self.files[file.0].sync();
                Ok(())
            }
            Change::Rename(from, to) => self.rename(from, to),
            Change::Remove(path) => self.remove(path),
            Change::CreateDir(path) => self.create_dir(path),
            Change::RemoveDir(path) => self.remove_dir(path),
            Change::SyncDir(path) => self.sync_dir(path),
            Change::SyncLost(sync) => {
                if let Change::Sync(file) = **sync {
                    self.files[file.0].pending.clear();
                }
                Ok(())
            }
        }
    }

    pub(super) fn after_crash(&self, random: &mut dyn FnMut() -> u64, plan: CrashPlan) -> State {
        let mut after = State::default();
        for file in &self.files {
            let content = file.after_crash(random, plan);
            after.files.push(FileState { synced: content.clone(), content, ..FileState::default() });
        }
        for (path, folder) in &self.folders {
            let removed = folder.removed && keeps(random, plan);
            let parent_lost = path.parent().is_some_and(|parent| !after.folders.contains_key(parent));
            if !removed && !parent_lost {
                let names = folder.after_crash(random, plan);
                after.folders.insert(path.clone(), Folder { synced: names.clone(), names, ..Folder::default() });
            }
        }
        let named: BTreeSet<FileNumber> =
            after.folders.values().flat_map(|folder| folder.names.values().copied()).collect();
        for file in named {
            after.name(file);
        }
        after
    }

    fn create(&mut self, path: &Path) -> io::Result<()> {
        self.check_free(path)?;
        let (folder, name) = split(path)?;
        let number = FileNumber(self.files.len());
        self.folder_mut(folder)?.edit(NameEdit::Set(name.to_owned(), number));
        self.files.push(FileState { named: true, ..FileState::default() });
        Ok(())
    }

    fn edit(&mut self, file: FileNumber, edit: Edit) {
        let file = &mut self.files[file.0];
        let before = file.content.len() as u64;
        file.edit(edit);
        if file.named {
            self.bytes = self.bytes - before + file.content.len() as u64;
        }
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let file = self.file(from)?;
        let (from_folder, from_name) = split(from)?;
        let (to_folder, to_name) = split(to)?;
        if self.live_folder(to).is_some() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let replaced = self.folder(to_folder)?.names.get(to_name).copied();
        if replaced == Some(file) {
            return Ok(());
        }
        if from_folder == to_folder {
            self.folder_mut(to_folder)?.edit(NameEdit::Move(from_name.to_owned(), to_name.to_owned(), file));
        } else {
            self.folder_mut(to_folder)?.edit(NameEdit::Set(to_name.to_owned(), file));
            self.folder_mut(from_folder)?.edit(NameEdit::Unset(from_name.to_owned()));
        }
        if let Some(replaced) = replaced {
            self.unname(replaced);
        }
        Ok(())
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        let file = self.file(path)?;
        let (folder, name) = split(path)?;
        self.folder_mut(folder)?.edit(NameEdit::Unset(name.to_owned()));
        self.unname(file);
        Ok(())
    }

    fn create_dir(&mut self, path: &Path) -> io::Result<()> {
        if self.live_folder(path).is_some() {
            return Ok(());
        }
        let Some(parent) = path.parent() else { return Ok(()) };
        self.create_dir(parent)?;
        self.check_free(path)?;
        self.folders.insert(path.to_owned(), Folder::default());
        Ok(())
    }

    fn remove_dir(&mut self, path: &Path) -> io::Result<()> {
        if !self.list(path)?.is_empty() || path.parent().is_none() {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        self.folder_mut(path)?.removed = true;
        Ok(())
    }

    fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        let folder = self.folder_mut(path)?;
        folder.pending.clear();
        folder.synced = folder.names.clone();
        self.folders.retain(|child, folder| !folder.removed || child.parent() != Some(path));
        Ok(())
    }

    fn check_free(&self, path: &Path) -> io::Result<()> {
        if self.live_folder(path).is_some() || self.file(path).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        Ok(())
    }

    fn name(&mut self, file: FileNumber) {
        let file = &mut self.files[file.0];
        file.named = true;
        self.bytes += file.content.len() as u64;
    }

    fn unname(&mut self, file: FileNumber) {
        let file = &mut self.files[file.0];
        file.named = false;
        self.bytes -= file.content.len() as u64;
    }

    fn live_folder(&self, path: &Path) -> Option<&Folder> {
        self.folders.get(path).filter(|folder| !folder.removed)
    }

    fn folder(&self, path: &Path) -> io::Result<&Folder> {
        self.live_folder(path).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn folder_mut(&mut self, path: &Path) -> io::Result<&mut Folder> {
        self.folders.get_mut(path).filter(|folder| !folder.removed).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn subfolders<'a>(&'a self, path: &'a Path) -> impl Iterator<Item = (&'a PathBuf, &'a Folder)> {
        self.folders.iter().filter(move |(child, _)| child.parent() == Some(path))
    }
}

/// The folder and the name in it.
fn split(path: &Path) -> io::Result<(&Path, &str)> {
    let invalid = || io::Error::new(io::ErrorKind::InvalidInput, "not the path of a file");
    let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(invalid)?;
    Ok((path.parent().ok_or_else(invalid)?, name))
}
