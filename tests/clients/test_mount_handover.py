"""Bodies that the server of the same host hands to a mount as open files."""

import array
import json
import os
import pathlib
import socket
import subprocess
import sys

import pytest

import checks
from conftest import boto
from content import body, digest
from mounts import Mounts

MIB = 1 << 20


@pytest.fixture
def host(own_server, tmp_path):
    """A server with a bucket, and the mounts of its host."""
    own_server.start()
    boto(own_server).create_bucket(Bucket="films")
    mounts = Mounts(tmp_path, own_server)
    yield mounts
    mounts.end()


def put(host, key, content):
    boto(host.server).put_object(Bucket="films", Key=key, Body=content)


def used(folder: pathlib.Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def ask(data: pathlib.Path, question: bytes) -> tuple[object, list[int]]:
    """The server's answer to a line, and the descriptors that came with it."""
    with socket.socket(socket.AF_UNIX) as stream:
        stream.settimeout(20)
        stream.connect(os.path.relpath(data / "handover.socket"))
        stream.sendall(question)
        line, ancillary, _, _ = stream.recvmsg(65536, socket.CMSG_SPACE(64))
        files = array.array("i")
        for _, _, found in ancillary:
            files.frombytes(found[: len(found) - len(found) % files.itemsize])
        return json.loads(line), list(files)


def question(host, key) -> bytes:
    number = json.loads(host.run("bucket", "info", "films", "--json").stdout)["number"]
    tree = json.loads(host.run("where", f"films/{key}", "--json").stdout)
    return json.dumps({"bucket": "films", "number": number, "key": key, "hash": tree["bodies"][0]["hash"]}).encode() + b"\n"


def test_no_copy_is_kept(host):
    content = body("film", 32 * MIB)
    put(host, "film", content)
    put(host, "small", b"small")
    at = host.mount("films")
    assert (at / "film").read_bytes() == content and (at / "small").read_bytes() == b"small"
    counters = host.counters(at)
    assert counters["handed_over"] == 1 and counters["body_bytes"] == len(b"small")
    assert used(host.cache) < MIB
    if host.status(at)["mode"] == "passthrough":
        assert counters["passthrough_opens"] >= 1
    # Whoever wants a copy has one.
    done = host.run("prefetch", "films", "--copy-bodies", "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["fetched_bytes"] == len(content)
    assert used(host.cache) >= len(content)


def test_what_is_open_is_read_on_whatever_becomes_of_object_and_server(host):
    content = body("film", 8 * MIB)
    put(host, "film", content)
    at = host.mount("films", "--deadline", "2s")
    with open(at / "film", "rb", buffering=0) as file:
        assert file.read(10) == content[:10]
        boto(host.server).delete_object(Bucket="films", Key="film")
        host.server.kill()
        assert file.read(8 * MIB) == content[10:]
        host.server.start()
    assert digest(at / "film") and (at / "film").read_bytes() == content


def test_copies_outlive_the_server_where_they_are_wanted(host):
    content = body("film", 8 * MIB)
    put(host, "film", content)
    at = host.mount("films", "--copy-bodies", "--deadline", "2s")
    assert (at / "film").read_bytes() == content
    counters = host.counters(at)
    assert counters["handed_over"] == 0 and counters["body_bytes"] == len(content)
    host.server.kill()
    assert (at / "film").read_bytes() == content


def test_damaged_bodies_are_not_handed_over(own_server, tmp_path):
    checks.what_is_handed_over_is_sound(own_server.start(), tmp_path)


def test_nobody_waits_long_for_an_open_file(host):
    """Before a body is handed over it is read through, which may take longer than an open may."""
    content = body("film", 8 * MIB)
    put(host, "film", content)
    at = host.mount("films", "--deadline", "4s")
    path = host.server.data / "handover.socket"
    path.unlink()
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(os.path.relpath(path))
        silent.listen()
        assert (at / "film").read_bytes() == content
    counters = host.counters(at)
    assert counters["handed_over"] == 0 and counters["body_bytes"] == len(content) and counters["failures"] == 0


def test_a_body_in_parts_is_joined(host, tmp_path):
    source = tmp_path / "film"
    source.write_bytes(body("parts", 20 * MIB))
    env = host.server.client_env()
    subprocess.run(["aws", "s3", "cp", "--quiet", source, "s3://films/film"], env=env, check=True, timeout=120)
    at = host.mount("films")
    assert digest(at / "film") == digest(source)
    assert host.counters(at)["handed_over"] == 0 and host.counters(at)["body_bytes"] == 20 * MIB


def test_only_root_and_the_server_are_answered(host):
    put(host, "film", body("film", MIB))
    data, line = host.server.data, question(host, "film")
    answer, files = ask(data, line)
    assert answer == "here" and len(files) == 1
    assert os.pread(files[0], 100, 0) == body("film", MIB)[:100]
    with pytest.raises(OSError):
        os.pwrite(files[0], b"x", 0)
    os.close(files[0])
    # Rights on the file do not decide: who asks does.
    data.chmod(0o711)
    (data / "handover.socket").chmod(0o666)
    stranger = f"""
import os, socket
folder = os.open({str(data)!r}, os.O_PATH)
os.setgroups([]); os.setgid(65534); os.setuid(65534)
stream = socket.socket(socket.AF_UNIX)
stream.settimeout(20)
stream.connect(f"/proc/self/fd/{{folder}}/handover.socket")
stream.sendall({line!r})
line, ancillary, _, _ = stream.recvmsg(65536, 1024)
print(line.decode(), ancillary)
"""
    done = subprocess.run([sys.executable, "-c", stranger], capture_output=True, text=True, timeout=60)
    assert "refused" in done.stdout and done.stdout.strip().endswith("[]"), done.stdout + done.stderr


def test_questions_that_make_no_sense_are_refused(host):
    put(host, "film", body("film", MIB))
    put(host, "small", b"small")
    asked = json.loads(question(host, "film"))
    assert ask(host.server.data, question(host, "small")) == ("not_a_file", [])
    for wrong in (
        {"hash": "00" * 32},
        {"hash": "film"},
        {"key": "other"},
        {"key": ""},
        {"bucket": "music"},
        {"bucket": "../films"},
        {"number": 1_000_000},
        {"number": -1},
    ):
        answer, files = ask(host.server.data, json.dumps(asked | wrong).encode() + b"\n")
        assert "refused" in answer and files == [], (wrong, answer)
    for line in (b"\n", b"{}\n", b"\xff\n", b"x" * 20_000 + b"\n"):
        try:
            answer, files = ask(host.server.data, line)
            assert "refused" in answer and files == [], line
        except (ConnectionError, ValueError):
            pass  # Cut off: what is too long or no text is not answered.
    assert ask(host.server.data, json.dumps(asked).encode() + b"\n")[0] == "here"
