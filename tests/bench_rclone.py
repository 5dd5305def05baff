"""`rclone sync` between two gateways beside a linked bucket: what crosses, and how long until everything wanted was read.

The same files, the same changes and the same reads. rclone runs where the files are read and copies them into a bucket of
that cluster, which then reads its own; a linked bucket brings what is read.
"""

import concurrent.futures
import subprocess
import sys
import time
import urllib.parse

from bench_tables import heading, row
from clusters import bucket_name, shared_bucket
from content import body
from raw import UNSIGNED

MIB = 1 << 20
FILES, FILE_BYTES, CONNECTIONS = 2000, 64 * 1024, 32
# 20 ms there and back, 100 Mbit/s.
DELAY, RATE = 0.01, 12_500_000
RCLONE = f"{sys.prefix}/bin/rclone"
# Compares by what the listings say, without a question for each object: for rclone the cheapest way that is right.
SYNC = ["sync", "--checksum", "--fast-list", f"--transfers={CONNECTIONS}", f"--checkers={CONNECTIONS}", "--s3-no-check-bucket"]


class Beside:
    """Two clusters, what rclone needs to reach the first one from the machine of the second, and what was found."""

    def __init__(self, clusters, home, member, folder):
        self.home, self.member, self.line = home, member, clusters.line(home, member)
        self.config = folder / "rclone.conf"
        self.config.touch()
        port = urllib.parse.urlsplit(home.endpoint).port
        clusters.wan.open_door(home.machine, port, (home.machine.s3, port))
        self.remotes = {"home": f"http://{home.machine.gateway}:{port}", "member": member.endpoint}
        self.found = []

    def sync(self, source, target):
        options = {"TYPE": "s3", "PROVIDER": "Other", "ENV_AUTH": "true"}
        remotes = {
            f"RCLONE_CONFIG_{name}_{option}".upper(): value
            for name, endpoint in self.remotes.items()
            for option, value in {**options, "ENDPOINT": endpoint}.items()
        }
        env = self.member.client_env(RCLONE_CONFIG=str(self.config), **remotes)
        command = self.member.machine.command(RCLONE, *SYNC, f"home:{source}", f"member:{target}")
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr

    def step(self, name, by_rclone, by_link):
        """Both in turn over the slow line: bytes and seconds."""
        both = []
        for work in (by_rclone, by_link):
            self.line.delay, self.line.rate = DELAY, RATE
            try:
                with self.member.counting() as crossed:
                    began = time.monotonic()
                    work()
                    took = time.monotonic() - began
            finally:
                self.line.delay, self.line.rate = 0.0, None
            both.append((crossed().payload / MIB, took))
        (rclone_bytes, rclone_seconds), (link_bytes, link_seconds) = both
        self.found.append((name, rclone_bytes, link_bytes, rclone_seconds, link_seconds))


def every(cluster, numbers, work):
    """Does something with each file, over as many connections as rclone has."""

    def some(mine):
        with cluster.raw(timeout=600) as raw:
            for number in mine:
                work(raw, number)

    with concurrent.futures.ThreadPoolExecutor(CONNECTIONS) as pool:
        list(pool.map(some, (numbers[first::CONNECTIONS] for first in range(CONNECTIONS))))


def key(number):
    return f"file-{number:05}"


def write(cluster, buckets, numbers, generation):
    def put(raw, number):
        data = body(("rclone", number, generation), FILE_BYTES)
        for bucket in buckets:
            reply = raw.put(bucket, key(number), data, payload=UNSIGNED)
            assert reply.status == 200, reply

    every(cluster, numbers, put)


def read(cluster, bucket, numbers, generation=lambda number: 0):
    def get(raw, number):
        reply = raw.get(bucket, key(number))
        assert reply.status == 200 and reply.body == body(("rclone", number, generation(number)), FILE_BYTES), reply.status

    every(cluster, numbers, get)


def beside_rclone(clusters, home, member, folder):
    beside = Beside(clusters, home, member, folder)
    everything, changed, tenth = list(range(FILES)), list(range(0, FILES, 100)), list(range(0, FILES, 10))

    def buckets():
        """One that is linked; one in each cluster, which rclone keeps equal."""
        linked, source, copy = shared_bucket(home, member), bucket_name("source"), bucket_name("copy")
        home.run("bucket", "create", source)
        member.run("bucket", "create", copy)
        write(home, [linked, source], everything, 0)
        return linked, source, copy

    linked, source, copy = buckets()
    beside.step(
        "all written, all read",
        lambda: (beside.sync(source, copy), read(member, copy, everything)),
        lambda: read(member, linked, everything),
    )
    write(home, [linked, source], changed, 1)
    newest = lambda number: int(number % 100 == 0)
    beside.step(
        "1 % changed, all read again",
        lambda: (beside.sync(source, copy), read(member, copy, everything, newest)),
        lambda: read(member, linked, everything, newest),
    )
    linked, source, copy = buckets()
    beside.step(
        "all written, a tenth read",
        lambda: (beside.sync(source, copy), read(member, copy, tenth)),
        lambda: read(member, linked, tenth),
    )
    size = FILES * FILE_BYTES // MIB
    heading(
        f"{FILES:,} files, {size} MiB; 20 ms, 100 Mbit/s", "rclone sync, MiB across", "linked, MiB across",
        "rclone sync, s", "linked, s",
    )
    for found in beside.found:
        row(*found)
