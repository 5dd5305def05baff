"""Containers over a bucket of another cluster: what they read crosses, once, and is there while the line is cut."""

import concurrent.futures
import hashlib
import time

import pytest

from clusters import shared_bucket, started
from content import body
from docker_engine import Engine, Failed, Plugin, eventually

KIB, MIB = 1 << 10, 1 << 20
# A mount asks for 30 s.
READ_SECONDS_MAX = 40
KILL_SECONDS_MAX = 5

CONTENT = {
    "read.jpg": body("read", 8 * MIB),
    "never-read.jpg": body("never read", 8 * MIB),
    "2025/summer/beach.jpg": body("beach", 300 * KIB),
    "2025/letter.txt": b"Dear Oslo",
    "2026/letter.txt": b"Dear Berlin",
}


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    engine = Engine(tmp_path_factory.mktemp("engine"))
    try:
        yield engine.prepare()
    finally:
        engine.end()


class Oslo:
    """A host of a member, with its containers; the bucket `photos` is linked there."""

    def __init__(self, clusters, engine, plugin):
        self.home, self.member = clusters.all["berlin"], clusters.all["oslo"]
        self.line = clusters.line(self.home, self.member)
        self.engine, self.plugin = engine, plugin
        with self.home.raw() as raw:
            shared_bucket(self.home, self.member, name="photos")
            for key, data in CONTENT.items():
                self.number = raw.put("photos", key, data).number
            # What is written later is in no volume of an earlier number.
            assert raw.put("photos", "read.jpg", b"written later").status == 200
        self.volume = f"photos@{self.number}"

    def mounted(self, volume=None):
        return "--volume-driver", self.plugin.driver, "-v", f"{volume or self.volume}:/data"

    def once(self, *command, volume=None) -> str:
        return self.engine.once(*self.mounted(volume), command=command)

    def digest(self, path, volume=None) -> str:
        return self.once("busybox", "sha256sum", path, volume=volume).split()[0]


@pytest.fixture(scope="module")
def oslo(tmp_path_factory, engine):
    with started(tmp_path_factory.mktemp("clusters"), "berlin", "oslo") as clusters:
        plugin = Plugin(tmp_path_factory.mktemp("plugin"), clusters.all["oslo"])
        try:
            yield Oslo(clusters, engine, plugin.start())
        finally:
            if containers := engine.docker("ps", "--all", "--quiet").split():
                engine.docker("rm", "--force", *containers)
            eventually(plugin.is_idle, 20)
            plugin.end()


def sha256(key) -> str:
    return hashlib.sha256(CONTENT[key]).hexdigest()


def test_what_a_container_reads_crosses_once(oslo):
    """By its name, without anything created."""
    with oslo.member.counting() as crossed:
        assert oslo.once("ls", "/data").split() == ["2025", "2026", "never-read.jpg", "read.jpg"]
    assert crossed().payload < 64 * KIB, f"names only: {crossed()}"
    with oslo.member.counting() as crossed:
        assert oslo.digest("/data/read.jpg") == sha256("read.jpg")
    size = len(CONTENT["read.jpg"])
    assert size < crossed().payload_received < size + 512 * KIB, crossed()
    # Another container, whose mount is a new one.
    with oslo.member.counting() as crossed:
        assert oslo.digest("/data/read.jpg") == sha256("read.jpg")
    assert crossed().payload < 64 * KIB, crossed()
    later = oslo.volume.replace(str(oslo.number), str(oslo.number + 1))
    assert oslo.once("cat", "/data/read.jpg", volume=later) == "written later"


def test_options_name_a_part(oslo):
    """`docker volume create`: what is beside the prefix is not there, and does not cross."""
    options = ["-o", "bucket=photos", "-o", f"version={oslo.number}", "-o", "prefix=2025/"]
    oslo.engine.docker("volume", "create", "-d", oslo.plugin.driver, *options, "summer")
    with oslo.member.counting() as crossed:
        shown = oslo.engine.once("-v", "summer:/data", command=["find", "/data", "-type", "f"]).split()
        assert sorted(shown) == ["/data/letter.txt", "/data/summer/beach.jpg"]
        command = ["busybox", "sha256sum", "/data/summer/beach.jpg", "/data/letter.txt"]
        digests = [line.split()[0] for line in oslo.engine.once("-v", "summer:/data", command=command).splitlines()]
    assert digests == [sha256("2025/summer/beach.jpg"), sha256("2025/letter.txt")]
    assert 300 * KIB < crossed().payload < 500 * KIB, crossed()
    oslo.engine.docker("volume", "rm", "summer")


def test_nobody_can_write(oslo):
    for command in ("echo x > /data/new", "echo x > /data/read.jpg", "busybox rm /data/2025/letter.txt", "busybox chmod 777 /data/2025"):
        with pytest.raises(Failed, match="Read-only file system"):
            oslo.once("sh", "-c", command)


def test_the_line_is_cut(oslo):
    """What was read is read on, by running and by new containers; the rest fails in time, and nobody hangs for good."""
    assert oslo.digest("/data/read.jpg") == sha256("read.jpg")
    running = oslo.engine.container(*oslo.mounted())

    def read(key):
        return oslo.engine.docker("exec", running, "busybox", "sha256sum", f"/data/{key}").split()[0]

    def fails(key) -> float:
        began = time.monotonic()
        with pytest.raises(Failed, match="Input/output error|timed out"):
            read(key)
        return time.monotonic() - began

    try:
        # A read that waits for a line that says nothing. Its container ends when it is told to.
        oslo.line.swallow(oslo.member.machine)
        waiting = oslo.engine.container(*oslo.mounted(), command=("cat", "/data/never-read.jpg"))
        time.sleep(1)
        assert oslo.engine.docker("inspect", "--format", "{{.State.Running}}", waiting) == "true"
        began = time.monotonic()
        oslo.engine.docker("rm", "--force", waiting)
        assert time.monotonic() - began < KILL_SECONDS_MAX
        oslo.line.cut()
        with concurrent.futures.ThreadPoolExecutor() as pool:
            failing = pool.submit(fails, "never-read.jpg")
            assert read("read.jpg") == sha256("read.jpg")
            assert oslo.digest("/data/read.jpg") == sha256("read.jpg"), "in a new container"
            assert not failing.done(), "these did not wait for that"
            assert failing.result() < READ_SECONDS_MAX
        assert fails("2026/letter.txt") < KILL_SECONDS_MAX, "whoever comes later is told at once"
    finally:
        oslo.line.mend()
    oslo.member.wait_for_link("berlin")
    assert read("never-read.jpg") == sha256("never-read.jpg")
    oslo.engine.docker("rm", "--force", running)
