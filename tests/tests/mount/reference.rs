//! What a mount should show, said a second time: straight from the keys, by the table in the documentation.

use std::collections::BTreeMap;

use bytes::Bytes;

/// What is shown under a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    File(Bytes),
    Link(Bytes),
    Directory,
}

/// Shown path → node; directories end without a slash, and the mount itself is not among them.
pub fn shown(objects: &BTreeMap<Vec<u8>, Bytes>) -> BTreeMap<Vec<u8>, Node> {
    let mut all = BTreeMap::new();
    for (key, body) in objects {
        let mut names: Vec<&[u8]> = key.split(|byte| *byte == b'/').collect();
        let Some(name) = names.pop() else { continue };
        let (mut path, mut directory) = (Vec::new(), Vec::new());
        for name in names {
            append(&mut path, &escape(name));
            directory.extend_from_slice(name);
            directory.push(b'/');
            all.insert(path.clone(), Node::Directory);
        }
        let taken = |name: &[u8]| {
            let key = [directory.as_slice(), name].concat();
            let below = [key.as_slice(), b"/"].concat();
            (objects.contains_key(&key), objects.keys().any(|key| key.starts_with(&below)))
        };
        let node = Node::File(body.clone());
        if name.is_empty() {
            if !body.is_empty() {
                append(&mut path, b"%elton-file-");
                all.insert(path, node);
            }
            continue;
        }
        if let Some(short) = name.strip_suffix(b".rclonelink")
            && escape(short) == short
            && taken(short) == (false, false)
            && (1..4096).contains(&body.len())
        {
            append(&mut path, short);
            all.insert(path, Node::Link(body.clone()));
            continue;
        }
        let shown = match (taken(name).1, name.len()) {
            (true, 256..) => long(b"%elton-longfile-", name),
            (true, _) => [b"%elton-file-".as_slice(), &encode(name)].concat(),
            (false, _) => escape(name),
        };
        append(&mut path, &shown);
        all.insert(path, node);
    }
    all
}

fn append(path: &mut Vec<u8>, name: &[u8]) {
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
}

fn escape(name: &[u8]) -> Vec<u8> {
    if name.len() > 255 {
        return long(b"%elton-long-", name);
    }
    let plain =
        !name.is_empty() && name != b"." && name != b".." && !name.contains(&0) && !name.starts_with(b"%elton-");
    if plain { name.to_vec() } else { [b"%elton-name-".as_slice(), &encode(name)].concat() }
}

fn long(mark: &[u8], name: &[u8]) -> Vec<u8> {
    let hash = blake3::hash(name).to_hex();
    [mark, &hash.as_bytes()[..32], b"-", &name[..120]].concat()
}

fn encode(name: &[u8]) -> Vec<u8> {
    let text = String::from_utf8(name.to_vec()).expect("the tests' names are text");
    let dots = text == "." || text == "..";
    let text = text.replace('%', "%25").replace('\0', "%00");
    if dots { text.replace('.', "%2E") } else { text }.into_bytes()
}
