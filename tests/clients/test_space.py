"""The collector gives disk space back while serving goes on."""

import json
import pathlib
import threading

import pytest

import checks
from conftest import parameter
from content import body
from raw import UNSIGNED, Raw, md5
from server import elton
from test_trouble import catalog

MIB = 1 << 20


def bodies_on_disk(data: pathlib.Path) -> int:
    """What the bodies really occupy: everything but the catalog and small print, in blocks."""
    others = (catalog(data), data / "spare")
    return sum(path.stat().st_blocks * 512 for path in data.rglob("*") if path.is_file() and path not in others)


def fill(server, bucket, count, size):
    def work(raw, index):
        for number in range(index, count, 4):
            reply = raw.put(bucket, f"k{number:06}", body((bucket, number), size), payload=UNSIGNED)
            assert reply.status == 200, reply

    checks.together(server, 4, work)


def delete(server, bucket, numbers):
    for at in range(0, len(numbers), 1000):
        document = "".join(f"<Object><Key>k{n:06}</Key></Object>" for n in numbers[at : at + 1000])
        document = f"<Delete><Quiet>true</Quiet>{document}</Delete>".encode()
        with Raw(server) as raw:
            reply = raw.request("POST", raw.path(bucket), {"delete": ""}, {"content-md5": md5(document)}, document)
            assert reply.status == 200, reply


@pytest.mark.parametrize("order", ["every tenth", "the first tenth"])
def test_space_comes_back(own_server, order):
    """After deleting 90 % of 1 MiB objects and 90 % of 4 KiB objects, bodies take under 1.5 × the live bytes."""
    server = own_server.start()
    large, small = parameter("SPACE_LARGE", 60), parameter("SPACE_SMALL", 6000)
    with Raw(server) as raw:
        for name in ("large", "small"):
            raw.request("PUT", raw.path(name))
    fill(server, "large", large, MIB)
    fill(server, "small", small, 4096)
    stays = (lambda n, count: n % 10 == 0) if order == "every tenth" else (lambda n, count: n < count // 10)
    for name, count in (("large", large), ("small", small)):
        delete(server, name, [n for n in range(count) if not stays(n, count)])
    live = {("large", n): MIB for n in range(large) if stays(n, large)} | {
        ("small", n): 4096 for n in range(small) if stays(n, small)
    }
    assert bodies_on_disk(server.data) > 5 * sum(live.values())

    # Serving goes on: somebody reads and writes all the while.
    done, errors, written = threading.Event(), [], {}

    def traffic():
        with Raw(server) as raw:
            turn = 0
            while not done.is_set():
                turn += 1
                (name, number), size = list(live.items())[turn * 7 % len(live)]
                reply = raw.get(name, f"k{number:06}")
                if reply.status != 200 or reply.body != body((name, number), size):
                    errors.append(str(reply))
                data = body(("traffic", turn), 100)
                reply = raw.put("small", f"traffic-{turn % 50}", data)
                if reply.status != 200:
                    errors.append(str(reply))
                written[f"traffic-{turn % 50}"] = data

    thread = threading.Thread(target=traffic)
    thread.start()
    try:
        for _ in range(2):
            checks.command(server, "gc", "--now", "--yes")
    finally:
        done.set()
        thread.join()
    checks.command(server, "gc", "--now", "--yes")
    assert not errors, errors[:3]
    used = bodies_on_disk(server.data)
    assert used < 1.5 * sum(live.values()), f"{used} bytes for {sum(live.values())} live ones"
    reported = json.loads(elton("du", "--json", server=server).stdout)
    assert reported["file_bytes"] + reported["segment_bytes"] < 1.5 * sum(live.values())
    server.restart()
    with Raw(server) as raw:
        for (name, number), size in live.items():
            assert raw.get(name, f"k{number:06}").body == body((name, number), size)
        for key, data in written.items():
            assert raw.get("small", key).body == data
    assert elton("check", "--bodies", server=server).returncode == 0


def test_equal_bodies_are_kept_once(own_server):
    """Larger bodies are; and they stay until the last that refers to them has gone."""
    server = own_server.start()
    data = body("equal", 2 * MIB)
    with Raw(server) as raw:
        first, second = checks.new_bucket(raw, "equal"), checks.new_bucket(raw, "equal")
        for number in range(10):
            assert raw.put(first, f"k{number}", data, payload=UNSIGNED).status == 200
            assert raw.put(second, f"c{number}", headers={"x-amz-copy-source": f"{first}/k{number}"}).status == 200
        assert bodies_on_disk(server.data) < 1.5 * len(data)
        for number in range(10):
            raw.delete(first, f"k{number}")
        checks.command(server, "gc", "--now", "--yes")
        assert all(raw.get(second, f"c{number}").body == data for number in range(10))
        for number in range(10):
            raw.delete(second, f"c{number}")
        checks.command(server, "gc", "--now", "--yes")
        checks.command(server, "gc", "--now", "--yes")
        assert bodies_on_disk(server.data) < MIB
        # And comes back when it is sent again.
        raw.put(first, "again", data, payload=UNSIGNED)
        assert raw.get(first, "again").body == data


def test_same_body_while_it_is_collected(own_server):
    """A body that is sent again at the moment at which its last reference was collected is there all the same."""
    server = own_server.start()
    data = body("again and again", 100_000)
    with Raw(server) as raw:
        name = checks.new_bucket(raw, "again")

        def work(r, index):
            for turn in range(30):
                if index == 0:
                    checks.command(server, "gc", "--now", "--yes", "--bucket", name)
                    continue
                key = f"k{index}"
                assert r.put(name, key, data, payload=UNSIGNED).status == 200
                reply = r.get(name, key)
                checks.hold(reply.status == 200 and reply.body == data, f"just written, and gone: {reply}")
                r.delete(name, key)
                if turn % 5 == 0:
                    assert r.put(name, f"kept-{index}-{turn}", data, payload=UNSIGNED).status == 200

        checks.together(server, 4, work)
        for index in range(1, 4):
            for turn in range(0, 30, 5):
                assert raw.get(name, f"kept-{index}-{turn}").body == data


def test_abandoned_uploads_leave_nothing(own_server):
    server = own_server.start()
    with Raw(server) as raw:
        name = checks.new_bucket(raw, "abandoned")
        path = raw.path(name, "k")
        for turn in range(3):
            begun = raw.request("POST", path, {"uploads": ""}).xml.findtext("UploadId")
            for number in (1, 2):
                raw.request(
                    "PUT",
                    path,
                    {"partNumber": str(number), "uploadId": begun},
                    body=body((turn, number), 5 * MIB),
                    payload=UNSIGNED,
                )
            raw.delete(name, "k", {"uploadId": begun})
        checks.command(server, "gc", "--now", "--yes")
        checks.command(server, "gc", "--now", "--yes")
        assert bodies_on_disk(server.data) < MIB


def test_reader_keeps_what_it_reads(own_server):
    """A download that began before its object was deleted and collected ends well."""
    server = own_server.start()
    data = body("reader", 32 * MIB)
    with Raw(server) as raw, Raw(server) as slow:
        name = checks.new_bucket(raw, "reader")
        raw.put(name, "k", data, payload=UNSIGNED)
        url = slow.presign("GET", slow.path(name, "k"))
        connection = slow.connection()
        connection.request("GET", url)
        reply = connection.getresponse()
        got = reply.read(1000)
        raw.delete(name, "k")
        checks.command(server, "gc", "--now", "--yes")
        got += reply.read()
        assert got == data
        checks.command(server, "gc", "--now", "--yes")
        checks.command(server, "gc", "--now", "--yes")
        assert bodies_on_disk(server.data) < MIB
