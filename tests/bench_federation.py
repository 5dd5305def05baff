"""What `tests/bench --federation` measures: two clusters in network namespaces, and between them a network that is as
slow as it is told (`clients/wan.py`). Printed as tables of docs/benchmarks.md; the thesis' scenario also as a picture.
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

from bench_line import Plain, object_seconds  # noqa: E402
from bench_rclone import beside_rclone  # noqa: E402
from bench_servers import BINARIES, ROOT, processor_seconds  # noqa: E402
from bench_tables import heading, row  # noqa: E402
from clusters import shared_bucket, started  # noqa: E402
from content import body  # noqa: E402
from raw import UNSIGNED  # noqa: E402

MIB = 1 << 20
GIGABIT = 125_000_000
# Half of the round trip of 100 ms.
FAR = 0.05
WRITERS = 256
PICTURE = ROOT / "docs/thesis-scenario.svg"


def load(cluster, operation, bucket, **options):
    arguments = [operation, cluster.endpoint, bucket, *(f"{name}={value}" for name, value in options.items())]
    done = subprocess.run([BINARIES / "elton-load", *arguments], env=cluster.client_env(), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"elton-load {' '.join(arguments)} failed: {done.stderr}")
    return json.loads(done.stdout)


def put(cluster, bucket, key, data):
    with cluster.raw(timeout=600) as raw:
        reply = raw.put(bucket, key, data, payload=UNSIGNED)
    assert reply.status == 200, reply


def get(cluster, bucket, key, size):
    with cluster.raw(timeout=600) as raw:
        reply = raw.get(bucket, key)
    assert reply.status == 200 and len(reply.body) == size, reply.status


def timed(work):
    began = time.monotonic()
    work()
    return time.monotonic() - began


def reads(cluster, bucket, count, seconds):
    """How many reads per second, and what one costs the server, in microseconds of a processor."""
    before = processor_seconds(cluster.process)
    rate = load(cluster, "get", bucket, count=count, seconds=seconds)["per_second"]
    return rate, (processor_seconds(cluster.process) - before) / (rate * seconds) * 1e6


def hot_reads(home, member, rounds, seconds):
    """The same objects at the home and, under a bound, at the member that has read them before."""
    heading("hot reads under `bounded`", "at the home", "at the member", "ratio")
    for size, word, count in ((4096, "4 KiB", 500), (MIB, "1 MiB", 100)):
        bucket = shared_bucket(home, member)
        load(home, "fill", bucket, size=size, count=count)
        # Every object is read at least once before it counts; strong, so that what the bound allows has them all.
        load(member, "get", bucket, count=count, seconds=2 * seconds)
        member.run("bucket", "set", bucket, "--consistency", "bounded=600")
        found = [[reads(at, bucket, count, seconds) for at in (home, member)] for _ in range(rounds)]
        for index, what in enumerate(("/s", "server's CPU µs each (less is better)")):
            pairs = [(here[index], there[index]) for here, there in found]
            ratio = statistics.median(there / here for here, there in pairs)
            row(f"GET {word}, {what}", *(statistics.median(column) for column in zip(*pairs)), ratio)


def far(line):
    line.delay, line.rate = FAR, GIGABIT


def near(line):
    line.delay, line.rate = 0.0, None


def far_away(clusters, home, member, rounds, seconds, size):
    """100 ms there and back, 1 Gbit/s each way; beside it a plain stream of as many bytes over the same line."""
    bucket, line, found = shared_bucket(home, member), clusters.line(home, member), []
    for number in range(rounds):
        data = b"".join(body(("fetch", number, at), 16 * MIB) for at in range(0, size, 16 * MIB))
        put(home, bucket, f"large-{number}", data)
    with Plain(clusters.wan, home.machine, size) as plain:
        far(line)
        try:
            for number in range(rounds):
                took = object_seconds(member, bucket, f"large-{number}", size)
                found.append((took, plain.seconds(member.machine)))
            put_rate = load(member, "put", bucket, size=4096, connections=WRITERS, seconds=seconds)["per_second"]
        finally:
            near(line)
    ours, streams = (statistics.median(column) for column in zip(*found))
    heading("100 ms, 1 Gbit/s", "value", "of the line", "of a plain stream")
    row(f"a plain TCP stream of {size // MIB} MiB, MiB/s", size / MIB / streams, size / streams / GIGABIT, 1)
    of_stream = statistics.median(stream / took for took, stream in found)
    row(f"first read of {size // MIB} MiB at the member, MiB/s", size / MIB / ours, size / ours / GIGABIT, of_stream)
    heading("100 ms, 1 Gbit/s", "value", "of what the round trip allows")
    row(f"PUT 4 KiB at the member, {WRITERS} clients, /s", put_rate, put_rate * 2 * FAR / WRITERS)


def thesis(home, member, line):
    """64 MiB written in A and read three times in B: what crosses when, and how long it takes."""
    bucket, data, steps = shared_bucket(home, member), body("thesis", 64 * MIB), []
    line.delay, line.rate = 0.01, GIGABIT / 10
    try:
        work = [("written in A", lambda: put(home, bucket, "k", data))]
        work += [(f"read {word} in B", lambda: get(member, bucket, "k", len(data))) for word in ("once", "again", "a third time")]
        for name, step in work:
            with member.counting() as crossed:
                took = timed(step)
            steps.append((name, crossed().payload / MIB, took))
    finally:
        near(line)
    heading("64 MiB; 20 ms, 100 Mbit/s", "MiB across", "seconds")
    for name, across, took in steps:
        row(name, across, took)
    PICTURE.write_text(picture(steps))


def picture(steps) -> str:
    """Bars: what had crossed after each step, beside systems that copy what is written at once."""
    width, height, left, top, bar = 640, 300, 60, 40, 44
    highest, sums, total = 80.0, [], 0.0
    for _, across, _ in steps:
        total += across
        sums.append(total)
    y = lambda mib: top + (height - top - 50) * (1 - mib / highest)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        '<text x="20" y="20">MiB that had crossed between the clusters after each step</text>',
    ]
    for mib in (0, 32, 64):
        lines.append(f'<line x1="{left}" x2="{width - 20}" y1="{y(mib):.0f}" y2="{y(mib):.0f}" stroke="#ccc"/>')
        lines.append(f'<text x="{left - 8}" y="{y(mib) + 4:.0f}" text-anchor="end">{mib}</text>')
    for index, ((name, _, _), mib) in enumerate(zip(steps, sums)):
        at = left + 30 + index * 140
        for offset, value, colour in ((0, mib, "#1668a7"), (bar + 4, 64, "#bbb")):
            lines.append(
                f'<rect x="{at + offset}" y="{y(value):.1f}" width="{bar}" height="{y(0) - y(value):.1f}" fill="{colour}"/>'
            )
        lines.append(f'<text x="{at + bar}" y="{height - 30}" text-anchor="middle">{name}</text>')
    lines.append(f'<rect x="{left + 30}" y="{height - 18}" width="10" height="10" fill="#1668a7"/>')
    lines.append(f'<text x="{left + 46}" y="{height - 9}">measured</text>')
    lines.append(f'<rect x="{left + 130}" y="{height - 18}" width="10" height="10" fill="#bbb"/>')
    lines.append(f'<text x="{left + 146}" y="{height - 9}">copied when it is written, to one other cluster (arithmetic)</text>')
    return "\n".join([*lines, "</svg>", ""])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--mib", type=int, default=1024, help="size of the large object")
    arguments = parser.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="bench-", dir=ROOT / "target"))
    print(f"load average {os.getloadavg()[0]:.1f}", flush=True)
    try:
        with started(folder, "home", "member") as clusters:
            home, member = clusters.all["home"], clusters.all["member"]
            line = clusters.line(home, member)
            thesis(home, member, line)
            hot_reads(home, member, arguments.rounds, arguments.seconds)
            far_away(clusters, home, member, arguments.rounds, arguments.seconds, arguments.mib * MIB)
            beside_rclone(clusters, home, member, folder)
    finally:
        shutil.rmtree(folder)


main()
