"""What `tests/bench --mount` measures: a mounted snapshot beside the bare disk, `rclone mount` and s3fs, in turns of one run;
cold reads through a slow network; a snapshot of many objects. Printed as tables of docs/benchmarks.md.
"""

import argparse
import contextlib
import copy
import itertools
import json
import os
import pathlib
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import types

sys.path.insert(0, str(pathlib.Path(__file__).parent / "clients"))

from bench_servers import BINARIES, ROOT  # noqa: E402
from bench_tables import heading, row  # noqa: E402
from conftest import boto  # noqa: E402
from content import write  # noqa: E402
from mounts import Mounts  # noqa: E402
from server import FILL, Server  # noqa: E402
from test_s3fs import mounted as s3fs_mounted  # noqa: E402
from wan import Wan  # noqa: E402

MIB = 1 << 20
GIGABIT = 125_000_000
# Half of the round trip of 20 ms.
FAR = 0.01
RCLONE = ROOT / "target/tests-venv/bin/rclone"
SMALL_FILES = 5000
# A server that is reached through a network stands at the first address; who goes through the network, at the second.
THERE, THROUGH = "127.0.0.3", "127.0.0.2"
HERE = "127.0.0.1"


# What is measured of a place: how often a second, and the reader's CPU time for each, in µs.


def fio(path, seconds, **options) -> dict:
    arguments = [f"--{name}={value}" for name, value in options.items()]
    done = subprocess.run(
        ["fio", "--name=read", f"--filename={path}", "--readonly", "--ioengine=psync", "--invalidate=0", "--time_based", f"--runtime={seconds}",
         "--output-format=json", *arguments],
        capture_output=True, text=True, check=True,
    )
    return json.loads(done.stdout)["jobs"][0]


def processor_micros(job, count) -> float:
    return (job["usr_cpu"] + job["sys_cpu"]) / 100 * job["job_runtime"] * 1000 / count


def sequential(path, seconds):
    job = fio(path, seconds, rw="read", bs="1M")
    return job["read"]["bw_bytes"] / MIB, processor_micros(job, job["read"]["io_bytes"] / MIB)


def random(path, seconds):
    job = fio(path, seconds, rw="randread", bs="4k")
    return job["read"]["iops"], processor_micros(job, job["read"]["total_ios"])


def opens(folder, seconds):
    """Files opened, read and closed."""
    names = sorted(entry.path for entry in os.scandir(folder))
    began, used = time.monotonic(), processor_seconds()
    for count, name in enumerate(itertools.cycle(names), 1):
        file = os.open(name, os.O_RDONLY)
        os.read(file, 65536)
        os.close(file)
        # Looking at the clock is not to be measured.
        if count % 64 == 0 and (elapsed := time.monotonic() - began) > seconds:
            return count / elapsed, (processor_seconds() - used) / count * 1e6


def processor_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def in_turns(what, places, measure, seconds, rounds):
    """Measures at each place, one after the other in every round, the first of which warms up. Ratios are medians of the rounds'."""
    found = {name: [] for name in places}
    for turn in range(rounds + 1):
        # Nobody always comes after the same one.
        names = list(places) if turn % 2 else list(reversed(places))
        for name in names:
            value = measure(places[name], seconds)
            if turn:
                found[name].append(value)
    for name, values in found.items():
        ratios = [value / disk for (value, _), (disk, _) in zip(values, found["disk"])]
        rate, used = (statistics.median(column) for column in zip(*values))
        row(f"{what} | {name}", rate, statistics.median(ratios), used)


@contextlib.contextmanager
def rclone_mounted(server, folder):
    """`rclone mount` of the bucket, with a cache of its own."""
    at = folder / "mount"
    at.mkdir(parents=True)
    env = server.client_env(
        RCLONE_CONFIG="/dev/null", RCLONE_S3_PROVIDER="Other", RCLONE_S3_ENV_AUTH="true", RCLONE_S3_ENDPOINT=server.endpoint,
    )
    process = subprocess.Popen(
        [RCLONE, "mount", "--read-only", "--vfs-cache-mode", "full", "--cache-dir", folder / "cache", ":s3:bench", at],
        env=env, stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 30
        while not os.path.ismount(at):
            assert process.poll() is None and time.monotonic() < deadline, "rclone did not mount"
            time.sleep(0.1)
        yield at
    finally:
        subprocess.run(["umount", "--lazy", at], check=False)
        process.terminate()
        process.wait(30)


@contextlib.contextmanager
def s3fs_with_cache(server, folder):
    """s3fs as one would use it to read: with its cache, and remembering what it looked up."""
    folder.mkdir(parents=True)
    cache = folder / "cache"
    with s3fs_mounted(server, folder, "bench", "ro", f"use_cache={cache}", "max_stat_cache_size=100000") as at:
        yield at


def read_all(path):
    with open(path, "rb", buffering=0) as file:
        buffer, size = bytearray(MIB), 0
        while got := file.readinto(buffer):
            size += got
    return size


def warm(server, mounts, folder, source, options):
    """What is in everybody's cache."""
    mount = mounts.mount("bench")
    mode = mounts.record["mode"]
    small_files = mounts.mount("bench", "--profile", "small-files")
    with rclone_mounted(server, folder / "rclone") as rclone, s3fs_with_cache(server, folder / "s3fs") as s3fs:
        for at in (mount, rclone, s3fs):
            read_all(at / "whole")
            for entry in os.scandir(at / "small"):
                read_all(entry.path)
        read_all(mount / "parts")
        print(f"load average {os.getloadavg()[0]:.1f}; mode {mode}")
        heading("read", "where", "per second", "of the disk", "reader's CPU µs each")
        # What the mount hands to the kernel: how it was written tells more than how it is read.
        [own] = [path for path in (server.data / "bodies").rglob("*") if path.is_file() and path.stat().st_size == options.mib * MIB]
        whole = {
            "disk": source / "parts", "the server's own file": own, "eltonfs": mount / "whole", "eltonfs, put in parts": mount / "parts",
            "rclone mount": rclone / "whole", "s3fs": s3fs / "whole",
        }  # fmt: skip
        in_turns("1 MiB, one after the other: MiB", whole, sequential, options.seconds, options.rounds)
        in_turns("4 KiB, anywhere", whole, random, options.seconds, options.rounds)
        small = {
            "disk": source / "small", "eltonfs": mount / "small", "eltonfs, `--profile small-files`": small_files / "small",
            "rclone mount": rclone / "small", "s3fs": s3fs / "small",
        }  # fmt: skip
        in_turns("4 KiB files: open, read, close", small, opens, options.seconds, options.rounds)


@contextlib.contextmanager
def network(server):
    """A network in front of a server: the line, and the server as it is reached through it."""
    wan, machine = Wan(), types.SimpleNamespace(gateway=THROUGH, wan=THERE)
    try:
        wan.open_door(machine, server.port)
        through = copy.copy(server)
        through.endpoint = f"http://{THROUGH}:{server.port}"
        yield wan.line(types.SimpleNamespace(wan=HERE), machine), through
    finally:
        wan.close()


def cold(server, folder, options):
    """The first read of a large body, over a line."""
    heading("1 MiB, one after the other, 20 ms and 1 Gbit/s", "MiB/s", "of the line")
    found = {}
    with network(server) as (line, far):
        line.delay, line.rate = FAR, GIGABIT
        for turn in range(options.rounds):
            at = folder / f"cold-{turn}"
            mounts = Mounts(at / "eltonfs", far)
            (at / "eltonfs").mkdir(parents=True)
            with rclone_mounted(far, at / "rclone") as rclone, s3fs_with_cache(far, at / "s3fs") as s3fs:
                try:
                    for name, place in {"eltonfs": mounts.mount("bench", "--copy-bodies"), "rclone mount": rclone, "s3fs": s3fs}.items():
                        began = time.monotonic()
                        size = read_all(place / "whole")
                        found.setdefault(name, []).append(size / MIB / (time.monotonic() - began))
                finally:
                    mounts.end()
            shutil.rmtree(at, ignore_errors=True)
    for name, values in found.items():
        row(name, statistics.median(values), statistics.median(values) * MIB / GIGABIT)


def many(folder, options):
    """A snapshot of many objects."""
    folder.mkdir()
    subprocess.run([FILL, folder / "data", "bench", str(options.objects)], check=True)
    server = Server(folder / "data", binary=BINARIES / "elton")
    server.host = THERE
    server.start()
    mounts = Mounts(folder, server)
    try:
        heading(f"a snapshot of {options.objects:,} objects", "value", "bound")
        began = time.monotonic()
        first = mounts.mount("bench", cache=folder / "cache-first")
        row("mounted for the first time, when the server makes its tree: ms", (time.monotonic() - began) * 1000, None)
        mounts.umount(first)
        took = []
        for turn in range(options.rounds):
            began = time.monotonic()
            mount = mounts.mount("bench", cache=folder / f"cache-{turn}")
            took.append(time.monotonic() - began)
            if turn + 1 < options.rounds:
                mounts.umount(mount)
        row("mounted: ms", statistics.median(took) * 1000, 100)
        with network(server) as (line, through):
            apart = Mounts(folder / "apart", through)
            apart.folder.mkdir()
            at = apart.mount("bench")
            row("fetched for that: KiB", line.carried[HERE] / 1024, 64)
            apart.umount(at)
        for what, arguments in (("`find`", ["-type", "f"]), ("`find` that asks for sizes", ["-type", "f", "-size", "-1"])):
            status = mounts.status(mount)
            began = time.monotonic()
            found = subprocess.run(["find", mount, *arguments], stdout=subprocess.PIPE, check=True).stdout.count(b"\n")
            assert found == options.objects, f"find found {found}"
            row(f"{what}: s", time.monotonic() - began, None)
            row("peak memory of the mount's process after it: MiB", peak_memory(status["pid"]), 200)
    finally:
        mounts.end()
        server.end()


def peak_memory(pid) -> float:
    return int(re.search(r"VmHWM:\s+(\d+) kB", pathlib.Path(f"/proc/{pid}/status").read_text())[1]) / 1024


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--keys", dest="objects", type=int, default=1_000_000)
    options = parser.parse_args()
    for program, package in (("fio", "fio"), ("s3fs", "s3fs")):
        if not shutil.which(program):
            raise SystemExit(f"{program} is missing: apt-get install {package}")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="bench-mount-", dir=ROOT / "target"))
    server = Server(folder / "data", binary=BINARIES / "elton")
    server.host = THERE
    server.start()
    mounts = Mounts(folder, server)
    try:
        source = folder / "source"
        (source / "small").mkdir(parents=True)
        write(source / "parts", "parts", options.mib * MIB)
        for number in range(SMALL_FILES):
            (source / f"small/{number:05}").write_bytes(os.urandom(4096))
        s3 = boto(server)
        s3.create_bucket(Bucket="bench")
        subprocess.run(["aws", "s3", "sync", "--quiet", source, "s3://bench"], env=server.client_env(), check=True)
        with open(source / "parts", "rb") as file:
            s3.put_object(Bucket="bench", Key="whole", Body=file)
        warm(server, mounts, folder, source, options)
        mounts.end()
        cold(server, folder, options)
        server.end()
        many(folder / "many", options)
    finally:
        mounts.end()
        server.end()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
