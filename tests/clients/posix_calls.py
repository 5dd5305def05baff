"""What system calls say of paths below a directory: `posix_calls.py DIRECTORY UID` prints it as JSON.

Every call that changes something, on every kind of file and every way in which a path can lead nowhere, and those that
only look. Run for two file systems with the same tree in them, it says whether they are told apart. `MAKE` is that tree.
"""

import contextlib
import ctypes
import errno
import fcntl
import json
import mmap
import os
import socket
import stat
import sys

NOBODY = 65534
AT_FDCWD, AT_EACCESS, AT_SYMLINK_FOLLOW = -100, 0x200, 0x400
RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2
O_PATH, O_TMPFILE = os.O_PATH, os.O_TMPFILE
FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE = 1, 2

# Path → mode with its kind, owner, content or target.
TREE = {
    "file": (stat.S_IFREG | 0o644, 0, b"content"),
    "run": (stat.S_IFREG | 0o755, 0, b"#!/bin/sh\nexit 3\n"),
    "sealed": (stat.S_IFREG | 0o600, 0, b"secret"),
    "theirs": (stat.S_IFREG | 0o644, NOBODY, b"of somebody else"),
    "dir": (stat.S_IFDIR | 0o755, 0, None),
    "dir/file": (stat.S_IFREG | 0o644, 0, b"below"),
    "open": (stat.S_IFDIR | 0o777, 0, None),
    "open/file": (stat.S_IFREG | 0o666, 0, b"anybody's"),
    "sticky": (stat.S_IFDIR | 0o1777, 0, None),
    "sticky/file": (stat.S_IFREG | 0o644, 0, b"root's"),
    "empty": (stat.S_IFDIR | 0o755, 0, None),
    "locked": (stat.S_IFDIR | 0o700, 0, None),
    "locked/file": (stat.S_IFREG | 0o644, 0, b"behind a door"),
    "listed": (stat.S_IFDIR | 0o744, 0, None),
    "listed/file": (stat.S_IFREG | 0o644, 0, b"seen and not reached"),
    "link": (stat.S_IFLNK | 0o777, 0, b"file"),
    "dirlink": (stat.S_IFLNK | 0o777, 0, b"dir"),
    "dangling": (stat.S_IFLNK | 0o777, 0, b"nothing"),
    "loop": (stat.S_IFLNK | 0o777, 0, b"pool"),
    "pool": (stat.S_IFLNK | 0o777, 0, b"loop"),
    "through": (stat.S_IFLNK | 0o777, 0, b"file/x"),
    "fifo": (stat.S_IFIFO | 0o666, 0, None),
    "socket": (stat.S_IFSOCK | 0o666, 0, None),
    "chr": (stat.S_IFCHR | 0o666, 0, None),
    "blk": (stat.S_IFBLK | 0o666, 0, None),
}

LONG, TOO_LONG = "n" * 255, "n" * 256
PATHS = [
    *TREE,
    *("none", "none/x", "file/x", "link/x", "fifo/x", "dangling/x", "loop/x", "through/x", "locked/none", "listed/none"),
    *("file/", "link/", "dir/", "dirlink/", "empty/", "none/", "loop/", "dangling/", "fifo/"),
    *(".", "..", "dir/.", "dir/..", "file/.", "file/..", "none/..", "empty/.", "dirlink/..", "dirlink/file", ""),
    *(LONG, TOO_LONG, f"dir/{LONG}", f"dir/{TOO_LONG}", f"{TOO_LONG}/x", f"none/{TOO_LONG}", f"file/{TOO_LONG}"),
    *("dir/../" * 585 + "file", "dir/../" * 584 + "./file", "dir//file", "./file"),
]

libc = ctypes.CDLL(None, use_errno=True)


def make(root):
    """The tree, on a file system that can be written to."""
    for path, (mode, owner, content) in TREE.items():
        at = os.path.join(root, path)
        if stat.S_ISDIR(mode):
            os.mkdir(at)
        elif stat.S_ISLNK(mode):
            os.symlink(content, at)
            continue
        elif stat.S_ISREG(mode):
            with open(at, "wb") as file:
                file.write(content)
        else:
            os.mknod(at, mode, 0)
        os.chmod(at, stat.S_IMODE(mode))
        os.chown(at, owner, 0)


def call(name, *arguments):
    """A function of libc that Python does not have."""
    if getattr(libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), name)


@contextlib.contextmanager
def opened(path, flags=os.O_RDONLY):
    fd = os.open(path, flags | os.O_NONBLOCK)
    try:
        yield fd
    finally:
        os.close(fd)


def opens(flags):
    def attempt(path):
        with opened(path, flags):
            pass

    return attempt


def renames(flags, back=False):
    def attempt(path):
        pair = (b"dir/file", os.fsencode(path))
        source, target = pair if back else reversed(pair)
        call("renameat2", AT_FDCWD, source, AT_FDCWD, target, flags)

    return attempt


def accesses(mode, flags=0):
    return lambda path: call("faccessat", AT_FDCWD, os.fsencode(path), mode, flags)


def shown(path):
    found = os.lstat(path)
    size = found.st_size if stat.S_ISREG(found.st_mode) else None
    return oct(found.st_mode), size, found.st_uid, found.st_gid


def read(path):
    with opened(path) as fd:
        return os.read(fd, 100).decode()


def listed(path):
    return sorted(os.listdir(path))


# What changes something, by what it is called.
CHANGES = {
    "open O_WRONLY": opens(os.O_WRONLY),
    "open O_RDWR": opens(os.O_RDWR),
    "open O_WRONLY|O_APPEND": opens(os.O_WRONLY | os.O_APPEND),
    "open O_RDONLY|O_TRUNC": opens(os.O_TRUNC),
    "open O_WRONLY|O_TRUNC": opens(os.O_WRONLY | os.O_TRUNC),
    "open O_RDONLY|O_CREAT": opens(os.O_CREAT),
    "open O_RDWR|O_CREAT": opens(os.O_RDWR | os.O_CREAT),
    "open O_WRONLY|O_CREAT|O_EXCL": opens(os.O_WRONLY | os.O_CREAT | os.O_EXCL),
    "open O_WRONLY|O_CREAT|O_NOFOLLOW": opens(os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW),
    "open O_RDWR|O_TMPFILE": opens(os.O_RDWR | O_TMPFILE),
    "mkdir": lambda path: os.mkdir(path),
    "mkfifo": lambda path: os.mkfifo(path),
    "mknod S_IFREG": lambda path: os.mknod(path, stat.S_IFREG | 0o600),
    "mknod S_IFCHR": lambda path: os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3)),
    "bind": lambda path: bind(path),
    "symlink": lambda path: os.symlink("target", path),
    "link from": lambda path: os.link(path, "new", follow_symlinks=False),
    "link from, following": lambda path: call("linkat", AT_FDCWD, os.fsencode(path), AT_FDCWD, b"new", AT_SYMLINK_FOLLOW),
    "link to": lambda path: os.link("file", path),
    "unlink": os.unlink,
    "rmdir": os.rmdir,
    "rename from": lambda path: os.rename(path, "new"),
    "rename to": lambda path: os.rename("dir/file", path),
    "rename a directory to": lambda path: os.rename("empty", path),
    "rename RENAME_NOREPLACE to": renames(RENAME_NOREPLACE, back=True),
    "rename RENAME_EXCHANGE": renames(RENAME_EXCHANGE),
    "chmod": lambda path: os.chmod(path, 0o600),
    "chown": lambda path: os.chown(path, 0, 0),
    "lchown": lambda path: os.lchown(path, NOBODY, NOBODY),
    "truncate to 0": lambda path: os.truncate(path, 0),
    "truncate to more": lambda path: os.truncate(path, 1 << 20),
    "utimensat": lambda path: os.utime(path, (1, 2)),
    "utimensat now": lambda path: os.utime(path),
    "utimensat of a link": lambda path: os.utime(path, (1, 2), follow_symlinks=False),
    "setxattr": lambda path: os.setxattr(path, "user.a", b"b"),
    "lsetxattr": lambda path: os.setxattr(path, "user.a", b"b", follow_symlinks=False),
    "setxattr of an access list": lambda path: os.setxattr(path, "system.posix_acl_access", b"\2\0\0\0"),
    "removexattr": lambda path: os.removexattr(path, "user.a"),
    "access W_OK": accesses(os.W_OK),
    "faccessat W_OK AT_EACCESS": accesses(os.W_OK, AT_EACCESS),
}

# What only looks.
LOOKS = {
    "open O_RDONLY": opens(os.O_RDONLY),
    "open O_DIRECTORY": opens(os.O_DIRECTORY),
    "open O_NOFOLLOW": opens(os.O_NOFOLLOW),
    "open O_PATH": opens(O_PATH),
    "open O_PATH|O_NOFOLLOW": opens(O_PATH | os.O_NOFOLLOW),
    "access R_OK": accesses(os.R_OK),
    "access X_OK": accesses(os.X_OK),
    "access F_OK": accesses(os.F_OK),
    "lstat": shown,
    "stat": lambda path: oct(os.stat(path).st_mode),
    "readlink": os.readlink,
    "read": read,
    "list": listed,
    "chdir": lambda path: with_chdir(path),
    "statvfs": lambda path: bool(os.statvfs(path).f_flag & os.ST_RDONLY),
}


def bind(path):
    with socket.socket(socket.AF_UNIX) as end:
        try:
            end.bind(path)
        except OSError as refused:
            # Python refuses what does not fit into the address.
            if refused.errno is None:
                return
            raise


def with_chdir(path):
    here = os.open(".", os.O_PATH)
    try:
        os.chdir(path)
        os.fchdir(here)
    finally:
        os.close(here)


def mapped(fd, protection, flags=mmap.MAP_SHARED):
    with mmap.mmap(fd, 7, flags=flags, prot=protection) as view:
        return view[:].decode()


def copied(fd):
    with opened("run") as source:
        return os.copy_file_range(source, fd, 3)


def locked(kind):
    def attempt(fd):
        fcntl.lockf(fd, kind | fcntl.LOCK_NB)

    return attempt


def written_privately(fd):
    with mmap.mmap(fd, 7, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE) as view:
        view[0:3] = b"CON"
        return view[:].decode(), os.pread(fd, 7, 0).decode()


# With `file` open to be read.
HANDLES = {
    "write": lambda fd: os.write(fd, b"x"),
    "pwrite": lambda fd: os.pwrite(fd, b"x", 0),
    "ftruncate": lambda fd: os.ftruncate(fd, 0),
    "fallocate": lambda fd: call("fallocate", fd, 0, ctypes.c_long(0), ctypes.c_long(1 << 20)),
    "fallocate to punch": lambda fd: call(
        "fallocate", fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, ctypes.c_long(0), ctypes.c_long(4096)
    ),
    "copy_file_range": copied,
    "fchmod": lambda fd: os.fchmod(fd, 0o600),
    "fchown": lambda fd: os.fchown(fd, 0, 0),
    "futimens": lambda fd: os.utime(fd, (1, 2)),
    "fsetxattr": lambda fd: os.setxattr(fd, "user.a", b"b"),
    "fremovexattr": lambda fd: os.removexattr(fd, "user.a"),
    "linkat of the handle": lambda fd: os.link(f"/proc/self/fd/{fd}", "new", follow_symlinks=True),
    "opened again to write": lambda fd: opens(os.O_WRONLY)(f"/proc/self/fd/{fd}"),
    "mmap to share writing": lambda fd: mapped(fd, mmap.PROT_READ | mmap.PROT_WRITE),
    "mmap to read": lambda fd: mapped(fd, mmap.PROT_READ),
    "mmap to write privately": written_privately,
    "fsync": os.fsync,
    "fdatasync": os.fdatasync,
    "syncfs": lambda fd: call("syncfs", fd),
    "flock LOCK_SH": lambda fd: fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB),
    "flock LOCK_EX": lambda fd: fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB),
    "lock to read": locked(fcntl.LOCK_SH),
    "lock to write": locked(fcntl.LOCK_EX),
    "lseek SEEK_END": lambda fd: os.lseek(fd, -1, os.SEEK_END),
    "lseek SEEK_DATA": lambda fd: os.lseek(fd, 2, os.SEEK_DATA),
    "lseek SEEK_HOLE": lambda fd: os.lseek(fd, 2, os.SEEK_HOLE),
    "lseek behind the end": lambda fd: os.lseek(fd, 99, os.SEEK_DATA),
    "pread": lambda fd: os.pread(fd, 99, 3).decode(),
    "pread behind the end": lambda fd: os.pread(fd, 99, 99).decode(),
    "posix_fadvise": lambda fd: os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED),
    "getxattr of none": lambda fd: os.getxattr(fd, "user.none"),
    "fstatvfs": lambda fd: bool(os.fstatvfs(fd).f_flag & os.ST_RDONLY),
}


def said(attempt, *arguments):
    """What a call says: its answer, or the name of the error."""
    try:
        return attempt(*arguments)
    except OSError as refused:
        return errno.errorcode[refused.errno]


def handles() -> dict:
    found = {}
    for name, attempt in HANDLES.items():
        with opened("file") as fd:
            found[name] = said(attempt, fd)
    with opened("file", O_PATH) as fd:
        found["O_PATH, read"] = said(os.read, fd, 1)
        found["O_PATH, fstat"] = said(lambda: oct(os.fstat(fd).st_mode))
        found["O_PATH, fchmod"] = said(os.fchmod, fd, 0o600)
        found["O_PATH, opened again"] = said(lambda: read(f"/proc/self/fd/{fd}"))
    return found


def main(root, uid):
    os.chdir(root)
    if uid:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    found = {"handles": handles()}
    for table in (CHANGES, LOOKS):
        for name, attempt in table.items():
            found[name] = {path: said(attempt, path) for path in PATHS}
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
