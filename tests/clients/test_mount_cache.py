"""The cache of mounts: what is fetched once, what stays, what goes, and that several mounts share it."""

import concurrent.futures
import errno
import os
import subprocess
import time

import pytest

from content import body, digest, digests, source_tree, write
from mounts import Mounts

KIB, MIB = 1 << 10, 1 << 20


@pytest.fixture
def server(http_server):
    return http_server


def test_many_readers_of_a_cold_file_fetch_it_once(mounts, s3, bucket):
    size = 8 * MIB + 123
    content = body("cold", size)
    s3.put_object(Bucket=bucket, Key="cold", Body=content)
    at = mounts.mount(bucket, "--copy-bodies")

    def read(reader):
        with open(at / "cold", "rb", buffering=0) as file:
            begin = (reader * 7919) % size
            file.seek(begin)
            found = file.read(MIB)
            file.seek(0)
            while piece := file.read(256 * KIB):
                found += piece
        return found == content[begin : begin + len(found) - size] + content

    with concurrent.futures.ThreadPoolExecutor(64) as pool:
        assert all(pool.map(read, range(64)))
    counters = mounts.counters(at)
    assert counters["body_bytes"] == size and counters["failures"] == counters["damaged"] == 0


def test_mounts_of_a_host_fetch_a_cold_file_once(mounts, http_server, s3, bucket, tmp_path):
    """Four mounts with one cache read the same files at the same time: large and small ones, and one of several parts."""
    source = source_tree(tmp_path / "source", 100)
    write(source / "large", "large", 24 * MIB + 123)
    write(source / "parts", "parts", 20 * MIB)
    for path in source.rglob("*"):
        if path.is_file() and path.name != "parts":
            s3.put_object(Bucket=bucket, Key=str(path.relative_to(source)), Body=path.read_bytes())
    s3.upload_file(str(source / "parts"), bucket, "parts")
    places = [mounts.mount(bucket, "--copy-bodies") for _ in range(4)]
    expected = digests(source)

    with concurrent.futures.ThreadPoolExecutor(len(places)) as pool:
        assert all(found == expected for found in pool.map(digests, places))
    counters = [mounts.counters(at) for at in places]
    distinct = {digest(path): path.stat().st_size for path in source.rglob("*") if path.is_file()}
    fetched = [counter["body_bytes"] for counter in counters]
    assert sum(fetched) <= sum(distinct.values()), fetched
    assert all(counter["failures"] == counter["damaged"] == 0 for counter in counters)
    assert not list((mounts.cache / "parts").iterdir()), "all of it became whole"
    # One that is killed with what it was to fetch holds nobody up.
    s3.put_object(Bucket=bucket, Key="next", Body=body("next", 64 * MIB))
    one, other = (mounts.mount(bucket, "--copy-bodies") for _ in range(2))
    with open(one / "next", "rb", buffering=0) as file:
        file.read(MIB)
        mounts.kill(one)
    assert (other / "next").read_bytes() == body("next", 64 * MIB)


def test_ranges_fetch_little_and_stay(mounts, s3, bucket):
    size = 64 * MIB
    content = body("ranges", size)
    s3.put_object(Bucket=bucket, Key="large", Body=content)
    at = mounts.mount(bucket, "--copy-bodies")

    def reads():
        with open(at / "large", "rb", buffering=0) as file:
            for begin in (50 * MIB + 5, 20 * MIB, 60 * MIB - 3):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
                assert os.pread(file.fileno(), 4 * KIB, begin) == content[begin : begin + 4 * KIB]

    reads()
    assert mounts.counters(at)["body_bytes"] <= 2 * MIB
    mounts.umount(at)
    mounts.mount(bucket, "--copy-bodies", at=at)
    reads()
    assert mounts.counters(at)["body_bytes"] == 0, "what was fetched of a body survives the mount"
    with open(at / "large", "rb") as file:
        assert file.read() == content
    assert mounts.counters(at)["body_bytes"] <= size


def test_a_second_mount_fetches_no_bodies(mounts, http_server, s3, bucket, tmp_path):
    source = source_tree(tmp_path / "source", 100)
    write(source / "parts", "parts", 20 * MIB)
    command = ["aws", "s3", "sync", "--quiet", str(source), f"s3://{bucket}"]
    subprocess.run(command, env=http_server.client_env(), check=True, capture_output=True, timeout=300)
    at = mounts.mount(bucket)
    assert digests(at) == digests(source)
    first = mounts.counters(at)
    assert first["body_bytes"] <= sum(path.stat().st_size for path in source.rglob("*") if path.is_file())
    mounts.umount(at)
    mounts.mount(bucket, at=at)
    assert digests(at) == digests(source)
    second = mounts.counters(at)
    assert second["body_bytes"] == 0 and second["hash_tree_bytes"] == 0 and second["pages"] == 0
    if mounts.status(at)["mode"] == "passthrough":
        assert second["passthrough_opens"] > 0
    # A damaged copy is noticed when it is looked at again, and fetched again.
    mounts.umount(at)
    victim = max((mounts.cache / "bodies").rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else 0)
    with open(victim, "r+b") as file:
        file.seek(5 * MIB)
        file.write(b"damage")
    os.utime(victim, (0, 0))
    mounts.mount(bucket, at=at)
    assert digest(at / "parts") == digest(source / "parts")
    assert mounts.counters(at)["damaged"] == 1


def test_the_cache_keeps_its_limit(mounts, s3, bucket):
    for number in range(24):
        s3.put_object(Bucket=bucket, Key=f"{number}", Body=body(number, MIB))
    at = mounts.mount(bucket, "--copy-bodies", "--cache-size", "8MiB")
    for _ in range(2):
        for number in range(24):
            assert (at / f"{number}").read_bytes() == body(number, MIB)
    used = sum(path.stat().st_blocks * 512 for path in mounts.cache.rglob("*") if path.is_file())
    assert used <= 10 * MIB
    assert mounts.counters(at)["evicted"] > 0


def test_a_full_disk_takes_from_the_cache(mounts, mount, s3, bucket):
    """The disk is smaller than the cache may be: what was read before makes room, and what does not fit is ENOSPC."""
    disk = mount("-t", "tmpfs", "-o", "size=24m", "tmpfs")
    for number in range(8):
        s3.put_object(Bucket=bucket, Key=f"large-{number}", Body=body(number, 5 * MIB))
        s3.put_object(Bucket=bucket, Key=f"small-{number}", Body=body(f"small {number}", 50 * KIB))
    s3.put_object(Bucket=bucket, Key="cold", Body=body("cold", 5 * MIB))
    at = mounts.mount(bucket, "--copy-bodies", cache=disk / "cache")
    for _ in range(2):
        for number in range(8):
            with open(at / f"large-{number}", "rb", buffering=0) as file:
                assert file.readall() == body(number, 5 * MIB)
            assert (at / f"small-{number}").read_bytes() == body(f"small {number}", 50 * KIB)
    assert mounts.counters(at)["failures"] == 0 and mounts.counters(at)["evicted"] > 0
    # Others take the disk: what is there makes room, from the first byte of what is new. In the end that is not enough.
    with open(disk / "other", "wb", buffering=0) as other:
        chunk = bytes(4 * KIB)
        with pytest.raises(OSError, match="No space"):
            while other.write(chunk):
                pass
        assert (at / "cold").read_bytes() == body("cold", 5 * MIB)
        deadline = time.monotonic() + 60
        with open(at / "large-0", "rb", buffering=0) as file:
            while time.monotonic() < deadline:
                try:
                    while other.write(chunk):
                        pass
                except OSError as error:
                    assert error.errno == errno.ENOSPC
                try:
                    file.seek(0)
                    file.readall()
                    for number in range(8):
                        assert (at / f"small-{number}").read_bytes() == body(f"small {number}", 50 * KIB)
                except OSError as error:
                    assert error.errno == errno.ENOSPC, error
                    break
            else:
                pytest.fail("the disk never was full")
    os.unlink(disk / "other")
    for number in range(8):
        assert (at / f"small-{number}").read_bytes() == body(f"small {number}", 50 * KIB)
        assert (at / f"large-{number}").read_bytes() == body(number, 5 * MIB)
    assert mounts.counters(at)["damaged"] == 0


def test_what_was_opened_lately_is_kept_open(mounts, s3, bucket):
    """Files of up to a share of the cache are opened again without a look at it, and larger ones with one."""
    bodies = {"small": body("small", 4096), "large": body("large", MIB)}
    for key, content in bodies.items():
        s3.put_object(Bucket=bucket, Key=key, Body=content)
    at = mounts.mount(bucket, "--copy-bodies", "--cache-size", "16MiB")

    def opened_anew(key) -> bool:
        """Whether the mount opened the body in its cache, which notes when it does."""
        # The kernel does not wait for its release.
        time.sleep(0.05)
        before = kept[key].stat().st_atime_ns
        assert (at / key).read_bytes() == bodies[key]
        return kept[key].stat().st_atime_ns != before

    assert all((at / key).read_bytes() == content for key, content in bodies.items())
    files = {path.stat().st_size: path for path in (mounts.cache / "bodies").rglob("*") if path.is_file()}
    kept = {key: files[len(content)] for key, content in bodies.items()}
    # It comes with the first open, and is whole from the second on.
    for _ in range(4):
        opened_anew("small"), opened_anew("large")
    assert not any(opened_anew("small") for _ in range(3))
    assert all(opened_anew("large") for _ in range(3))
