"""Snapshot trees over the admin API, read from the bytes that docs/data-format.md describes; bodies by hash, and pins.

Everything is asked of the cluster that numbers the bucket, and of one that has it linked.
"""

import base64
import json
import struct
import time

import pytest

from clusters import shared_bucket, started
from content import body
from raw import UNSIGNED

GROUP = 64 << 10


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    with started(tmp_path_factory.mktemp("trees"), "home", "member") as clusters:
        yield clusters


@pytest.fixture
def home(pair):
    return pair.all["home"]


@pytest.fixture
def member(pair):
    return pair.all["member"]


def call(raw, method, path, query=None, request=None):
    data = b"" if request is None else json.dumps(request).encode()
    return raw.request(method, f"/_elton/v1/buckets/{path}", {k: str(v) for k, v in (query or {}).items()}, body=data)


def answer(raw, method, path, query=None, request=None):
    reply = call(raw, method, path, query, request)
    assert reply.status in (200, 201), reply
    return json.loads(reply.body)


def pages(raw, bucket, number, directory, hashes) -> list[bytes]:
    reply = call(raw, "POST", f"{bucket}/pages", {"at": number}, {"directory": directory, "pages": hashes})
    assert reply.status == 200, reply
    found, rest = [], reply.body
    while rest:
        (length,) = struct.unpack(">I", rest[:4])
        found.append(rest[4 : 4 + length])
        rest = rest[4 + length :]
    return found


class Rows:
    """Rows of a page, as the format says."""

    def __init__(self, data: bytes):
        self.data, self.at = data, 0

    def take(self, length) -> bytes:
        self.at += length
        return self.data[self.at - length : self.at]

    def varint(self) -> int:
        value, shift = 0, 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    def text(self) -> bytes:
        return self.take(self.varint())

    def entry(self) -> tuple[int, list[str]]:
        size = self.varint()
        self.take(16)
        if self.take(1) == b"\1":
            self.varint()
        self.varint()
        self.take(1)
        if self.take(1) == b"\1":
            self.varint(), self.varint()
        kind, hashes = self.varint(), []
        if kind == 1:
            hashes = [self.take(32).hex()]
        elif kind == 2:
            for _ in range(self.varint()):
                hashes.append(self.take(32).hex())
                self.varint()
        elif kind == 3:
            hashes = [self.take(32).hex()]
            self.varint()
            for _ in range(self.varint()):
                self.varint(), self.take(32), self.varint()
        for _ in range(self.varint()):
            self.text(), self.text()
        return size, hashes


def walk(raw, bucket, number, directory, root) -> dict:
    """All objects of a directory and those in it: size and hashes by key."""
    objects = {}
    if "inline" in root:
        todo = [(0, base64.b64decode(root["inline"]))]
    else:
        todo = [(page[1], page[2:]) for page in pages(raw, bucket, number, directory, [root["page"]])]
    while todo:
        level, data = todo.pop()
        rows = Rows(data)
        while rows.at < len(data):
            key = rows.text()
            if level > 0:
                hash = rows.take(32).hex()
                rows.varint(), rows.varint()
                todo += [(page[1], page[2:]) for page in pages(raw, bucket, number, directory, [hash])]
            elif key.endswith(b"/"):
                inline = rows.varint() == 0
                below = {"inline": base64.b64encode(rows.text())} if inline else {"page": rows.take(32).hex()}
                rows.varint(), rows.varint()
                objects |= walk(raw, bucket, number, directory + key.decode(), below)
            else:
                objects[directory + key.decode()] = rows.entry()
    return objects


def test_a_tree_shows_what_is_there_and_leads_to_its_bodies(home, member):
    bucket = shared_bucket(home, member)
    large, parts = body("large", 300_000), [body("part", 5 << 20)] * 2
    small = {f"photos/{n % 7}/{n:04}": b"%d" % n for n in range(1500)}
    with home.raw() as at_home, member.raw() as at_member:
        for key, data in small.items():
            assert at_home.put(bucket, key, data, payload=UNSIGNED).status == 200
        assert at_member.put(bucket, "large", large, payload=UNSIGNED).status == 200
        assert at_home.multipart(bucket, "parts", parts).status == 200
        assert at_home.put(bucket, "empty").status == 200
        trees = [answer(raw, "GET", f"{bucket}/tree") for raw in (at_home, at_member)]
        assert trees[0] == trees[1]
        tree, number = trees[0], trees[0]["number"]
        assert tree["objects"] == len(small) + 3
        for raw in (at_home, at_member):
            objects = walk(raw, bucket, number, "", tree["root"])
            sizes = {key: len(data) for key, data in small.items()}
            assert {key: size for key, (size, _) in objects.items()} == sizes | {
                "large": len(large),
                "parts": 10 << 20,
                "empty": 0,
            }
            directory = answer(raw, "GET", f"{bucket}/tree", {"at": number, "prefix": "photos/3/"})
            assert directory["objects"] == sum(key.startswith("photos/3/") for key in small)
            inside = walk(raw, bucket, number, "photos/3/", directory["root"])
            assert inside == {key: of for key, of in objects.items() if key.startswith("photos/3/")}
            for key, whole in (("large", large), ("parts", parts[0]), ("photos/3/0003", b"3")):
                where = {"at": number, "path": key, "hash": objects[key][1][0]}
                groups = call(raw, "GET", f"{bucket}/body", where | {"part": "tree"})
                assert groups.status == 200, groups
                expected = 0 if len(whole) <= GROUP else 32 * -(-len(whole) // GROUP)
                assert len(groups.body) == expected
                middle = (len(whole) // 3, len(whole) // 2)
                some = where | {"offset": middle[0], "length": middle[1]}
                reply = call(raw, "GET", f"{bucket}/body", some)
                assert reply.status == 200 and reply.body == whole[middle[0] :][: middle[1]]
                assert call(raw, "GET", f"{bucket}/body", some | {"length": len(whole) + 1}).status == 400
                assert call(raw, "GET", f"{bucket}/body", some | {"path": "photos/3/0010"}).status == 404
            nowhere = call(raw, "GET", f"{bucket}/tree", {"at": number, "prefix": "nowhere/"})
            assert nowhere.status == 404 and json.loads(nowhere.body)["code"] == "not_in_snapshot"


def test_no_page_is_given_by_its_hash_alone(home, member):
    bucket, other = shared_bucket(home, member), shared_bucket(home, member)
    with home.raw() as at_home, member.raw() as at_member:
        for key in range(60):
            assert at_home.put(bucket, f"d/{key:050}", b"%d" % key).status == 200
            assert at_home.put(other, f"d/{key:050}", b"other").status == 200
        tree = answer(at_home, "GET", f"{bucket}/tree", {"prefix": "d/"})
        page, number = tree["root"]["page"], tree["number"]
        for raw in (at_home, at_member):
            ask = lambda b, n, d: call(raw, "POST", f"{b}/pages", {"at": n}, {"directory": d, "pages": [page]}).status
            assert ask(bucket, number, "d/") == 200
            assert ask(bucket, number, "") == 404
            assert ask(bucket, number - 1, "d/") == 404
            assert ask(other, number, "d/") == 404
            many = {"directory": "d/", "pages": [page] * 65}
            assert call(raw, "POST", f"{bucket}/pages", {"at": number}, many).status == 400


@pytest.mark.parametrize("where", ["home", "member"])
def test_a_pin_keeps_a_number_below_the_floor_until_it_expires(pair, home, member, where):
    bucket = shared_bucket(home, member)
    with home.raw() as at_home, pair.all[where].raw() as raw:
        for value in range(4):
            assert at_home.put(bucket, "k", b"%d" % value).status == 200
        pin = answer(raw, "POST", f"{bucket}/pins", {"at": 2}, {"holder": "a mount", "seconds": 600})
        brief = answer(raw, "POST", f"{bucket}/pins", {"at": 3}, {"holder": "a mount", "seconds": 1})
        assert (pin["number"], brief["number"]) == (2, 3)
        assert answer(raw, "PUT", f"{bucket}/pins/{pin['pin']}", None, {"seconds": 900})["expires"] > pin["expires"]
        time.sleep(1.5)
        home.run("gc", "--now", "--yes")
        assert at_home.get(f"{bucket}--at-2", "k").body == b"1"
        assert raw.get(f"{bucket}--at-2", "k").body == b"1"
        assert answer(raw, "GET", f"{bucket}/tree", {"at": 2})["objects"] == 1
        assert at_home.get(f"{bucket}--at-3", "k").status == 404, "its pin has expired"
        gone = call(raw, "PUT", f"{bucket}/pins/{brief['pin']}", None, {"seconds": 900})
        assert gone.status == 404 and json.loads(gone.body)["code"] == "no_such_pin"
        others = {"home": member, "member": home}[where]
        with others.raw() as stranger:
            assert call(stranger, "DELETE", f"{bucket}/pins/{pin['pin']}").status == 404, "it is not theirs"
        assert call(raw, "DELETE", f"{bucket}/pins/{pin['pin']}").status == 204
        home.run("gc", "--now", "--yes")
        assert at_home.get(f"{bucket}--at-2", "k").status == 404
