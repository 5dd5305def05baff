"""One directory of very many files, through the kernel."""

import contextlib
import ctypes
import os
import pathlib
import random
import re
import subprocess
import time

import pytest

from conftest import parameter
from mounts import Mounts
from server import FILL, Server

KEYS = parameter("MOUNT_DIRECTORY_KEYS", 100_000)
MIB = 1 << 20
# Of the process of the mount: what it starts with, its caches of pages and directories, and each name that the kernel holds.
MEMORY_BYTES, MEMORY_BYTES_PER_NAME = 100 * MIB, 700

libc = ctypes.CDLL(None, use_errno=True)


class Dirent(ctypes.Structure):
    _fields_ = [
        ("ino", ctypes.c_uint64), ("off", ctypes.c_int64), ("length", ctypes.c_ushort), ("kind", ctypes.c_ubyte),
        ("name", ctypes.c_char * 256),
    ]


libc.opendir.restype = libc.readdir.restype = ctypes.c_void_p
libc.opendir.argtypes = [ctypes.c_char_p]
libc.readdir.argtypes = libc.telldir.argtypes = libc.closedir.argtypes = [ctypes.c_void_p]
libc.telldir.restype = ctypes.c_long
libc.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]


class Stream:
    """A directory as C has it: readdir, telldir, seekdir."""

    def __init__(self, path):
        self.stream = libc.opendir(os.fsencode(path))
        assert self.stream, os.strerror(ctypes.get_errno())

    def next(self) -> bytes | None:
        entry = libc.readdir(self.stream)
        return ctypes.cast(entry, ctypes.POINTER(Dirent)).contents.name if entry else None

    def tell(self) -> int:
        return libc.telldir(self.stream)

    def seek(self, place: int):
        libc.seekdir(self.stream, place)

    def close(self):
        libc.closedir(self.stream)


def name(number: int) -> str:
    return f"{number:07}"


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """Where the directory is, and its mount."""
    folder = tmp_path_factory.mktemp("large")
    subprocess.run([FILL, folder / "data", "large", str(KEYS), str(KEYS)], check=True, timeout=1200)
    with Server(folder / "data") as server:
        mounts = Mounts(folder, server)
        try:
            at = mounts.mount("large")
            yield mounts, at / "000"
        finally:
            mounts.end()


def memory(mounts: Mounts, directory: pathlib.Path) -> dict[str, int]:
    """Bytes that the mount's process has now, and had at most."""
    status = pathlib.Path(f"/proc/{mounts.status(directory.parent)['pid']}/status").read_text()
    return {field: int(re.search(rf"{field}:\s+(\d+) kB", status)[1]) * 1024 for field in ("VmRSS", "VmHWM")}


def test_a_listing_is_whole_and_quick_to_begin(directory):
    mounts, at = directory
    began = time.monotonic()
    with contextlib.closing(Stream(at)) as stream:
        assert [stream.next() for _ in range(3)] == [b".", b"..", name(0).encode()]
    first = time.monotonic() - began
    assert mounts.counters(at.parent)["pages"] < 200, "the first names take the first pages"
    seconds = []
    for _ in range(2):
        began = time.monotonic()
        # As a shell's user counts: `.` and `..` are in it.
        listed = subprocess.run(f"ls -f '{at}' | wc -l", shell=True, capture_output=True, text=True, check=True).stdout
        seconds.append(time.monotonic() - began)
        assert int(listed) == KEYS + 2
    assert os.listdir(at) == [name(number) for number in range(KEYS)]
    print(f"\n{KEYS} names: the first after {first:.3f} s, `ls -f | wc -l` {seconds[0]:.2f} s, again {seconds[1]:.2f} s")


def test_names_are_found(directory):
    _, at = directory
    some = random.Random(1).sample(range(KEYS), 2000)
    began = time.monotonic()
    assert all((at / name(number)).stat().st_size == 0 for number in some)
    print(f"\n{len(some)} look-ups in {time.monotonic() - began:.2f} s")
    absent = [name(KEYS), name(KEYS + 1)[:-1], "-", "zzz", "0" * 255, *(name(number) + "x" for number in some[:200])]
    assert not any((at / other).exists() for other in absent)


def test_places_in_it_stay_what_they_are(directory):
    _, at = directory
    with contextlib.closing(Stream(at)) as stream:
        # The place before each name.
        places, place = {}, stream.tell()
        while (found := stream.next()) is not None:
            places[found], place = place, stream.tell()
        assert len(places) == KEYS + 2 and len(set(places.values())) == KEYS + 2
        end = place
        some = random.Random(2).sample(list(places), 500)
        for wanted in some:
            stream.seek(places[wanted])
            assert stream.next() == wanted and stream.tell() > places[wanted]
        stream.seek(end)
        assert stream.next() is None
    # So they do for whoever opens it later and begins in the middle.
    for wanted in some[:20]:
        with contextlib.closing(Stream(at)) as stream:
            stream.seek(places[wanted])
            assert stream.next() == wanted


def test_memory_is_bounded(directory):
    """The kernel holds every name that was looked at until it wants the memory back: the most that a mount is asked for."""
    mounts, at = directory
    numbers = {entry.name: entry.inode() for entry in os.scandir(at)}
    assert len(set(numbers.values())) == KEYS
    assert sum(entry.stat(follow_symlinks=False).st_ino == numbers[entry.name] for entry in os.scandir(at)) == KEYS
    used = memory(mounts, at)
    print(f"\nthe mount's process: {used['VmRSS'] / MIB:.0f} MiB, at most {used['VmHWM'] / MIB:.0f} MiB, {KEYS} names")
    assert used["VmHWM"] < MEMORY_BYTES + KEYS * MEMORY_BYTES_PER_NAME, used
    # What the kernel lets go of is forgotten.
    pathlib.Path("/proc/sys/vm/drop_caches").write_text("2")
    assert (at / name(KEYS // 2)).stat().st_ino == numbers[name(KEYS // 2)]
