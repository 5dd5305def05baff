"""Mounts tell programs what a read-only file system of the kernel's tells them: every call, every kind of file.

The other file system is a tmpfs with the same tree that was made read-only, so that what is expected is what this
kernel does. `posix_calls.py` has the calls.
"""

import json
import os
import pathlib
import stat
import subprocess
import sys
import time

import pytest

import posix_calls
from conftest import boto, bucket_name
from mounts import Mounts
from posix_calls import CHANGES, LONG, NOBODY, TOO_LONG, TREE


@pytest.fixture(scope="module")
def place(http_server, tmp_path_factory):
    """The same tree, mounted and on a tmpfs that is read-only."""
    folder = tmp_path_factory.mktemp("posix")
    # Another user has to get here.
    for above in (folder, *folder.parents):
        if above != pathlib.Path("/") and not above.stat().st_mode & 0o001:
            above.chmod(above.stat().st_mode | 0o011)
    mounts = Mounts(folder, http_server)
    s3, bucket = boto(http_server), bucket_name("posix")
    s3.create_bucket(Bucket=bucket)
    for path, (mode, owner, content) in TREE.items():
        key = path + "/" * stat.S_ISDIR(mode)
        metadata = {"mode": str(mode), "uid": str(owner), "gid": "0"}
        s3.put_object(Bucket=bucket, Key=key, Body=content or b"", Metadata=metadata)
    twin = folder / "twin"
    twin.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "nodev,nosuid,mode=755", "tmpfs", twin], check=True)
    try:
        posix_calls.make(twin)
        subprocess.run(["mount", "-o", "remount,ro", twin], check=True)
        yield mounts.mount(bucket, "--allow-other"), twin
    finally:
        mounts.end()
        subprocess.run(["umount", "--lazy", twin], check=False)


def said(root, uid) -> dict:
    run = [sys.executable, posix_calls.__file__, str(root), str(uid)]
    done = subprocess.run(run, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def short(path) -> str:
    return path if len(path) < 60 else f"{path[:20]}… ({len(path)} bytes)"


@pytest.mark.parametrize("uid", [0, NOBODY], ids=["root", "nobody"])
def test_every_call_is_answered_as_by_the_kernels_own(place, uid):
    mount, twin = place
    here, there = said(mount, uid), said(twin, uid)
    differing = {
        f"{call} {short(path)!r}": (here[call][path], there[call][path])
        for call in there
        for path in there[call]
        if here[call][path] != there[call][path]
    }
    assert differing == {}
    count = sum(len(answers) for answers in here.values())
    refused = sum(answer == "EROFS" for answers in here.values() for answer in answers.values())
    print(f"\n{count} calls, {refused} of them EROFS")
    assert count > 3000 and refused > 500
    # Nothing came of any of them.
    assert said(mount, 0) == said(twin, 0)


def test_errors_come_in_the_order_of_posix(place):
    """What is wrong with the path goes first, then what is there already; then nothing can be changed."""
    mount, _ = place
    found = said(mount, 0)
    wrong = {"none/x": "ENOENT", "file/x": "ENOTDIR", "loop/x": "ELOOP", "dangling/x": "ENOENT", f"{TOO_LONG}/x": "ENAMETOOLONG"}
    for path, error in wrong.items():
        # Python does not pass on the address of a socket that is too long.
        calls = [call for call in CHANGES if (call, error) != ("bind", "ENAMETOOLONG")]
        assert {found[call][path] for call in calls} == {error}, path
    there = {"mkdir", "mkfifo", "mknod S_IFREG", "mknod S_IFCHR", "symlink", "link to", "open O_WRONLY|O_CREAT|O_EXCL"}
    other = {"open O_RDONLY|O_CREAT": None, "open O_RDWR|O_TMPFILE": "ENOTDIR", "bind": "EADDRINUSE"}
    for call in CHANGES:
        expected = "EEXIST" if call in there else other.get(call, "EROFS")
        assert found[call]["file"] == expected, call
    for call in ("mkdir", "mkfifo", "mknod S_IFREG", "symlink", "link to", "rename to", "open O_RDWR|O_CREAT", "unlink", "rmdir"):
        assert found[call]["none"] == found[call][LONG] == "EROFS", call
    assert found["open O_RDWR|O_TMPFILE"]["dir"] == found["access W_OK"]["dir"] == "EROFS"
    assert found["statvfs"]["dir"] is True
    handles = found["handles"]
    assert {call for call, answer in handles.items() if answer == "EROFS"} >= {"fchmod", "fchown", "futimens", "fsetxattr"}
    assert (handles["mmap to share writing"], handles["ftruncate"], handles["fallocate"]) == ("EACCES", "EINVAL", "EBADF")


# What metadata says → modification time in nanoseconds, and owner.
SAID = {
    "before": ({"mtime": "-1.25"}, -1_250_000_000, 0),
    "rfc": ({"mtime": "1969-12-31T23:59:59.5Z"}, -500_000_000, 0),
    "late": ({"mtime": "99999999999.000000001"}, 99_999_999_999_000_000_001, 0),
    "never": ({"mtime": "999999999999999999999"}, None, 0),
    "owner": ({"uid": "4294967294", "mtime": "0"}, 0, 4_294_967_294),
    # The kernel keeps this number for itself and shows its overflow number.
    "nobody": ({"uid": "4294967295", "mtime": "0"}, 0, 65_534),
    "nonsense": ({"uid": "-1", "mode": "rwxr-xr-x", "gid": "0x10", "mtime": "0", "xattr": "%7B%22a"}, 0, 0),
}


def test_whatever_metadata_says_is_shown_or_left_out(http_server, tmp_path):
    s3, bucket, mounts = boto(http_server), bucket_name("said"), Mounts(tmp_path, http_server)
    s3.create_bucket(Bucket=bucket)
    for key, (metadata, _, _) in SAID.items():
        s3.put_object(Bucket=bucket, Key=key, Body=b"x", Metadata=metadata)
    try:
        at = mounts.mount(bucket)
        for key, (_, mtime, owner) in SAID.items():
            found = (at / key).stat()
            assert found.st_uid == owner and stat.S_ISREG(found.st_mode), key
            if mtime is None:
                assert abs(found.st_mtime - time.time()) < 600, key
            else:
                assert found.st_mtime_ns == mtime, key
            assert os.listxattr(at / key) == ["user.elton.etag", "user.elton.key"]
            assert (at / key).read_bytes() == b"x"
    finally:
        mounts.end()
