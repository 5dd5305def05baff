//! The file system of mounts, without a kernel: generated buckets and sequences against a reference.
//!
//! Look-ups, listings at offsets, reads at ranges, several at once, forgetting, evictions, restarts and damage of the
//! cache, and a source that is slow, goes away and lies. `ELTON_TEST_MOUNT_SEQUENCES` says how many sequences run.

mod reference;
mod source;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use federation::clock::SystemClock;
use federation::disk::seeded;
use federation::snapshot::{Content, Entry, MemoryPages, PartContent, build};
use federation::types::{BlobHash, BucketId, ETag, Number, ObjectPath, Timestamp};
use fuse::{Cache, Error, Fs, Inode, Kind, Metrics, Options, ROOT, Tree, View};

use self::reference::Node;
use self::source::{Bucket, Manners, Shared};
use super::seeds::on_all_cores;
use super::store::{parameter, seed};

/// Says how many sequences run.
const COUNT: &str = "ELTON_TEST_MOUNT_SEQUENCES";
const SEQUENCES: u64 = 2000;
const STEPS: u64 = 30;
const OBJECTS_MAX: u64 = 24;
const NAMES: [&str; 12] = ["", ".", "..", "a", "b", "a-", "c.txt", "%elton-x", "n\0n", "l", "l.rclonelink", "100%"];
const LENGTHS: [usize; 9] = [0, 1, 300, 65_536, 65_537, 131_072, 200_000, 300_001, 450_000];

/// The tests' numbers.
struct Random(Box<dyn FnMut() -> u64 + Send>);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        (self.0)() % limit
    }

    fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len() as u64) as usize]
    }
}

fn body(index: u64) -> Bytes {
    static ALL: Mutex<BTreeMap<u64, Bytes>> = Mutex::new(BTreeMap::new());
    let make = || {
        let length = LENGTHS[index as usize % LENGTHS.len()];
        (0..length).map(|at| (at % 251 + at / 4096 + index as usize * 7) as u8 | 1).collect()
    };
    ALL.lock().expect("no holder panics").entry(index).or_insert_with(make).clone()
}

fn key(random: &mut Random) -> Vec<u8> {
    let depth = 1 + random.below(3);
    let names: Vec<String> = (0..depth)
        .map(|_| match random.below(40) {
            0 => "long".repeat(75),
            _ => (*random.pick(&NAMES)).to_owned(),
        })
        .collect();
    let key = names.join("/");
    if key.is_empty() { b"a".to_vec() } else { key.into_bytes() }
}

/// A bucket of some objects, whole ones and ones of several parts.
fn bucket(random: &mut Random, manners: Manners) -> (Bucket, BTreeMap<Vec<u8>, Bytes>) {
    let (mut objects, mut entries, mut bodies) = (BTreeMap::new(), BTreeMap::new(), HashMap::new());
    let mut pieces = Vec::new();
    let mut piece = |random: &mut Random| {
        let bytes = body(random.below(18));
        let hash = BlobHash::from(blake3::hash(&bytes));
        bodies.insert(hash, bytes.clone());
        (hash, bytes)
    };
    let count = random.below(OBJECTS_MAX) + if random.below(10) == 0 { 400 } else { 1 };
    for at in 0..count {
        let key = if at < OBJECTS_MAX { key(random) } else { format!("many/{at}").into_bytes() };
        let (bytes, content) = if at < OBJECTS_MAX && random.below(5) == 0 {
            let parts: Vec<_> =
                (0..2 + random.below(3)).map(|_| piece(random)).filter(|part| !part.1.is_empty()).collect();
            pieces.extend(parts.iter().map(|(hash, _)| *hash));
            let content = parts.iter().map(|(hash, bytes)| PartContent { hash: *hash, length: bytes.len() as u64 });
            let content = Content::Parts(content.collect());
            (parts.iter().flat_map(|part| part.1.to_vec()).collect::<Bytes>(), content)
        } else {
            let (hash, bytes) = piece(random);
            pieces.push(hash);
            let content = if bytes.is_empty() { Content::Empty } else { Content::Whole(hash) };
            (bytes, content)
        };
        let entry = Entry {
            size: bytes.len() as u64,
            etag: ETag { md5: [at as u8; 16], parts: None },
            modified: Timestamp(1_770_000_000_000 + at),
            null: true,
            checksum: None,
            content,
            metadata: Vec::new(),
        };
        entries.insert(ObjectPath::try_from(key.as_slice()).expect("a lawful path"), entry);
        objects.insert(key, bytes);
    }
    let mut pages = MemoryPages::default();
    let root = build(&mut pages, entries.into_iter().map(Ok)).expect("entries in order");
    let tree = Tree { bucket: BucketId([7; 16]), number: Number(42), root };
    let (manners, asked) = (Mutex::new(manners), Mutex::default());
    (Bucket { tree, pages, bodies, manners, asked, pieces, hands_over: true }, objects)
}

/// A mount, and what it should show.
struct World<'a> {
    folder: &'a Path,
    bucket: Arc<Bucket>,
    nodes: BTreeMap<Vec<u8>, Node>,
    fs: Fs,
    metrics: Arc<Metrics>,
    /// How long inode numbers are, and how much the cache may hold.
    bits: u32,
    limit: u64,
    /// The numbers that were seen, by path.
    numbers: HashMap<Vec<u8>, Inode>,
    /// Look-ups that were not given back.
    held: Vec<Inode>,
    random: Random,
}

async fn open(folder: &Path, bucket: &Arc<Bucket>, bits: u32, limit: u64) -> (Fs, Arc<Metrics>) {
    let metrics = Arc::new(Metrics::default());
    let ids = Arc::new(federation::ids::SystemIds);
    let cache = Cache::open(folder, limit, Arc::new(SystemClock), ids, metrics.clone()).expect("a cache");
    let view = View::Snapshot(bucket.tree.clone(), Vec::new());
    let options = Options { inode_bits: bits, ..Options::default() };
    let source = Arc::new(Shared(bucket.clone()));
    let fs = Fs::new(source, Arc::new(cache), metrics.clone(), view, options).await.expect("a file system");
    (fs, metrics)
}

impl World<'_> {
    /// Goes to a path. `Ok(None)` if the source did not let us.
    async fn walk(&mut self, path: &[u8]) -> Result<Option<fuse::Found>, String> {
        let (mut at, mut found) = (ROOT, None);
        for name in path.split(|byte| *byte == b'/') {
            match self.fs.look_up(at, name).await {
                Ok(next) => {
                    self.held.push(next.inode);
                    at = next.inode;
                    found = Some(next);
                }
                Err(error) if !error.is_answer() => return self.excused(&error).map(|()| None),
                Err(error) => return Err(format!("{}: {error}", path.escape_ascii())),
            }
        }
        let found = found.ok_or("a path has a name")?;
        if self.bits == 64 {
            let known = *self.numbers.entry(path.to_vec()).or_insert(found.inode);
            expect("the number", path, &found.inode, &known)?;
        }
        Ok(Some(found))
    }

    /// Whether the source's manners explain an error.
    fn excused(&self, error: &Error) -> Result<(), String> {
        let manners = self.bucket.manners.lock().expect("no holder panics");
        let explained = match error {
            Error::TimedOut | Error::Source(_) => manners.away,
            Error::Damaged { .. } | Error::Tree(_) => manners.lies > 0,
            _ => false,
        };
        if explained { Ok(()) } else { Err(format!("{error} without a reason")) }
    }

    async fn look_up(&mut self) -> Result<(), String> {
        let paths: Vec<Vec<u8>> = self.nodes.keys().cloned().collect();
        if paths.is_empty() {
            return Ok(());
        }
        let path = self.random.pick(&paths).clone();
        let Some(found) = self.walk(&path).await? else { return Ok(()) };
        let node = &self.nodes[&path];
        for found in [Ok(found), self.fs.attributes(found.inode).await] {
            let attributes = match found {
                Ok(found) => found.attributes,
                Err(error) => return self.excused(&error),
            };
            let (kind, size) = match node {
                Node::File(body) => (Kind::File, body.len()),
                Node::Link(body) => (Kind::Symlink, body.len()),
                Node::Directory => (Kind::Directory, 0),
            };
            expect("kind and size", &path, &(attributes.kind, attributes.size), &(kind, size as u64))?;
        }
        if let Node::Link(target) = node {
            match self.fs.read_link(found.inode).await {
                Ok(read) => expect("the target", &path, &read, &target.to_vec())?,
                Err(error) => return self.excused(&error),
            }
        }
        // A name that is not shown is not there either.
        let absent = [path.as_slice(), b"?"].concat();
        let (directory, name) = match absent.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (self.walk(&absent[..slash]).await?.map(|found| found.inode), &absent[slash + 1..]),
            None => (Some(ROOT), absent.as_slice()),
        };
        let Some(directory) = directory.filter(|_| name.len() <= 255) else { return Ok(()) };
        match self.fs.look_up(directory, name).await {
            Err(Error::NotFound) => Ok(()),
            Err(error) => self.excused(&error),
            Ok(_) => Err(format!("{} is there", absent.escape_ascii())),
        }
    }

    async fn list(&mut self) -> Result<(), String> {
        let directories: Vec<Vec<u8>> = std::iter::once(Vec::new())
            .chain(self.nodes.iter().filter(|(_, node)| **node == Node::Directory).map(|(path, _)| path.clone()))
            .collect();
        let path = self.random.pick(&directories).clone();
        let inode = if path.is_empty() {
            ROOT
        } else {
            let Some(found) = self.walk(&path).await? else { return Ok(()) };
            found.inode
        };
        let prefix = if path.is_empty() { Vec::new() } else { [path.as_slice(), b"/"].concat() };
        let mut expected: Vec<Vec<u8>> = self
            .nodes
            .keys()
            .filter_map(|shown| shown.strip_prefix(prefix.as_slice()))
            .filter(|name| !name.contains(&b'/') && !name.is_empty())
            .map(<[u8]>::to_vec)
            .collect();
        expected.extend([b".".to_vec(), b"..".to_vec()]);
        expected.sort();
        let handle = self.fs.open_directory(inode);
        let listed = self.list_all(inode, handle).await;
        let checked = match listed {
            Ok(listed) => self.check_list(inode, handle, &path, listed, expected).await,
            Err(error) => self.excused(&error),
        };
        self.fs.close_directory(handle);
        checked
    }

    async fn list_all(&mut self, inode: Inode, handle: u64) -> Result<Vec<(u64, Vec<u8>)>, Error> {
        let (mut all, mut offset) = (Vec::new(), 0);
        loop {
            let plus = self.random.below(2) == 0;
            let listed = self.fs.list(inode, handle, offset, plus).await?;
            // The kernel's buffer is full when it likes.
            let taken = 1 + self.random.below(listed.len().max(1) as u64) as usize;
            let Some(last) = listed.iter().take(taken).next_back() else { return Ok(all) };
            offset = last.offset;
            all.extend(listed.into_iter().take(taken).map(|listed| (listed.offset, listed.shown)));
        }
    }

    async fn check_list(
        &mut self,
        inode: Inode,
        handle: u64,
        path: &[u8],
        listed: Vec<(u64, Vec<u8>)>,
        expected: Vec<Vec<u8>>,
    ) -> Result<(), String> {
        let mut names: Vec<Vec<u8>> = listed.iter().map(|(_, name)| name.clone()).collect();
        names.sort();
        expect("the listing", path, &names, &expected)?;
        // Behind each offset stands the same, for this handle and for one that was never there.
        let at = self.random.below(listed.len() as u64) as usize;
        let fresh = self.fs.open_directory(inode);
        for handle in [handle, fresh] {
            match self.fs.list(inode, handle, listed[at].0, false).await {
                Ok(rest) => {
                    let next = rest.first().map(|next| &next.shown);
                    expect("what follows an offset", path, &next, &listed.get(at + 1).map(|(_, name)| name))?;
                }
                Err(error) => self.excused(&error)?,
            }
        }
        self.fs.close_directory(fresh);
        Ok(())
    }

    async fn read(&mut self) -> Result<(), String> {
        let files = self.nodes.iter().filter_map(|(path, node)| match node {
            Node::File(body) => Some((path.clone(), body.clone())),
            Node::Link(_) | Node::Directory => None,
        });
        let files: Vec<(Vec<u8>, Bytes)> = files.collect();
        if files.is_empty() {
            return Ok(());
        }
        let (path, body) = self.random.pick(&files).clone();
        let Some(found) = self.walk(&path).await? else { return Ok(()) };
        let handle = match self.random.below(2) {
            0 => 0,
            _ => match self.fs.open(found.inode).await {
                Ok((handle, _)) => handle,
                Err(error) => return self.excused(&error),
            },
        };
        let size = body.len() as u64;
        let ranges: Vec<(u64, u64, u64)> = (0..1 + self.random.below(4))
            .map(|_| (self.random.below(size + 10), self.random.below(200_000), self.random.below(5)))
            .collect();
        let reads = ranges.iter().map(|(offset, length, turns)| {
            let fs = &self.fs;
            async move {
                for _ in 0..*turns {
                    tokio::task::yield_now().await;
                }
                fs.read(found.inode, handle, *offset, *length).await
            }
        });
        let reads = futures_util::future::join_all(reads).await;
        self.fs.close(handle);
        for ((offset, length, _), read) in ranges.iter().zip(reads) {
            let expected = body.slice((*offset).min(size) as usize..(offset + length).min(size) as usize);
            match read {
                Ok(bytes) if bytes == expected => {}
                Ok(_) => return Err(format!("{} has other bytes at {offset}+{length}", path.escape_ascii())),
                Err(error) => self.excused(&error)?,
            }
        }
        Ok(())
    }

    fn forget(&mut self) {
        let count = self.random.below(self.held.len() as u64 + 1);
        for _ in 0..count {
            let at = self.random.below(self.held.len() as u64) as usize;
            self.fs.forget(self.held.swap_remove(at), 1);
        }
        if self.held.is_empty() {
            assert_eq!(self.fs.inodes_in_use(), 1, "what is forgotten goes");
        }
    }

    /// Ends the mount, perhaps damages or empties its cache, and mounts again.
    async fn restart(&mut self) -> Result<(), String> {
        let harm = self.random.below(4);
        // What is still fetched ahead ends first, so that its files are closed.
        let (fs, _) = open(&self.folder.join("none"), &self.bucket, self.bits, self.limit).await;
        drop(std::mem::replace(&mut self.fs, fs));
        // Time only goes on when nobody has anything to do.
        tokio::time::sleep(std::time::Duration::from_secs(600)).await;
        for folder in ["bodies", "parts"] {
            for file in files(&self.folder.join("cache").join(folder)) {
                match harm {
                    0 => std::fs::remove_file(&file).expect("removed"),
                    1 => self.damage(&file),
                    _ => {}
                }
            }
        }
        let away = std::mem::take(&mut self.bucket.manners.lock().expect("no holder panics").away);
        let (fs, metrics) = open(&self.folder.join("cache"), &self.bucket, self.bits, self.limit).await;
        (self.fs, self.metrics) = (fs, metrics);
        self.bucket.manners.lock().expect("no holder panics").away = away;
        self.held.clear();
        Ok(())
    }

    fn damage(&mut self, file: &Path) {
        let mut bytes = std::fs::read(file).expect("readable");
        if bytes.is_empty() {
            return;
        }
        let at = self.random.below(bytes.len() as u64) as usize;
        bytes[at] ^= 1;
        std::fs::write(file, bytes).expect("written");
        // As after a boot: what was checked before counts no more.
        let file = std::fs::File::options().write(true).open(file).expect("there");
        file.set_modified(std::time::UNIX_EPOCH).expect("set");
    }

    fn change_manners(&mut self) {
        let (away, lies) = (self.random.below(4) == 0, if self.random.below(3) == 0 { 4 } else { 0 });
        let mut manners = self.bucket.manners.lock().expect("no holder panics");
        (manners.away, manners.lies) = (away, lies);
    }
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.map(|entry| entry.expect("readable").path());
    let mut found: Vec<_> = paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect();
    found.sort();
    found
}

fn expect<T: PartialEq + std::fmt::Debug>(what: &str, path: &[u8], found: &T, expected: &T) -> Result<(), String> {
    if found == expected {
        return Ok(());
    }
    Err(format!("{what} of {}: {found:?} instead of {expected:?}", path.escape_ascii()))
}

async fn run(seed: u64, folder: &Path) -> Result<(), String> {
    let mut random = Random(Box::new(seeded(seed)));
    let manners = Manners { random: Box::new(seeded(!seed)), away: false, lies: 0 };
    let (bucket, objects) = bucket(&mut random, manners);
    let bucket = Arc::new(bucket);
    let nodes = reference::shown(&objects);
    let (bits, limit) = (*random.pick(&[64, 64, 10]), *random.pick(&[1 << 30, 400_000]));
    let (fs, metrics) = open(&folder.join("cache"), &bucket, bits, limit).await;
    let (numbers, held) = (HashMap::new(), Vec::new());
    let mut world = World { folder, bucket, nodes, fs, metrics, bits, limit, numbers, held, random };
    for _ in 0..STEPS {
        match world.random.below(20) {
            0..5 => world.look_up().await?,
            5..8 => world.list().await?,
            8..15 => world.read().await?,
            15 | 16 => world.forget(),
            17 => world.restart().await?,
            _ => world.change_manners(),
        }
    }
    let counters = world.metrics.counters();
    if counters.misses + counters.hits == 0 && counters.body_bytes > 0 {
        return Err("bytes were fetched that nobody missed".to_owned());
    }
    Ok(())
}

/// Several mounts with one cache read the same cold files at the same time: nothing is asked for twice.
async fn run_together(seed: u64, folder: &Path) -> Result<(), String> {
    let mut random = Random(Box::new(seeded(seed)));
    let manners = Manners { random: Box::new(seeded(!seed)), away: false, lies: 0 };
    let (mut bucket, objects) = bucket(&mut random, manners);
    bucket.hands_over = false;
    let (bucket, nodes) = (Arc::new(bucket), reference::shown(&objects));
    let mut worlds = Vec::new();
    for _ in 0..2 + random.below(2) {
        let (fs, metrics) = open(folder, &bucket, 64, 1 << 30).await;
        let (nodes, random) = (nodes.clone(), Random(Box::new(seeded(random.below(u64::MAX)))));
        let (numbers, held, bucket) = (HashMap::new(), Vec::new(), bucket.clone());
        worlds.push(World { folder, bucket, nodes, fs, metrics, bits: 64, limit: 1 << 30, numbers, held, random });
    }
    for _ in 0..STEPS / 3 {
        let reads = worlds.iter_mut().map(World::read);
        futures_util::future::try_join_all(reads).await?;
    }
    // The same content may stand in several files, and of those that have parts each is kept for itself.
    let mut kept: HashMap<BlobHash, u64> = HashMap::new();
    for hash in bucket.pieces.iter() {
        *kept.entry(*hash).or_default() += 1;
    }
    for ((hash, group), times) in bucket.asked.lock().expect("no holder panics").iter() {
        if *times > kept[hash] {
            return Err(format!("group {group} of {hash} was asked for {times} times"));
        }
    }
    Ok(())
}

/// Runs sequences, or one in `share` of them, from the seed on.
fn run_all(share: u64, run: impl AsyncFn(u64, &Path) -> Result<(), String> + Sync) {
    let (first, sequences) = (seed(), parameter(COUNT, SEQUENCES).div_ceil(share));
    println!("{sequences} sequences from ELTON_TEST_SEED={first}");
    on_all_cores(first, sequences, COUNT, |seed| {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build().expect("a runtime");
        runtime.block_on(run(seed, folder.path())).map(|()| 1)
    });
}

#[test]
fn a_mount_shows_what_the_bucket_has() {
    run_all(1, run);
}

#[test]
fn mounts_of_a_host_fetch_what_is_cold_once() {
    run_all(4, run_together);
}
