"""What `tests/bench` measures once everything is built, printed as the tables of docs/benchmarks.md.

Systems take turns, round after round (A B A B), and only the one whose turn it is runs. A figure is the median of the
rounds and a ratio the median of the rounds' ratios, so that what else the machine does in a round hits both.
"""

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import tempfile
import time

from bench_servers import BINARIES, ROOT, Elton, Garage
from bench_tables import heading, row

MIB = 1 << 20
# Size of the bodies, its name, and how many objects GET reads.
SIZES = ((4096, "4 KiB", 20_000), (MIB, "1 MiB", 400))
TRANSFERS = 256
MEDIAN_OF_STARTS = 3


def baseline(folder, seconds=2):
    """What the machine does without any server: figure → value."""
    md5 = json.loads(subprocess.run([BINARIES / "elton-load", "md5"], capture_output=True, check=True).stdout)
    place, block, syncs = folder / "baseline", os.urandom(4096), 0
    began = time.monotonic()
    with open(place, "wb", buffering=0) as file:
        while time.monotonic() - began < seconds:
            file.write(block)
            os.fdatasync(file.fileno())
            syncs += 1
    took = time.monotonic() - began
    place.unlink()
    return {"MD5 of one core, MiB/s": md5["mib_per_second"], "appends of 4 KiB with fdatasync, /s": syncs / took}


class Contest:
    """The rounds: what each system did in each of them."""

    def __init__(self, systems, seconds):
        self.systems, self.seconds = systems, seconds
        self.found = {system.name: {} for system in systems}

    def note(self, system, figure, value):
        self.found[system.name].setdefault(figure, []).append(value)

    def prepare(self, system):
        """The memory of a server that has done nothing, and the objects that GET and LIST read."""
        with system:
            time.sleep(1)
            self.note(system, "idle memory, MiB", system.memory())
            for size, _, count in SIZES:
                system.create_bucket(f"get-{size}")
                system.load("fill", f"get-{size}", size=size, count=count)

    def turn(self, system, number, md5):
        bucket = f"put-{number}"
        with system:
            system.create_bucket(bucket)
            for size, word, count in SIZES:
                put = system.load("put", bucket, size=size, seconds=self.seconds)
                self.requests(system, f"PUT {word}", put)
                get = system.load("get", f"get-{size}", count=count, seconds=self.seconds)
                self.requests(system, f"GET {word}", get)
            listed = system.load("list", "get-4096")
            self.note(system, f"LIST {listed['keys']:,} keys, keys/s", listed["keys_per_second"])
            one = system.load("put", bucket, size=256 * MIB, connections=1, seconds=self.seconds)
            self.note(system, "PUT 256 MiB by one, MiB/s", one["mib_per_second"])
            self.note(system, "… of MD5's speed in the round", one["mib_per_second"] / md5)

    def requests(self, system, word, load):
        self.note(system, f"{word}, /s", load["per_second"])
        self.note(system, f"{word}, p99 ms (less is better)", load["p99_ms"])
        spent = load["processor_seconds"] * 1e6 / load["requests"]
        self.note(system, f"{word}, server's CPU µs each (less is better)", spent)

    def transfers(self, system):
        """In a process that has served nothing else, so that the memory is that of the transfers."""
        with system:
            system.create_bucket("transfers")
            highest, done = system.peak(lambda: system.load("transfers", "transfers", count=TRANSFERS, size=64 * MIB))
        self.note(system, f"{TRANSFERS} × 64 MiB up at once, MiB/s", done["put_mib_per_second"])
        self.note(system, f"{TRANSFERS} × 64 MiB down at once, MiB/s", done["get_mib_per_second"])
        self.note(system, f"{TRANSFERS} × 64 MiB, peak memory MiB (less is better)", highest)

    def show(self):
        ours, *rivals = self.systems
        heading("", ours.name, *(column for rival in rivals for column in (rival.name, f"ratio to {rival.name}")))
        for figure, values in self.found[ours.name].items():
            columns = [statistics.median(values)]
            for rival in rivals:
                others = self.found[rival.name][figure]
                ratios = [value / other for value, other in zip(values, others, strict=True)]
                columns += [statistics.median(others), statistics.median(ratios)]
            row(figure, *columns)


def listing(folder, keys, rounds):
    """Over keys that the core's commit made: the start after SIGKILL, LIST, and the memory while listing."""
    heading(f"bucket of {keys:,} keys", "elton")
    server = Elton(folder)
    began = time.monotonic()
    subprocess.run([BINARIES / "elton-fill", folder / "data", "many", str(keys)], check=True)
    row("one commit of all keys, s", time.monotonic() - began)
    starts = []
    server.start()
    for _ in range(MEDIAN_OF_STARTS):
        server.kill()
        began = time.monotonic()
        server.start()
        starts.append(time.monotonic() - began)
    row("start after SIGKILL until it answers, s", statistics.median(starts))
    row("memory before LIST, MiB", server.memory())
    speeds = []
    for number in range(1, rounds + 1):
        highest, listed = server.peak(lambda: server.load("list", "many"))
        if listed["keys"] != keys:
            raise SystemExit(f"{listed['keys']} of {keys} keys were listed")
        speeds.append(listed["keys_per_second"])
        row(f"peak memory in LIST {number}, MiB", highest)
    row("LIST, keys/s", statistics.median(speeds))
    server.kill()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rival", choices=["garage", "none"], default="none")
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--keys", type=int, default=1_000_000)
    arguments = parser.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="bench-", dir=ROOT / "target"))
    try:
        measure(folder, arguments)
    finally:
        shutil.rmtree(folder)


def measure(folder, arguments):
    rivals = [Garage(folder / "garage")] if arguments.rival == "garage" else []
    contest = Contest([Elton(folder / "elton"), *rivals], arguments.seconds)
    for system in contest.systems:
        contest.prepare(system)
    machine = {}
    for number in range(1, arguments.rounds + 1):
        print(f"round {number} of {arguments.rounds}, load average {os.getloadavg()[0]:.1f}", flush=True)
        for figure, value in baseline(folder).items():
            machine.setdefault(figure, []).append(value)
        for system in contest.systems:
            contest.turn(system, number, machine["MD5 of one core, MiB/s"][-1])
    for system in contest.systems:
        contest.transfers(system)
    heading("machine", "value")
    for figure, values in machine.items():
        row(figure, statistics.median(values))
    contest.show()
    for system in contest.systems:
        shutil.rmtree(system.folder)
    listing(folder / "list", arguments.keys, arguments.rounds)


main()
