"""What a member reads: fresh while the home can be reached, honest while it cannot."""

import datetime
import threading
import time

import pytest

from checks import hold, together
from clusters import shared_bucket, started, wait
from content import body

CONSISTENCY = "x-elton-consistency"


@pytest.fixture(scope="module")
def trio(tmp_path_factory):
    with started(tmp_path_factory.mktemp("trio"), "a", "b", "c") as clusters:
        # Nobody but their homes joins members: b and c have to get along without each other.
        for one, other in (("b", "c"), ("c", "b")):
            clusters.all[one].run("peer", "rm", other)
        yield clusters


@pytest.fixture
def a(trio):
    return trio.all["a"]


@pytest.fixture
def b(trio):
    return trio.all["b"]


@pytest.fixture
def c(trio):
    return trio.all["c"]


@pytest.fixture
def away(trio, a, b):
    """`with away():` the home a cannot be reached from b."""
    yield trio.line(a, b).away
    b.wait_for_link("a")
    a.wait_for_link("b")


def unavailable(reply, cluster):
    """503, and who is away."""
    assert (reply.status, reply.code) == (503, "ServiceUnavailable"), reply
    assert f"cluster {cluster} " in reply.message, reply


def test_strong_reads_see_every_acknowledged_write(a, b, c):
    """Whoever wrote it, wherever it is read."""
    bucket = shared_bucket(a, b, c)
    with a.raw() as at_a, b.raw() as at_b, c.raw() as at_c:
        all_three = [at_a, at_b, at_c]
        numbers = []
        for turn in range(12):
            writer = all_three[turn % 3]
            data = body(("strong", turn), 100 if turn % 2 else 100_000)
            numbers.append(writer.put(bucket, "k", data).number)
            for reader in all_three:
                reply = reader.get(bucket, "k")
                assert (reply.body, reply.number) == (data, numbers[-1])
            gone = all_three[(turn + 1) % 3].delete(bucket, "k")
            assert gone.status == 204
            assert {reader.get(bucket, "k").status for reader in all_three} == {404}
        assert numbers == sorted(set(numbers))


def test_a_missing_key_obeys_the_same_rules(a, b):
    """404 is an answer like any other: asked for anew, and kept no longer than a version."""
    bucket = shared_bucket(a, b)
    with a.raw() as home, b.raw() as raw:
        for turn in range(5):
            assert raw.get(bucket, f"k{turn}").status == 404
            home.put(bucket, f"k{turn}", b"there by now")
            assert raw.get(bucket, f"k{turn}").status == 200


def test_strong_reads_of_an_absent_home_are_refused(a, b, away):
    bucket = shared_bucket(a, b)
    with b.raw() as raw:
        raw.put(bucket, "k", b"known")
        with away():
            for reply in (
                raw.get(bucket, "k"),
                raw.get(bucket, "never-read"),
                raw.get(bucket, "k", headers={CONSISTENCY: "strong"}),
                raw.request("GET", raw.path(bucket), {"list-type": "2"}),
                raw.request("GET", raw.path(bucket), {"versions": ""}),
                raw.put(bucket, "k", b"not numbered"),
                raw.delete(bucket, "k"),
                raw.put(bucket, "copy", headers={"x-amz-copy-source": f"{bucket}/k"}),
            ):
                unavailable(reply, "a")
            assert raw.head(bucket, "k").status == 503
        b.wait_for_link("a")
        assert raw.get(bucket, "k").body == b"known"


def test_available_reads_of_an_absent_home_say_how_old_they_are(a, b, away):
    bucket = shared_bucket(a, b)
    b.run("bucket", "set", bucket, "--consistency", "available")
    with b.raw() as raw, a.raw() as home:
        number = home.put(bucket, "k", b"first").number
        assert raw.get(bucket, "k").body == b"first"
        assert raw.get(bucket, "none").status == 404
        fresh = raw.get(bucket, "k")
        assert fresh.headers["x-elton-age"] in (None, "0"), fresh.headers
        with away():
            home.put(bucket, "k", b"second")
            time.sleep(1.2)
            reply = raw.get(bucket, "k")
            assert (reply.status, reply.body, reply.number) == (200, b"first", number)
            assert 1 <= float(reply.headers["x-elton-age"]) < 30, reply.headers
            assert raw.get(bucket, "none").status == 404
            # Of what nobody ever asked here, nothing is known.
            unavailable(raw.get(bucket, "unread"), "a")
            # What one request asks for goes over what is set.
            unavailable(raw.get(bucket, "k", headers={CONSISTENCY: "strong"}), "a")
        b.wait_for_link("a")
        assert raw.get(bucket, "k").body == b"second"


def test_available_serves_the_newest_while_the_home_is_there(a, b):
    bucket = shared_bucket(a, b)
    with b.raw() as raw, a.raw() as home:
        for turn in range(5):
            home.put(bucket, "k", b"%d" % turn)
            assert raw.get(bucket, "k", headers={CONSISTENCY: "available"}).body == b"%d" % turn


def test_bounded_reads_are_no_older_than_the_bound(a, b, away):
    bucket = shared_bucket(a, b)
    b.run("bucket", "set", bucket, "--consistency", "bounded=2")
    with b.raw() as raw, a.raw() as home:
        first = home.put(bucket, "k", b"first").number
        assert raw.get(bucket, "k", headers={CONSISTENCY: "strong"}).body == b"first"
        written = time.monotonic()
        home.put(bucket, "k", b"second")
        with b.counting() as crossed:
            assert raw.get(bucket, "k").number == first, "within the bound nobody is asked"
        assert crossed().payload < 200, crossed()
        wait(lambda: raw.get(bucket, "k").body == b"second", "never the second", 5)
        assert time.monotonic() - written < 3, "older than the bound"
        # Known long enough for the bound, then refused: a bound is not `available`.
        with away():
            assert raw.get(bucket, "k").body == b"second"
            time.sleep(2.2)
            unavailable(raw.get(bucket, "k"), "a")


def test_bounded_reads_are_one_prefix_of_the_changes(a, b):
    """What is seen of one write is seen of all before it, whichever key is read when."""
    bucket = shared_bucket(a, b)
    b.run("bucket", "set", bucket, "--consistency", "bounded=1")
    stop = threading.Event()

    def write():
        with a.raw() as raw:
            turn = 0
            while not stop.is_set():
                turn += 1
                for key in ("x", "y"):
                    raw.put(bucket, key, b"%d" % turn)

    writer = threading.Thread(target=write, daemon=True)
    with b.raw() as raw:
        with a.raw() as home:
            home.put(bucket, "x", b"0"), home.put(bucket, "y", b"0")
        assert raw.get(bucket, "y", headers={CONSISTENCY: "strong"}).status == 200
        writer.start()
        try:
            last = 0
            for _ in range(300):
                # y is written after x: who has seen y has seen at least as much of x.
                y = int(raw.get(bucket, "y").body)
                x = int(raw.get(bucket, "x").body)
                hold(x >= y, f"x is {x} though y was {y}")
                hold(x >= last, f"x went back from {last} to {x}")
                last = x
        finally:
            stop.set()
            writer.join(20)


@pytest.mark.parametrize("mode", ["strong", "bounded=1", "available"])
def test_a_member_reads_its_own_writes(a, b, mode):
    bucket = shared_bucket(a, b)
    b.run("bucket", "set", bucket, "--consistency", mode)
    with b.raw() as raw:
        for turn in range(20):
            number = raw.put(bucket, "k", b"%d" % turn).number
            reply = raw.get(bucket, "k")
            assert (reply.body, reply.number) == (b"%d" % turn, number)
        raw.delete(bucket, "k")
        assert raw.get(bucket, "k").status == 404


@pytest.mark.parametrize("restarted", [False, True])
def test_numbers_never_go_back(trio, a, b, restarted):
    """Not while the home is away, not over a restart of the member, whatever consistency is asked for."""
    bucket = shared_bucket(a, b)
    with a.raw() as home:
        for turn in range(5):
            newest = home.put(bucket, "k", b"%d" % turn).number
            with b.raw() as raw:
                assert raw.get(bucket, "k").number == newest
    with trio.line(a, b).away():
        if restarted:
            b.kill()
            b.start()
        with b.raw() as raw:
            reply = raw.get(bucket, "k", headers={CONSISTENCY: "available"})
            assert (reply.status, reply.number, reply.body) == (200, newest, b"4"), reply
    b.wait_for_link("a")
    with b.raw() as raw:
        assert raw.get(bucket, "k").number == newest


def test_a_member_that_was_away_for_a_restart_of_the_home(a, b):
    bucket = shared_bucket(a, b)
    with b.raw() as raw:
        raw.put(bucket, "k", b"before")
        a.kill()
        unavailable(raw.get(bucket, "k"), "a")
        a.start()
        b.wait_for_link("a")
        assert raw.get(bucket, "k").body == b"before"
        assert raw.put(bucket, "k", b"after").number > 1
    a.wait_for_link("c")


def test_what_one_member_wrote_another_one_reads(a, b, c):
    """b and c never met: the home passes it on."""
    bucket = shared_bucket(a, b, c)
    with b.raw() as at_b, c.raw() as at_c, a.raw() as home:
        for size in (5, 50_000, 300_000, 9_000_000):
            data = body(("relayed", size), size)
            assert at_b.put(bucket, f"k{size}", data).status == 200
            assert at_c.get(bucket, f"k{size}").body == data
            assert home.get(bucket, f"k{size}").body == data
        parts = [body("one", 5 << 20), body("two", 1 << 20)]
        assert at_b.multipart(bucket, "parts", parts).status == 200
        assert at_c.get(bucket, "parts").body == b"".join(parts)
        assert at_c.get(bucket, "parts", {"partNumber": "2"}).body == parts[1]


@pytest.mark.parametrize("size", [100, 50_000, 2_000_000])
def test_a_body_whose_holder_is_away(trio, a, b, c, size):
    """503 that names the holder; never 404, never a short body."""
    bucket, data = shared_bucket(a, b, c), body(("holder", size), size)
    with b.raw() as at_b, c.raw() as at_c, a.raw() as home:
        assert at_b.put(bucket, "k", data).status == 200
        with trio.line(a, b).away():
            for raw in (home, at_c):
                assert raw.head(bucket, "k").status == 200, "the record is at home"
                for headers in ({}, {"range": "bytes=10-19"}):
                    reply = raw.get(bucket, "k", headers=headers)
                    unavailable(reply, "b")
            listed = at_c.request("GET", at_c.path(bucket), {"list-type": "2"}).xml
            assert listed.findtext("Contents/Size") == str(size)
        a.wait_for_link("b")
        assert at_c.get(bucket, "k").body == data
        # Whoever has read it serves it.
        with trio.line(a, b).away():
            assert home.get(bucket, "k").body == data
            assert at_c.get(bucket, "k").body == data
        b.wait_for_link("a")


def test_conditional_writes_from_all_clusters_have_one_winner(a, b, c):
    bucket = shared_bucket(a, b, c)
    clusters, each = (a, b, c), 6
    for turn in range(6):
        replies, gate = [], threading.Barrier(len(clusters) * each)
        lock = threading.Lock()

        def create(cluster, index):
            with cluster.raw() as raw:
                raw.connection().connect()
                gate.wait()
                reply = raw.put(bucket, f"k{turn}", b"%s %d" % (cluster.name.encode(), index), {"if-none-match": "*"})
                with lock:
                    replies.append((reply, b"%s %d" % (cluster.name.encode(), index)))

        threads = [threading.Thread(target=create, args=(cluster, i)) for cluster in clusters for i in range(each)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        won = [(reply, data) for reply, data in replies if reply.status == 200]
        hold(len(won) == 1, f"{len(won)} conditional writes won")
        lost = {(reply.status, reply.code) for reply, _ in replies if reply.status != 200}
        assert lost <= {(412, "PreconditionFailed"), (409, "ConditionalRequestConflict")}, lost
        for cluster in clusters:
            with cluster.raw() as raw:
                reply = raw.get(bucket, f"k{turn}")
                assert (reply.body, reply.number) == (won[0][1], won[0][0].number)


def test_numbers_are_issued_once_wherever_one_writes(a, b, c):
    bucket = shared_bucket(a, b, c, versioned=True)

    def write(raw, index):
        return [(f"{index}-{turn}", raw.put(bucket, f"{index}-{turn}", b"x").number) for turn in range(15)]

    written, threads = [], []
    for cluster in (a, b, c):
        threads.append(
            threading.Thread(target=lambda cluster=cluster: written.extend(sum(together(cluster, 4, write), [])))
        )
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    numbers = sorted(number for _, number in written)
    hold(numbers == list(range(numbers[0], numbers[0] + 180)), "numbers are issued twice or not at all")


@pytest.mark.parametrize("size", [10, 200_000])
def test_copies_between_buckets_of_different_homes(a, b, size):
    """Own and linked, in every direction, with metadata and tags; and out of a snapshot."""
    buckets = {
        "own": shared_bucket(b),
        "own-2": shared_bucket(b),
        "of-a": shared_bucket(a, b),
        "of-a-2": shared_bucket(a, b),
    }
    data = body(("copied", size), size)
    with b.raw() as raw, a.raw() as home:
        for kind, bucket in buckets.items():
            headers = {"x-amz-meta-kind": kind, "content-type": "text/x-copied", "x-amz-tagging": f"kind={kind}"}
            assert raw.put(bucket, "source", data + kind.encode(), headers).status == 200
        for kind, source in buckets.items():
            for target in buckets.values():
                key = f"from-{kind}"
                reply = raw.put(target, key, headers={"x-amz-copy-source": f"{source}/source"})
                assert reply.status == 200 and reply.xml.findtext("ETag"), reply
                got = raw.get(target, key)
                assert got.body == data + kind.encode()
                assert (got.headers["x-amz-meta-kind"], got.headers["content-type"]) == (kind, "text/x-copied")
                tags = raw.get(target, key, {"tagging": ""}).xml
                assert tags.findtext("TagSet/Tag/Value") == kind
        # What was copied into the linked bucket is read at its home, too.
        for kind in buckets:
            assert home.get(buckets["of-a"], f"from-{kind}").body == data + kind.encode()
        old = raw.head(buckets["of-a"], "source").number
        raw.put(buckets["of-a"], "source", b"newer")
        source = {"x-amz-copy-source": f"{buckets['of-a']}--at-{old}/source"}
        assert raw.put(buckets["own"], "old", headers=source).status == 200
        assert raw.get(buckets["own"], "old").body == data + b"of-a"


def test_part_copies_from_and_into_linked_buckets(a, b):
    own, linked = shared_bucket(b), shared_bucket(a, b)
    large = body("part source", 11 << 20)
    with b.raw() as raw:
        for bucket in (own, linked):
            assert raw.put(bucket, "source", large).status == 200
        for source in (own, linked):
            for target in (own, linked):
                path = raw.path(target, f"from-{source}")
                upload = raw.request("POST", path, {"uploads": ""}).xml.findtext("UploadId")
                listed = ""
                for number, wanted in enumerate(("bytes=0-5242879", "bytes=5242880-11534335"), 1):
                    headers = {"x-amz-copy-source": f"{source}/source", "x-amz-copy-source-range": wanted}
                    reply = raw.request("PUT", path, {"partNumber": str(number), "uploadId": upload}, headers)
                    assert reply.status == 200, reply
                    listed += f"<Part><PartNumber>{number}</PartNumber><ETag>{reply.xml.findtext('ETag')}</ETag></Part>"
                document = f"<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>".encode()
                assert raw.request("POST", path, {"uploadId": upload}, body=document).status == 200
                assert raw.get(target, f"from-{source}").body == large


def test_tags_log_and_restore_of_a_linked_bucket(a, b):
    """The snapshots of a linked bucket are those of its home, whoever names or restores them."""
    bucket = shared_bucket(a, b)
    with b.raw() as raw, a.raw() as home:
        raw.put(bucket, "k", b"first")
        b.run("snapshot", "create", bucket, "--tag", "kept", "-m", "as it was")
        assert [tag["tag"] for tag in a.shown("snapshot", "ls", bucket)["tags"]] == ["kept"]
        # A time means its last millisecond.
        time.sleep(0.01)
        between = datetime.datetime.now(datetime.UTC)
        time.sleep(0.01)
        second = home.put(bucket, "k", b"second").number
        raw.put(bucket, "l", b"other")
        assert raw.get(f"{bucket}--at-kept", "k").body == b"first"
        assert raw.get(f"{bucket}--at-{second}", "k").body == b"second"
        stamp = between.strftime("%Y-%m-%dT%H:%M:%S.") + f"{between.microsecond // 1000:03}Z"
        at_time = raw.get(bucket, "k", headers={"x-elton-at": stamp})
        assert at_time.body == b"first", (stamp, at_time)
        assert raw.get(f"{bucket}--at-{second}", "l").status == 404
        differences = b.run("snapshot", "diff", f"{bucket}@kept", bucket)
        assert "k" in differences and "l" in differences
        b.run("snapshot", "restore", f"{bucket}@kept")
        assert raw.get(bucket, "k").body == b"first" == home.get(bucket, "k").body
        assert raw.get(bucket, "l").status == 404
        assert b.shown("bucket", "log", bucket) == a.shown("bucket", "log", bucket)
        b.run("snapshot", "rm", f"{bucket}@kept")
        assert not a.shown("snapshot", "ls", bucket)["tags"]


def test_what_was_read_before_needs_nobody(a, b, away):
    """A version that was read once is valid for ever: by number it is served while the home is away."""
    bucket = shared_bucket(a, b, versioned=True)
    with b.raw() as raw, a.raw() as home:
        number = home.put(bucket, "k", b"read before").number
        home.put(bucket, "k", b"newer")
        assert raw.get(f"{bucket}--at-{number}", "k").body == b"read before"
        with away():
            assert raw.get(f"{bucket}--at-{number}", "k").body == b"read before"
