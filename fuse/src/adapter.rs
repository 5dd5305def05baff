//! The kernel's requests, handed to [`Fs`]. A thin wrapper: what it decides is only how the kernel may cache.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::mem::ManuallyDrop;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::task::{Context, Waker};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, BackingId, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, InitFlags, KernelConfig, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyXattr, Request, SessionACL,
};
use tokio::runtime::Handle;

use crate::attributes::{Attributes, Kind};
use crate::error::Error;
use crate::fs::{Found, Fs, Listed, NO_HANDLE, Opened, View};
use crate::inode::{Inode, ROOT};
use crate::metrics::add;
use crate::openings::{Bounds, Openings};

/// How long the kernel may believe what it was told: a snapshot never changes.
const FOR_EVER: Duration = Duration::from_secs(365 * 24 * 3600);
/// How long it may believe that there is no snapshot of a name: not at all.
const NOT_AT_ALL: Duration = Duration::ZERO;
/// The unit of `statfs` and of `st_blocks`.
const BLOCK: u64 = 512;
const STATFS_BLOCK: u32 = 4096;
/// Threads that take the kernel's requests, and answer what is in memory. None of them waits for anything.
const THREADS_MIN: usize = 2;
const THREADS_MAX: usize = 8;
/// How many files stay open that nobody has open: each is an inode and a little more of the kernel's memory. At most a share
/// of those that this process may have open.
const IDLE_FILES_MAX: usize = 16 * 1024;
const IDLE_FILES_SHARE: u64 = 4;
/// How often some of them go.
const IDLE_TURN: Duration = Duration::from_secs(60);
/// Backing files may not be on a stacked file system themselves, so that one may be stacked on the mount.
const STACK_DEPTH: u32 = 1;

/// What a mount is good at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Files of all sizes: passthrough where the kernel has it.
    Files,
    /// Many small files that are read once: no calls to open and close, always through the kernel's cache.
    SmallFiles,
}

/// How files are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The kernel reads bodies that are wholly here by itself.
    Passthrough,
    /// Everything is read through this process and the kernel's cache, because of this.
    Cached(String),
    /// As the profile says.
    SmallFiles,
}

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Mode::Passthrough => f.write_str("passthrough"),
            Mode::Cached(_) => f.write_str("cached"),
            Mode::SmallFiles => f.write_str("small-files"),
        }
    }
}

/// How to mount.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// What stands in the first column of the table of mounts: `bucket@N`.
    pub name: String,
    /// What it is good at.
    pub profile: Profile,
    /// Whether other users may look at it.
    pub allow_other: bool,
    /// Whether set-id bits and devices have their effect.
    pub trust_attributes: bool,
}

/// A mount that answers. It goes on when this is dropped; only the kernel ends it.
pub struct Session {
    /// Never dropped: fuser would unmount whatever is mounted there by then, even if ours has long gone.
    _session: ManuallyDrop<BackgroundSession>,
    /// Closed when the kernel asks nothing any more.
    end: mpsc::Receiver<()>,
    mode: Mode,
}

impl Session {
    /// Mounts `fs` at a directory. Its operations run on `runtime`.
    pub fn mount(fs: Arc<Fs>, runtime: Handle, at: &Path, options: &SessionOptions, trial: &File) -> io::Result<Self> {
        let mut config = Config::default();
        config.mount_options = vec![
            MountOption::RO,
            MountOption::DefaultPermissions,
            MountOption::NoAtime,
            MountOption::FSName(options.name.clone()),
            // Not as `Subtype`, which fuser gives to fusermount3 only.
            MountOption::CUSTOM("subtype=elton".to_owned()),
        ];
        let effects = [(MountOption::Suid, MountOption::NoSuid), (MountOption::Dev, MountOption::NoDev)];
        config.mount_options.extend(effects.map(|(on, off)| if options.trust_attributes { on } else { off }));
        config.acl = if options.allow_other { SessionACL::All } else { SessionACL::Owner };
        config.n_threads = Some(threads());
        config.clone_fd = true;
        let offered = Arc::new(Mutex::new(false));
        let (ends, end) = mpsc::channel();
        let bounds = Bounds { files: idle_files_max(), bytes: fs.idle_bytes_max() };
        let openings = Arc::new(Mutex::new(Openings::new(bounds)));
        let (weak, cache) = (Arc::downgrade(&openings), fs.cache().clone());
        runtime.spawn(async move {
            loop {
                let waited = tokio::time::timeout(IDLE_TURN, cache.wants_room()).await;
                let Some(openings) = weak.upgrade() else { return };
                let mut openings = lock(&openings);
                let gone = if waited.is_ok() { openings.let_go() } else { openings.turn() };
                drop((openings, gone));
            }
        });
        let adapter = Adapter {
            _ends: ends,
            fs,
            runtime,
            profile: options.profile,
            offers_passthrough: offered.clone(),
            openings,
        };
        let session = fuser::Session::new(adapter, at, &config)?;
        let offered = *lock(&offered);
        let mode = match options.profile {
            Profile::SmallFiles => Mode::SmallFiles,
            Profile::Files if !offered => Mode::Cached("this kernel has no passthrough (Linux 6.9 has)".to_owned()),
            // The trial's number lives as long as the mount and is never named.
            Profile::Files => match BackingId::create_raw(&session, trial) {
                Ok(_) => Mode::Passthrough,
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    Mode::Cached("passthrough needs root".to_owned())
                }
                Err(error) => Mode::Cached(format!("the kernel refuses passthrough for the cache directory: {error}")),
            },
        };
        Ok(Session { _session: ManuallyDrop::new(session.spawn()?), end, mode })
    }

    /// How files are read, and why.
    #[must_use]
    pub fn mode(&self) -> &Mode {
        &self.mode
    }

    /// Returns when it was unmounted and nobody uses it any more.
    pub fn join(self) {
        // Nothing is ever sent.
        let _closed = self.end.recv();
    }
}

/// How an open file is read.
enum Reading {
    /// By the kernel, from this file of the cache, which it holds open.
    Passthrough(BackingId),
    /// Through this process; what is open, if all of it is here and any handle may share it.
    Cached(Option<Arc<Opened>>),
}

/// Hands the kernel's requests to a file system.
pub struct Adapter {
    fs: Arc<Fs>,
    runtime: Handle,
    profile: Profile,
    /// Whether the kernel has passthrough.
    offers_passthrough: Arc<Mutex<bool>>,
    openings: Arc<Mutex<Openings<Reading>>>,
    /// Dropped with this.
    _ends: mpsc::Sender<()>,
}

impl Adapter {
    fn attr(found: &Found) -> FileAttr {
        let Found { inode, attributes } = *found;
        let Attributes { kind, permissions, uid, gid, seconds, nanoseconds, size } = attributes;
        let mtime = match u64::try_from(seconds) {
            Ok(seconds) => UNIX_EPOCH.checked_add(Duration::new(seconds, nanoseconds)),
            Err(_) => UNIX_EPOCH
                .checked_sub(Duration::from_secs(seconds.unsigned_abs()))
                .and_then(|time| time.checked_add(Duration::from_nanos(nanoseconds.into()))),
        };
        let mtime = mtime.unwrap_or(UNIX_EPOCH);
        FileAttr {
            ino: INodeNo(inode),
            size,
            blocks: size.div_ceil(BLOCK),
            atime: mtime,
            mtime,
            ctime: mtime,
            crtime: mtime,
            kind: file_type(kind),
            perm: permissions,
            // Of directories, one says that the number of directories in it is not known.
            nlink: 1,
            uid,
            gid,
            rdev: 0,
            blksize: STATFS_BLOCK,
            flags: 0,
        }
    }

    /// Answers a request: here as far as nothing has to be waited for, and the rest as a task. Handing something to another
    /// thread takes longer than most answers.
    fn answer(&self, work: impl Future<Output = ()> + Send + 'static) {
        let mut work = Box::pin(work);
        let _in_the_runtime = self.runtime.enter();
        if work.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            self.runtime.spawn(work);
        }
    }

    fn shows_snapshots(&self, parent: Inode) -> bool {
        parent == ROOT && *self.fs.view() == View::Snapshots
    }
}

fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::File => FileType::RegularFile,
        Kind::Directory => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
        Kind::Fifo => FileType::NamedPipe,
        Kind::Socket => FileType::Socket,
        Kind::CharacterDevice => FileType::CharDevice,
        Kind::BlockDevice => FileType::BlockDevice,
    }
}

fn errno(error: &Error) -> Errno {
    Errno::from_i32(error.errno())
}

impl Filesystem for Adapter {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Each of these makes things faster and is there or not. Listings always bring attributes, which stand beside the
        // names: left to itself (FUSE_READDIRPLUS_AUTO) the kernel asks for those of a large directory one by one.
        for wanted in [
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_CACHE_SYMLINKS,
            InitFlags::FUSE_ASYNC_DIO,
        ] {
            let _is_there = config.add_capabilities(wanted);
        }
        if self.profile == Profile::Files
            && config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_ok()
            && config.set_max_stack_depth(STACK_DEPTH).is_ok()
        {
            *lock(&self.offers_passthrough) = true;
        }
        Ok(())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let (fs, name) = (self.fs.clone(), name.as_bytes().to_vec());
        let absence = if self.shows_snapshots(parent.0) { NOT_AT_ALL } else { FOR_EVER };
        self.answer(async move {
            match fs.look_up(parent.0, &name).await {
                Ok(found) => reply.entry(&FOR_EVER, &Adapter::attr(&found), Generation(0)),
                Err(Error::NotFound) if !absence.is_zero() => {
                    // An entry without a number: the kernel may remember that there is none.
                    let none = Found { inode: 0, attributes: NONE };
                    reply.entry(&absence, &Adapter::attr(&none), Generation(0));
                }
                Err(error) => reply.error(errno(&error)),
            }
        });
    }

    fn forget(&self, _request: &Request, inode: INodeNo, lookups: u64) {
        forget(&self.fs, &self.openings, inode.0, lookups);
    }

    fn getattr(&self, _request: &Request, inode: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        let fs = self.fs.clone();
        self.answer(async move {
            match fs.attributes(inode.0).await {
                Ok(found) => reply.attr(&FOR_EVER, &Adapter::attr(&found)),
                Err(error) => reply.error(errno(&error)),
            }
        });
    }

    fn readlink(&self, _request: &Request, inode: INodeNo, reply: ReplyData) {
        let fs = self.fs.clone();
        self.answer(async move {
            match fs.read_link(inode.0).await {
                Ok(target) => reply.data(&target),
                Err(error) => reply.error(errno(&error)),
            }
        });
    }

    fn open(&self, _request: &Request, inode: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        if self.profile == Profile::SmallFiles {
            // The kernel never asks again, and keeps what it read.
            return reply.error(Errno::ENOSYS);
        }
        let again = lock(&self.openings).open_again(inode.0, |reading| !matches!(reading, Reading::Cached(None)));
        if let Some(reading) = again {
            return opened(&self.fs, &reading, None, reply);
        }
        let (fs, openings) = (self.fs.clone(), self.openings.clone());
        let passthrough = *lock(&self.offers_passthrough);
        self.answer(async move {
            let file = match fs.open_unnumbered(inode.0).await {
                Ok(file) => file,
                Err(error) => return reply.error(errno(&error)),
            };
            let reading = lock(&openings).open(inode.0, || {
                let keeps = file.is_whole().then(|| file.size());
                let backing = file.whole().filter(|_| passthrough).and_then(|whole| {
                    // A kernel that refuses, for whatever reason, reads through us.
                    reply.open_backing(&*whole).inspect_err(|error| tracing::debug!(%error, "no passthrough")).ok()
                });
                let cached = || Reading::Cached(keeps.map(|_| file.clone()));
                (backing.map_or_else(cached, Reading::Passthrough), keeps)
            });
            opened(&fs, &reading, Some(file), reply);
        });
    }

    fn read(
        &self,
        _request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let fs = self.fs.clone();
        self.answer(async move {
            match fs.read(inode.0, handle.0, offset, size.into()).await {
                Ok(bytes) => reply.data(&bytes),
                Err(error) => reply.error(errno(&error)),
            }
        });
    }

    fn release(
        &self,
        _request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        reply.ok();
        let _unused = lock(&self.openings).release(inode.0);
        if let Some(file) = self.fs.close(handle.0).filter(|file| !file.is_whole()) {
            // The last handle of a body that is partly here writes its map.
            self.runtime.spawn_blocking(move || drop(file));
        }
    }

    fn flush(&self, _request: &Request, _inode: INodeNo, _handle: FileHandle, _owner: LockOwner, reply: ReplyEmpty) {
        // Nothing is ever to be flushed: the kernel does not ask again when a file is closed.
        reply.error(Errno::ENOSYS);
    }

    fn opendir(&self, _request: &Request, inode: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let flags = if self.shows_snapshots(inode.0) {
            FopenFlags::empty()
        } else {
            FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE
        };
        reply.opened(FileHandle(self.fs.open_directory(inode.0)), flags);
    }

    fn readdir(&self, _request: &Request, inode: INodeNo, handle: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let fs = self.fs.clone();
        self.answer(async move {
            match fs.list(inode.0, handle.0, offset, false).await {
                Ok(listed) => {
                    for Listed { offset, shown, node, kind, .. } in &listed {
                        if reply.add(INodeNo(fs.number(node)), *offset, file_type(*kind), OsStr::from_bytes(shown)) {
                            break;
                        }
                    }
                    reply.ok();
                }
                Err(error) => reply.error(errno(&error)),
            }
        });
    }

    fn readdirplus(
        &self,
        _request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let (fs, openings) = (self.fs.clone(), self.openings.clone());
        self.answer(async move {
            match fs.list(inode.0, handle.0, offset, true).await {
                Ok(listed) => {
                    for Listed { offset, shown, node, attributes, .. } in listed {
                        let name = OsStr::from_bytes(&shown);
                        // `.` and `..` are not looked up by being listed.
                        let (inode, known) = match attributes {
                            Some(_) => (fs.remember(node), true),
                            None => (fs.number(&node), false),
                        };
                        let found = Found { inode, attributes: attributes.unwrap_or(NONE) };
                        let attr = Adapter::attr(&found);
                        if reply.add(INodeNo(inode), offset, name, &FOR_EVER, &attr, Generation(0)) {
                            if known {
                                forget(&fs, &openings, inode, 1);
                            }
                            break;
                        }
                    }
                    reply.ok();
                }
                Err(error) => reply.error(errno(&error)),
            }
        });
    }

    fn releasedir(
        &self,
        _request: &Request,
        _inode: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.fs.close_directory(handle.0);
        reply.ok();
    }

    fn statfs(&self, _request: &Request, _inode: INodeNo, reply: ReplyStatfs) {
        let statistics = self.fs.statistics();
        let blocks = statistics.bytes.div_ceil(STATFS_BLOCK.into());
        reply.statfs(blocks, 0, 0, statistics.objects, 0, STATFS_BLOCK, 255, STATFS_BLOCK);
    }

    fn getxattr(&self, _request: &Request, inode: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let (fs, name) = (self.fs.clone(), name.as_bytes().to_vec());
        self.answer(async move {
            let found = fs.extended(inode.0).await.and_then(|all| {
                let value = all.into_iter().find(|(known, _)| known.as_bytes() == name).map(|(_, value)| value);
                value.ok_or(Error::NoAttribute)
            });
            answer_extended(found, size, reply);
        });
    }

    fn listxattr(&self, _request: &Request, inode: INodeNo, size: u32, reply: ReplyXattr) {
        let fs = self.fs.clone();
        self.answer(async move {
            let names = fs.extended(inode.0).await;
            let names = names.map(|all| all.into_iter().flat_map(|(name, _)| (name + "\0").into_bytes()).collect());
            answer_extended(names, size, reply);
        });
    }
}

/// Tells the kernel how an open file is read. `file` is what this handle has open, if that is not shared.
fn opened(fs: &Fs, reading: &Reading, file: Option<Arc<Opened>>, reply: ReplyOpen) {
    match reading {
        Reading::Passthrough(backing) => {
            add(&fs.metrics().passthrough, 1);
            // It is never read through us.
            reply.opened_passthrough(FileHandle(NO_HANDLE), FopenFlags::FOPEN_NOFLUSH, backing);
        }
        Reading::Cached(shared) => {
            add(&fs.metrics().cached, 1);
            let handle = file.or_else(|| shared.clone()).map_or(NO_HANDLE, |file| fs.number_handle(file));
            reply.opened(FileHandle(handle), FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH);
        }
    }
}

/// Gives back look-ups of a number.
fn forget(fs: &Fs, openings: &Mutex<Openings<Reading>>, inode: Inode, lookups: u64) {
    // Held until the end, so that nobody opens by its number what was open under it before.
    let mut openings = lock(openings);
    let unused: Vec<_> = fs.forget(inode, lookups).into_iter().filter_map(|inode| openings.forget(inode)).collect();
    drop(openings);
    drop(unused);
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(THREADS_MIN, |cores| cores.get().clamp(THREADS_MIN, THREADS_MAX))
}

fn idle_files_max() -> usize {
    let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let share = most.and_then(|most| usize::try_from(most / IDLE_FILES_SHARE).ok());
    share.unwrap_or(IDLE_FILES_MAX).min(IDLE_FILES_MAX)
}

/// Nothing is left half done where these locks are held.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What stands where there are no attributes.
const NONE: Attributes =
    Attributes { kind: Kind::Directory, permissions: 0, uid: 0, gid: 0, seconds: 0, nanoseconds: 0, size: 0 };

fn answer_extended(value: crate::error::Result<Vec<u8>>, size: u32, reply: ReplyXattr) {
    match value {
        Err(error) => reply.error(errno(&error)),
        Ok(value) if size == 0 => reply.size(u32::try_from(value.len()).unwrap_or(u32::MAX)),
        Ok(value) if value.len() > size as usize => reply.error(Errno::ERANGE),
        Ok(value) => reply.data(&value),
    }
}
