"""Clusters that know each other: invitations, joining, forgetting, and what may be done with whose buckets."""

import re

import pytest

from clusters import Clusters, bucket_name, join, shared_bucket, started, wait
from server import Server, StartFailed, elton
from test_trouble import faketime_library
from wan import PEER_PORT


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    with started(tmp_path_factory.mktemp("pair"), "oslo", "rome") as clusters:
        yield clusters


@pytest.fixture
def oslo(pair):
    return pair.all["oslo"]


@pytest.fixture
def rome(pair):
    return pair.all["rome"]


@pytest.fixture
def clusters(tmp_path):
    with Clusters(tmp_path) as clusters:
        yield clusters


def test_an_invitation_nobody_could_use_is_refused(tmp_path):
    """Where only this machine itself would be reached, the error says what to set."""
    loopback = ["--peer-listen", "127.0.0.1:0"]
    for name, arguments in (("own", loopback), ("told", [*loopback, "--peer-advertise", "localhost:9001"])):
        with Server(tmp_path / name, args=arguments) as server:
            done = elton("peer", "invite", server=server)
            assert done.returncode == 1 and "--peer-advertise HOST:PORT" in done.stderr, done
            assert not done.stdout
    with pytest.raises(StartFailed, match="peer_advertise: nobody reaches a cluster that does not listen"):
        Server(tmp_path / "deaf", args=["--peer-advertise", "elton.example.org:9001"]).start()


def test_a_token_is_used_once(clusters):
    a, b, c = (clusters.add(name) for name in ("a", "b", "c"))
    token = a.invite()
    b.run("peer", "join", token)
    assert "ask for a new one" in c.refused("peer", "join", token)
    assert not c.peers() and list(a.peers()) == ["b"]
    # Who failed can join with another one.
    join(a, c)


def test_a_token_expires(clusters):
    a, b = clusters.add("a"), clusters.add("b")
    token = a.invite()
    a.stop()
    an_hour_later = {"LD_PRELOAD": faketime_library(), "FAKETIME": "+61m", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    a.env |= an_hour_later
    a.start()
    # Nobody is invited any more, so the stranger is not even let in, or its word is refused.
    said = b.refused("peer", "join", token)
    assert "invit" in said, said
    assert not b.peers()
    a.stop()
    for name in an_hour_later:
        del a.env[name]
    a.start()
    assert not a.peers()


@pytest.mark.parametrize("spoil", ["short", "letter", "word", "empty"])
def test_a_token_that_is_none_is_refused(oslo, rome, spoil):
    token = oslo.invite()
    other = "A" if token[20] != "A" else "B"
    spoilt = {"short": token[:-5], "letter": token[:20] + other + token[21:], "word": "photos@42", "empty": ""}[spoil]
    before = rome.peers().keys()
    said = rome.refused("peer", "join", spoilt)
    assert re.search("cut|short|character|token|mistyped|copied|whole|no invitation", said), said
    assert rome.peers().keys() == before


def test_a_cluster_does_not_join_itself(oslo):
    assert "own" in oslo.refused("peer", "join", oslo.invite())


def test_another_key_at_the_address_is_refused(clusters):
    """Whoever answers at the address of a token has to be who made it."""
    a, b = clusters.add("a"), clusters.add("b")
    token = a.invite()
    a.stop()
    (a.data / "cluster-key").rename(a.data / "cluster-key-before")
    a.start()
    said = b.refused("peer", "join", token)
    assert "key" in said and token not in said, said
    assert not b.peers()


def test_a_new_key_is_trusted_by_fingerprint(clusters):
    a, b = clusters.add("a"), clusters.add("b")
    join(a, b)
    bucket = shared_bucket(a, b)
    with b.raw() as raw:
        assert raw.put(bucket, "k", b"before").status == 200
        a.stop()
        (a.data / "cluster-key").unlink()
        a.start()
        assert raw.get(bucket, "k").status == 503, "a cluster of another key was believed"
        fingerprint = a.shown("peer", "ls")["own"]["fingerprint"]
        b.run("peer", "trust", "a", "--fingerprint", fingerprint)
        b.wait_for_link("a")
        assert raw.get(bucket, "k").body == b"before"


@pytest.mark.parametrize("how", ["does not listen", "cannot be dialled"])
def test_one_reachable_side_is_enough(clusters, how):
    """Both sides read and write each other's buckets though only one of them can be dialled."""
    a = clusters.add("a")
    b = clusters.add("b", reachable=how != "does not listen")
    if how == "cannot be dialled":
        clusters.line(a, b).bar(a.machine)
    join(a, b)
    # The body of what a member wrote is fetched from it: the home asks the side that it cannot dial.
    for home, member in ((a, b), (b, a)):
        bucket = shared_bucket(home, member)
        data = b"written at the member" * 9000
        with home.raw() as at_home, member.raw() as there:
            assert there.put(bucket, "k", data).status == 200
            assert at_home.get(bucket, "k").body == data
            assert at_home.put(bucket, "l", b"written at home").status == 200
            assert there.get(bucket, "l").body == b"written at home"


def test_links_come_back_after_restarts(clusters):
    a, b = clusters.add("a"), clusters.add("b")
    join(a, b)
    bucket = shared_bucket(a, b)
    for cluster, other in ((a, b), (b, a)):
        cluster.kill()
        cluster.start()
        cluster.wait_for_link(other.name)
        other.wait_for_link(cluster.name)
    with b.raw() as raw:
        assert raw.put(bucket, "k", b"x").status == 200


def test_an_address_that_changes_is_followed(clusters):
    a, b = clusters.add("a"), clusters.add("b")
    join(a, b)
    bucket = shared_bucket(a, b)
    moved = f"{a.machine.gateway}:{PEER_PORT + 1}"
    clusters.wan.open_door(a.machine, PEER_PORT + 1)
    a.stop()
    wait(lambda: "\na: " in b.run("peer", "ls"), lambda: b.run("peer", "ls"))
    table, why = b.run("peer", "ls").split("\na: ", 1)
    assert re.search(r"^a +down since \S+Z +", table, re.MULTILINE) and "\n\n" in why, "the reason is below the table"
    a.args[a.args.index("--peer-advertise") + 1] = moved
    a.start()
    wait(lambda: b.peers()["a"]["address"] == moved, lambda: f"not followed: {b.peers()}")
    b.wait_for_link("a")
    with b.raw() as raw:
        assert raw.put(bucket, "k", b"x").status == 200
    # Also in the next life of the one who was told.
    b.restart()
    assert b.peers()["a"]["address"] == moved


def test_a_dead_peer_is_forgotten(clusters):
    """`peer rm` needs nobody's consent; afterwards neither side lets the other do anything."""
    a, b = clusters.add("a"), clusters.add("b")
    join(a, b)
    bucket = shared_bucket(a, b)
    b.stop()
    a.run("peer", "rm", "b")
    assert not a.peers()
    assert not a.shown("bucket", "info", bucket)["shares"]
    b.start()
    with b.raw() as raw:
        assert raw.get(bucket, "k").status == 503
        assert raw.put(bucket, "k", b"x").status == 503
    assert "no cluster b is known" in a.refused("bucket", "share", bucket, "--with", "b", "--rw")


def test_a_forgotten_peer_joins_anew(clusters):
    """With another invitation, and with none of its former rights."""
    a, b = clusters.add("a"), clusters.add("b")
    join(a, b)
    bucket = shared_bucket(a, b)
    a.run("peer", "rm", "b")
    join(a, b)
    with b.raw() as raw:
        assert (raw.put(bucket, "k", b"x").status, raw.get(bucket, "k").status) == (403, 403)
        a.run("bucket", "share", bucket, "--with", "b", "--rw")
        assert raw.put(bucket, "k", b"x").status == 200


def test_a_withdrawn_share_is_no_share(oslo, rome):
    bucket = shared_bucket(oslo, rome)
    with rome.raw() as raw, oslo.raw() as home:
        assert raw.put(bucket, "mine", b"x" * 100_000).status == 200
        home.put(bucket, "k", b"unread" * 20_000)
        assert raw.head(bucket, "k").status == 200
        oslo.run("bucket", "share", bucket, "--with", "rome", "--withdraw")
        newest = oslo.shown("bucket", "info", bucket)["number"]
        for reply in (
            raw.get(bucket, "k"),
            raw.get(bucket, "other"),
            raw.put(bucket, "k", b"mine"),
            raw.delete(bucket, "k"),
            raw.request("GET", raw.path(bucket), {"list-type": "2"}),
            raw.request("GET", raw.path(bucket), {"versions": ""}),
            raw.get(f"{bucket}--at-{newest}", "k"),
        ):
            assert (reply.status, reply.code) == (403, "AccessDenied"), reply
            assert "oslo" in reply.message, reply
        assert oslo.shown("bucket", "info", bucket)["number"] == newest


def test_a_read_only_share_refuses_writes(oslo, rome):
    bucket = shared_bucket(oslo, rome, rights="ro")
    with rome.raw() as raw, oslo.raw() as home:
        before = home.put(bucket, "k", b"at home").number
        assert raw.get(bucket, "k").body == b"at home"
        upload = raw.multipart
        tagging = b"<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>"
        refused = [
            raw.put(bucket, "k", b"mine"),
            raw.put(bucket, "large", b"mine" * 100_000),
            raw.put(bucket, "copy", headers={"x-amz-copy-source": f"{bucket}/k"}),
            raw.delete(bucket, "k"),
            raw.delete(bucket, "none"),
            upload(bucket, "parts", [b"part"]),
            raw.request("PUT", raw.path(bucket, "k"), {"tagging": ""}, body=tagging),
            raw.request("PUT", raw.path(bucket), {"tagging": ""}, body=tagging),
        ]
        for reply in refused:
            assert (reply.status, reply.code) == (403, "AccessDenied"), reply
        for command in (("snapshot", "create", bucket, "--tag", "mine"), ("snapshot", "restore", f"{bucket}@{before}")):
            assert "read" in rome.refused(*command)
        assert home.get(bucket, "k").body == b"at home"
        assert oslo.shown("bucket", "info", bucket)["number"] == before


def test_rights_change_with_the_next_share(oslo, rome):
    bucket = shared_bucket(oslo, rome, rights="ro")
    with rome.raw() as raw:
        assert raw.put(bucket, "k", b"x").status == 403
        oslo.run("bucket", "share", bucket, "--with", "rome", "--rw")
        assert raw.put(bucket, "k", b"x").status == 200
        oslo.run("bucket", "share", bucket, "--with", "rome", "--ro")
        assert raw.put(bucket, "k", b"y").status == 403


def test_nothing_is_shared_by_default(oslo, rome):
    bucket = bucket_name()
    oslo.run("bucket", "create", bucket)
    assert f"elton bucket share {bucket}" in rome.refused("bucket", "link", f"oslo/{bucket}")
    # What exists and is not shared cannot be told from what does not exist.
    missing = rome.refused("bucket", "link", "oslo/no-such-bucket")
    assert missing.replace("no-such-bucket", bucket) == rome.refused("bucket", "link", f"oslo/{bucket}")


def test_a_linked_bucket_is_ended_and_made_at_home_only(oslo, rome):
    bucket = shared_bucket(oslo, rome)
    with rome.raw() as raw:
        reply = raw.request("DELETE", raw.path(bucket))
        assert (reply.status, reply.code) == (403, "AccessDenied") and "oslo" in reply.message, reply
        assert raw.request("HEAD", raw.path(bucket)).status == 200
    # Nor is it passed on to others.
    assert "oslo" in rome.refused("bucket", "share", bucket, "--with", "oslo", "--rw")
    rome.run("bucket", "unlink", bucket)
    with rome.raw() as raw:
        assert raw.request("HEAD", raw.path(bucket)).status == 404
    assert oslo.shown("bucket", "info", bucket)["name"] == bucket


def test_a_link_under_another_name(oslo, rome):
    """Names are local: a bucket may be called otherwise here, and must be where the name is taken."""
    bucket = bucket_name()
    for cluster in (oslo, rome):
        cluster.run("bucket", "create", bucket)
    oslo.run("bucket", "share", bucket, "--with", "rome", "--rw")
    assert bucket in rome.refused("bucket", "link", f"oslo/{bucket}")
    other = bucket_name("other")
    rome.run("bucket", "link", f"oslo/{bucket}", "--as", other)
    with rome.raw() as raw, oslo.raw() as home:
        assert raw.put(other, "k", b"linked").status == 200
        assert raw.put(bucket, "k", b"own").status == 200
        assert home.get(bucket, "k").body == b"linked"
        refused = raw.get(other, "none")
        assert refused.status == 404 and other in refused.xml.findtext("Resource")


def test_clusters_that_call_themselves_the_same(clusters):
    """The second one gets a name of its own where it is known."""
    a, one, two = clusters.add("a"), clusters.add("b1", called="same"), clusters.add("b2", called="same")
    for cluster in (one, two):
        cluster.run("peer", "join", a.invite())
    assert sorted(a.peers()) == ["same", "same-2"]
    wait(lambda: all(peer["connected"] for peer in a.peers().values()), "a link is down")
    bucket = bucket_name()
    a.run("bucket", "create", bucket)
    a.run("bucket", "share", bucket, "--with", "same-2", "--rw")
    two.run("bucket", "link", f"a/{bucket}")
    one.refused("bucket", "link", f"a/{bucket}")
    # And one that calls itself as its peer does.
    own = clusters.add("c", called="a")
    own.run("peer", "join", a.invite())
    assert list(own.peers()) == ["a"] and "a" in a.peers()


def test_who_changed_what_names_member_and_user(oslo, rome):
    bucket = shared_bucket(oslo, rome)
    with rome.raw() as raw:
        raw.put(bucket, "k", b"x")
    for cluster in (oslo, rome):
        entry = cluster.shown("bucket", "log", bucket)[0]
        assert entry["actor"].startswith("rome/"), entry
