"""What `tests/bench --mount` measures: reads through a mounted snapshot beside the bare disk and `rclone mount`, in turns of
one run. Printed as tables of docs/benchmarks.md.
"""

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent / "clients"))

from bench_servers import BINARIES, ROOT  # noqa: E402
from bench_tables import heading, row  # noqa: E402
from conftest import boto  # noqa: E402
from content import write  # noqa: E402
from mounts import Mounts  # noqa: E402
from server import Server  # noqa: E402

MIB = 1 << 20
RCLONE = ROOT / "target/tests-venv/bin/rclone"
SMALL_FILES = 5000


def fio(path, seconds, **options) -> dict:
    arguments = [f"--{name}={value}" for name, value in options.items()]
    done = subprocess.run(
        ["fio", "--name=read", f"--filename={path}", "--readonly", "--ioengine=psync", "--invalidate=0", "--time_based", f"--runtime={seconds}",
         "--output-format=json", *arguments],
        capture_output=True, text=True, check=True,
    )
    return json.loads(done.stdout)["jobs"][0]["read"]


def sequential(path, seconds) -> float:
    return fio(path, seconds, rw="read", bs="1M")["bw_bytes"] / MIB


def random(path, seconds) -> float:
    return fio(path, seconds, rw="randread", bs="4k")["iops"]


def opens(folder, seconds) -> float:
    """Files opened, read and closed in a second."""
    names = sorted(entry.path for entry in os.scandir(folder))
    ended, count, began = time.monotonic() + seconds, 0, time.monotonic()
    while time.monotonic() < ended:
        for name in names:
            file = os.open(name, os.O_RDONLY)
            os.read(file, 65536)
            os.close(file)
        count += len(names)
    return count / (time.monotonic() - began)


def in_turns(places, measure, seconds, rounds) -> dict:
    """The median of what is measured at each place, one after the other in every round; the first round warms up."""
    found = {name: [] for name in places}
    for turn in range(rounds + 1):
        for name, path in places.items():
            value = measure(path, seconds)
            if turn:
                found[name].append(value)
    return {name: statistics.median(values) for name, values in found.items()}


def show(what, medians):
    for name, value in medians.items():
        row(f"{what} | {name}", value, value / medians["disk"])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--mib", type=int, default=1024)
    options = parser.parse_args()
    if not shutil.which("fio"):
        raise SystemExit("fio is missing: apt-get install fio")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="bench-mount-", dir=ROOT / "target"))
    rclone, server = None, Server(folder / "data", binary=BINARIES / "elton").start()
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
        began = time.monotonic()
        mount = mounts.mount("bench")
        mounted, mode = time.monotonic() - began, mounts.record["mode"]
        small_files = mounts.mount("bench", "--profile", "small-files")
        other = folder / "rclone"
        other.mkdir()
        env = server.client_env(
            RCLONE_CONFIG="/dev/null", RCLONE_S3_PROVIDER="Other", RCLONE_S3_ENV_AUTH="true", RCLONE_S3_ENDPOINT=server.endpoint,
        )
        rclone = subprocess.Popen(
            [RCLONE, "mount", "--read-only", "--vfs-cache-mode", "full", "--cache-dir", folder / "rclone-cache", ":s3:bench", other],
            env=env, stderr=subprocess.DEVNULL,
        )
        while not os.path.ismount(other):
            time.sleep(0.1)
        # What is measured is the second time: all of it is in the caches on disk.
        for path in (mount / "whole", mount / "parts", other / "whole"):
            subprocess.run(["cat", path], stdout=subprocess.DEVNULL, check=True)

        print(f"load average {os.getloadavg()[0]:.1f}; mode {mode}; mounted in {mounted * 1000:.0f} ms\n")
        heading("read", "where", "per second", "of the disk")
        whole = {"disk": source / "parts", "eltonfs": mount / "whole", "eltonfs, put in parts": mount / "parts", "rclone mount": other / "whole"}
        show("1 MiB, one after the other: MiB", in_turns(whole, sequential, options.seconds, options.rounds))
        show("4 KiB, anywhere", in_turns(whole, random, options.seconds, options.rounds))
        small = {"disk": source / "small", "eltonfs": mount / "small", "eltonfs, small-files": small_files / "small", "rclone mount": other / "small"}
        show("4 KiB files: open, read, close", in_turns(small, opens, options.seconds, options.rounds))
    finally:
        mounts.end()
        if rclone:
            subprocess.run(["umount", "--lazy", folder / "rclone"], check=False)
            rclone.terminate()
            rclone.wait(30)
        server.end()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
