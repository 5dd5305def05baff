"""SIGKILL under concurrent load: what was acknowledged is there, and the start after it is quick."""

import random
import subprocess
import threading
import time

from checks import command, hold
from conftest import parameter
from load import Load
from raw import Raw
from server import FILL, Server, elton

START_SECONDS_MAX = 2.0
WRITERS = 8


def kill_under_load(server: Server, rounds: int, seed=0):
    """`rounds` times: load, SIGKILL, start, everything that was ever acknowledged in this round reads back."""
    server.start()
    load = Load(server)
    chosen = random.Random(seed)
    slowest = 0.0
    for turn in range(rounds):
        load.run(WRITERS, chosen.randint(20, 250), server.kill)
        server.start()
        slowest = max(slowest, server.start_seconds)
        load.verify(everything=turn == rounds - 1)
    return load, slowest


def test_acknowledged_writes_survive(own_server):
    rounds = parameter("KILLS", 30)
    load, slowest = kill_under_load(own_server, rounds)
    print(f"{rounds} kills, {len(load.acknowledged)} acknowledged writes, slowest start {slowest:.2f} s")
    assert slowest < START_SECONDS_MAX
    # What was never acknowledged and is in no state is not left lying about either: check finds nothing.
    checked = elton("check", server=own_server)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_kill_during_the_collector(own_server):
    """Killed while collecting again and again: tags keep their states, and what is live stays."""
    server = own_server.start()
    load = Load(server)
    tagged = {}
    for turn in range(max(3, parameter("KILLS", 30) // 6)):
        load.run(4, 60, lambda: None)
        with Raw(server) as raw:
            data = b"tagged in turn %d" % turn * 5000
            raw.put(load.plain, "tagged", data)
        command(server, "snapshot", "create", load.plain, "--tag", f"turn-{turn}")
        tagged[f"turn-{turn}"] = data
        background = _collect_in_the_background(server)
        server.kill()
        background.join(30)
        server.start()
        with Raw(server) as raw:
            for tag, data in tagged.items():
                reply = raw.get(f"{load.plain}--at-{tag}", "tagged")
                hold(reply.status == 200 and reply.body == data, f"{tag} is gone: {reply}")
            for (bucket, key), writes in load.attempted.items():
                load._verify_newest(raw, bucket, key, writes)
    checked = elton("check", server=server)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def _collect_in_the_background(server):
    thread = threading.Thread(target=lambda: elton("gc", "--now", "--yes", server=server))
    thread.start()
    time.sleep(random.random() * 0.3)
    return thread


def test_start_with_a_million_keys(tmp_path):
    """Made through the core's commit: by S3 it would take longer than all the other tests."""
    keys = parameter("MILLION_KEYS", 1_000_000)
    subprocess.run([FILL, tmp_path / "data", "many", str(keys)], check=True, timeout=280)
    server = Server(tmp_path / "data").start()
    try:
        load = Load(server)
        for _ in range(3):
            load.run(WRITERS, 100, server.kill)
            server.start()
            assert server.start_seconds < START_SECONDS_MAX
            load.verify()
        with Raw(server) as raw:
            assert raw.head("many", f"{(keys - 1) // 1000:03}/{keys - 1:07}").status == 200
    finally:
        server.end()
