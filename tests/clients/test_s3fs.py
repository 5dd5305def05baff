"""s3fs: a real mount, used as a folder."""

import contextlib
import os
import shutil
import subprocess
import time

import pytest

from conftest import bucket_name
from content import body, digest, write
from server import ACCESS_KEY, SECRET_KEY


@contextlib.contextmanager
def mounted(server, tmp_path, bucket, *options):
    """A mounted bucket; unmounted whatever happens."""
    keys = tmp_path / "keys"
    if not keys.exists():
        keys.write_text(f"{ACCESS_KEY}:{SECRET_KEY}")
        keys.chmod(0o600)
    path = tmp_path / f"mount-{len(list(tmp_path.glob('mount-*')))}"
    path.mkdir()
    log = tmp_path / f"{path.name}.log"
    options = [
        f"passwd_file={keys}",
        f"url={server.endpoint}",
        f"logfile={log}",
        f"tmpdir={tmp_path}",
        "use_path_request_style",
        "max_stat_cache_size=0",
        *options,
    ]
    env = server.client_env()
    if server.tls:
        env["CURL_CA_BUNDLE"] = str(server.certificate)
    process = subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", "--", "s3fs", bucket, str(path), "-f", "-o", ",".join(options)],
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 20
        while not os.path.ismount(path):
            said = log.read_text() if log.exists() else "s3fs never mounted"
            assert process.poll() is None and time.monotonic() < deadline, said
            time.sleep(0.05)
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=False, capture_output=True)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture
def name(s3):
    name = bucket_name("s3fs")
    s3.create_bucket(Bucket=name)
    return name


@pytest.fixture
def folder(server, tmp_path, name):
    """Without a cache: what is read comes from the server."""
    with mounted(server, tmp_path, name) as path:
        yield path


def test_write_and_read(folder):
    for size in (0, 1, 10_000, 100_000, 25_000_000):
        source = write(folder / f"file {size}", size, size)
        assert source.stat().st_size == size
        assert digest(source) == digest(write(folder.parent / "twin", size, size))
    assert sorted(os.listdir(folder)) == sorted(f"file {size}" for size in (0, 1, 10_000, 100_000, 25_000_000))
    with pytest.raises(FileNotFoundError):
        open(folder / "none")


def test_rename(folder):
    (folder / "a").write_bytes(b"content")
    (folder / "a").rename(folder / "b ü")
    assert not (folder / "a").exists() and (folder / "b ü").read_bytes() == b"content"
    (folder / "dir/sub").mkdir(parents=True)
    for number in range(5):
        (folder / f"dir/sub/{number}").write_text(str(number))
    (folder / "dir").rename(folder / "moved")
    assert not (folder / "dir").exists()
    assert [(folder / f"moved/sub/{n}").read_text() for n in range(5)] == list("01234")
    # Over something that is there.
    (folder / "x").write_text("x")
    (folder / "y").write_text("y")
    (folder / "x").replace(folder / "y")
    assert (folder / "y").read_text() == "x" and not (folder / "x").exists()


def test_truncate_and_append(server, tmp_path, name, folder):
    # Without a cache s3fs 1.90 turns a file into zeros when its path is truncated, and never asks the server for it.
    with mounted(server, tmp_path, name, f"use_cache={tmp_path}/cache") as cached:
        path, there = cached / "file", folder / "file"
        data = body("truncate", 200_000)
        path.write_bytes(data)
        assert there.read_bytes() == data
        os.truncate(path, 70_000)
        assert path.read_bytes() == there.read_bytes() == data[:70_000]
        os.truncate(path, 90_000)
        assert path.read_bytes() == there.read_bytes() == data[:70_000] + bytes(20_000)
        with open(path, "ab") as file:
            file.write(b"appended")
        assert there.read_bytes() == data[:70_000] + bytes(20_000) + b"appended"
        with open(path, "r+b") as file:
            file.seek(50_000)
            file.write(b"in the middle")
        expected = bytearray(data[:70_000] + bytes(20_000) + b"appended")
        expected[50_000:50_013] = b"in the middle"
        assert there.read_bytes() == expected
        path.write_bytes(b"short")
        assert there.read_bytes() == b"short"


def test_open_and_truncate(folder):
    path = folder / "file"
    data = body("truncate", 200_000)
    path.write_bytes(data)
    with open(path, "r+b") as file:
        file.truncate(70_000)
    assert path.read_bytes() == data[:70_000]
    with open(path, "ab") as file:
        file.write(b"appended")
    assert path.read_bytes() == data[:70_000] + b"appended"
    path.write_bytes(b"")
    assert path.read_bytes() == b""


def test_middle_of_a_large_file(folder):
    """s3fs sends the changed part and copies the others: UploadPartCopy."""
    path = write(folder / "large", "middle", 30_000_000)
    with open(path, "r+b") as file:
        file.seek(15_000_000)
        file.write(b"changed")
    twin = write(folder.parent / "twin", "middle", 30_000_000)
    with open(twin, "r+b") as file:
        file.seek(15_000_000)
        file.write(b"changed")
    assert digest(path) == digest(twin)


def test_folders(folder):
    (folder / "a/b/c").mkdir(parents=True)
    assert os.listdir(folder / "a") == ["b"]
    with pytest.raises(OSError):
        os.rmdir(folder / "a")
    os.rmdir(folder / "a/b/c")
    assert os.listdir(folder / "a/b") == []
    for number in range(30):
        (folder / f"a/b/{number}").write_text("x")
    assert len(os.listdir(folder / "a/b")) == 30
    shutil.rmtree(folder / "a")
    assert os.listdir(folder) == []


def test_rm_r(folder):
    """With the real tool: nothing stays."""
    for number in range(40):
        path = folder / f"tree/{number % 4}/{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body(number, 100))
    subprocess.run(["rm", "-r", str(folder / "tree")], check=True, timeout=60)
    assert os.listdir(folder) == []


def test_symlinks_and_modes(folder):
    (folder / "target").write_text("content")
    os.symlink("target", folder / "link")
    assert os.readlink(folder / "link") == "target" and (folder / "link").read_text() == "content"
    os.chmod(folder / "target", 0o640)
    os.utime(folder / "target", (1_600_000_000, 1_600_000_000))
    found = os.stat(folder / "target")
    assert (found.st_mode & 0o777, int(found.st_mtime)) == (0o640, 1_600_000_000)
    os.unlink(folder / "link")
    assert (folder / "target").read_text() == "content"


def test_seen_through_s3(folder, s3, name):
    """What the mount writes is an object, and the other way round."""
    (folder / "dir").mkdir()
    (folder / "dir/from-mount").write_bytes(b"mount")
    assert s3.get_object(Bucket=name, Key="dir/from-mount")["Body"].read() == b"mount"
    s3.put_object(Bucket=name, Key="dir/from-s3", Body=b"s3")
    assert (folder / "dir/from-s3").read_bytes() == b"s3"
    assert sorted(os.listdir(folder / "dir")) == ["from-mount", "from-s3"]
