"""When things go wrong: each with a clear message, and nothing lost."""

import contextlib
import os
import pathlib
import shutil
import socket
import subprocess
import time

import pytest

import checks
from content import body
from raw import UNSIGNED, Raw
from server import Server, StartFailed, elton

MIB = 1 << 20


def refuses_to_start(server: Server, *words) -> str:
    """`serve` ends by itself, soon, with status 1 and one clear message that has these words in it."""
    began = time.monotonic()
    with pytest.raises(StartFailed) as failure:
        server.start()
    assert time.monotonic() - began < 10
    assert failure.value.status == 1, failure.value
    for word in words:
        assert word.lower() in failure.value.log.lower(), (word, failure.value.log)
    assert "panicked" not in failure.value.log
    return failure.value.log


def snapshot_of(folder: pathlib.Path) -> dict:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_second_serve_on_the_directory(own_server, tmp_path):
    server = own_server.start()
    with Raw(server) as raw:
        name = checks.new_bucket(raw, "second")
        raw.put(name, "k", b"x")
        other = Server(server.data)
        other.log_path = tmp_path / "other.log"
        refuses_to_start(other, str(server.data), str(server.process.pid))
        assert raw.get(name, "k").body == b"x" and raw.put(name, "k", b"y").status == 200


def test_lock_of_a_dead_process(own_server):
    """A lock is no file: after SIGKILL the next start just works."""
    server = own_server.start()
    server.kill()
    server.start()


def test_port_in_use(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        server = Server(tmp_path / "data")
        server.port = taken.getsockname()[1]
        refuses_to_start(server, str(server.port), "--listen")


def test_read_only_directory(own_server, mount):
    """Even for root: a read-only mount."""
    server = own_server.start()
    with Raw(server) as raw:
        name = checks.new_bucket(raw, "read-only")
        raw.put(name, "k", b"x")
    server.stop()
    read_only = mount("--bind", str(server.data))
    subprocess.run(["mount", "-o", "remount,bind,ro", str(read_only)], check=True)
    other = Server(read_only)
    other.log_path = server.log_path.with_name("read-only.log")
    refuses_to_start(other, str(read_only))
    server.start()
    with Raw(server) as raw:
        assert raw.get(name, "k").body == b"x"


def test_data_is_a_file(tmp_path):
    (tmp_path / "data").write_text("not a directory")
    refuses_to_start(Server(tmp_path / "data"), "data")
    assert (tmp_path / "data").read_text() == "not a directory"


def catalog(data: pathlib.Path) -> pathlib.Path:
    """The catalog's file, whatever it is called: redb's begin with their name."""
    (found,) = [path for path in data.rglob("*") if path.is_file() and path.open("rb").read(4) == b"redb"]
    return found


@pytest.mark.parametrize("damage", ["head", "middle", "cut", "empty", "garbage", "gone"])
def test_damaged_catalog(own_server, damage):
    """The start refuses with a message and overwrites nothing; with the file put right, all is there again."""
    server = own_server.start()
    with Raw(server) as raw:
        name = checks.new_bucket(raw, "damaged-catalog")
        for number in range(200):
            raw.put(name, f"k{number}", body(number, 2000))
    server.stop()
    path = catalog(server.data)
    sound = path.read_bytes()
    if damage == "head":
        path.write_bytes(b"\xff" * 512 + sound[512:])
    elif damage == "middle":
        # Everything behind the header page: no tree can be read.
        path.write_bytes(sound[:4096] + bytes(byte ^ 0x55 for byte in sound[4096:]))
    elif damage == "cut":
        path.write_bytes(sound[: len(sound) // 2 + 100])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "garbage":
        path.write_bytes(body("garbage", len(sound)))
    else:
        path.unlink()
    before = snapshot_of(server.data)
    refuses_to_start(server, "catalog")
    after = snapshot_of(server.data)
    lock_files = {found for found in before | after if "lock" in found}
    assert {k: v for k, v in after.items() if k not in lock_files} == {
        k: v for k, v in before.items() if k not in lock_files
    }
    path.write_bytes(sound)
    server.start()
    with Raw(server) as raw:
        for number in range(200):
            assert raw.get(name, f"k{number}").body == body(number, 2000)


@pytest.mark.parametrize("size", [1000, 65_536, 65_537, 1_000_000, 3_000_000])
def test_damaged_body(own_server, size):
    checks.damage_is_an_error(own_server.start(), size)


@pytest.mark.parametrize("size", [1000, 1_000_000])
def test_check_names_the_damage(own_server, size):
    server = own_server.start()
    data = body(("check", size), size)
    with Raw(server) as raw:
        name = checks.new_bucket(raw, "check")
        raw.put(name, "the-damaged-key", data)
        raw.put(name, "sound", b"sound")
    checks.flip(server, data)
    done = elton("check", "--bodies", server=server)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "the-damaged-key" in done.stdout and "sound" not in done.stdout.replace("the-damaged-key", "")
    server.stop()
    offline = elton("check", "--bodies", "--data", server.data, "--endpoint", "http://127.0.0.1:1")
    assert offline.returncode == 1 and "the-damaged-key" in offline.stdout


@pytest.mark.parametrize("size", [1000, 1_000_000])
def test_body_that_is_gone(own_server, size):
    """A missing file is an error of the server's, never an empty object or a 404."""
    server = own_server.start()
    data = body(("gone", size), size)
    with Raw(server) as raw:
        name = checks.new_bucket(raw, "gone")
        raw.put(name, "k", data)
    server.stop()
    (server.data / checks.flip(server, data)).unlink()
    try:
        server.start()
    except StartFailed as refused:
        assert refused.status == 1 and "panicked" not in refused.log
        return
    with Raw(server) as raw:
        assert checks.whole_or_nothing(raw, name, "k") is None
        assert raw.put(name, "k", b"anew").status == 200 and raw.get(name, "k").body == b"anew"
    done = elton("check", server=server)
    assert "panicked" not in server.log and done.returncode in (0, 1)


def test_disk_full(tmp_path, mount):
    """Writes are refused clearly, reads and deletes go on, and `gc --now` gives the space back while serving."""
    disk = mount("-t", "tmpfs", "-o", "size=96m", "elton-test")
    server = Server(disk / "data", args=["--disk-reserve", "16MiB"])
    server.log_path = tmp_path / "log"
    with server, Raw(server) as raw:
        name = checks.new_bucket(raw, "full")
        raw.put(name, "small", b"small")
        kept = {}
        for number in range(200):
            data = body(("full", number), MIB)
            reply = raw.put(name, f"large-{number}", data, payload=UNSIGNED)
            if reply.status != 200:
                break
            kept[f"large-{number}"] = data
        assert reply.status == 507 and "gc --now" in reply.message, reply
        assert 40 < len(kept) < 96
        # What is left takes small bodies until it is gone, too.
        for number in range(3000):
            data = body(("small", number), 40_000)
            reply = raw.put(name, f"small-{number}", data, payload=UNSIGNED)
            if reply.status != 200:
                break
            kept[f"small-{number}"] = data
        assert reply.status == 507, reply
        # Again and again, of any size: refused, never latched, never half.
        for number in range(20):
            assert (
                raw.put(name, f"more-{number}", b"x" * (40_000 if number % 2 else MIB), payload=UNSIGNED).status == 507
            )
        begun = raw.request("POST", raw.path(name, "parts"), {"uploads": ""})
        assert begun.status in (200, 507)
        for key, data in kept.items():
            assert raw.get(name, key).body == data
        listed = [key.text for key in raw.request("GET", raw.path(name)).xml.iter("Key")]
        assert listed == sorted([*kept, "small"])
        for key in [key for key in kept if key.startswith("large")][5:]:
            assert raw.delete(name, key).status == 204
            del kept[key]
        # Deleted, but still there as snapshots: the space comes back with them.
        assert raw.put(name, "still", b"x" * MIB, payload=UNSIGNED).status == 507
        checks.command(server, "gc", "--now", "--yes")
        for key, data in kept.items():
            assert raw.get(name, key).body == data
        for number in range(20):
            data = body(("again", number), MIB)
            assert raw.put(name, f"again-{number}", data, payload=UNSIGNED).status == 200
            kept[f"again-{number}"] = data
        server.restart()
        with Raw(server) as fresh:
            for key, data in kept.items():
                assert fresh.get(name, key).body == data
            assert fresh.get(name, "more-1").status == 404


def test_disk_that_others_fill(tmp_path, mount):
    """The reserve is gone because of somebody else: an error of the disk itself. The process stays and recovers."""
    disk = mount("-t", "tmpfs", "-o", "size=64m", "elton-test")
    server = Server(disk / "data", args=["--disk-reserve", "1MiB"])
    server.log_path = tmp_path / "log"
    with server, Raw(server) as raw:
        name = checks.new_bucket(raw, "others")
        acknowledged = {}
        for number in range(50):
            acknowledged[f"k{number}"] = body(number, 10_000)
            assert raw.put(name, f"k{number}", acknowledged[f"k{number}"]).status == 200
        with open(disk / "hog", "wb", buffering=0) as hog, contextlib.suppress(OSError):
            while True:
                hog.write(b"x" * 4096)
        for number in range(50, 80):
            data = body(number, 10_000)
            reply = raw.put(name, f"k{number}", data)
            assert reply.status in (200, 500, 503, 507), reply
            if reply.status == 200:
                acknowledged[f"k{number}"] = data
        for key, data in acknowledged.items():
            assert raw.get(name, key).body == data, key
        os.unlink(disk / "hog")
        deadline = time.monotonic() + 15
        while (reply := raw.put(name, "after", b"after")).status != 200:
            assert time.monotonic() < deadline, reply
            time.sleep(0.1)
        acknowledged["after"] = b"after"
        assert server.process.poll() is None
        server.restart()
        with Raw(server) as fresh:
            for key, data in acknowledged.items():
                assert fresh.get(name, key).body == data, key
            listed = {key.text for key in fresh.request("GET", fresh.path(name)).xml.iter("Key")}
            assert set(acknowledged) <= listed
            for key in listed - set(acknowledged):
                # Not acknowledged, but whole if it is there.
                assert fresh.get(name, key).body == body(int(key[1:]), 10_000)


@pytest.mark.parametrize("system", ["tmpfs", "ext4"])
def test_start_on_a_full_disk(tmp_path, mount, system):
    """Somebody else filled the disk to the last byte. The start needs none, and `gc --now` gives space back."""
    if system == "tmpfs":
        disk = mount("-t", "tmpfs", "-o", "size=64m", "elton-test")
    else:
        image = tmp_path / "image"
        image.touch()
        os.truncate(image, 64 * MIB)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(image)], check=True)
        disk = mount("-o", "loop", str(image))
    server = Server(disk / "data", args=["--disk-reserve", "1MiB"])
    server.log_path = tmp_path / "log"
    with server:
        with Raw(server) as raw:
            name = checks.new_bucket(raw, "full")
            for number in range(20):
                assert raw.put(name, f"k{number}", body(number, MIB), payload=UNSIGNED).status == 200
            for number in range(1, 20):
                assert raw.delete(name, f"k{number}").status == 204
        for end in (server.stop, server.stop, server.kill, server.stop):
            end()
            fill(disk / "hog")
            server.start()
        with Raw(server) as raw:
            assert raw.get(name, "k0").body == body(0, MIB)
            assert raw.put(name, "more", b"x" * MIB, payload=UNSIGNED).status == 507
            checks.command(server, "gc", "--now", "--yes")
            assert raw.put(name, "more", b"x" * MIB, payload=UNSIGNED).status == 200
        server.restart()
        with Raw(server) as raw:
            assert raw.get(name, "k0").body == body(0, MIB) and raw.head(name, "more").status == 200


def test_older_catalog_is_refused_whatever_the_disk_holds(own_server):
    """The count of starts that tells is written over itself: each start counts, torn or not."""
    server = own_server.start()
    server.stop()
    counts = []
    for _ in range(4):
        older = catalog(server.data).read_bytes()
        server.start()
        server.stop()
        counts.append((server.data / "generation").read_bytes())
    assert len(set(counts)) == 4 and len({len(count) for count in counts}) == 1
    newer = catalog(server.data).read_bytes()
    catalog(server.data).write_bytes(older)
    refuses_to_start(server, "catalog", "older")
    catalog(server.data).write_bytes(newer)
    server.start()


def fill(path: pathlib.Path):
    """Takes what is left of a disk, to the last byte."""
    with open(path, "ab", buffering=0) as hog:
        for size in (MIB, 4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    hog.write(b"x" * size)
        with contextlib.suppress(OSError):
            os.fsync(hog.fileno())


def faketime_library() -> str:
    found = sorted(pathlib.Path("/usr/lib").rglob("libfaketime.so.1"))
    assert found, "libfaketime is not installed: ./tests/run installs it"
    return str(found[0])


def test_clock_that_jumps_back(own_server, tmp_path):
    """Numbers and sequence times stay monotone, and the collector, which cannot tell ages any more, ends nothing."""
    clock = tmp_path / "clock"
    clock.write_text("+0")
    own_server.env = {
        "LD_PRELOAD": faketime_library(),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }
    server = own_server.start()
    with Raw(server) as raw:
        # Over to where the server is in time, or its signatures are too old.
        name = checks.new_bucket(raw, "clock")
        numbers = [raw.put(name, "k", b"before").number]
        checks.command(server, "gc")
        checks.command(server, "bucket", "set", name, "--keep", "1m")
        numbers.append(raw.put(name, "k", b"before too").number)
        clock.write_text("-5h")
        raw.clock_offset = -5 * 3600
        reply = raw.put(name, "k", b"after")
        assert reply.status == 200, reply
        numbers.append(reply.number)
        assert numbers == sorted(set(numbers))
        assert raw.get(name, "k").body == b"after"
        for number, data in zip(numbers, (b"before", b"before too", b"after")):
            assert raw.get(f"{name}--at-{number}", "k").body == data
        # Forward, far past the rule of a minute: by its wall clock everything has to go.
        clock.write_text("+48h")
        raw.clock_offset = 48 * 3600
        env = {"LD_PRELOAD": faketime_library(), "FAKETIME": "+48h", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
        done = elton("gc", server=server, env=env)
        assert done.returncode == 0, done.stderr
        assert "clock" in (done.stdout + done.stderr + server.log).lower(), "the jump is not mentioned"
        for number, data in zip(numbers, (b"before", b"before too", b"after")):
            reply = raw.get(f"{name}--at-{number}", "k")
            assert reply.status == 200 and reply.body == data, reply
        newest = raw.put(name, "k", b"newest").number
        assert newest > numbers[-1]


def test_graceful_stop(own_server):
    """A request that is under way is answered; new ones are not taken; the exit status is 0."""
    server = own_server.start()
    data = body("graceful", 8 * MIB)
    with Raw(server) as raw:
        name = checks.new_bucket(raw, "graceful")
        url = raw.presign("PUT", raw.path(name, "k"))
        connection = raw.connection()
        connection.putrequest("PUT", url, skip_accept_encoding=True)
        connection.putheader("content-length", str(len(data)))
        connection.endheaders(data[:MIB])
        time.sleep(0.2)
        server.process.terminate()
        deadline = time.monotonic() + 10
        while _accepts(server.port):
            assert time.monotonic() < deadline, "new connections are still taken"
            time.sleep(0.02)
        connection.send(data[MIB:])
        assert connection.getresponse().status == 200
    assert server._gone() == 0
    server.start()
    with Raw(server) as raw:
        assert raw.get(name, "k").body == data
    assert server.stop() == 0


def _accepts(port) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    except OSError:
        return False


def test_started_by_the_quickstart(tmp_path):
    """Nothing but the binary: defaults, own keys, and data beside the caller."""
    shutil.rmtree(tmp_path / "elton-data", ignore_errors=True)
    with Server(tmp_path / "elton-data", keys=False) as server:
        assert server.endpoint == f"http://127.0.0.1:{server.port}"
        assert server.start_seconds < 2
        assert server.stop() == 0


def test_idle_memory(own_server):
    server = own_server.start()
    with Raw(server) as raw:
        raw.request("GET", "/")
    assert server.resident_bytes() < 64 * MIB
