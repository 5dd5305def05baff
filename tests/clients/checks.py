"""Promises that a mutant must be able to break: each is checked by a test, and by a control that expects `Broken`.

They raise `Broken` only where the promise itself is broken. Anything else that goes wrong is an ordinary failure and
fools no control.
"""

import concurrent.futures
import errno
import http.client
import itertools
import pathlib
import threading

from content import body
from mounts import Mounts
from raw import UNSIGNED, Raw
from server import Server, elton


class Broken(AssertionError):
    """The promise does not hold."""


def hold(condition, *message):
    if not condition:
        raise Broken(*message)


_names = itertools.count(1)


def new_bucket(raw: Raw, word: str, versioned=False) -> str:
    name = f"{word}-{next(_names)}"
    raw.server.make_bucket(raw, name)
    if versioned:
        set_versioning(raw, name, "Enabled")
    return name


def set_versioning(raw: Raw, bucket: str, status: str):
    document = f"<VersioningConfiguration><Status>{status}</Status></VersioningConfiguration>".encode()
    reply = raw.request("PUT", raw.path(bucket), {"versioning": ""}, body=document)
    assert reply.status == 200, reply


def together(server: Server, count: int, work) -> list:
    """`work(raw, index)` on `count` connections that are open already and start at once."""
    gate = threading.Barrier(count)

    def run(index):
        with Raw(server) as raw:
            raw.connection().connect()
            gate.wait()
            return work(raw, index)

    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


def exactly_one_winner(server: Server, threads=32, rounds=4):
    """Of many conditional writes that cannot all come true exactly one does, whatever else they are."""
    with Raw(server) as raw:
        bucket = new_bucket(raw, "winner")
        for turn in range(rounds):
            # Creation: If-None-Match: *.
            key = f"create-{turn}"
            replies = together(server, threads, lambda r, i: r.put(bucket, key, b"%d" % i, {"if-none-match": "*"}))
            _one_of(raw, bucket, key, replies)
            # Replacement: If-Match of what everybody saw.
            etag = raw.head(bucket, key).headers["etag"]
            replies = together(server, threads, lambda r, i: r.put(bucket, key, b"again %d" % i, {"if-match": etag}))
            _one_of(raw, bucket, key, replies, b"again ")
            # Deletion: If-Match again.
            etag = raw.head(bucket, key).headers["etag"]
            replies = together(server, threads, lambda r, _: r.delete(bucket, key, headers={"if-match": etag}))
            won = [reply for reply in replies if reply.status == 204]
            hold(len(won) == 1, f"{len(won)} deletes with If-Match won")
            hold(raw.head(bucket, key).status == 404, "the winner deleted nothing")


def _one_of(raw, bucket, key, replies, before=b""):
    won = [index for index, reply in enumerate(replies) if reply.status == 200]
    lost = {(reply.status, reply.code) for reply in replies if reply.status != 200}
    hold(len(won) == 1, f"{len(won)} conditional writes of {key} won")
    assert lost <= {(412, "PreconditionFailed"), (409, "ConditionalRequestConflict")}, lost
    hold(raw.get(bucket, key).body == before + b"%d" % won[0], "the winner's body is not there")


def failed_conditions_leave_nothing(server: Server):
    """A write whose condition fails changes nothing and harms none that is committed along with it."""
    with Raw(server) as raw:
        bucket = new_bucket(raw, "failed", versioned=True)
        raw.put(bucket, "kept", b"kept")

        def work(r, index):
            acknowledged = []
            for turn in range(20):
                if index % 2:
                    reply = r.put(bucket, "kept", b"bad %d" % turn, {"if-none-match": "*"})
                    assert reply.status == 412, reply
                    reply = r.put(bucket, f"never-{index}-{turn}", b"bad", {"if-match": '"no"'})
                    assert reply.status in (404, 412), reply
                else:
                    key = f"good-{index}-{turn}"
                    reply = r.put(bucket, key, key.encode())
                    assert reply.status == 200, reply
                    acknowledged.append((key, reply.number))
            return acknowledged

        good = dict(itertools.chain.from_iterable(together(server, 16, work)))
        listing = raw.request("GET", raw.path(bucket), {"versions": ""}).xml
        listed = sorted(key.text for key in listing.iter("Key"))
        hold(listed == sorted([*good, "kept"]), f"{set(listed) ^ {*good, 'kept'}} differ")
        hold(raw.get(bucket, "kept").body == b"kept", "a failed write replaced what was there")
        for key, number in good.items():
            reply = raw.get(bucket, key, {"versionId": str(number)})
            hold(reply.status == 200 and reply.body == key.encode(), f"{key} was harmed: {reply}")


def numbers_are_unique(server: Server, threads=8, writes=25):
    """Numbers rise with every change, are never issued twice, and each names one content for ever."""
    with Raw(server) as raw:
        bucket = new_bucket(raw, "numbers")

        def work(r, index):
            numbers = []
            for turn in range(writes):
                data = b"%d of %d" % (turn, index)
                reply = r.put(bucket, f"k{turn % 3}", data)
                assert reply.status == 200, reply
                numbers.append((reply.number, f"k{turn % 3}", data))
            return numbers

        per_thread = together(server, threads, work)
        for numbers in per_thread:
            issued = [number for number, _, _ in numbers]
            hold(issued == sorted(set(issued)), "a later write got no higher number")
        written = [entry for numbers in per_thread for entry in numbers]
        hold(len({number for number, _, _ in written}) == len(written), "a number was issued twice")
        for number, key, data in written:
            reply = raw.get(f"{bucket}--at-{number}", key)
            hold(reply.status == 200 and reply.body == data, f"{bucket}@{number} is not what was acknowledged: {reply}")
            hold(reply.number == number, f"{bucket}@{number} shows {reply.number}")


def completion_has_every_part(server: Server):
    """A completed upload is exactly its parts."""
    with Raw(server) as raw:
        bucket = new_bucket(raw, "parts")
        parts = [body(("completion", 0), 5 << 20), body(("completion", 1), 1000)]
        assert raw.multipart(bucket, "k", parts).status == 200
        reply = raw.get(bucket, "k")
        hold(
            reply.status == 200 and reply.body == b"".join(parts), f"{len(reply.body)} of {sum(map(len, parts))} bytes"
        )
        size = int(raw.head(bucket, "k").headers["content-length"])
        hold(size == sum(map(len, parts)), f"a size of {size} is shown")


def tags_keep_their_snapshot(server: Server):
    """What a tag names outlives `gc --now`, large and small, overwritten and deleted; what no tag names does not."""
    with Raw(server) as raw:
        bucket = new_bucket(raw, "tagged")
        contents = {f"k{n}": body(("tagged", n), size) for n, size in enumerate((10, 5000, 65_536, 65_537, 300_000))}
        for key, data in contents.items():
            raw.put(bucket, key, data)
        command(server, "snapshot", "create", bucket, "--tag", "kept")
        for key in contents:
            raw.put(bucket, key, b"overwritten " + key.encode())
        between = raw.put(bucket, "later", b"later").number
        for key in contents:
            raw.delete(bucket, key)
        # Twice: the first pass may leave to the second what readers held.
        command(server, "gc", "--now", "--yes")
        command(server, "gc", "--now", "--yes")
        for key, data in contents.items():
            reply = raw.get(f"{bucket}--at-kept", key)
            hold(reply.status == 200 and reply.body == data, f"{key} of the tag is gone: {reply}")
        hold(raw.get(f"{bucket}--at-kept", "later").status == 404, "the tag shows what came later")
        refused = raw.get(f"{bucket}--at-{between}", "later")
        assert refused.status != 200, "a number below the floor is shown"


def damage_is_an_error(server: Server, size: int):
    """Bytes that rotted on the disk never reach a reader: the read fails or breaks off."""
    with Raw(server) as raw:
        bucket = new_bucket(raw, "damaged")
        data = body(("damaged", size), size)
        raw.put(bucket, "k", data)
        raw.put(bucket, "sound", b"sound")
    server.stop()
    flip(server, data)
    server.start()
    with Raw(server, timeout=20) as raw:
        for headers in (
            {},
            {"range": f"bytes={size // 2}-{size - 1}"},
            {"range": f"bytes={size // 2 - 10}-{size // 2 + 10}"},
        ):
            got = whole_or_nothing(raw, bucket, "k", headers)
            if got is None:
                continue
            start = int(headers["range"][6:].split("-")[0]) if headers else 0
            hold(got == data[start : start + len(got)], "damaged bytes were served as sound")
        assert raw.get(bucket, "sound").body == b"sound"


def what_is_handed_over_is_sound(server: Server, folder: pathlib.Path):
    """Bytes that rotted on the disk reach no reader of a mount that is given the server's own files."""
    data = body("handed over", 3_000_000)
    with Raw(server) as raw:
        bucket = new_bucket(raw, "damaged")
        raw.put(bucket, "k", data)
    server.stop()
    flip(server, data)
    server.start()
    mounts = Mounts(folder, server)
    try:
        at = mounts.mount(bucket, "--deadline", "5s")
        try:
            hold((at / "k").read_bytes() == data, "damaged bytes were handed over")
        except OSError as error:
            assert error.errno == errno.EIO, error
        assert mounts.counters(at)["handed_over"] == 0
    finally:
        mounts.end()


def whole_or_nothing(raw: Raw, bucket, key, headers=None) -> bytes | None:
    """The body of a read that ended well, else nothing."""
    try:
        reply = raw.get(bucket, key, headers=headers)
    except Exception as error:  # A connection that breaks off has many names.
        assert isinstance(error, (OSError, http.client.HTTPException)), error
        raw.close()
        return None
    return reply.body if reply.status in (200, 206) else None


def flip(server: Server, data: bytes) -> str:
    """Turns one bit of a stored body on the disk over, in its middle, and says in which file."""
    middle = len(data) // 2
    needle = data[middle : middle + 64] or data
    for path in sorted(server.data.rglob("*")):
        if not path.is_file() or path.stat().st_size < len(needle):
            continue
        content = path.read_bytes()
        if (at := content.find(needle)) >= 0:
            with open(path, "r+b") as file:
                file.seek(at)
                file.write(bytes([content[at] ^ 1]))
            return str(path.relative_to(server.data))
    raise AssertionError("the body is nowhere in the data directory")


def command(server: Server, *arguments) -> str:
    """An `elton` command that must succeed."""
    done = elton(*arguments, server=server, binary=server.binary)
    assert done.returncode == 0, f"elton {arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def put_unsigned(raw: Raw, bucket, key, data):
    """Without hashing the body twice: for load."""
    return raw.put(bucket, key, data, payload=UNSIGNED)
