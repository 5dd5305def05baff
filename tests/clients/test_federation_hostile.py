"""A member that lies, forges and floods: what it may not do is refused, what it costs is bounded, the home stays well.

`elton-stranger` (`tests/src/bin/`) speaks the protocol with a key of its own and says whatever a test tells it to.
"""

import hashlib
import json
import os
import pathlib
import socket
import subprocess
import time

import pytest

from checks import hold
from clusters import Clusters, shared_bucket, started
from content import body
from server import ROOT
from wan import PEER_PORT

BINARY = pathlib.Path(os.environ.get("ELTON_TEST_STRANGER", ROOT / "target/release/elton-stranger"))
MIB = 1 << 20
NOWHERE = "00" * 16


class Stranger:
    """The hostile member, which joined by an invitation."""

    def __init__(self, home):
        assert BINARY.exists(), f"{BINARY} is missing: ./tests/run builds it"
        self.process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", BINARY, home.invite()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.joined = self._read()

    def _read(self):
        line = self.process.stdout.readline()
        assert line, "the stranger died"
        return json.loads(line)

    def say(self, **command):
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        return self._read()

    def ask(self, path, question, **options):
        """The answer to a question in JSON: (status, what was said)."""
        reply = self.say(ask=path, body=question if isinstance(question, str) else json.dumps(question), **options)
        if "status" not in reply:
            return None, reply["error"]
        try:
            return reply["status"], json.loads(reply["body"])
        except (KeyError, ValueError):
            return reply["status"], reply

    def end(self):
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            pipe.close()


@pytest.fixture(scope="module")
def clusters(tmp_path_factory):
    with started(tmp_path_factory.mktemp("hostile"), "home", "friend") as clusters:
        yield clusters


@pytest.fixture
def home(clusters):
    return clusters.all["home"]


@pytest.fixture
def friend(clusters):
    return clusters.all["friend"]


@pytest.fixture(scope="module")
def stranger(clusters):
    home = clusters.all["home"]
    stranger = Stranger(home)
    assert stranger.joined["status"] == 200, stranger.joined
    yield stranger
    stranger.end()
    # It did not bring the home down.
    with home.raw() as raw:
        assert raw.request("GET", "/").status == 200
    assert "panicked" not in home.log


@pytest.fixture
def another(home):
    """A stranger of the test's own, and what the home calls it."""
    before = set(home.peers())
    stranger = Stranger(home)
    try:
        [name] = set(home.peers()) - before
        yield stranger, name
    finally:
        stranger.end()


@pytest.fixture
def granted(home, stranger):
    """A bucket that the stranger may write: its name and id."""
    bucket = shared_bucket(home)
    home.run("bucket", "share", bucket, "--with", "stranger", "--rw")
    return bucket, id_of(home, bucket)


@pytest.fixture
def secret(home, friend):
    """A bucket that the stranger may not even know of, with objects in it: its name and id."""
    bucket = shared_bucket(home, friend)
    with home.raw() as raw:
        for key, data in CONTENTS.items():
            assert raw.put(bucket, key, data).status == 200
    return bucket, id_of(home, bucket)


CONTENTS = {"small": b"nobody else's business", "large": body("secret", 300_000)}


def id_of(home, bucket) -> str:
    return home.shown("bucket", "info", bucket)["id"]


def look(bucket, path, **more):
    return {"bucket": bucket, "look": {"path": path, "snapshot": None, "which": "Newest", "known": None} | more}


def record(digest, length):
    """A version whose body is said to be at the stranger."""
    return {
        "body": {"Whole": {"Shared": {"hash": digest, "length": length}}},
        "size": length,
        "etag": {"md5": "00" * 16, "parts": None},
        "modified": 0,
        "checksum": None,
        "headers": [],
        "metadata": [],
        "tags": [],
    }


NO_CONDITION = dict.fromkeys(("if_match", "if_none_match", "if_match_size", "if_match_modified"))
_counters = iter(range(1, 1 << 30))


def publish(bucket, change, counter=None, settled=0):
    origin = {"counter": counter or next(_counters), "settled": settled}
    return {"bucket": bucket, "origin": origin, "actor": "mallory", "change": change}


def put(path, digest, length, **spoilt):
    return {"put": {"path": path, "record": record(digest, length) | spoilt, "precondition": NO_CONDITION}}


def refused(answer, *names):
    """A refusal of one of these names."""
    status, said = answer
    assert status == 409, answer
    name = said if isinstance(said, str) else next(iter(said))
    assert not names or name in names, answer
    return name


# --- Without rights --------------------------------------------------------------------------------------------------


def questions(bucket, key, number):
    """Every question about a bucket."""
    snapshot = {"bucket": bucket, "snapshot": None}
    whose = {"bucket": bucket, "path": key, "number": number, "ordinal": 0, "hash": "00" * 32}
    query = {"prefix": "", "delimiter": None, "after": None, "max": 10}
    return {
        "look": look(bucket, key),
        "resolve": snapshot,
        "info": {"bucket": bucket},
        "configuration": snapshot,
        "list": snapshot | {"query": query},
        "snapshots": {"bucket": bucket},
        "log": {"bucket": bucket, "before": None, "max": 10},
        "diff": {"bucket": bucket, "a": None, "b": None, "prefix": "", "after": None, "max": 10},
        "tag": {"bucket": bucket, "snapshot": None, "tag": "mine", "message": "", "actor": "x"},
        "untag": {"bucket": bucket, "tag": "mine"},
        "restore": {"bucket": bucket, "snapshot": {"number": number}, "prefix": "", "actor": "x"},
        "holding": {"bucket": bucket, "bodies": []},
        "body": whose | {"part": {"range": [0, 10]}},
        "body ": whose | {"part": "tree"},
        "publish": publish(bucket, {"delete": []}),
    }


def test_what_is_not_shared_does_not_exist(home, stranger, secret, granted):
    """Every question about it is refused, in the same words as one about a bucket that is nowhere."""
    bucket, id = secret
    before = home.shown("bucket", "info", bucket)["number"]
    for path, question in questions(id, "small", 1).items():
        status, said = stranger.ask(path.strip(), question)
        _, nowhere = stranger.ask(path.strip(), question | {"bucket": NOWHERE})
        assert status == 409, (path, said)
        assert "missing field" not in str(said) and "unknown variant" not in str(said), (path, said)
        assert str(said).replace(id, NOWHERE) == str(nowhere), path
        assert "no-such-shared-bucket" in str(said), (path, said)
    status, said = stranger.ask("offer", {"bucket": bucket})
    _, nowhere = stranger.ask("offer", {"bucket": "no-such-bucket"})
    assert status == 409 and json.dumps(said).replace(bucket, "no-such-bucket") == json.dumps(nowhere)
    assert bucket not in json.dumps(stranger.ask("offers", {}))
    assert home.shown("bucket", "info", bucket)["number"] == before


def test_a_withdrawn_member_learns_nothing_new(home, stranger, granted):
    """Not even whether a version it names is there: it knows the bucket's id from before."""
    bucket, id = granted
    with home.raw() as raw:
        number = raw.put(bucket, "there", b"there").number
    assert stranger.ask("look", look(id, "there"))[0] == 200
    home.run("bucket", "share", bucket, "--with", "stranger", "--withdraw")

    def copy(path, number):
        source = {"source": path, "number": number, "ordinal": 0, "path": "mine", "description": None, "tags": None}
        return publish(id, {"copy": source | {"checksum": None, "precondition": NO_CONDITION}})

    there, missing = (stranger.ask("publish", copy(path, number)) for path in ("there", "missing"))
    refused(there, "no-such-shared-bucket")
    assert there == missing
    refused(stranger.ask("look", look(id, "there")), "no-such-shared-bucket")


def test_a_read_only_member_changes_nothing(home, stranger):
    bucket = shared_bucket(home)
    home.run("bucket", "share", bucket, "--with", "stranger", "--ro")
    id = id_of(home, bucket)
    assert stranger.ask("look", look(id, "k"))[0] == 200
    for path in ("tag", "untag", "restore", "publish"):
        question = questions(id, "k", 1)[path]
        if path == "publish":
            question = publish(id, put("k", "11" * 32, 5))
        refused(stranger.ask(path, question), "shared-read-only")
    assert home.shown("bucket", "info", bucket)["number"] == 0


# --- Bodies ----------------------------------------------------------------------------------------------------------


def blake3_of(stranger, home, key) -> tuple[str, int]:
    """The hash of what is secret, which the stranger might have guessed."""
    bucket = shared_bucket(home)
    with home.raw() as raw:
        raw.put(bucket, key, CONTENTS[key])
    home.run("bucket", "share", bucket, "--with", "stranger", "--ro")
    status, said = stranger.ask("look", look(id_of(home, bucket), key))
    assert status == 200, said
    home.run("bucket", "share", bucket, "--with", "stranger", "--withdraw")
    with home.raw() as raw:
        raw.delete(bucket, key)
    whole = said["found"]["live"]["record"]["body"]["Whole"]["Shared"]
    return whole["hash"], whole["length"]


@pytest.mark.parametrize("key", CONTENTS)
def test_a_hash_opens_nothing_by_itself(home, stranger, secret, granted, key):
    """Who knows the hash of a body in a bucket that is not theirs gets it neither by asking nor by publishing it."""
    digest, length = blake3_of(stranger, home, key)
    bucket, id = granted
    with home.raw() as raw:
        own = raw.put(bucket, "own", b"x").number
    for number, path in ((own, "own"), (own, key), (1, key)):
        for part in ({"range": [0, length]}, "tree"):
            question = {"bucket": id, "path": path, "number": number, "ordinal": 0, "hash": digest, "part": part}
            refused(stranger.ask("body", question), "no-such-version")
    # Published as its own, though it never had it.
    stranger.say(answer="refuse")
    status, said = stranger.ask("publish", publish(id, put("forged", digest, length)))
    assert status == 200, said
    forged = said["put"]["number"]
    question = {"bucket": id, "path": "forged", "number": forged, "ordinal": 0, "hash": digest}
    for part in ({"range": [0, length]}, "tree"):
        status, said = stranger.ask("body", question | {"part": part})
        hold(status != 200, f"the home handed the body out: {said}")
    with home.raw() as raw:
        reply = raw.get(bucket, "forged")
        hold(reply.status in (500, 503), f"the home served what nobody gave it: {reply}")
    # Copying it elsewhere within what is its own does not help either.
    source = {"source": "forged", "number": forged, "ordinal": 0, "path": "again", "description": None, "tags": None}
    stranger.ask("publish", publish(id, {"copy": source | {"checksum": None, "precondition": NO_CONDITION}}))
    with home.raw() as raw:
        hold(raw.get(bucket, "again").status != 200, "a copy of what nobody has was served")


@pytest.mark.parametrize("mode", ["zeros", "short", "nonsense", "refuse"])
@pytest.mark.parametrize("size", [1000, 300_000])
def test_a_holder_that_sends_something_else(home, stranger, granted, mode, size):
    """No byte that is not what was published reaches a reader; none of it stays in memory."""
    bucket, id = granted
    digest = hashlib.sha256(f"{mode} {size}".encode()).hexdigest()
    status, said = stranger.ask("publish", publish(id, put("k", digest, size)))
    assert status == 200, said
    stranger.say(answer=mode)
    before = home.resident_bytes()
    with home.raw(timeout=50) as raw:
        began = time.monotonic()
        reply = raw.get(bucket, "k")
        hold(reply.status in (500, 503), f"a forged body was served: {reply}")
        assert time.monotonic() - began < 45
        # And the next reader is no worse off.
        assert raw.head(bucket, "k").status == 200
    assert home.resident_bytes() - before < 64 * MIB


@pytest.mark.parametrize("size", [1000, 300_000])
def test_a_holder_that_dribbles(home, stranger, granted, size):
    """A byte a second satisfies every limit on pauses: the reader hears why there is no body all the same, and soon."""
    bucket, id = granted
    digest = hashlib.sha256(f"dribble {size}".encode()).hexdigest()
    status, said = stranger.ask("publish", publish(id, put("k", digest, size)))
    assert status == 200, said
    stranger.say(answer="dribble")
    try:
        with home.raw(timeout=150) as raw:
            began = time.monotonic()
            reply = raw.get(bucket, "k")
            took = time.monotonic() - began
            hold(reply.status in (500, 503), f"a dribble was served: {reply}")
            assert 25 < took < 120, took
    finally:
        stranger.say(answer="refuse")
    assert "less than 30720 bytes of the body arrived in 30 s" in home.log


def test_a_body_is_read_from_the_next_holder_when_one_dribbles(clusters, home, friend, another):
    """The reader waits as long as it takes to see that it is a dribble, and then has the body."""
    stranger, name = another
    data, (scratch, bucket) = body("next holder", 300_000), (shared_bucket(home), shared_bucket(home, friend))
    with home.raw() as raw:
        raw.put(scratch, "k", data)
    home.run("bucket", "share", scratch, "--with", name, "--ro")
    home.run("bucket", "share", bucket, "--with", name, "--rw")
    found = stranger.ask("look", look(id_of(home, scratch), "k"))[1]["found"]["live"]
    digest = found["record"]["body"]["Whole"]["Shared"]["hash"]
    # It says first that it has the body, so it is asked first.
    assert stranger.ask("publish", publish(id_of(home, bucket), put("k", digest, len(data))))[0] == 200
    with friend.raw() as raw:
        assert raw.put(bucket, "k", data).status == 200
    stranger.say(answer="dribble")
    before = stranger.say(answer="dribble")["asked"]
    with home.raw(timeout=150) as raw:
        began = time.monotonic()
        assert raw.get(bucket, "k").body == data
        took = time.monotonic() - began
    assert stranger.say(answer="refuse")["asked"] > before, "the test needs the dribbler to be asked first"
    assert 25 < took < 120, took


# --- Numbers, counters, records --------------------------------------------------------------------------------------


def test_a_change_is_made_once_however_often_it_is_sent(home, stranger, granted):
    """At once and one after the other; whatever else is sent under its counter."""
    bucket, id = granted
    counter = next(_counters)
    question = json.dumps(publish(id, put("k", "22" * 32, 5), counter))
    answers = stranger.say(ask="publish", body=question, times=20)
    numbers = {json.loads(answer["body"])["put"]["number"] for answer in answers}
    hold(len(numbers) == 1, f"one change has the numbers {numbers}")
    other = stranger.ask("publish", publish(id, put("other", "33" * 32, 5), counter))
    assert other[1]["put"]["number"] in numbers
    assert home.shown("bucket", "info", bucket)["number"] == 1
    # A change that was given up never takes place.
    counter = next(_counters)
    assert stranger.ask("outcome", {"bucket": id, "counter": counter}) == (200, None)
    refused(stranger.ask("publish", publish(id, put("late", "44" * 32, 5), counter)), "invalid-request")
    assert home.shown("bucket", "info", bucket)["number"] == 1


def test_what_becomes_of_changes_is_kept_for_members_only(home, stranger):
    """Who may not change a bucket cannot fill the catalog by giving changes up that nobody asked for."""
    bucket = shared_bucket(home)
    id, counter = id_of(home, bucket), next(_counters)
    assert stranger.ask("outcome", {"bucket": id, "counter": counter}) == (200, None)
    home.run("bucket", "share", bucket, "--with", "stranger", "--rw")
    status, said = stranger.ask("publish", publish(id, put("k", "88" * 32, 5), counter))
    assert status == 200, said


def test_counters_that_are_forged_harm_nobody_else(home, friend, another):
    """Members' counters are their own: no counter of one settles or answers a change of another."""
    stranger, name = another
    bucket = shared_bucket(home, friend)
    home.run("bucket", "share", bucket, "--with", name, "--rw")
    id = id_of(home, bucket)
    for counter, settled in ((1, (1 << 64) - 1), ((1 << 64) - 1, 0), ((1 << 64) - 1, (1 << 64) - 1), (0, 0)):
        stranger.ask("publish", publish(id, put("mine", "55" * 32, 5), counter, settled))
    with friend.raw() as raw, home.raw() as at_home:
        numbers = [raw.put(bucket, f"k{n}", b"x").number for n in range(10)]
        assert numbers == sorted(set(numbers))
        assert at_home.get(bucket, "k9").body == b"x"


@pytest.mark.parametrize(
    "spoil",
    [
        {"size": 6},
        {"size": 0},
        {"size": (1 << 64) - 1},
        {"body": {"Whole": {"Blob": {"hash": "66" * 32, "length": 5}}}},
        {"body": {"Whole": {"Slot": {"segment": 0, "offset": 0, "length": 5, "hash": "66" * 32}}}},
        {"body": {"Parts": []}},
        {"body": {"PartList": {"list": {"Shared": {"hash": "66" * 32, "length": 5}}, "count": 1, "slots": []}}},
        {"body": {"Whole": {"Shared": {"hash": "66" * 31, "length": 5}}}},
        {"body": {"Whole": {"Shared": {"hash": "66" * 32, "length": -5}}}},
        {"etag": {"md5": "00" * 15, "parts": None}},
        {"etag": {"md5": "00" * 16, "parts": 0}},
        {"headers": [["no-such-header", "x"]]},
    ],
)
def test_a_record_that_cannot_be_is_refused(home, stranger, granted, spoil):
    bucket, id = granted
    status, said = stranger.ask("publish", publish(id, put("k", "66" * 32, 5, **spoil)))
    if status == 200:
        assert spoil.get("etag", {}).get("parts") == 0, said
    else:
        refused((status, said), "invalid-request", "unlawful")
        assert home.shown("bucket", "info", bucket)["number"] == 0


@pytest.mark.parametrize("path", ["", "%00", "a" * 70_000])
def test_a_path_that_cannot_be_is_refused(home, stranger, granted, path):
    """What other clusters call a key is read as strictly as what clients do; odd bytes do no harm."""
    bucket, id = granted
    status, said = stranger.ask("publish", publish(id, put(path, "77" * 32, 5)))
    if path == "%00":
        assert status == 200, said
    else:
        refused((status, said), "unlawful", "invalid-request")
    with home.raw() as raw:
        assert raw.request("GET", raw.path(bucket), {"list-type": "2", "encoding-type": "url"}).status == 200


# --- Floods ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["publish", "look", "no-such-question", "", "../../etc/passwd", "look/x", "body"])
@pytest.mark.parametrize("garbage", ["", "{", "[]", "null", '{"bucket": 1}', "\x00\xff", "[" * 100_000])
def test_garbage_is_refused(stranger, path, garbage):
    refused(stranger.ask(path, garbage), "unlawful")


def test_messages_are_bounded(home, stranger):
    """What is too long or never ends is broken off long before it is all in memory."""
    before = home.resident_bytes()
    chunk = '"' + "x" * (MIB - 1)
    for options in ({"repeat": 64}, {"endless": True}):
        status, said = stranger.ask("publish", chunk, **options)
        assert status in (None, 409), said
    assert home.resident_bytes() - before < 96 * MIB, "too long a message was kept"
    assert stranger.ask("offers", {})[0] == 200, "the link did not survive"


def test_answers_that_nobody_reads(home, friend, another):
    """A member that asks and never reads holds up nobody but itself, and takes a bounded share of memory."""
    stranger, name = another
    bucket = shared_bucket(home)
    home.run("bucket", "share", bucket, "--with", name, "--ro")
    id = id_of(home, bucket)
    with home.raw() as raw:
        number = raw.put(bucket, "k", body("unread", 32 * MIB)).number
    said = stranger.ask("look", look(id, "k"))[1]
    digest = said["found"]["live"]["record"]["body"]["Whole"]["Shared"]["hash"]
    whole = {"bucket": id, "path": "k", "number": number, "ordinal": 0, "hash": digest}
    whole["part"] = {"range": [0, 32 * MIB]}
    before = home.resident_bytes()
    stranger.say(ask="body", body=json.dumps(whole), unread=True, times=40)
    shared = shared_bucket(home, friend)
    with friend.raw() as raw, home.raw() as at_home:
        for turn in range(20):
            began = time.monotonic()
            assert raw.put(shared, f"k{turn}", b"x" * 10_000).status == 200
            assert at_home.get(shared, f"k{turn}").status == 200
            assert time.monotonic() - began < 5
    assert home.resident_bytes() - before < 256 * MIB


def test_more_questions_at_once_than_a_link_has_places(home, stranger, granted):
    _, id = granted
    answers = stranger.say(ask="look", body=json.dumps(look(id, "none")), times=2000)
    assert all(answer.get("status") == 200 for answer in answers), answers[:3]


def test_a_peer_port_that_is_stormed(home, friend):
    """Who says nothing, or nonsense, or something else than TLS takes no place from those who are known."""
    sockets = []
    try:
        for _ in range(150):
            sockets.append(socket.create_connection((home.machine.wan, PEER_PORT), timeout=5))
        for index, end in enumerate(sockets):
            try:
                end.sendall([b"GET / HTTP/1.1\r\n\r\n", os.urandom(500), b"\x16\x03\x01\x40\x00", b""][index % 4])
            except OSError:
                pass  # Turned away at the door already.
        bucket = shared_bucket(home, friend)
        with friend.raw() as raw:
            assert raw.put(bucket, "k", b"x").status == 200
    finally:
        for end in sockets:
            end.close()


def hears_nothing(answer):
    """A refusal, or no connection at all: who was removed is disconnected and not let in again."""
    status, _ = answer
    if status is not None:
        refused(answer, "stranger", "unlawful", "invalid-request")


# --- Without an invitation -------------------------------------------------------------------------------------------


def test_a_stranger_may_only_join(tmp_path):
    """Who was let in because an invitation is open, and does not have it, hears nothing."""
    with Clusters(tmp_path) as clusters:
        home = clusters.add("home")
        stranger = Stranger(home)
        try:
            assert stranger.joined["status"] == 200
            bucket = shared_bucket(home)
            id = id_of(home, bucket)
            home.run("bucket", "share", bucket, "--with", "stranger", "--rw")
            home.run("peer", "rm", "stranger")
            for path, question in questions(id, "k", 1).items():
                hears_nothing(stranger.ask(path.strip(), question))
            for secret in ("00" * 32, "", "zz", "00" * 31, "0" * 4000):
                question = {"secret": secret, "name": "stranger", "address": None}
                hears_nothing(stranger.ask("join", question))
            # A stranger is not listened to for long.
            hears_nothing(stranger.ask("join", "x" * 5000))
            assert not home.peers()
        finally:
            stranger.end()


@pytest.mark.parametrize("name", ["", "A", "a/b", "x" * 64, "a\nb"])
def test_a_name_that_is_none_is_refused(home, stranger, name):
    refused(stranger.ask("join", {"secret": "00" * 32, "name": name, "address": None}), "unlawful", "invalid-request")


def test_an_address_that_is_none_is_lived_with(home, stranger):
    """What a peer says of where it is reached is text until it is dialled."""
    for address in ("", "nowhere", "x" * 10_000, "127.0.0.1:1", None):
        status, _ = stranger.ask("moved", {"address": address})
        assert status in (200, 409)
        assert "stranger" in home.peers()
