"""What `elton status` and the metrics say of a cluster among others, and bodies that one member reads from another."""

import functools
import re

import pytest

from clusters import Clusters, bucket_name, join, shared_bucket, started, wait
from content import body

MIB = 1 << 20


@pytest.fixture(scope="module")
def trio(tmp_path_factory):
    """Two members that know nobody but the home."""
    with Clusters(tmp_path_factory.mktemp("status")) as clusters:
        home = clusters.add("home")
        for name in ("one", "two"):
            join(home, clusters.add(name))
        yield clusters


@pytest.fixture
def home(trio):
    return trio.all["home"]


@pytest.fixture
def one(trio):
    return trio.all["one"]


@pytest.fixture
def two(trio):
    return trio.all["two"]


def put(cluster, bucket, key, data):
    with cluster.raw() as raw:
        reply = raw.put(bucket, key, data)
    assert reply.status == 200, reply
    return reply.number


def relayed(cluster):
    """(cluster, bytes sent, bytes received) of what was passed on today."""
    today = cluster.shown("status")["today"]
    return {row["cluster"]: (row["sent"], row["received"]) for row in today["traffic"] if row["purpose"] == "relay"}


def lag_of(cluster, bucket):
    [lag] = [lag for lag in cluster.shown("status")["lag"] if lag["bucket"] == bucket]
    return lag


def single(cluster, bucket):
    """What is said of bodies with one copy: {} if all have several."""
    rows = [row for row in cluster.shown("status")["single_copies"] if row["bucket"] == bucket]
    return {key: value for row in rows for key, value in row.items() if key != "bucket" and value}


def metric(cluster, name, **labels):
    """The value of a metric, or None."""
    for line in cluster.metrics().splitlines():
        found = re.fullmatch(rf"{name}(?:\{{(.*)\}})? (\S+)", line)
        if found and all(f'{key}="{value}"' in (found[1] or "") for key, value in labels.items()):
            return float(found[2])
    return None


def test_members_links_and_disk_are_on_one_screen(home, one):
    bucket = shared_bucket(home, one)
    put(one, bucket, "k", b"x")
    text = home.run("status")
    assert re.search(rf"^{bucket} +one +rw$", text, re.MULTILINE), text
    assert re.search(r"^one +up since .* ms ", text, re.MULTILINE), text
    assert "disk free" in text and "catalog" in text and re.search(r"fetched copies .* of 64", text), text
    assert re.search(r"^one +publish ", text, re.MULTILINE) and "since 20" in text, text
    assert {"bucket": bucket, "cluster": "one", "rights": "rw"} in home.shown("status")["members"]
    assert "no answer" not in one.run("status")


def test_lag_is_what_the_home_has_and_nobody_has_heard_of(trio, home, one):
    bucket = shared_bucket(home, one)
    number = put(one, bucket, "k", b"first")
    lag = lag_of(one, bucket)
    assert (lag["home"], lag["known"], lag["newest"]) == ("home", number, number)
    assert lag["heard_seconds"] <= 30
    for _ in range(3):
        number = put(home, bucket, "k", b"later")
    # Whoever looks at the lag does not make it smaller.
    for _ in range(2):
        lag = lag_of(one, bucket)
        assert (lag["known"], lag["newest"]) == (number - 3, number), lag
    assert metric(one, "elton_link_number", bucket=bucket) == number - 3
    with one.raw() as raw:
        assert raw.get(bucket, "k").body == b"later"
    assert lag_of(one, bucket)["known"] == number
    with trio.line(home, one).away():
        lag = lag_of(one, bucket)
        assert (lag["known"], lag["newest"]) == (number, None), lag
        assert "no answer" in one.run("status")
    one.wait_for_link("home")


def test_bodies_with_one_copy_are_counted(home, one, two):
    bucket = shared_bucket(home, one, two)
    put(home, bucket, "of the home", body("own", MIB))
    assert single(home, bucket) == {}, "what the home wrote it has"
    put(one, bucket, "large", body("large", MIB))
    put(one, bucket, "small", b"y" * 1000)
    assert single(home, bucket) == {"elsewhere": 2, "elsewhere_bytes": MIB + 1000}
    assert metric(home, "elton_single_copy_bytes", bucket=bucket, held="elsewhere") == MIB + 1000
    with home.raw() as raw:
        assert raw.get(bucket, "small").status == 200
    assert single(home, bucket) == {"elsewhere": 1, "elsewhere_bytes": MIB}
    # What one member reads of another the home passes on and keeps.
    with two.raw() as raw:
        assert raw.get(bucket, "large").status == 200
    wait(lambda: single(home, bucket) == {}, lambda: f"still {single(home, bucket)}")
    with home.raw() as raw:
        raw.delete(bucket, "large")
    assert single(home, bucket) == {}


def test_a_member_that_is_forgotten_has_no_copy(trio, home):
    gone = trio.add("gone")
    join(home, gone)
    bucket = shared_bucket(home, gone)
    put(gone, bucket, "lost", b"z" * 5000)
    put(gone, bucket, "kept", b"z" * 4000)
    with home.raw() as raw:
        assert raw.get(bucket, "kept").status == 200
    home.run("peer", "rm", "gone")
    assert single(home, bucket) == {"nowhere": 1, "nowhere_bytes": 5000, "here": 1, "here_bytes": 4000}
    assert re.search(rf"^{bucket} +0 \(0 B\) +1 \(.*\) +1 \(", home.run("status"), re.MULTILINE), home.run("status")


def test_what_is_passed_on_is_counted_apart(home, one, two):
    """The home's bytes in and out, and as metrics; what it read for itself is no relay."""
    bucket = shared_bucket(home, one, two)
    put(one, bucket, "for the home", body("read", MIB))
    put(one, bucket, "for the other", body("relay", 2 * MIB))
    before = relayed(home)
    with home.raw() as raw:
        assert raw.get(bucket, "for the home").status == 200
    assert relayed(home) == before
    with two.raw() as raw:
        assert raw.get(bucket, "for the other").body == body("relay", 2 * MIB)
        assert raw.get(bucket, "for the home").status == 200
    after = relayed(home)
    received = after["one"][1] - before.get("one", (0, 0))[1]
    sent = after["two"][0] - before.get("two", (0, 0))[0]
    assert 2 * MIB <= received < 2.1 * MIB, (before, after)
    # The home had the other body, so it gave what was its own.
    assert 2 * MIB <= sent < 2.1 * MIB, (before, after)
    for peer, direction, least in (("one", "received", received), ("two", "sent", sent)):
        labels = {"peer": peer, "bucket": bucket, "purpose": "relay", "direction": direction}
        # What the metrics say may be a few seconds old.
        counted = functools.partial(metric, home, "elton_peer_bytes_total", **labels)
        wait(lambda counted=counted, least=least: counted() == least, lambda counted=counted: (peer, counted()))
    # A member's own reading is reading.
    assert not relayed(two)


def test_a_home_may_refuse_to_pass_bodies_on(tmp_path):
    """The member hears at once who has the body; what the home has itself it gives."""
    with Clusters(tmp_path) as clusters:
        home = clusters.add("home", args=["--no-relay"])
        one, two = clusters.add("one"), clusters.add("two")
        for member in (one, two):
            join(home, member)
        bucket = shared_bucket(home, one, two)
        for key, size in (("small", 1000), ("large", 300_000)):
            put(one, bucket, key, body(key, size))
            with two.raw(timeout=10) as raw:
                reply = raw.get(bucket, key)
                assert reply.status == 503, reply
                assert "one" in reply.message and "home" in reply.message and "passes no bodies on" in reply.message
                assert raw.get(bucket, key, headers={"range": "bytes=100-199"}).status == 503
            assert not relayed(home)
            with home.raw() as raw:
                assert raw.get(bucket, key).body == body(key, size)
            with two.raw() as raw:
                # The home makes its copy whole just after it has handed the last byte on.
                wait(lambda: raw.get(bucket, key).status == 200, "the home does not give what it has")
                assert raw.get(bucket, key).body == body(key, size)
            assert not relayed(home)


KNOWN_MAX = 500


def test_what_is_known_of_links_has_a_bound(tmp_path):
    """10,000 keys are read with room for a few hundred rows; everything reads right afterwards, and writes are not undone."""
    keys = 10_000
    with started(tmp_path, "home", "member", args=["--known-rows", str(KNOWN_MAX)]) as clusters:
        home, member = clusters.all["home"], clusters.all["member"]
        bucket = shared_bucket(home, member, name=bucket_name("known"))
        with home.raw() as raw:
            for number in range(keys):
                assert raw.put(bucket, f"k{number:05}", f"content {number}".encode()).status == 200
        with member.raw() as raw:
            own = raw.put(bucket, "own", b"of the member").number
            for number in range(keys):
                assert raw.head(bucket, f"k{number:05}").status == 200
        member.run("gc")

        def bounded():
            cache = member.shown("status")["cache"]
            assert cache["known_rows_max"] == KNOWN_MAX
            return cache["known_rows"] <= KNOWN_MAX

        wait(bounded, lambda: f"too many rows: {member.shown('status')['cache']}")
        assert metric(member, "elton_known_rows") <= KNOWN_MAX
        with member.raw() as raw:
            for number in range(0, keys, 97):
                assert raw.get(bucket, f"k{number:05}").body == f"content {number}".encode()
            assert raw.get(bucket, "own").body == b"of the member"
            assert raw.put(bucket, "k00000", b"new").number > own
        # Nothing below what was seen is ever shown, whatever was forgotten.
        assert lag_of(member, bucket)["known"] > own
        member.run("gc")
        member.run("check")
