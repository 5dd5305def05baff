"""What crosses between clusters: read from the network interfaces of the machines, and as Elton counts it.

Bytes are those above TCP: TLS and HTTP are in them.
"""

import threading

import pytest

from checks import together
from clusters import shared_bucket, started, wait
from conftest import parameter
from content import body
from raw import UNSIGNED

KIB, MIB = 1 << 10, 1 << 20
# Links ask each other whether they are there, and say who has a body by now: nothing that grows with what is read.
CHATTER = 4 * KIB


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    with started(tmp_path_factory.mktemp("traffic"), "home", "member") as clusters:
        yield clusters


@pytest.fixture
def home(pair):
    return pair.all["home"]


@pytest.fixture
def member(pair):
    return pair.all["member"]


def put(raw, bucket, key, data):
    reply = raw.put(bucket, key, data, payload=UNSIGNED)
    assert reply.status == 200, reply
    return reply


def test_a_write_sends_its_record_alone(home, member):
    """64 MiB written where the bucket is not numbered: less than 4 KiB cross."""
    bucket = shared_bucket(home, member)
    data = body("write", 64 * MIB)
    with member.raw() as raw:
        with member.counting() as crossed:
            put(raw, bucket, "k", data)
        assert crossed().payload < 4 * KIB, crossed()
        with member.counting() as crossed:
            for number in range(100):
                put(raw, bucket, f"small-{number}", b"x" * 4096)
        assert crossed().payload < 100 * KIB, crossed()


def test_a_body_crosses_once(home, member):
    """First read: what is read, and 2 % at the most. Second read: no byte of it. Many first reads at once: one."""
    bucket = shared_bucket(home, member)
    for written_at, read_at in ((home, member), (member, home)):
        for size in (64 * MIB, 40 * KIB):
            data, key = body((written_at.name, size), size), f"{written_at.name}-{size}"
            with written_at.raw() as there, read_at.raw() as here:
                put(there, bucket, key, data)
                with member.counting() as crossed:
                    assert here.get(bucket, key).body == data
                assert size <= crossed().payload <= 1.02 * size + CHATTER, crossed()
                with member.counting() as crossed:
                    assert here.get(bucket, key).body == data
                    assert here.get(bucket, key, headers={"range": "bytes=100-199"}).body == data[100:200]
                assert crossed().payload < CHATTER, crossed()


def test_many_who_read_the_same_fetch_it_once(home, member):
    bucket, data = shared_bucket(home, member), body("together", 16 * MIB)
    with home.raw() as raw:
        put(raw, bucket, "k", data)
    with member.counting() as crossed:
        replies = together(member, 8, lambda raw, _: raw.get(bucket, "k"))
    assert all(reply.body == data for reply in replies)
    assert crossed().payload <= 1.02 * len(data) + 8 * CHATTER, crossed()


def test_a_range_of_a_large_object_brings_little_more(home, member):
    """1 MiB of 1 GiB (`--long`; 256 MiB otherwise): 2 MiB at the most."""
    size = parameter("FEDERATION_LARGE_MIB", 256) * MIB
    bucket = shared_bucket(home, member)
    part = body("range", 32 * MIB)
    with home.raw() as at_home, member.raw() as raw:
        assert at_home.multipart(bucket, "parts", [part] * (size // len(part))).status == 200
        whole = part * (size // len(part)) if size <= 256 * MIB else None
        if whole:
            put(at_home, bucket, "whole", whole)
        for key in ["parts"] + ["whole"] * bool(whole):
            for at in (0, 100 * MIB + 12_345, size - MIB):
                wanted = f"bytes={at}-{at + MIB - 1}"
                with member.counting() as crossed:
                    reply = raw.get(bucket, key, headers={"range": wanted})
                assert reply.status == 206 and reply.body == (part + part)[at % len(part) :][:MIB]
                assert crossed().payload <= 2 * MIB, (key, at, crossed())


def test_a_transfer_that_is_cut_goes_on(pair, home, member):
    """256 MiB cut 20 times: less than 2 % are delivered twice."""
    size = parameter("FEDERATION_CUT_MIB", 256) * MIB
    bucket = shared_bucket(home, member)
    piece = body("cut", 16 * MIB)
    data = piece * (size // len(piece))
    line = pair.line(home, member)
    with home.raw() as at_home, member.raw(timeout=250) as raw:
        put(at_home, bucket, "k", data)
        # Slow enough for the cuts to fall into it: what is under way at a cut is lost.
        line.rate = 60 * MIB
        try:
            got = _read_with_cuts(raw, bucket, line, member, size, cuts=20)
        finally:
            line.rate = None
    assert got.body == data, (got.status, len(got.body))


def _read_with_cuts(raw, bucket, line, member, size, cuts):
    result = []
    reader = threading.Thread(target=lambda: result.append(raw.get(bucket, "k")), daemon=True)
    before, before_member = line.carried[member.machine.wan], member.machine.counted()
    reader.start()
    for cut in range(1, cuts + 1):
        goal = before + size * cut // (cuts + 1)
        wait(lambda: line.carried[member.machine.wan] >= goal or not reader.is_alive(), "no progress", 120)
        assert reader.is_alive(), f"the read ended at cut {cut}: {result}"
        line.flicker()
    reader.join(240)
    assert result, "the read never ended"
    crossed = member.machine.counted().since(before_member)
    assert crossed.payload_received <= 1.02 * size + cuts * 8 * KIB, f"{crossed.payload_received / size:.3f}: {crossed}"
    return result[0]


def test_what_nobody_reads_is_never_sent(home, member):
    bucket = shared_bucket(home, member)
    with home.raw() as raw, member.counting() as crossed:
        for number in range(20):
            put(raw, bucket, f"k{number}", body(number, MIB))
    assert crossed().payload < CHATTER, crossed()


def test_a_copy_within_a_bucket_sends_no_body(home, member):
    bucket, data = shared_bucket(home, member), body("copy", 8 * MIB)
    with member.raw() as raw:
        put(raw, bucket, "k", data)
        with member.counting() as crossed:
            reply = raw.put(bucket, "copy", headers={"x-amz-copy-source": f"{bucket}/k"})
            assert reply.status == 200, reply
            assert raw.get(bucket, "copy").body == data
        assert crossed().payload < 8 * KIB, crossed()


def test_counters_say_what_crossed(home, member):
    """`peer ls` names who, what for, and how many bytes each way; both sides say the same."""
    bucket, data = shared_bucket(home, member), body("counters", 4 * MIB)
    before, before_home = member.traffic(), home.traffic()
    with home.raw() as at_home, member.raw() as raw:
        put(at_home, bucket, "k", data)
        assert raw.get(bucket, "k").body == data
        raw.request("GET", raw.path(bucket), {"list-type": "2"})
        put(raw, bucket, "mine", b"x")
    grown = lambda now, then, key: tuple(a - b for a, b in zip(now[key], then.get(key, (0, 0))))
    now = member.traffic()
    assert len(data) <= grown(now, before, ("home", "read"))[1] <= 1.02 * len(data)
    for purpose in ("list", "publish"):
        sent, received = grown(now, before, ("home", purpose))
        assert 0 < sent < 4 * KIB and 0 < received < 4 * KIB, (purpose, sent, received)
    sent, received = grown(home.traffic(), before_home, ("member", "read"))
    assert len(data) <= sent <= 1.02 * len(data) and received < 4 * KIB


def listed(raw, bucket, **query) -> tuple[list[tuple], int]:
    """All that a chain of ListObjectsV2 shows, and the number of its state."""
    items, token, number = [], None, None
    while True:
        more = {"continuation-token": token} if token else {}
        reply = raw.request("GET", raw.path(bucket), {"list-type": "2", **query, **more})
        assert reply.status == 200, reply
        document = reply.xml
        for item in document.iterfind("Contents"):
            items.append(tuple(item.findtext(name) for name in ("Key", "Size", "ETag", "LastModified")))
        number = number or reply.number
        token = document.findtext("NextContinuationToken")
        if token is None:
            return items, number


def test_a_listing_brings_what_changed(home, member):
    """10,000 keys: after one change a second listing brings a few pages; a listing of a known state brings nothing."""
    count, folders = parameter("FEDERATION_LIST_KEYS", 10_000), 20
    bucket = shared_bucket(home, member)

    def fill(raw, index):
        for number in range(index, count, 8):
            put(raw, bucket, f"d{number % folders:02}/key-{number:06}", b"%d" % number)

    together(home, 8, fill)
    with home.raw() as at_home, member.raw() as raw:
        with member.counting() as crossed:
            first, number = listed(raw, bucket)
        assert len(first) == count and first == listed(at_home, bucket)[0]
        assert crossed().payload > 50 * count, crossed()

        # Nothing has changed: the home is asked for the newest root, and says that it is known.
        with member.counting() as crossed:
            assert listed(raw, bucket) == (first, number)
        assert crossed().payload < CHATTER, crossed()

        # A state that was listed before is listed again without a word to the home.
        for folder in range(3):
            with member.counting() as crossed:
                there, _ = listed(raw, f"{bucket}--at-{number}", prefix=f"d{folder:02}/")
            assert there == [item for item in first if item[0].startswith(f"d{folder:02}/")]
            assert crossed().payload < CHATTER, crossed()

        put(at_home, bucket, "d07/key-000007", b"changed")
        with member.counting() as crossed:
            second, later = listed(raw, bucket)
        assert later > number and second == listed(at_home, bucket)[0]
        assert len(set(second) - set(first)) == 1
        # The page of the key and those above it, for each page of the listing a question at the most.
        assert crossed().payload < 64 * KIB + count // 1000 * KIB, crossed()
        assert crossed().payload < 0.1 * 100 * count, crossed()
