//! Inode numbers: the same for the same path of a bucket, in every mount of it.
//!
//! A number is 64 bits of a hash that is chained along the path, so it needs no table that outlives the mount. Two paths
//! that are in use and get the same number are told apart: the later one gets the next of its own. In a directory of a
//! million files that happens once in forty million mounts.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use federation::mutant::{self, Mutant};

/// A file's number, as `stat` shows it and as the kernel names it.
pub type Inode = u64;

/// The number of what is mounted.
pub const ROOT: Inode = 1;

/// What a number stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The directory that it is in.
    pub parent: Inode,
    /// What it is there.
    pub place: Place,
}

/// What something is in its directory.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// What is mounted.
    Root,
    /// A snapshot, in the directory of snapshots, by what it is called there.
    Snapshot(Box<[u8]>),
    /// An object of this name.
    Object(Box<[u8]>),
    /// A directory of this name.
    Directory(Box<[u8]>),
}

impl Place {
    fn tag(&self) -> u8 {
        match self {
            Place::Root => 0,
            Place::Snapshot(_) => 1,
            Place::Object(_) => 2,
            Place::Directory(_) => 3,
        }
    }

    fn hash(&self, hasher: &mut blake3::Hasher) {
        hasher.update(&[self.tag()]);
        match self {
            Place::Root => {}
            Place::Snapshot(name) | Place::Object(name) | Place::Directory(name) => {
                hasher.update(name);
            }
        }
    }
}

struct Held {
    node: Node,
    /// How often the kernel was told of it, and how many nodes here lie in it.
    lookups: u64,
    children: u32,
}

/// The numbers in use.
pub struct InodeTable {
    /// A tree and no hash map: the kernel may know millions, and a map of them stands twice in memory when it grows.
    nodes: BTreeMap<Inode, Held>,
    /// What the root's number would be were it not 1: the bucket, and the path of what is mounted of it.
    seed: Inode,
    /// How many bits numbers have: 64, in tests fewer.
    mask: u64,
}

impl InodeTable {
    /// The table of a mount. `seed` says of which bucket and which directory of it, `bits` how long numbers are.
    #[must_use]
    pub fn new(seed: &[u8], bits: u32) -> InodeTable {
        let mask = u64::MAX >> (64 - bits.clamp(2, 64));
        let mut hasher = blake3::Hasher::new_derive_key("elton 2026 eltonfs inode numbers");
        hasher.update(seed);
        let root = Held { node: Node { parent: ROOT, place: Place::Root }, lookups: 1, children: 0 };
        InodeTable { nodes: BTreeMap::from([(ROOT, root)]), seed: first_bits(&hasher), mask }
    }

    /// What a number stands for.
    #[must_use]
    pub fn get(&self, inode: Inode) -> Option<&Node> {
        self.nodes.get(&inode).map(|held| &held.node)
    }

    /// How many numbers are in use.
    #[must_use]
    pub fn in_use(&self) -> usize {
        self.nodes.len()
    }

    /// The number of something that the kernel is told of now.
    pub fn look_up(&mut self, node: Node) -> Inode {
        let inode = self.assign(&node);
        if let Some(held) = self.nodes.get_mut(&inode) {
            held.lookups += 1;
        }
        inode
    }

    /// The number of something that only its name and number is shown of. It is not kept.
    #[must_use]
    pub fn number(&self, node: &Node) -> Inode {
        let mut turn = 0;
        loop {
            let inode = self.candidate(node, turn);
            match self.nodes.get(&inode) {
                Some(held) if held.node != *node => turn += 1,
                _ => return inode,
            }
        }
    }

    /// The kernel forgets so many of the times it was told of a number. Returns the numbers that are not in use any more:
    /// from now on they may stand for something else.
    pub fn forget(&mut self, inode: Inode, lookups: u64) -> Vec<Inode> {
        let Some(held) = self.nodes.get_mut(&inode) else { return Vec::new() };
        held.lookups = held.lookups.saturating_sub(lookups);
        self.remove_unused(inode)
    }

    /// What lies between what is mounted and a number, the highest first.
    #[must_use]
    pub fn ancestry(&self, inode: Inode) -> Option<Vec<Place>> {
        let (mut places, mut at) = (Vec::new(), inode);
        while at != ROOT {
            let node = self.get(at)?;
            places.push(node.place.clone());
            at = node.parent;
        }
        places.reverse();
        Some(places)
    }

    fn assign(&mut self, node: &Node) -> Inode {
        let mut turn = 0;
        loop {
            let inode = self.candidate(node, turn);
            match self.nodes.entry(inode) {
                Entry::Occupied(held) if held.get().node == *node || mutant::on(Mutant::MountReuseInode) => {
                    return inode;
                }
                Entry::Occupied(_) => turn += 1,
                Entry::Vacant(free) => {
                    free.insert(Held { node: node.clone(), lookups: 0, children: 0 });
                    if let Some(parent) = self.nodes.get_mut(&node.parent) {
                        parent.children += 1;
                    }
                    return inode;
                }
            }
        }
    }

    /// The number that a node gets at its `turn`th attempt.
    fn candidate(&self, node: &Node, turn: u64) -> Inode {
        let parent = if node.parent == ROOT { self.seed } else { node.parent };
        let mut hasher = blake3::Hasher::new();
        hasher.update(&parent.to_le_bytes()).update(&turn.to_le_bytes());
        node.place.hash(&mut hasher);
        let inode = first_bits(&hasher) & self.mask;
        // Zero is no number, and one is the root's.
        if inode <= ROOT { inode + 2 } else { inode }
    }

    /// Lets go of a number that neither the kernel nor a node in it refers to, and then perhaps of its directory's.
    fn remove_unused(&mut self, inode: Inode) -> Vec<Inode> {
        let (mut at, mut unused) = (inode, Vec::new());
        while at != ROOT {
            match self.nodes.get(&at) {
                Some(held) if held.lookups == 0 && held.children == 0 => {}
                _ => break,
            }
            let Some(removed) = self.nodes.remove(&at) else { break };
            unused.push(at);
            at = removed.node.parent;
            if let Some(parent) = self.nodes.get_mut(&at) {
                parent.children = parent.children.saturating_sub(1);
            }
        }
        unused
    }
}

fn first_bits(hasher: &blake3::Hasher) -> u64 {
    let mut bytes = [0; 8];
    hasher.finalize_xof().fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(parent: Inode, name: &str) -> Node {
        Node { parent, place: Place::Object(name.as_bytes().into()) }
    }

    #[test]
    fn numbers_are_the_same_in_every_table_of_the_bucket() {
        let mut one = InodeTable::new(b"bucket", 64);
        let mut other = InodeTable::new(b"bucket", 64);
        let first = one.look_up(object(ROOT, "a"));
        other.look_up(object(ROOT, "b"));
        assert_eq!(other.look_up(object(ROOT, "a")), first);
        assert_ne!(InodeTable::new(b"else", 64).look_up(object(ROOT, "a")), first);
        let directory = Node { parent: ROOT, place: Place::Directory(b"a"[..].into()) };
        assert_ne!(one.look_up(directory), first);
    }

    #[test]
    fn numbers_in_use_are_never_given_twice() {
        let mut table = InodeTable::new(b"bucket", 6);
        let inodes: Vec<Inode> = (0..40).map(|at| table.look_up(object(ROOT, &at.to_string()))).collect();
        for (at, inode) in inodes.iter().enumerate() {
            assert_eq!(table.get(*inode), Some(&object(ROOT, &at.to_string())));
        }
    }

    #[test]
    fn what_is_forgotten_goes_and_what_is_needed_stays() {
        let mut table = InodeTable::new(b"bucket", 64);
        let directory = table.look_up(Node { parent: ROOT, place: Place::Directory(b"d"[..].into()) });
        let file = table.look_up(object(directory, "f"));
        table.look_up(object(directory, "f"));
        table.forget(directory, 1);
        table.forget(file, 1);
        assert_eq!(table.ancestry(file).map(|places| places.len()), Some(2));
        assert_eq!(table.forget(file, 1), [file, directory]);
        assert_eq!((table.get(file), table.get(directory), table.in_use()), (None, None, 1));
        table.forget(ROOT, 5);
        assert!(table.get(ROOT).is_some());
    }
}
