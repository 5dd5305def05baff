"""What is here of large bodies that were written elsewhere: ranges that were read, versions that were read before, and
transfers that were cut, also by a SIGKILL. All by the counters of the network interfaces.
"""

import concurrent.futures
import http.client
import random
import socket
import threading

import pytest

from clusters import shared_bucket, started, wait
from conftest import boto, parameter
from content import body
from raw import UNSIGNED

KIB, MIB = 1 << 10, 1 << 20
GROUP, PAGE = 64 * KIB, 4 * KIB
# Questions of the newest, pings, who has what: nothing that grows with what is read.
CHATTER = 4 * KIB
PIECE = 32 * MIB


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    with started(tmp_path_factory.mktemp("partial"), "home", "member") as clusters:
        yield clusters


@pytest.fixture
def home(pair):
    return pair.all["home"]


@pytest.fixture
def member(pair):
    return pair.all["member"]


def put(cluster, bucket, key, data):
    with cluster.raw(timeout=250) as raw:
        reply = raw.put(bucket, key, data, payload=UNSIGNED)
        assert reply.status == 200, reply


def get(cluster, bucket, key, first=None, last=None):
    headers = {} if first is None else {"range": f"bytes={first}-{last}"}
    with cluster.raw(timeout=250) as raw:
        reply = raw.get(bucket, key, headers=headers)
    assert reply.status in (200, 206), reply
    return reply.body


def large(seed, size) -> bytes:
    return body(seed, PIECE) * (size // PIECE)


def cached(cluster) -> int:
    """How many bytes of other clusters' bodies are here, for good."""
    return cluster.shown("status")["cache"]["bytes"]


def kill_and_start(cluster, *others):
    cluster.kill()
    cluster.start()
    for other in others:
        cluster.wait_for_link(other.name)


def test_a_range_that_was_read_stays(home, member):
    """1 MiB of 1 GiB (`--long`; 256 MiB otherwise): 2 MiB at the most. Again, and after a SIGKILL: nothing."""
    size = parameter("FEDERATION_LARGE_MIB", 256) * MIB
    bucket, data = shared_bucket(home, member), large("range", size)
    put(home, bucket, "k", data)
    starts = [0, 100 * MIB + 12_345, size - MIB]
    before = cached(member)
    for start in starts:
        with member.counting() as crossed:
            assert get(member, bucket, "k", start, start + MIB - 1) == data[start : start + MIB]
        assert MIB <= crossed().payload <= 2 * MIB, (start, crossed())
    # The map is written behind the bytes.
    wait(lambda: cached(member) >= before + 3 * MIB, "what was read is not kept")
    for round in ("again", "after a SIGKILL"):
        with member.counting() as crossed:
            for start in starts:
                assert get(member, bucket, "k", start + 5, start + MIB - 1) == data[start + 5 : start + MIB]
        assert crossed().payload < 3 * CHATTER, (round, crossed())
        kill_and_start(member, home)
    # The rest of it, and no more.
    with member.counting() as crossed:
        assert get(member, bucket, "k") == data
    assert crossed().payload <= 1.02 * (size - 3 * MIB) + CHATTER, crossed()
    with member.counting() as crossed:
        assert get(member, bucket, "k") == data
    assert crossed().payload < CHATTER, crossed()


def test_ranges_that_are_read_at_once_cross_once(home, member):
    """16 readers each of the same and of overlapping ranges of 1 MiB of 64 MiB: what they read, and a tenth at the most."""
    size, readers = 64 * MIB, 16
    bucket, data = shared_bucket(home, member), large("together", size)
    client = boto(member)
    for kind, step in (("same", 0), ("overlapping", 5 * GROUP + 777)):
        # Each with a body of its own: nothing of it is here, nor of another version of it.
        put(home, bucket, kind, body(kind, GROUP) + data[GROUP:])
        starts = [20 * MIB + 12_345 + number * step for number in range(readers)]

        def read(start, kind=kind):
            return client.get_object(Bucket=bucket, Key=kind, Range=f"bytes={start}-{start + MIB - 1}")["Body"].read()

        read_at_once = concurrent.futures.ThreadPoolExecutor(readers)
        with member.counting() as crossed, read_at_once:
            replies = list(read_at_once.map(read, starts))
        for start, reply in zip(starts, replies):
            assert reply == data[start : start + MIB], (kind, start)
        union = starts[-1] + MIB - starts[0]
        assert union <= crossed().payload <= 1.1 * union + 2 * GROUP, (kind, crossed().payload / union, crossed())


def test_a_range_that_is_read_goes_on_when_another_reader_has_gone(pair, home, member):
    """One of two readers of the same part closes its connection in the middle: the other has all, and little comes twice."""
    bucket, data = shared_bucket(home, member), large("gone", 64 * MIB)
    put(home, bucket, "k", data)
    # Of a state by its number the second reader asks nothing, whose answer would stand in line behind the first one's bytes.
    state = f"{bucket}--at-{home.shown('bucket', 'info', bucket)['number']}"
    line = pair.line(home, member)
    line.rate = 8 * MIB
    try:
        with member.counting() as crossed:
            first = member.raw(timeout=60)
            gone = threading.Thread(target=lambda: _try_to_read_slowly(first, state), daemon=True)
            gone.start()
            carried = line.carried[member.machine.wan]
            wait(lambda: line.carried[member.machine.wan] >= carried + MIB, "no progress", 30)
            replies = []
            second = threading.Thread(
                target=lambda: replies.append(get(member, state, "k", 4 * MIB, 12 * MIB - 1)), daemon=True
            )
            second.start()
            wait(lambda: line.carried[member.machine.wan] >= carried + 3 * MIB, "no progress", 30)
            first.connection().sock.shutdown(socket.SHUT_RDWR)
            second.join(60)
            assert replies and replies[0] == data[4 * MIB : 12 * MIB]
        assert crossed().payload <= 1.1 * 16 * MIB + GROUP, crossed()
    finally:
        line.rate = None


def _try_to_read_slowly(raw, bucket):
    try:
        raw.get(bucket, "k", headers={"range": f"bytes=0-{16 * MIB - 1}"})
    except (OSError, http.client.HTTPException):
        pass  # Its connection is closed under it.


def changed(data: bytes, pages: int, seed) -> bytes:
    """The same with some 4 KiB pages of it replaced."""
    picked, new = random.Random(f"{seed}").sample(range(len(data) // PAGE), pages), bytearray(data)
    for page in picked:
        new[page * PAGE : (page + 1) * PAGE] = body((seed, page), PAGE)
    return bytes(new)


def test_a_new_version_brings_what_differs(home, member):
    """1 GiB (`--long`; 256 MiB otherwise) of which 100 pages of 4 KiB change: 4 MiB at the most, whoever wrote it."""
    size = parameter("FEDERATION_LARGE_MIB", 256) * MIB
    bucket, first = shared_bucket(home, member), large("delta", size)
    put(home, bucket, "k", first)
    assert get(member, bucket, "k") == first
    for writer, reader in ((home, member), (member, home)):
        first = changed(first, 100, writer.name)
        put(writer, bucket, "k", first)
        with member.counting() as crossed:
            assert get(reader, bucket, "k") == first
        # The tree, and two leaves' worth of each page.
        assert crossed().payload <= min(4 * MIB, MIB + size // 1024), (writer.name, crossed())
        with member.counting() as crossed:
            assert get(reader, bucket, "k") == first
        assert crossed().payload < CHATTER, crossed()


def test_a_range_of_a_new_version_uses_parts_of_the_old_one(home, member):
    bucket, first = shared_bucket(home, member), body("parts", 8 * MIB)
    put(home, bucket, "k", first)
    assert get(member, bucket, "k", 2 * MIB, 4 * MIB - 1) == first[2 * MIB : 4 * MIB]
    second = changed(first, 1, "parts")
    page = next(at for at in range(0, len(first), PAGE) if first[at : at + PAGE] != second[at : at + PAGE])
    put(home, bucket, "k", second)
    with member.counting() as crossed:
        assert get(member, bucket, "k", 2 * MIB, 4 * MIB - 1) == second[2 * MIB : 4 * MIB]
    assert crossed().payload < GROUP + 4 * CHATTER, (page, crossed())
    # What was not here of the old one comes whole.
    with member.counting() as crossed:
        assert get(member, bucket, "k") == second
    assert 6 * MIB - GROUP <= crossed().payload <= 1.02 * 6 * MIB + GROUP, crossed()


def test_a_version_that_was_made_longer_brings_the_end(home, member):
    bucket, first = shared_bucket(home, member), body("longer", 5 * MIB + 1000)
    put(home, bucket, "k", first)
    assert get(member, bucket, "k") == first
    second = first + body("more", MIB)
    put(home, bucket, "k", second)
    with member.counting() as crossed:
        assert get(member, bucket, "k") == second
    assert MIB <= crossed().payload <= 1.02 * MIB + GROUP + 4 * CHATTER, crossed()
    put(home, bucket, "k", first[: 3 * MIB + 77])
    with member.counting() as crossed:
        assert get(member, bucket, "k") == first[: 3 * MIB + 77]
    assert crossed().payload < GROUP, crossed()


def test_a_changed_part_of_an_upload(home, member):
    """Parts that are the same are the same bodies; of one that changed only that crosses which differs."""
    bucket, parts = shared_bucket(home, member), [body(("part", number), 8 * MIB) for number in range(4)]
    with home.raw() as raw:
        assert raw.multipart(bucket, "k", parts).status == 200
    assert get(member, bucket, "k") == b"".join(parts)
    parts[2] = changed(parts[2], 3, "part")
    with home.raw() as raw:
        assert raw.multipart(bucket, "k", parts).status == 200
    with member.counting() as crossed:
        assert get(member, bucket, "k") == b"".join(parts)
    assert crossed().payload < 3 * 2 * PAGE + 8 * CHATTER, crossed()


def test_a_transfer_goes_on_after_a_kill(pair, home, member):
    """256 MiB (1 GiB with `--long`), and the cluster that reads is killed in the middle: 2 % come twice at the most."""
    size = parameter("FEDERATION_CUT_MIB", 256) * MIB
    bucket, data = shared_bucket(home, member), large("kill", size)
    put(home, bucket, "k", data)
    line = pair.line(home, member)
    line.rate = size / 16
    before, carried = member.machine.counted(), line.carried[member.machine.wan]
    try:
        # Its client hears of the kill.
        reader = threading.Thread(target=lambda: _try_to_read(member, bucket), daemon=True)
        reader.start()
        for part, spoil in enumerate((line.flicker, lambda: kill_and_start(member, home), line.flicker), 1):
            goal = carried + size * part // 5
            wait(lambda: line.carried[member.machine.wan] >= goal, "no progress", 120)
            spoil()
            if part == 2:
                reader.join(30)
                reader = threading.Thread(target=lambda: _try_to_read(member, bucket), daemon=True)
                reader.start()
        reader.join(240)
        assert not reader.is_alive(), "the read never ended"
        assert get(member, bucket, "k") == data
    finally:
        line.rate = None
    crossed = member.machine.counted().since(before)
    assert crossed.payload_received <= 1.02 * size + 64 * KIB, f"{crossed.payload_received / size:.3f}: {crossed}"


def _try_to_read(cluster, bucket):
    try:
        get(cluster, bucket, "k")
    except (OSError, http.client.HTTPException, AssertionError):
        pass  # The server was killed; what came is what counts.


def test_the_cache_evicts_parts(tmp_path):
    with started(tmp_path, "home", "member", args=["--cache-size", "2MiB"]) as clusters:
        home, member = clusters.all["home"], clusters.all["member"]
        bucket, data = shared_bucket(home, member), body("evict", 16 * MIB)
        put(home, bucket, "k", data)
        get(member, bucket, "k", 0, 4 * MIB - 1)
        wait(lambda: cached(member) >= 4 * MIB, "what was read is not kept")

        def evicted():
            # What is being written down counts as in use.
            member.run("gc", "--now", "--yes")
            return cached(member) == 0

        wait(evicted, "parts are not evicted")
        assert not list(member.data.glob("bodies/*/*.sparse"))
        with member.counting() as crossed:
            assert get(member, bucket, "k", 0, 4 * MIB - 1) == data[: 4 * MIB]
        assert crossed().payload >= 4 * MIB, crossed()
