"""The `elton` commands: what they print, how they end, and that their errors say what to do next."""

import datetime
import json
import os
import pty
import re
import stat
import subprocess
import time

import pytest

import checks
from conftest import bucket_name
from raw import Raw, md5
from server import BINARY, Server, elton


@pytest.fixture
def run(server):
    """`run(*arguments)` → what the command printed as JSON; it must succeed."""

    def run(*arguments):
        done = elton(*arguments, "--json", server=server)
        assert done.returncode == 0, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return json.loads(done.stdout)

    return run


@pytest.fixture
def filled(raw, run):
    """A bucket with three states, the first one tagged."""
    name = bucket_name("cli")
    run("bucket", "create", name)
    for key in ("a/1", "a/2", "b"):
        raw.put(name, key, b"first " + key.encode())
    number = run("snapshot", "create", name, "--tag", "first", "-m", "the first state")["number"]
    raw.put(name, "a/1", b"second a/1")
    raw.delete(name, "b")
    raw.put(name, "c", b"second c")
    return name, number


def failed(server, *arguments, status=1) -> str:
    """A command that must fail: what it said, in one piece, without a trace of a panic."""
    done = elton(*arguments, server=server)
    assert done.returncode == status, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert done.stdout == "", "errors belong on stderr"
    assert "panicked" not in done.stderr
    return done.stderr


def test_buckets(run, server):
    name = bucket_name("cli")
    assert run("bucket", "create", name, "--location", "mars")["name"] == name
    assert name in [bucket["name"] for bucket in run("bucket", "ls")]
    info = run("bucket", "info", name)
    assert (info["location"], info["versioning"], info["keep_seconds"], info["objects"]) == ("mars", "off", None, 0)
    run("bucket", "set", name, "--keep", "48h", "--versioning", "enabled")
    info = run("bucket", "info", name)
    assert (info["versioning"], info["keep_seconds"]) == ("enabled", 48 * 3600)
    assert run("bucket", "set", name, "--keep", "default") and run("bucket", "info", name)["keep_seconds"] is None
    table = elton("bucket", "ls", server=server)
    assert table.returncode == 0 and name in table.stdout
    assert name in failed(server, "bucket", "create", name)


def test_snapshots(run, raw, filled, server):
    name, number = filled
    listed = run("snapshot", "ls", name)
    (tag,) = listed["tags"]
    assert (tag["tag"], tag["number"], tag["message"]) == ("first", number, "the first state")
    shown = run("snapshot", "show", f"{name}@first", "--count")
    assert (shown["number"], shown["objects"], shown["alias"]) == (number, 3, f"{name}--at-{number}")
    assert shown["ends"] is False and run("snapshot", "show", name + f"@{number + 1}")["ends"] is True
    raw.put(name, "later")
    again = run("snapshot", "create", f"{name}@{number}", "--tag", "also")
    assert again["number"] == number
    assert "removed" in failed(server, "snapshot", "create", name, "--tag", "first"), "a tag is never moved"
    run("snapshot", "rm", f"{name}@also")
    assert [tag["tag"] for tag in run("snapshot", "ls", name)["tags"]] == ["first"]
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert run("snapshot", "show", f"{name}@{now}")["number"] >= number
    human = elton("snapshot", "ls", name, server=server).stdout
    assert "first" in human and "the first state" in human


def test_diff(run, filled):
    name, number = filled
    found = run("snapshot", "diff", f"{name}@first", name)
    by_key = {d["key"]: (d["before"] and d["before"]["size"], d["after"] and d["after"]["size"]) for d in found}
    assert by_key == {"a/1": (9, 10), "b": (7, None), "c": (None, 8)}
    below = run("snapshot", "diff", f"{name}@{number}", name, "--prefix", "a/")
    assert [d["key"] for d in below] == ["a/1"]
    assert run("snapshot", "diff", f"{name}@first", f"{name}@{number}") == []


def test_diff_of_tags(run, s3, filled, server):
    """Tags that were set to what they were are no difference; a restore brings them back."""
    name, _ = filled
    tag = lambda key, **tags: s3.put_object_tagging(
        Bucket=name, Key=key, Tagging={"TagSet": [{"Key": k, "Value": v} for k, v in tags.items()]}
    )
    tag("a/1", colour="red")
    before = run("bucket", "info", name)["number"]
    tag("a/1", colour="green", size="small")
    tag("c", colour="blue")
    tag("c")
    (found,) = run("snapshot", "diff", f"{name}@{before}", name)
    assert (found["key"], found["kind"]) == ("a/1", "tags")
    assert found["before"]["tags"] == {"colour": "red"}
    assert found["after"]["tags"] == {"colour": "green", "size": "small"}
    assert found["before"]["version"] == found["after"]["version"]
    shown = elton("snapshot", "diff", f"{name}@{before}", name, server=server).stdout
    assert shown.strip() == "t a/1 (colour=red -> colour=green size=small)"
    assert run("snapshot", "restore", f"{name}@{before}")["changed"]
    tags = s3.get_object_tagging(Bucket=name, Key="a/1")["TagSet"]
    assert tags == [{"Key": "colour", "Value": "red"}]
    kinds = {d["key"]: (d["kind"], "tags" in (d["after"] or {})) for d in run("snapshot", "diff", f"{name}@first", name)}
    assert kinds == {"a/1": ("written", False), "b": ("removed", False), "c": ("added", False)}


def test_diff_reads_well(server, filled):
    name, _ = filled
    shown = elton("snapshot", "diff", f"{name}@first", name, server=server).stdout
    assert all(re.search(rf"(^|\s){key}(\s|$)", shown, re.MULTILINE) for key in ("a/1", "b", "c")), shown


def test_restore(run, raw, filled):
    name, number = filled
    before = int(raw.put(name, "z", b"newest").number)
    restored = run("snapshot", "restore", f"{name}@first", "--prefix", "a/")
    assert restored["number"] == before + 1
    assert (
        raw.get(name, "a/1").body == b"first a/1"
        and raw.get(name, "b").status == 404
        and raw.get(name, "c").status == 200
    )
    whole = run("snapshot", "restore", f"{name}@{number}")
    assert whole["number"] == before + 2
    assert (
        raw.get(name, "b").body == b"first b" and raw.get(name, "c").status == 404 and raw.get(name, "z").status == 404
    )
    # What came back has new numbers and times, and the same content.
    left = run("snapshot", "diff", f"{name}@first", name)
    assert all(d["before"] and d["after"] and d["before"]["etag"] == d["after"]["etag"] for d in left), left
    # A restore is a change like any other: it can be undone.
    run("snapshot", "restore", f"{name}@{before}")
    assert raw.get(name, "z").body == b"newest" and raw.get(name, "b").status == 404
    assert raw.get(f"{name}--at-{whole['number']}", "b").body == b"first b"


def test_restore_of_what_is_so_already(run, raw, filled, server):
    """No number is spent where nothing would change, below the prefix or at all."""
    name, number = filled
    run("snapshot", "restore", f"{name}@first", "--prefix", "a/")
    newest = int(raw.put(name, "z", b"newest").number)
    nothing = {"bucket": name, "number": newest, "changed": False}
    # What is below a/ was restored: it has the content of `first`, as versions of its own.
    assert run("snapshot", "restore", f"{name}@{newest - 1}", "--prefix", "a/") == nothing
    assert run("snapshot", "restore", f"{name}@{newest}") == nothing
    assert run("snapshot", "restore", f"{name}@first", "--prefix", "no/such/") == nothing
    said = elton("snapshot", "restore", f"{name}@{newest}", server=server)
    assert said.returncode == 0 and "nothing changed" in said.stdout
    # Neither does a key that went and came back count, but what came back is another version.
    raw.put(name, "q", b"q")
    raw.delete(name, "q")
    assert run("snapshot", "restore", f"{name}@{newest}") == nothing | {"number": newest + 2}
    # A tag outlives the log that says what was changed since: then the keys themselves are compared.
    run("snapshot", "create", name, "--tag", "kept")
    raw.put(name, "q", b"q")
    raw.delete(name, "q")
    run("gc", "--now", "--yes")
    assert run("snapshot", "restore", f"{name}@kept") == nothing | {"number": newest + 4}
    raw.delete(name, "z")
    assert run("snapshot", "restore", f"{name}@kept") == {"bucket": name, "number": newest + 6, "changed": True}
    assert int(raw.put(name, "after", b"").number) == newest + 7


def test_restore_of_many(run, raw):
    """More keys than one transaction takes; readable at once, on all paths."""
    name = bucket_name("cli")
    run("bucket", "create", name)
    for number in range(2500):
        raw.put(name, f"{number:04}", b"%d" % number)
    run("snapshot", "create", name, "--tag", "full")
    for at in range(0, 2500, 500):
        document = "".join(f"<Object><Key>{n:04}</Key></Object>" for n in range(at, at + 500))
        document = f"<Delete><Quiet>true</Quiet>{document}</Delete>".encode()
        assert (
            raw.request("POST", raw.path(name), {"delete": ""}, {"content-md5": md5(document)}, document).status == 200
        )
    raw.put(name, "0007", b"changed")
    run("snapshot", "restore", f"{name}@full")
    assert raw.get(name, "0007").body == b"7" and raw.get(name, "2499").body == b"2499"
    keys, marker = [], ""
    while True:
        page = raw.request("GET", raw.path(name), {"marker": marker} if marker else {}).xml
        keys += [key.text for key in page.findall("Contents/Key")]
        if page.findtext("IsTruncated") == "false":
            break
        marker = keys[-1]
    assert keys == [f"{n:04}" for n in range(2500)]
    assert _soon(lambda: run("bucket", "info", name)["objects"], 2500)
    raw.delete(name, "0003")
    assert raw.get(name, "0003").status == 404


def _soon(look, expected, seconds=10):
    """Counts follow a restore as its layer is folded."""
    deadline = time.monotonic() + seconds
    while look() != expected and time.monotonic() < deadline:
        time.sleep(0.1)
    return look() == expected


def test_log(run, raw, filled, server):
    name, number = filled
    entries = run("bucket", "log", name, "--all")
    assert [entry["number"] for entry in entries] == sorted((entry["number"] for entry in entries), reverse=True)
    puts = [(entry["number"], entry["key"]) for entry in entries if entry["change"] == "put"]
    assert (number, "b") in puts
    assert any(entry["change"] == "delete" and entry["key"] == "b" for entry in entries)
    assert all(entry["actor"] and entry["time"] for entry in entries), "who and when"
    few = run("bucket", "log", name, "--max", "2")
    assert [entry["number"] for entry in few] == [entry["number"] for entry in entries[:2]]
    older = run("bucket", "log", name, "--before", few[-1]["number"], "--max", "1")
    assert older[0]["number"] == entries[2]["number"]
    human = elton("bucket", "log", name, server=server).stdout
    assert "a/1" in human and str(number) in human


def test_gc(run, server, raw):
    name = bucket_name("cli")
    run("bucket", "create", name)
    numbers = [raw.put(name, "k", b"%d" % n * 50_000).number for n in range(4)]
    dry = run("gc", "--now", "--dry-run", "--bucket", name)
    assert dry["numbers_ended"] >= 3 and raw.get(f"{name}--at-{numbers[0]}", "k").status == 200
    # Without a terminal nobody can be asked, so it has to be said beforehand.
    silent = elton("gc", "--now", "--bucket", name, server=server)
    assert silent.returncode in (1, 2) and "--yes" in silent.stderr
    assert raw.get(f"{name}--at-{numbers[0]}", "k").status == 200
    done = run("gc", "--now", "--yes", "--bucket", name)
    assert done["numbers_ended"] == dry["numbers_ended"] and done["versions"] == 3
    refused = raw.get(f"{name}--at-{numbers[0]}", "k")
    assert refused.status == 404 or refused.status == 410, refused
    assert str(numbers[-1]) in refused.message, "the floor is named"
    assert raw.get(name, "k").body == b"3" * 50_000
    assert run("bucket", "info", name)["floor"] == numbers[-1]


def test_gc_asks_on_a_terminal(http_server):
    """It says how many numbers end, and a no changes nothing."""
    with Raw(http_server) as raw:
        name = checks.new_bucket(raw, "cli-asked")
        number = raw.put(name, "k", b"1").number
        raw.put(name, "k", b"2")
        for answer, expected in ((b"n\n", 200), (b"y\n", 404)):
            master, slave = pty.openpty()
            process = subprocess.Popen(
                [BINARY, "gc", "--now", "--bucket", name],
                stdin=slave,
                stdout=slave,
                stderr=slave,
                env=http_server.client_env(),
                close_fds=True,
            )
            os.close(slave)
            os.write(master, answer)
            said = b""
            try:
                while chunk := os.read(master, 4096):
                    said += chunk
            except OSError:
                pass  # The other side is closed.
            os.close(master)
            process.wait(30)
            assert re.search(rb"\d+ number", said), said
            assert (raw.get(f"{name}--at-{number}", "k").status == 200) == (expected == 200), said


def test_du_status_check(run, raw, server, filled):
    used = run("du")
    assert used["objects"] >= 3 and used["disk_free_bytes"] > 0 and used["catalog_bytes"] > 0
    assert filled[0] in [bucket["name"] for bucket in used["buckets"]]
    status = run("status")
    assert status["version"] and status["buckets"] >= 1 and status["uptime_seconds"] >= 0
    checked = run("check", "--bodies")
    assert checked["findings"] == [] and checked["versions"] >= 3
    for command in ("du", "status", "check"):
        done = elton(command, server=server)
        assert done.returncode == 0 and done.stdout, done.stderr


def test_errors_say_what_to_do(server, filled):
    name, number = filled
    assert "no-such-bucket-here" in failed(server, "bucket", "info", "no-such-bucket-here")
    assert "nope" in failed(server, "snapshot", "show", f"{name}@nope")
    assert str(number) in failed(server, "snapshot", "create", name, "--tag", "first")
    assert "newest" in failed(server, "snapshot", "show", f"{name}@999999")
    assert failed(server, "snapshot", "restore", f"{name}@999999")
    assert failed(server, "snapshot", "rm", f"{name}@nope")


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("nonsense",),
        ("bucket",),
        ("bucket", "create"),
        ("bucket", "create", "Not_Lawful"),
        ("snapshot", "create", "bucket", "--tag", "Not Lawful"),
        ("snapshot", "show", "bucket@"),
        ("serve", "--listen", "nowhere"),
        ("serve", "--no-such-flag"),
        ("serve", "--master", "x"),
        ("serve", "--disk-reserve", "much"),
        ("bucket", "set", "bucket", "--keep", "soon"),
        ("gc", "--never"),
        ("serve", "--tls-cert", "x"),
    ],
)
def test_usage_errors(arguments):
    done = elton(*arguments)
    assert done.returncode == 2, (done.returncode, done.stderr)
    assert done.stdout == "" and done.stderr


def test_no_server(tmp_path):
    done = elton(
        "bucket",
        "ls",
        "--endpoint",
        "http://127.0.0.1:1",
        env={"ELTON_ACCESS_KEY": "accesskey", "ELTON_SECRET_KEY": "secretsecret"},
        cwd=tmp_path,
    )
    assert done.returncode == 1 and "elton serve" in done.stderr and "--endpoint" in done.stderr


def test_no_keys(tmp_path, http_server):
    done = elton("bucket", "ls", "--endpoint", http_server.endpoint, cwd=tmp_path)
    assert done.returncode == 1 and "ELTON_ACCESS_KEY" in done.stderr


def test_wrong_keys(tmp_path, http_server):
    done = elton("bucket", "ls", server=http_server, env={"ELTON_SECRET_KEY": "wrong"}, cwd=tmp_path)
    assert done.returncode == 1 and done.stderr and done.stdout == ""


def test_keys_are_found(tmp_path, http_server):
    """The AWS variables, then DIR/credentials, which the first start makes for its owner only."""
    env = {name: value for name, value in http_server.client_env().items() if name.startswith("AWS_")}
    assert elton("bucket", "ls", "--endpoint", http_server.endpoint, env=env, cwd=tmp_path).returncode == 0
    with Server(tmp_path / "elton-data", keys=False) as server:
        mode = stat.S_IMODE((server.data / "credentials").stat().st_mode)
        assert mode == 0o600, oct(mode)
        done = elton("bucket", "create", "own-keys", "--endpoint", server.endpoint, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        keys = (server.data / "credentials").read_text()
        server.restart()
        assert (server.data / "credentials").read_text() == keys
        assert "own-keys" in elton("bucket", "ls", "--endpoint", server.endpoint, "--data", server.data, cwd="/").stdout


def test_check_without_a_server(own_server):
    server = own_server.start()
    with Raw(server) as raw:
        name = checks.new_bucket(raw, "offline")
        raw.put(name, "k", b"x" * 100_000)
    server.stop()
    done = elton("check", "--data", server.data, "--bodies", "--endpoint", "http://127.0.0.1:1")
    assert done.returncode == 0, done.stdout + done.stderr


def test_completions_and_help():
    for shell in ("bash", "zsh", "fish"):
        done = elton("completions", shell)
        assert done.returncode == 0 and "snapshot" in done.stdout
    for arguments in (("--help",), ("serve", "--help"), ("snapshot", "--help"), ("--version",)):
        done = elton(*arguments)
        assert done.returncode == 0 and done.stdout


def test_configuration_file(tmp_path):
    """Flag over environment over file; what is unknown is an error before a port is bound."""
    config = tmp_path / "elton.toml"
    config.write_text('region = "eu-central-1"\nname = "from-file"\n')
    with Server(tmp_path / "data", args=["--config", str(config)], env={"ELTON_NAME": "from-env"}) as server:
        done = elton("status", "--json", server=server)
        assert json.loads(done.stdout)["name"] == "from-env", done.stderr
        assert json.loads(done.stdout)["region"] == "eu-central-1"
    with Server(
        tmp_path / "data", args=["--config", str(config), "--name", "from-flag"], env={"ELTON_NAME": "from-env"}
    ) as server:
        assert json.loads(elton("status", "--json", server=server).stdout)["name"] == "from-flag"
    config.write_text('regoin = "eu-central-1"\n')
    done = elton("serve", "--data", tmp_path / "data", "--listen", "127.0.0.1:0", "--config", config)
    assert done.returncode in (1, 2) and "regoin" in done.stderr
