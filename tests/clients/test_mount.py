"""Mounts: a snapshot as a directory, with real programs, real kernels and real trouble."""

import concurrent.futures
import errno
import json
import mmap
import os
import pathlib
import shutil
import signal
import sqlite3
import stat
import subprocess
import threading
import time

import pytest

from conftest import boto, bucket_name
from content import body, digest, digests, source_tree, write
from mounts import Mounts
from raw import Raw, Signer
from server import BINARY, ROOT, Server, elton
from test_s3fs import mounted as s3fs_mounted

KIB, MIB = 1 << 10, 1 << 20
RCLONE = ROOT / "target/tests-venv/bin/rclone"


@pytest.fixture
def server(http_server):
    return http_server


def aws(server, *arguments):
    subprocess.run(["aws", *map(str, arguments)], env=server.client_env(), check=True, capture_output=True, timeout=300)


def modes(root: pathlib.Path) -> dict[str, tuple]:
    """Path below `root` → kind and size, of all that is there."""
    found = {}
    for folder, folders, names in os.walk(root):
        for name in folders + names:
            path = os.path.join(folder, name)
            status = os.lstat(path)
            size = None if stat.S_ISDIR(status.st_mode) else status.st_size
            found[os.path.relpath(path, root)] = (stat.S_IFMT(status.st_mode), size)
    return found


# What is shown.


def test_a_tree_put_by_aws_is_as_it_was(mounts, http_server, bucket, tmp_path):
    source = source_tree(tmp_path / "source", 400)
    write(source / "large", "large", 9 * MIB)
    aws(http_server, "s3", "sync", "--quiet", source, f"s3://{bucket}")
    at = mounts.mount(bucket)
    assert mounts.record["bucket"] == bucket and mounts.record["mode"] in ("passthrough", "cached")
    assert modes(at) == modes(source)
    assert digests(at) == digests(source)
    some = next(path for path in at.rglob("*") if path.is_file())
    status = some.stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o644, os.geteuid())
    assert abs(status.st_mtime - time.time()) < 600
    found = subprocess.run(["find", at, "-type", "f"], capture_output=True, text=True, check=True).stdout
    assert len(found.splitlines()) == 401
    packed = subprocess.run(["tar", "-C", at, "-c", "."], capture_output=True, check=True).stdout
    assert len(packed) > 9 * MIB
    grep = subprocess.run(["grep", "-r", "-l", "-c", "", at], capture_output=True, text=True)
    assert grep.returncode == 0, grep.stderr
    diff = subprocess.run(["diff", "-r", source, at], capture_output=True, text=True)
    assert (diff.returncode, diff.stdout) == (0, "")


def test_a_tree_put_by_rclone_has_its_attributes(mounts, http_server, bucket, tmp_path):
    source = tmp_path / "source"
    (source / "d").mkdir(parents=True)
    (source / "d/run").write_bytes(b"#!/bin/sh\n")
    (source / "d/run").chmod(0o750)
    (source / "plain").write_bytes(b"plain")
    os.utime(source / "plain", ns=(0, 1_600_000_000_123_456_789))
    os.symlink("d/run", source / "link")
    env = http_server.client_env(
        RCLONE_CONFIG="/dev/null", RCLONE_S3_PROVIDER="Other", RCLONE_S3_ENV_AUTH="true",
        RCLONE_S3_ENDPOINT=http_server.endpoint,
    )
    subprocess.run(
        [RCLONE, "copy", "--metadata", "--links", source, f":s3:{bucket}"], env=env, check=True, capture_output=True
    )
    at = mounts.mount(bucket)
    assert modes(at) == modes(source)
    for name in ("d/run", "plain"):
        here, there = (source / name).stat(), (at / name).stat()
        assert (here.st_mode, here.st_mtime_ns, here.st_uid) == (there.st_mode, there.st_mtime_ns, there.st_uid)
    assert os.readlink(at / "link") == "d/run" and (at / "link").read_bytes() == b"#!/bin/sh\n"


def test_a_tree_put_by_s3fs_has_its_attributes(mounts, http_server, bucket, tmp_path):
    with s3fs_mounted(http_server, tmp_path, bucket, "use_xattr") as folder:
        (folder / "d").mkdir(mode=0o700)
        (folder / "d/f").write_bytes(b"content")
        (folder / "d/f").chmod(0o640)
        os.chown(folder / "d/f", 1234, 4321)
        os.utime(folder / "d/f", (1_500_000_000, 1_500_000_000))
        os.symlink("f", folder / "d/l")
        os.setxattr(folder / "d/f", "user.note", b"a\0b")
    at = mounts.mount(bucket)
    status = (at / "d/f").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o640, 1234, 4321)
    assert int(status.st_mtime) == 1_500_000_000
    assert stat.S_IMODE((at / "d").stat().st_mode) == 0o700
    assert os.readlink(at / "d/l") == "f"
    assert os.getxattr(at / "d/f", "user.note") == b"a\0b"
    assert os.getxattr(at / "d/f", "user.elton.key") == b"d/f"
    assert set(os.listxattr(at / "d/f")) == {"user.note", "user.elton.key", "user.elton.etag"}


def test_dangerous_attributes_are_shown_and_not_effective(mounts, s3, bucket):
    mode = str(stat.S_IFREG | 0o4755)
    s3.put_object(Bucket=bucket, Key="id", Body=pathlib.Path("/usr/bin/id").read_bytes(), Metadata={"mode": mode, "uid": "0"})
    s3.put_object(Bucket=bucket, Key="disk", Metadata={"mode": str(stat.S_IFBLK | 0o666)})
    at = mounts.mount(bucket, "--allow-other")
    assert stat.S_IMODE((at / "id").stat().st_mode) == 0o4755
    run = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", str(at / "id"), "-u"]
    assert subprocess.run(run, capture_output=True, text=True, check=True).stdout.strip() == "65534"
    assert stat.S_ISBLK((at / "disk").stat().st_mode)
    with pytest.raises(OSError) as refused:
        open(at / "disk", "rb")
    assert refused.value.errno == errno.EACCES


AWKWARD = {
    "a": "%elton-file-a",
    "a/b": "a/b",
    "c//d": "c/%elton-name-/d",
    "../x": "%elton-name-%2E%2E/x",
    "./y": "%elton-name-%2E/y",
    "..": "%elton-name-%2E%2E",
    "%elton-z": "%elton-name-%25elton-z",
    "marker/": None,
    "bytes/": "bytes/%elton-file-",
    "ü ü/\n\t": "ü ü/\n\t",
}


def test_awkward_keys_are_reachable_and_never_outside(mounts, http_server, s3, bucket):
    with Raw(http_server) as raw:
        for key in AWKWARD:
            raw.put(bucket, key, b"" if key == "marker/" else b"body of " + key.encode())
        long = "n" * 300
        raw.put(bucket, long, b"body of long")
    at = mounts.mount(bucket)
    for key, shown in AWKWARD.items():
        if shown and key != "..":
            assert (at / shown).read_bytes() == b"body of " + key.encode(), key
            assert os.getxattr(at / shown, "user.elton.key") == key.encode()
    assert (at / "marker").is_dir() and os.listdir(at / "marker") == []
    (found,) = [name for name in os.listdir(at) if name.startswith("%elton-long-")]
    assert (at / found).read_bytes() == b"body of long"
    assert os.getxattr(at / found, "user.elton.key") == long.encode()
    listed = {os.path.join(folder, name) for folder, _, names in os.walk(at) for name in names}
    assert all(os.path.realpath(path).startswith(f"{at}/") for path in listed)
    # Everything that is listed is found by the name that it is listed under.
    assert all(os.path.exists(path) for path in listed)


def test_a_prefix_alone(mounts, s3, bucket):
    s3.put_object(Bucket=bucket, Key="one/two/three", Body=b"3")
    s3.put_object(Bucket=bucket, Key="other", Body=b"o")
    at = mounts.mount(bucket, "--prefix", "one/two")
    assert os.listdir(at) == ["three"] and (at / "three").read_bytes() == b"3"
    done = mounts.run("mount", bucket, mounts.place(), "--prefix", "none")
    assert done.returncode == 1 and "there is none" in done.stderr


def test_the_past(mounts, s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"first")
    done = mounts.run("snapshot", "create", bucket, "--tag", "before", "--json")
    number = json.loads(done.stdout)["number"]
    s3.put_object(Bucket=bucket, Key="k", Body=b"second")
    for what, expected in ((f"{bucket}@before", b"first"), (f"{bucket}@{number}", b"first"), (bucket, b"second")):
        assert (mounts.mount(what) / "k").read_bytes() == expected
    newest = mounts.mounted[-1]
    s3.put_object(Bucket=bucket, Key="k", Body=b"third")
    assert (newest / "k").read_bytes() == b"second"
    view = mounts.mount(bucket, "--snapshots")
    assert "before" in os.listdir(view)
    assert (view / "before/k").read_bytes() == b"first"
    assert (view / str(number) / "k").read_bytes() == b"first"
    assert not (view / "nothing").exists() and not (view / "999999").exists()


def test_a_listing_of_snapshots_stays_what_it_is_while_tags_change(mounts, s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    tags = [f"t{number:03}-{'t' * 26}" for number in range(240)]

    def tag(name):
        assert mounts.run("snapshot", "create", bucket, "--tag", name).returncode == 0

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(tag, tags))
    view = mounts.mount(bucket, "--snapshots")
    with os.scandir(view) as entries:
        # More than the kernel takes at once.
        found = [next(entries).name for _ in range(10)]
        for name in tags[:20]:
            assert mounts.run("snapshot", "rm", f"{bucket}@{name}").returncode == 0
        tag("new")
        found += [entry.name for entry in entries]
    assert len(found) == len(set(found)) and set(tags[20:]) <= set(found) and "new" not in found
    now = os.listdir(view)
    assert set(now) >= {"new", *tags[20:]} and not set(tags[:20]) & set(now)


def test_a_large_directory_page_by_page(mounts, http_server, s3, bucket):
    count = 3000
    with Raw(http_server) as raw:
        for number in range(count):
            raw.put(bucket, f"d/{number:06}-with-a-name-of-some-length", b"")
    at = mounts.mount(bucket)
    assert mounts.counters(at)["pages"] <= 2, "mounting fetches no more than the root"
    names = os.listdir(at / "d")
    assert len(names) == len(set(names)) == count
    # Offsets are stable: what follows an entry follows it again after the directory was sought to it.
    listing = subprocess.run(["ls", "-f", at / "d"], capture_output=True, text=True, check=True).stdout.split()
    assert [name for name in listing if not name.startswith(".")] == sorted(names)
    # Without a cache of names, numbers are the same again.
    numbers = {entry.name: entry.inode() for entry in os.scandir(at / "d")}
    mounts.umount(at)
    mounts.mount(bucket, at=at)
    assert {entry.name: entry.inode() for entry in os.scandir(at / "d")} == numbers
    assert all(os.stat(at / "d" / name).st_ino == numbers[name] for name in names[:50])


# What cannot be done.


def test_nothing_can_be_written(mounts, s3, bucket):
    s3.put_object(Bucket=bucket, Key="d/f", Body=b"x")
    at = mounts.mount(bucket)
    file, folder = at / "d/f", at / "d"
    attempts = {
        "open to write": lambda: open(file, "r+b"),
        "truncate": lambda: os.truncate(file, 0),
        "create": lambda: open(folder / "new", "x"),
        "create over": lambda: os.open(file, os.O_WRONLY | os.O_TRUNC),
        "mkdir": lambda: os.mkdir(folder / "new"),
        "rmdir": lambda: os.rmdir(folder),
        "unlink": lambda: os.unlink(file),
        "rename": lambda: os.rename(file, folder / "g"),
        "link": lambda: os.link(file, folder / "g"),
        "symlink": lambda: os.symlink("f", folder / "g"),
        "mkfifo": lambda: os.mkfifo(folder / "g"),
        "mknod": lambda: os.mknod(folder / "g", stat.S_IFREG | 0o600),
        "chmod": lambda: os.chmod(file, 0o600),
        "chown": lambda: os.chown(file, 1, 1),
        "utime": lambda: os.utime(file),
        "setxattr": lambda: os.setxattr(file, "user.a", b"b"),
        "removexattr": lambda: os.removexattr(file, "user.elton.key"),
    }
    for name, attempt in attempts.items():
        with pytest.raises(OSError) as refused:
            attempt()
        assert refused.value.errno == errno.EROFS, name


def test_what_cannot_be_mounted_says_why(mounts, s3, bucket, tmp_path):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")

    def refused(*arguments):
        done = mounts.run("mount", *arguments)
        assert done.returncode == 1 and done.stdout == "" and "panicked" not in done.stderr, done
        return done.stderr

    assert "no bucket" in refused("no-such-bucket", mounts.place()).lower()
    assert "999" in refused(f"{bucket}@999", mounts.place())
    assert "No such file" in refused(bucket, tmp_path / "nowhere")
    full = mounts.place()
    (full / "something").write_text("x")
    assert "not empty" in refused(bucket, full)
    at = mounts.mount(bucket)
    assert "mounted already" in refused(bucket, at)
    done = mounts.run("umount", mounts.place())
    assert done.returncode == 1 and "nothing of Elton's" in done.stderr
    handle = open(at / "k", "rb")
    done = mounts.run("umount", at)
    assert done.returncode == 1 and "in use" in done.stderr and "--lazy" in done.stderr
    mounts.umount(at, "--lazy")
    assert handle.read() == b"x" and os.listdir(at) == []
    handle.close()


# Programs.


def test_git_sqlite_and_mappings(mounts, http_server, bucket, tmp_path):
    source = tmp_path / "source"
    repository = source / "repository"
    repository.mkdir(parents=True)
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@t", "-C"]
    subprocess.run(["git", "init", "-q", repository], check=True)
    for number in range(50):
        (repository / f"{number}.txt").write_text(f"{number}\n" * 100)
    subprocess.run([*git, repository, "add", "."], check=True)
    subprocess.run([*git, repository, "commit", "-q", "-m", "m"], check=True)
    with sqlite3.connect(source / "data.db") as base:
        base.execute("create table t (k integer primary key, v text)")
        base.executemany("insert into t (v) values (?)", [(f"value {number}" * 20,) for number in range(5000)])
    base.close()
    write(source / "mapped", "mapped", 3 * MIB + 17)
    aws(http_server, "s3", "sync", "--quiet", source, f"s3://{bucket}")
    at = mounts.mount(bucket)
    env = os.environ | {"GIT_OPTIONAL_LOCKS": "0", "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"}
    status = subprocess.run(["git", "-C", at / "repository", "status", "--porcelain"], env=env, capture_output=True, text=True)
    assert (status.returncode, status.stdout) == (0, ""), status.stderr
    log = subprocess.run(["git", "-C", at / "repository", "log", "--oneline"], env=env, capture_output=True, text=True, check=True)
    assert log.stdout.strip().endswith(" m")
    base = sqlite3.connect(f"file:{at}/data.db?mode=ro&immutable=1", uri=True)
    assert base.execute("select count(*), max(v) from t").fetchone()[0] == 5000
    assert base.execute("pragma integrity_check").fetchone() == ("ok",)
    base.close()
    with open(at / "mapped", "rb") as file, open(source / "mapped", "rb") as twin:
        mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        assert mapped[:] == twin.read()
        mapped.close()


# The cache.


def test_a_file_completed_while_it_is_open_is_read_on(mounts, s3, bucket):
    """Cached and passthrough handles of one file never meet: the kernel answers EIO where they do."""
    size = 6 * MIB
    content = body("mixed", size)
    s3.put_object(Bucket=bucket, Key="f", Body=content)
    at = mounts.mount(bucket, "--copy-bodies")
    first = open(at / "f", "rb", buffering=0)
    assert first.read(4096) == content[:4096]
    assert (at / "f").read_bytes() == content
    second = open(at / "f", "rb", buffering=0)
    mapped = mmap.mmap(second.fileno(), 0, prot=mmap.PROT_READ)
    second.close()
    assert mapped[-4096:] == content[-4096:]
    first.close()
    third = open(at / "f", "rb", buffering=0)
    assert third.read(size) == content and mapped[:] == content
    mapped.close()
    third.close()
    time.sleep(0.2)
    assert (at / "f").read_bytes() == content
    if mounts.status(at)["mode"] == "passthrough":
        assert mounts.counters(at)["passthrough_opens"] >= 1


def test_the_profile_for_small_files(mounts, http_server, bucket, tmp_path):
    source = source_tree(tmp_path / "source", 200)
    aws(http_server, "s3", "sync", "--quiet", source, f"s3://{bucket}")
    at = mounts.mount(bucket, "--profile", "small-files")
    assert mounts.record["mode"] == "small-files"
    assert digests(at) == digests(source)
    assert mounts.counters(at)["cached_opens"] == 0


def test_prefetch(mounts, s3, bucket):
    for number in range(20):
        s3.put_object(Bucket=bucket, Key=f"in/{number}", Body=body(number, 10_000))
    s3.put_object(Bucket=bucket, Key="out", Body=body("out", 3 * MIB))
    number = json.loads(mounts.run("bucket", "info", bucket, "--json").stdout)["number"]
    done = mounts.run("prefetch", f"{bucket}@{number}", "in/*", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["objects"], result["bytes"], result["fetched_bytes"]) == (20, 200_000, 200_000)
    assert "no key" in mounts.run("prefetch", bucket, "nowhere/**").stdout
    at = mounts.mount(bucket, "--copy-bodies")
    assert all((at / f"in/{number}").read_bytes() == body(number, 10_000) for number in range(20))
    assert mounts.counters(at)["body_bytes"] == 0
    assert digest(at / "out") and mounts.counters(at)["body_bytes"] == 3 * MIB


# Trouble.


def test_a_server_that_dies_is_an_error_in_time_and_comes_back(own_server, tmp_path):
    own_server.start()
    mounts = Mounts(tmp_path, own_server)
    try:
        s3 = boto(own_server)
        s3.create_bucket(Bucket="trouble")
        content = body("t", 32 * MIB)
        s3.put_object(Bucket="trouble", Key="f", Body=content)
        s3.put_object(Bucket="trouble", Key="here", Body=b"here")
        at = mounts.mount("trouble", "--copy-bodies", "--deadline", "3s")
        assert (at / "here").read_bytes() == b"here"
        file = os.open(at / "f", os.O_RDONLY)
        assert os.pread(file, 4096, 0) == content[:4096]
        own_server.kill()
        began = time.monotonic()
        with pytest.raises(OSError) as failed:
            os.pread(file, 4096, 30 * MIB)
        assert failed.value.errno in (errno.EIO, errno.ETIMEDOUT)
        assert time.monotonic() - began < 15
        # Those who come later are told at once.
        began = time.monotonic()
        with pytest.raises(OSError):
            os.pread(file, 4096, 25 * MIB)
        assert time.monotonic() - began < 4
        assert (at / "here").read_bytes() == b"here"
        # Whoever reads can be killed.
        reader = subprocess.Popen(["cat", at / "f"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(0.3)
        reader.kill()
        assert reader.wait(15) in (-signal.SIGKILL, 1)
        status = mounts.run("status", "--json")
        assert status.returncode == 1 and json.loads(status.stdout)["mounts"][0]["answers"]
        own_server.start()
        assert os.pread(file, 4096, 30 * MIB) == content[30 * MIB : 30 * MIB + 4096]
        os.close(file)
        assert (at / "f").read_bytes() == content
    finally:
        mounts.end()


def test_a_server_that_hangs_is_an_error_in_time(own_server, tmp_path):
    own_server.start()
    mounts = Mounts(tmp_path, own_server)
    try:
        boto(own_server).create_bucket(Bucket="trouble")
        boto(own_server).put_object(Bucket="trouble", Key="f", Body=body("t", MIB))
        at = mounts.mount("trouble", "--deadline", "4s")
        pid = own_server.process.pid
        os.kill(pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            with pytest.raises(OSError) as failed:
                (at / "f").read_bytes()
            assert failed.value.errno in (errno.EIO, errno.ETIMEDOUT)
            # What the kernel wanted to read ahead is asked for twice, and waited for once.
            assert time.monotonic() - began < 7
            began = time.monotonic()
            with pytest.raises(OSError):
                (at / "f").read_bytes()
            assert time.monotonic() - began < 3, "whoever comes later waits for a part of it"
        finally:
            os.kill(pid, signal.SIGCONT)
        assert (at / "f").read_bytes() == body("t", MIB)
    finally:
        mounts.end()


def test_a_mount_that_dies_is_cured_by_the_next(mounts, s3, bucket):
    s3.put_object(Bucket=bucket, Key="f", Body=b"x")
    at = mounts.mount(bucket)
    number = (at / "f").stat().st_ino
    mounts.kill(at)
    # What the kernel knows by heart it still says; a file is not opened any more.
    with pytest.raises(OSError) as gone:
        open(at / "f", "rb")
    assert gone.value.errno in (errno.ENOTCONN, errno.ECONNABORTED)
    assert mounts.status(at)["answers"] is False
    mounts.mount(bucket, at=at)
    assert (at / "f").read_bytes() == b"x" and (at / "f").stat().st_ino == number
    mounts.kill(at)
    mounts.umount(at)
    assert os.listdir(at) == []


def test_an_earlier_mount_ends_nothing_but_itself(mounts, s3, bucket):
    """Whoever detached a mount and mounts anew keeps the new one, whatever becomes of the old process."""
    s3.put_object(Bucket=bucket, Key="f", Body=body("old", MIB))
    at = mounts.mount(bucket)
    old = mounts.record["pid"]
    with open(at / "f", "rb") as held:
        mounts.umount(at, "--lazy")
        s3.put_object(Bucket=bucket, Key="f", Body=b"new")
        mounts.mount(bucket, at=at)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
            os.kill(old, number)
            time.sleep(0.2)
        assert (at / "f").read_bytes() == b"new"
        assert held.read() == body("old", MIB)
    assert mounts.status(at)["answers"]


def test_relative_places(mounts, http_server, s3, bucket, tmp_path):
    """A mount leaves the directory in which it was started; what it was told there stays where it is."""
    s3.put_object(Bucket=bucket, Key="f", Body=body("relative", 3 * MIB))
    at = mounts.place()
    env = {"ELTON_STATE": "here/state", "ELTON_CACHE": "here/cache"}
    done = elton("mount", bucket, at.name, server=http_server, env=env, cwd=at.parent)
    assert done.returncode == 0, done.stderr
    mounts.mounted.append(at)
    assert (at / "f").read_bytes() == body("relative", 3 * MIB)
    assert list((tmp_path / "here/cache").rglob("*")) and list((tmp_path / "here/state").glob("*.json"))
    done = elton("umount", at.name, server=http_server, env=env, cwd=at.parent)
    assert done.returncode == 0, done.stderr


def test_a_server_with_a_region(tmp_path):
    with Server(tmp_path / "data", args=["--region", "eu-central-1"]) as server:
        mounts = Mounts(tmp_path, server)
        try:
            assert elton("bucket", "create", "regional", server=server).returncode == 0
            with Raw(server, Signer(region="eu-central-1")) as raw:
                assert raw.put("regional", "f", b"content").status == 200
            assert (mounts.mount("regional") / "f").read_bytes() == b"content"
        finally:
            mounts.end()


def test_mounts_pin_what_they_show(mounts, s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=body("old", 200_000))
    at = mounts.mount(bucket)
    assert mounts.record["pin"]
    s3.put_object(Bucket=bucket, Key="k", Body=b"new")
    done = mounts.run("gc", "--now", "--yes", "--bucket", bucket)
    assert done.returncode == 0, done.stderr
    assert (at / "k").read_bytes() == body("old", 200_000)


def test_a_user_mounts_through_fusermount(mounts, http_server, s3, bucket, tmp_path):
    s3.put_object(Bucket=bucket, Key="d/f", Body=b"content", Metadata={"uid": "0", "mode": str(stat.S_IFREG | 0o600)})
    place = mounts.place()
    # As udev makes it; where there is no udev, it is root's alone.
    os.chmod("/dev/fuse", 0o666)
    for folder in (mounts.state, mounts.cache):
        folder.mkdir()
    for folder in (place, mounts.state, mounts.cache):
        os.chown(folder, 65534, 65534)
    for folder in (tmp_path, *tmp_path.parents):
        if folder != pathlib.Path("/") and not folder.stat().st_mode & 0o001:
            folder.chmod(folder.stat().st_mode | 0o011)
    as_user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    env = http_server.client_env(**mounts.env(), HOME="/nonexistent")
    done = subprocess.run([*as_user, BINARY, "mount", bucket, place, "--json"], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    mounts.mounted.append(place)
    record = json.loads(done.stdout)
    assert record["mode"] == "cached" and "root" in record["mode_reason"]
    read = subprocess.run([*as_user, "cat", place / "d/f"], capture_output=True, text=True)
    assert read.stdout == "content", "what a user mounts is that user's"
    with pytest.raises(PermissionError):
        os.listdir(place)
    done = subprocess.run([*as_user, BINARY, "umount", place], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_in_the_foreground(mounts, http_server, s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    place = mounts.place()
    env = http_server.client_env(**mounts.env())
    process = subprocess.Popen(
        [BINARY, "mount", bucket, place, "--foreground"], env=env, stdout=subprocess.PIPE, text=True
    )
    mounts.mounted.append(place)
    line = process.stdout.readline()
    assert line.startswith(f"mounted {bucket}@") and str(place) in line
    assert (place / "k").read_bytes() == b"x"
    process.terminate()
    assert process.wait(10) == 0
    assert os.listdir(place) == []
