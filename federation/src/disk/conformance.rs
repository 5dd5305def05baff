//! What every [`Disk`] must do while the power is on; each implementation's tests run it. What remains
//! after a power cut can only be tried where it can be cut: `simulated`.

use std::io::ErrorKind;
use std::path::Path;

use super::{Disk, DiskFile};

/// Tries the promises of [`Disk`] on an empty disk.
///
/// # Panics
///
/// Where a promise is broken.
pub fn run(disk: &dyn Disk) {
    files_are_created_once(disk);
    bytes_are_read_where_they_were_written(disk);
    a_handle_for_reading_does_not_write(disk);
    lengths_cut_and_extend(disk);
    renaming_replaces(disk);
    removed_files_stay_readable_to_holders(disk);
    folders_hold_names(disk);
    paths_stay_within(disk);
    assert!(disk.free_space().expect("free space") > 0);
    assert_eq!(disk.list(p("")).expect("listed"), Vec::<String>::new(), "the suite tidies up");
}

fn p(path: &str) -> &Path {
    Path::new(path)
}

fn content(file: &dyn DiskFile) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(file.len().expect("length")).expect("small")];
    file.read_at(&mut bytes, 0).expect("within the file");
    bytes
}

fn error<T>(result: std::io::Result<T>) -> ErrorKind {
    result.err().expect("an error").kind()
}

fn files_are_created_once(disk: &dyn Disk) {
    assert_eq!(error(disk.open(p("a"), false)), ErrorKind::NotFound);
    let file = disk.create(p("a")).expect("created");
    assert!(file.is_empty().expect("length"));
    assert_eq!(error(disk.create(p("a"))), ErrorKind::AlreadyExists);
    assert_eq!(error(disk.create(p("none/a"))), ErrorKind::NotFound);
    disk.remove(p("a")).expect("removed");
    assert_eq!(error(disk.remove(p("a"))), ErrorKind::NotFound);
    disk.create(p("a")).expect("created again");
    disk.remove(p("a")).expect("removed");
}

fn bytes_are_read_where_they_were_written(disk: &dyn Disk) {
    let file = disk.create(p("a")).expect("created");
    file.write_at(b"world", 6).expect("written");
    file.write_at(b"hello", 0).expect("written");
    assert_eq!(content(&*file), b"hello\0world");
    let mut part = [0; 4];
    file.read_at(&mut part, 6).expect("read");
    assert_eq!(&part, b"worl");
    file.read_at(&mut [], 11).expect("nothing is there to read");
    assert_eq!(error(file.read_at(&mut part, 9)), ErrorKind::UnexpectedEof);
    assert_eq!(error(file.read_at(&mut part, 1 << 40)), ErrorKind::UnexpectedEof);
    file.sync_data().expect("synced");
    disk.sync_dir(p("")).expect("synced");

    let other = disk.open(p("a"), true).expect("opened");
    other.write_at(b"H", 0).expect("written");
    assert_eq!(content(&*file), b"Hello\0world", "handles share the file");
    disk.remove(p("a")).expect("removed");
}

fn a_handle_for_reading_does_not_write(disk: &dyn Disk) {
    let file = disk.create(p("a")).expect("created");
    file.write_at(b"kept", 0).expect("written");
    let reader = disk.open(p("a"), false).expect("opened");
    assert!(reader.write_at(b"lost", 0).is_err());
    assert!(reader.set_len(0).is_err());
    assert_eq!(content(&*reader), b"kept");
    if let Some(descriptor) = file.descriptor().expect("a descriptor or none") {
        use std::os::unix::fs::FileExt;
        let reader = std::fs::File::from(descriptor);
        assert!(reader.write_at(b"lost", 0).is_err(), "a descriptor given away is for reading only");
        let mut bytes = [0; 4];
        reader.read_exact_at(&mut bytes, 0).expect("read");
        assert_eq!(&bytes, b"kept");
    }
    disk.remove(p("a")).expect("removed");
}

fn lengths_cut_and_extend(disk: &dyn Disk) {
    let file = disk.create(p("a")).expect("created");
    file.write_at(b"hello", 0).expect("written");
    file.set_len(2).expect("cut");
    file.set_len(4).expect("extended");
    assert_eq!(content(&*file), b"he\0\0");
    disk.remove(p("a")).expect("removed");
}

fn renaming_replaces(disk: &dyn Disk) {
    disk.create_dir(p("folder")).expect("created");
    disk.create(p("a")).expect("created").write_at(b"a", 0).expect("written");
    let replaced = disk.create(p("b")).expect("created");
    replaced.write_at(b"b", 0).expect("written");
    disk.rename(p("a"), p("b")).expect("renamed");
    assert_eq!(error(disk.open(p("a"), false)), ErrorKind::NotFound);
    assert_eq!(content(&*disk.open(p("b"), false).expect("opened")), b"a");
    assert_eq!(content(&*replaced), b"b", "who has it open keeps it");
    disk.rename(p("b"), p("folder/c")).expect("renamed");
    assert_eq!(disk.list(p("folder")).expect("listed"), ["c"]);
    assert_eq!(error(disk.rename(p("a"), p("b"))), ErrorKind::NotFound);
    disk.remove(p("folder/c")).expect("removed");
    disk.remove_dir(p("folder")).expect("removed");
}

fn removed_files_stay_readable_to_holders(disk: &dyn Disk) {
    let file = disk.create(p("a")).expect("created");
    file.write_at(b"kept", 0).expect("written");
    disk.remove(p("a")).expect("removed");
    assert_eq!(content(&*file), b"kept");
    file.sync_data().expect("synced");
}

fn folders_hold_names(disk: &dyn Disk) {
    assert_eq!(error(disk.list(p("x"))), ErrorKind::NotFound);
    assert_eq!(error(disk.sync_dir(p("x"))), ErrorKind::NotFound);
    disk.create_dir(p("x/y")).expect("created");
    disk.create_dir(p("x/y")).expect("fine if it exists");
    disk.create(p("x/file")).expect("created");
    let mut names = disk.list(p("x")).expect("listed");
    names.sort();
    assert_eq!(names, ["file", "y"]);
    assert_eq!(error(disk.remove_dir(p("x"))), ErrorKind::DirectoryNotEmpty);
    assert_eq!(error(disk.remove_dir(p("z"))), ErrorKind::NotFound);
    assert!(disk.create_dir(p("x/file/z")).is_err());
    disk.remove(p("x/file")).expect("removed");
    disk.remove_dir(p("x/y")).expect("removed");
    disk.sync_dir(p("x")).expect("synced");
    disk.remove_dir(p("x")).expect("removed");
    assert_eq!(error(disk.list(p("x"))), ErrorKind::NotFound);
}

fn paths_stay_within(disk: &dyn Disk) {
    assert_eq!(error(disk.create(p("../a"))), ErrorKind::InvalidInput);
    assert_eq!(error(disk.create(p("/a"))), ErrorKind::InvalidInput);
    assert_eq!(error(disk.list(p(".."))), ErrorKind::InvalidInput);
}
