"""Writes whose answer was lost, kills and cuts under load: what was acknowledged is there, nothing happens twice."""

import http.client
import json
import random
import threading
import time

import pytest

from checks import hold
from clusters import shared_bucket, started, wait
from conftest import parameter
from content import body
from raw import UNSIGNED
from server import elton

SIZES = (10, 5000, 300_000)


@pytest.fixture
def pair(tmp_path):
    with started(tmp_path, "home", "member") as clusters:
        yield clusters


class Sent:
    """A request on a thread of its own: whoever spoils its answer does so meanwhile."""

    def __init__(self, cluster, send):
        self.reply = self.error = None

        def run():
            with cluster.raw(timeout=60) as raw:
                try:
                    self.reply = send(raw)
                except (OSError, http.client.HTTPException) as error:
                    self.error = error

        self.thread = threading.Thread(target=run, daemon=True)
        self.thread.start()

    def wait(self):
        self.thread.join(60)
        assert not self.thread.is_alive(), "no answer"
        return self.reply


def number_of(cluster, bucket) -> int:
    return cluster.shown("bucket", "info", bucket)["number"]


def changes(home, bucket) -> list[dict]:
    return home.shown("bucket", "log", bucket, "--all")


def lose_the_answer(clusters, home, member, bucket, send) -> Sent:
    """Sends a change whose question arrives and whose answer does not. Afterwards the line is cut."""
    line, before = clusters.line(home, member), number_of(home, bucket)
    line.swallow(member.machine)
    sent = Sent(member, send)
    wait(lambda: number_of(home, bucket) > before, "the change never arrived")
    assert sent.reply is None, "the answer was not lost"
    line.cut()
    return sent


def writes():
    """Kinds of changes that ask the home for nothing before."""
    kinds = {f"put-{size}": lambda raw, bucket, size=size: raw.put(bucket, "k", body("k", size)) for size in SIZES}
    return kinds | {
        "delete": lambda raw, bucket: raw.delete(bucket, "there"),
        "conditional": lambda raw, bucket: raw.put(bucket, "k", b"only", {"if-none-match": "*"}),
        "multipart": lambda raw, bucket: raw.multipart(bucket, "k", [b"part"]),
    }


def test_an_answer_that_was_lost_is_asked_for_again(pair):
    """The change was made when the line broke: the client hears its number, and it is there once."""
    home, member = pair.all["home"], pair.all["member"]
    for kind, send in writes().items():
        bucket = shared_bucket(home, member, versioned=True)
        with member.raw() as raw:
            raw.put(bucket, "there", b"there")
            sent = lose_the_answer(pair, home, member, bucket, lambda raw, send=send: send(raw, bucket))
            made = number_of(home, bucket)
            pair.line(home, member).mend()
            reply = sent.wait()
            assert reply is not None and reply.status in (200, 204), (kind, reply, sent.error)
            assert reply.number == made, (kind, reply.headers)
            assert number_of(home, bucket) == made, f"{kind} happened twice"
            if kind.startswith("put"):
                data = body("k", int(kind[4:]))
                for cluster in (home, member):
                    with cluster.raw() as reading:
                        assert reading.get(bucket, "k").body == data
            # A condition that held when the change was made did hold.
            if kind == "conditional":
                assert raw.put(bucket, "k", b"again", {"if-none-match": "*"}).status == 412


@pytest.mark.parametrize("kind", ["put-10", "put-300000", "delete", "multipart"])
def test_a_member_killed_before_it_heard(pair, kind):
    """The home numbered the change; the member learns of it in its next life, and its body is there."""
    home, member = pair.all["home"], pair.all["member"]
    bucket = shared_bucket(home, member, versioned=True)
    with member.raw() as raw:
        raw.put(bucket, "there", b"there")
    sent = lose_the_answer(pair, home, member, bucket, lambda raw: writes()[kind](raw, bucket))
    made = number_of(home, bucket)
    member.kill()
    sent.wait()
    pair.line(home, member).mend()
    member.start()
    wait(lambda: "change resolved" in member.log, "the change was never resolved")
    home.wait_for_link("member")
    assert number_of(home, bucket) == made, "the change happened twice"
    with home.raw() as at_home, member.raw() as raw:
        for reading in (at_home, raw):
            if kind == "delete":
                assert reading.get(bucket, "there").status == 404
            else:
                data = b"part" if kind == "multipart" else body("k", int(kind[4:]))
                reply = reading.get(bucket, "k")
                assert (reply.body, reply.number) == (data, made)
        # An upload that has become an object is no upload any more.
        assert "<UploadId>" not in raw.request("GET", raw.path(bucket), {"uploads": ""}).body.decode()


def test_a_home_killed_before_it_answered(pair):
    home, member = pair.all["home"], pair.all["member"]
    bucket = shared_bucket(home, member, versioned=True)
    sent = lose_the_answer(pair, home, member, bucket, lambda raw: raw.put(bucket, "k", b"once"))
    made = number_of(home, bucket)
    home.kill()
    pair.line(home, member).mend()
    home.start()
    reply = sent.wait()
    assert reply is not None and (reply.status, reply.number) == (200, made), (reply, sent.error)
    assert number_of(home, bucket) == made and len(changes(home, bucket)) == made


class Ran:
    """An `elton` command on a thread of its own."""

    def __init__(self, cluster, *arguments):
        self.done = None

        def run():
            self.done = elton(*arguments, "--json", server=cluster)

        self.thread = threading.Thread(target=run, daemon=True)
        self.thread.start()

    def wait(self):
        self.thread.join(90)
        assert not self.thread.is_alive(), "the command never ended"
        return self.done


def bucket_of_two_states(home, member):
    bucket = shared_bucket(home, member)
    with home.raw() as raw:
        first = raw.put(bucket, "k", b"first").number
        raw.put(bucket, "k", b"second")
    return bucket, first


def lose_what_is_said_to(clusters, home, member, arguments, arrived) -> Ran:
    """Runs a command at the member whose question arrives at the home and whose answer does not. Then the line is cut."""
    line = clusters.line(home, member)
    line.swallow(member.machine)
    ran = Ran(member, *arguments)
    wait(arrived, "the change never arrived")
    assert ran.done is None, "the answer was not lost"
    line.cut()
    return ran


def test_restores_and_tags_whose_answer_was_lost_are_asked_for_again(pair):
    """They were made when the line broke: the command says their number, and they are there once."""
    home, member = pair.all["home"], pair.all["member"]
    bucket, first = bucket_of_two_states(home, member)
    before = number_of(home, bucket)
    tags = lambda: {tag["tag"]: tag["number"] for tag in home.shown("snapshot", "ls", bucket)["tags"]}

    restore = ("snapshot", "restore", f"{bucket}@{first}")
    ran = lose_what_is_said_to(pair, home, member, restore, lambda: number_of(home, bucket) > before)
    pair.line(home, member).mend()
    done = ran.wait()
    assert done.returncode == 0, done.stderr
    restored = json.loads(done.stdout)
    assert restored["number"] == before + 1 == number_of(home, bucket), restored
    with member.raw() as raw:
        assert raw.get(bucket, "k").body == b"first"

    ran = lose_what_is_said_to(pair, home, member, ("snapshot", "create", bucket, "--tag", "kept"), tags)
    pair.line(home, member).mend()
    done = ran.wait()
    assert done.returncode == 0, done.stderr
    assert tags() == {"kept": before + 1}
    ran = lose_what_is_said_to(pair, home, member, ("snapshot", "rm", f"{bucket}@kept"), lambda: not tags())
    pair.line(home, member).mend()
    done = ran.wait()
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("killed", ["home", "member"])
def test_a_restore_survives_a_kill(pair, killed):
    """Of either side, between the change and its answer: it is there once, and what was written since stays."""
    home, member = pair.all["home"], pair.all["member"]
    bucket, first = bucket_of_two_states(home, member)
    before = number_of(home, bucket)
    restore = ("snapshot", "restore", f"{bucket}@{first}")
    ran = lose_what_is_said_to(pair, home, member, restore, lambda: number_of(home, bucket) > before)
    with home.raw() as raw:
        assert raw.put(bucket, "k", b"since").number == before + 2
    pair.all[killed].kill()
    pair.line(home, member).mend()
    pair.all[killed].start()
    done = ran.wait()
    if killed == "member":
        wait(lambda: "change resolved" in member.log, "the restore was never resolved")
        home.wait_for_link("member")
    else:
        assert done.returncode == 0 and json.loads(done.stdout)["number"] == before + 1, (done.stdout, done.stderr)
    assert number_of(home, bucket) == before + 2, "the restore happened twice"
    with member.raw() as raw:
        assert raw.get(bucket, "k").body == b"since"


def test_a_question_that_was_lost_was_not_made(pair):
    """The client heard 503: the change is not there later either, and others follow it."""
    home, member = pair.all["home"], pair.all["member"]
    bucket = shared_bucket(home, member)
    before = number_of(home, bucket)
    line = pair.line(home, member)
    line.swallow(home.machine)
    sent = Sent(member, lambda raw: raw.put(bucket, "k", body("lost", 300_000)))
    time.sleep(0.5)
    line.cut()
    reply = sent.wait()
    assert reply is not None and reply.status == 503 and "home" in reply.message, (reply, sent.error)
    line.mend()
    member.wait_for_link("home")
    wait(lambda: "change resolved" in member.log, "the change was never resolved")
    assert number_of(home, bucket) == before
    with member.raw() as raw:
        assert raw.get(bucket, "k").status == 404
        assert raw.put(bucket, "k", b"after").number == before + 1


class Writers:
    """Writers at several clusters. Each key is written once: one that is there twice was doubled."""

    def __init__(self, clusters, bucket):
        self.clusters, self.bucket = clusters, bucket
        self.lock, self.stop = threading.Lock(), threading.Event()
        self.attempted: dict[str, bytes | tuple] = {}
        self.acknowledged: dict[str, int] = {}
        self.other: list = []
        writers = [(cluster, index) for cluster in clusters for index in range(3)]
        self.threads = [threading.Thread(target=self._write, args=writer, daemon=True) for writer in writers]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        for thread in self.threads:
            thread.join(60)

    def _write(self, cluster, index):
        chosen = random.Random(f"{cluster.name} {index}")
        step = 0
        while not self.stop.is_set():
            try:
                with cluster.raw(timeout=40) as raw:
                    while not self.stop.is_set():
                        step += 1
                        key = f"{cluster.name}-{index}-{step:05}"
                        size = chosen.choice((100, 4096, 4096, 70_000))
                        with self.lock:
                            self.attempted[key] = size
                        reply = raw.put(self.bucket, key, body(key, size), payload=UNSIGNED)
                        if reply.status == 200:
                            with self.lock:
                                self.acknowledged[key] = reply.number
                        elif reply.status != 503:
                            self.other.append(reply)
            except (OSError, http.client.HTTPException):
                time.sleep(0.05)

    def progress(self, count):
        """Waits for so many more acknowledgements."""
        goal = len(self.acknowledged) + count
        wait(lambda: len(self.acknowledged) >= goal, lambda: f"the load stands still: {self.other[:3]}", 60)


def test_kills_and_cuts_under_load(tmp_path):
    """Members and home killed, lines cut: every acknowledged write is there under its number, and none is twice."""
    rounds = parameter("FEDERATION_KILLS", 5)
    chosen = random.Random(parameter("SEED", 1))
    with started(tmp_path, "home", "one", "two") as clusters:
        home, *members = clusters.all.values()
        bucket = shared_bucket(home, *members, versioned=True)
        with Writers([home, *members], bucket) as load:
            for turn in range(rounds):
                load.progress(60)
                victim = chosen.choice(members)
                for what in chosen.sample(["flicker", "cut", "kill member", "kill home"], 2 + turn % 2):
                    if what == "flicker":
                        clusters.line(home, victim).flicker()
                    elif what == "cut":
                        with clusters.line(home, victim).away():
                            time.sleep(chosen.uniform(0, 1))
                    else:
                        killed = victim if what == "kill member" else home
                        killed.kill()
                        killed.start()
                    time.sleep(chosen.uniform(0, 0.3))
        assert not load.other, load.other[:3]
        for member in members:
            member.wait_for_link("home")
            home.wait_for_link(member.name)
        _verify(home, members, bucket, load)


def _verify(home, members, bucket, load):
    there = {}
    for entry in changes(home, bucket):
        key = entry.get("key")
        if key is not None:
            hold(key not in there, f"{key} was written once and is there as {there.get(key)} and {entry['number']}")
            there[key] = entry["number"]
    lost = {key: number for key, number in load.acknowledged.items() if there.get(key) != number}
    hold(not lost, f"{len(lost)} of {len(load.acknowledged)} acknowledged writes are lost: {list(lost.items())[:5]}")
    numbers = list(there.values())
    hold(len(set(numbers)) == len(numbers), "a number was issued twice")
    sample = random.Random(1).sample(sorted(there), min(len(there), 150))
    for cluster in (home, *members):
        with cluster.raw() as raw:
            for key in sample:
                reply = raw.get(bucket, key)
                written = body(key, load.attempted[key])
                hold(reply.status == 200 and reply.body == written, f"{cluster.name}: {key}: {reply}")
                hold(reply.number == there[key], f"{key} is {reply.number} at {cluster.name}, not {there[key]}")
