"""Snapshots in containers: `elton docker-plugin` under a real dockerd, with every known trap of its plugin protocol."""

import concurrent.futures
import os
import pathlib
import signal
import socket
import subprocess
import time

import pytest

from conftest import boto, parameter
from docker_engine import Engine, Failed, Plugin, eventually
from server import MUTANTS, Server, elton

ROUNDS = parameter("DOCKER_KILLS", 10)
# Real ids of containers look so.
ID = "0123456789abcdef" * 4


class Bucket:
    """A bucket whose first numbers are known."""

    def __init__(self, server):
        s3 = boto(server)
        s3.create_bucket(Bucket="photos")
        self.first = self._put(s3, "a.txt", b"one")
        self.second = self._put(s3, "a.txt", b"two")
        self._put(s3, "deep/er/b.txt", b"deep")
        self._put(s3, "deep/er/new.txt", b"new")
        made = elton("snapshot", "create", "photos", "--tag", "before-upgrade", "--json", server=server)
        assert made.returncode == 0, made.stderr
        self.third = self._put(s3, "a.txt", b"three")
        self.s3 = s3

    @staticmethod
    def _put(s3, key, body) -> int:
        reply = s3.put_object(Bucket="photos", Key=key, Body=body)
        return int(reply["ResponseMetadata"]["HTTPHeaders"]["x-elton-version"])


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    engine = Engine(tmp_path_factory.mktemp("engine"), "--live-restore")
    try:
        yield engine.prepare()
    finally:
        engine.end()


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with Server(tmp_path_factory.mktemp("served") / "data") as server:
        yield server


@pytest.fixture(scope="module")
def photos(served):
    return Bucket(served)


@pytest.fixture(scope="module")
def shared_plugin(tmp_path_factory, served, photos):
    plugin = Plugin(tmp_path_factory.mktemp("plugin"), served)
    try:
        yield plugin.start()
    finally:
        plugin.end()


@pytest.fixture
def plugin(shared_plugin, engine):
    """A running plugin that has nothing mounted, before and after."""
    yield shared_plugin
    if engine.process.poll() is not None:
        engine.start()
    if shared_plugin.process.poll() is not None:
        shared_plugin.start()
    if containers := engine.docker("ps", "--all", "--quiet").split():
        engine.docker("rm", "--force", *containers)
    eventually(shared_plugin.is_idle, 20)
    # Each volume costs a dockerd 15 s that starts without the plugin.
    if volumes := engine.docker("volume", "ls", "--quiet").split():
        engine.docker("volume", "rm", "--force", *volumes)


@pytest.fixture
def run(engine, plugin):
    """`run(volume, …)` → a container that has the volume at /data."""

    def run(volume, *args, **options):
        return engine.container("--volume-driver", plugin.driver, "-v", f"{volume}:/data", *args, **options)

    return run


def inspect(engine, volume, field):
    return engine.docker("volume", "inspect", "--format", f"{{{{.{field}}}}}", volume)


# --- What it is for ----------------------------------------------------------------------------------------------


def test_a_snapshot_needs_no_creation(engine, plugin, photos):
    """run, inspect, ls, rm."""
    name = f"photos@{photos.first}"
    shown = engine.once("--volume-driver", plugin.driver, "-v", f"{name}:/data", command=["cat", "/data/a.txt"])
    assert shown == "one"
    assert name in engine.docker("volume", "ls", "--quiet").split()
    assert inspect(engine, name, "Driver") == plugin.driver
    assert inspect(engine, name, "Status.number") == str(photos.first)
    assert inspect(engine, name, "Status.mount") == "none"
    engine.docker("volume", "rm", name)
    assert name not in engine.docker("volume", "ls", "--quiet").split()
    assert photos.s3.get_object(Bucket="photos", Key="a.txt")["Body"].read() == b"three", "the bucket is not touched"


def test_numbers_tags_and_times(engine, plugin, photos):
    """Tags and times mean a number, once for all."""
    time_now = time.strftime("%Y%m%dt%H%M%Sz", time.gmtime(time.time() + 1))
    for name, text, number in [
        (f"photos@{photos.second}", "two", photos.second),
        ("photos@before-upgrade", "two", photos.second + 2),
        (f"photos@{time_now}", "three", photos.third),
    ]:
        driver = ("--volume-driver", plugin.driver)
        assert engine.once(*driver, "-v", f"{name}:/data", command=["cat", "/data/a.txt"]) == text
        assert inspect(engine, name, "Status.number") == str(number)
        engine.docker("volume", "rm", name)
    # A time as people write it has colons, which only --mount takes.
    mount = f"type=volume,src=photos@2099-01-01T00:00Z,dst=/data,volume-driver={plugin.driver}"
    assert engine.once("--mount", mount, command=["cat", "/data/a.txt"]) == "three"
    assert inspect(engine, "photos@2099-01-01T00:00Z", "Status.snapshot") == "2099-01-01T00:00:00.999Z"


def test_options_name_a_part(engine, plugin, photos):
    options = ["-o", "bucket=photos", "-o", "version=before-upgrade", "-o", "prefix=deep/er"]
    assert engine.docker("volume", "create", "-d", plugin.driver, *options, "holidays") == "holidays"
    assert engine.once("-v", "holidays:/data", command=["ls", "/data"]).split() == ["b.txt", "new.txt"]
    assert inspect(engine, "holidays", "Status.prefix") == "deep/er/"
    assert inspect(engine, "holidays", "Status.snapshot") == "before-upgrade"
    engine.docker("volume", "rm", "holidays")


def test_nobody_can_write(engine, plugin, photos, run):
    for user in ("0", "1000"):
        for command in (["touch", "/data/new"], ["sh", "-c", "echo x > /data/a.txt"], ["sh", "-c", "rm /data/a.txt"]):
            with pytest.raises(Failed, match="Read-only file system|applet not found"):
                engine.once(
                    "--user",
                    user,
                    "--volume-driver",
                    plugin.driver,
                    "-v",
                    f"photos@{photos.first}:/data",
                    command=command,
                )
        shown = engine.once(
            "--user", user, "--volume-driver", plugin.driver, "-v", f"photos@{photos.first}:/data:ro",
            command=["cat", "/data/a.txt"],
        )  # fmt: skip
        assert shown == "one"


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["photos"], "volumes that can be written are not in this version"),
        (["photos@999999"], "999999"),
        (["photos@no-such-tag"], "no-such-tag"),
        (["strangers@1"], "strangers"),
        (["Photos@1"], "a bucket's name"),
        (["oslo/photos@1"], "elton bucket link"),
        (["a/../photos@1"], "elton bucket link"),
        (["x" * 300], "255 bytes"),
        (["-o", "bucket=photos", "v"], "option version is missing"),
        (["-o", "bucket=photos", "-o", "version=1", "-o", "secret=x", "v"], "Keys never belong"),
        (["-o", "bucket=photos", "-o", "version=1", "-o", "prefix=nowhere", "v"], "nowhere"),
        (["-o", "from=photos@1", "v"], "not in this version"),
        (["-o", "bucket=photos", "photos@77"], "by its name"),
    ],
)
def test_what_is_no_volume_is_refused_in_words(engine, plugin, photos, arguments, said):
    with pytest.raises(Failed, match=said):
        engine.docker("volume", "create", "-d", plugin.driver, *arguments)
    assert arguments[-1] not in engine.docker("volume", "ls", "--quiet").splitlines()


def test_two_containers_share_one_mount(engine, plugin, photos, run):
    """Under two names, too: one mount, until the last of them has gone."""
    options = ["-o", "bucket=photos", "-o", f"version={photos.first}"]
    engine.docker("volume", "create", "-d", plugin.driver, *options, "first")
    containers = [run(f"photos@{photos.first}"), run(f"photos@{photos.first}"), run("first")]
    assert plugin.mounts() == [f"photos@{photos.first}"]
    assert len(plugin.processes()) == 1
    for container in containers:
        assert engine.docker("exec", container, "cat", "/data/a.txt") == "one"
        assert plugin.mounts() == [f"photos@{photos.first}"]
        engine.docker("rm", "--force", container)
    eventually(plugin.is_idle)
    eventually(lambda: not plugin.processes())
    engine.docker("volume", "rm", "first")


# --- The protocol ------------------------------------------------------------------------------------------------


def test_the_protocol_as_it_is_spoken(plugin, photos):
    assert plugin.call("Plugin.Activate") == {"Implements": ["VolumeDriver"]}
    assert plugin.call("VolumeDriver.Capabilities") == {"Capabilities": {"Scope": "local"}}
    name = f"photos@{photos.first}"
    assert plugin.call("VolumeDriver.Create", Name=name, Opts=None) == {"Err": ""}
    assert plugin.call("VolumeDriver.Create", Name=name, Opts={}) == {"Err": ""}, "again is no error"
    assert plugin.call("VolumeDriver.Get", Name=name)["Volume"].get("Mountpoint") is None
    assert "not mounted" in plugin.call("VolumeDriver.Path", Name=name)["Err"]
    at = plugin.call("VolumeDriver.Mount", Name=name, ID=ID)["Mountpoint"]
    assert os.path.realpath(at) == at and os.listdir(at) == ["a.txt"]
    assert plugin.call("VolumeDriver.Path", Name=name) == {"Mountpoint": at, "Err": ""}
    assert plugin.call("VolumeDriver.Get", Name=name)["Volume"]["Mountpoint"] == at
    assert "CreatedAt" not in plugin.call("VolumeDriver.Get", Name=name)["Volume"]
    assert {"Name": name, "Mountpoint": at} in plugin.call("VolumeDriver.List")["Volumes"]
    assert plugin.call("VolumeDriver.Unmount", Name=name, ID=ID) == {"Err": ""}
    assert plugin.call("VolumeDriver.Unmount", Name=name, ID=ID) == {"Err": ""}, "again is no error"
    eventually(lambda: not os.path.exists(at))  # Nothing can be bound that is not mounted.
    for _ in range(2):
        assert plugin.call("VolumeDriver.Remove", Name=name) == {"Err": ""}
    assert plugin.call("VolumeDriver.Get", Name=name)["Err"] == "no such volume"
    assert plugin.call("VolumeDriver.Mount", Name=name, ID=ID) == {"Err": "no such volume"}
    assert plugin.call("VolumeDriver.Fly")["Err"]


def test_get_and_list_ask_nobody(tmp_path, photos):
    """Volumes of a server that is gone; and names that are none of ours, which dockerd asks every plugin for."""
    with Server(tmp_path / "data") as server:
        Bucket(server)
        plugin = Plugin(tmp_path / "plugin", server).start()
        try:
            for number in range(1, 4):
                assert plugin.call("VolumeDriver.Create", Name=f"photos@{number}", Opts=None) == {"Err": ""}
            os.kill(server.process.pid, signal.SIGSTOP)
            began = time.monotonic()
            for _ in range(50):
                assert plugin.call("VolumeDriver.Get", Name="photos@1")["Err"] == ""
                assert plugin.call("VolumeDriver.Get", Name="photos@9")["Err"] == "no such volume"
                assert plugin.call("VolumeDriver.Get", Name="9f86d081884c")["Err"] == "no such volume"
                assert plugin.call("VolumeDriver.Get", Name="../../etc")["Err"] == "no such volume"
                assert len(plugin.call("VolumeDriver.List")["Volumes"]) == 3
            assert (time.monotonic() - began) / 250 < 0.05
            os.kill(server.process.pid, signal.SIGCONT)
        finally:
            plugin.end()


def test_volumes_outlive_the_plugin(engine, plugin, photos, run):
    container = run(f"photos@{photos.first}")
    plugin.stop()
    assert not plugin.socket.exists(), "a dead socket costs dockerd 15 s for each name"
    assert engine.docker("exec", container, "cat", "/data/a.txt") == "one", "mounts have processes of their own"
    plugin.start()
    assert plugin.mounts() == [f"photos@{photos.first}"] and plugin.uses() == 1
    engine.docker("restart", "--time", "0", container)
    assert engine.docker("exec", container, "cat", "/data/a.txt") == "one"


def test_systemd_hands_the_socket_over(tmp_path, served, photos):
    """Who calls before the plugin runs is answered once it does; and mounts do not inherit the socket."""
    plugin = Plugin(tmp_path / "plugin", served)
    ready_at = tmp_path / "ready"
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
        plugin.socket = pathlib.Path(f"/run/elton-test-{os.getpid()}.sock")
        listener.bind(str(plugin.socket))
        listener.listen()
        ready.bind(str(ready_at))
        ready.settimeout(30)
        with concurrent.futures.ThreadPoolExecutor() as pool:
            early = pool.submit(plugin.call, "Plugin.Activate")
            given = listener.fileno()
            command = f'exec 3<&{given} {given}<&-; LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"'
            env = served.client_env(NOTIFY_SOCKET=str(ready_at), ELTON_STATE=str(tmp_path / "mounts"))
            arguments = ["bash", "-c", command, "bash", *plugin.command()]
            plugin.process = subprocess.Popen(arguments, pass_fds=[given], env=env)
            try:
                assert b"READY=1" in ready.recv(4096)
                assert early.result(30) == {"Implements": ["VolumeDriver"]}
                name = f"photos@{photos.first}"
                plugin.call("VolumeDriver.Create", Name=name, Opts=None)
                assert plugin.call("VolumeDriver.Mount", Name=name, ID=ID)["Mountpoint"]
                inode = os.fstat(listener.fileno()).st_ino
                for process in plugin.processes():
                    folder = pathlib.Path(f"/proc/{process}")
                    held = [os.readlink(entry) for entry in (folder / "fd").iterdir()]
                    assert f"socket:[{inode}]" not in held
                    assert b"NOTIFY_SOCKET" not in (folder / "environ").read_bytes()
                plugin.call("VolumeDriver.Unmount", Name=name, ID=ID)
                assert plugin.stop() == 0
                assert plugin.socket.exists(), "it is systemd's"
            finally:
                plugin.end()


def test_one_plugin_per_socket_and_state(plugin):
    refused = subprocess.run(
        plugin.command(), capture_output=True, text=True, env=plugin.server.client_env(), timeout=60
    )
    assert refused.returncode == 1 and "another plugin uses" in refused.stderr


# --- dockerd's traps ---------------------------------------------------------------------------------------------


def test_trap_docker_cp_of_a_running_container(engine, plugin, photos, run, tmp_path):
    """A second Mount with the container's own ID, then one Unmount of it: a set of IDs would unmount too early."""
    container = run(f"photos@{photos.first}")
    for _ in range(3):
        engine.docker("cp", f"{container}:/data/a.txt", tmp_path / "copied")
        assert (tmp_path / "copied").read_bytes() == b"one"
        assert plugin.mounts() and plugin.uses() == 1
        assert engine.docker("exec", container, "cat", "/data/a.txt") == "one"
    with pytest.raises(Failed, match="read-only|Read-only"):
        engine.docker("cp", tmp_path / "copied", f"{container}:/data/into")
    engine.docker("stop", "--time", "0", container)
    engine.docker("cp", f"{container}:/data/a.txt", tmp_path / "stopped")
    assert (tmp_path / "stopped").read_bytes() == b"one"
    eventually(plugin.is_idle)


def test_trap_copy_up(engine, plugin, photos):
    """dockerd writes what the image has at the mountpoint into empty volumes, under :ro, too."""
    name = f"photos@{photos.first}"
    shown = engine.once("--volume-driver", plugin.driver, "-v", f"{name}:/seeded:ro", command=["ls", "/seeded"])
    assert shown == "a.txt"
    empty = elton("bucket", "create", "empty", server=plugin.server)
    assert empty.returncode == 0 or "exists" in empty.stderr
    with pytest.raises(Failed, match="read-only file system"):
        engine.once("--volume-driver", plugin.driver, "-v", "empty@0:/seeded:ro", command=["ls", "/seeded"])
    nocopy = ("--volume-driver", plugin.driver, "-v", "empty@0:/seeded:ro,nocopy")
    assert engine.once(*nocopy, command=["ls", "/seeded"]) == ""
    eventually(plugin.is_idle)


def test_trap_one_volume_twice_in_a_container(engine, plugin, photos, run):
    name = f"photos@{photos.first}"
    container = run(name, "-v", f"{name}:/again")
    assert engine.docker("exec", container, "cat", "/data/a.txt", "/again/a.txt") == "oneone"
    assert plugin.mounts() == [name] and plugin.uses() == 2


def test_trap_unmount_lost_with_the_plugin_away(engine, plugin, photos, run):
    """dockerd gives up after 15 s and never says it again."""
    container = run(f"photos@{photos.first}")
    plugin.kill()
    engine.docker("stop", "--time", "0", container)
    plugin.start()
    assert plugin.mounts() and plugin.uses() == 1, "it could be a container that is about to start"
    eventually(plugin.is_idle)


def test_trap_live_restore_forgets(engine, plugin, photos, run, tmp_path):
    """After a restart of dockerd and a `docker cp`, the container's own Unmount may never come: that must neither take
    the mount away while it runs nor keep it for ever."""
    container = run(f"photos@{photos.first}")
    engine.stop()
    engine.start()
    for _ in range(2):
        engine.docker("cp", f"{container}:/data/a.txt", tmp_path / "copied")
    time.sleep(6)  # Longer than what nobody has is kept.
    assert plugin.mounts() == [f"photos@{photos.first}"]
    assert engine.docker("exec", container, "cat", "/data/a.txt") == "one"
    engine.docker("stop", "--time", "0", container)
    eventually(plugin.is_idle)


def test_trap_containers_end_with_dockerd(plugin, photos, tmp_path):
    """Without live-restore a dockerd that starts ends what another left running, and says so to nobody."""
    engine = Engine(tmp_path / "plain").prepare()
    try:
        for end in (engine.kill, engine.stop):
            engine.container("--volume-driver", plugin.driver, "-v", f"photos@{photos.first}:/data")
            assert plugin.uses() == 1
            end()
            engine.start()
            eventually(plugin.is_idle)
    finally:
        engine.end()


def test_trap_a_use_is_kept_until_the_container_has_it(plugin, photos):
    """Between the answer to Mount and the container's own mount, nobody has it but dockerd's word."""
    name = f"photos@{photos.first}"
    plugin.call("VolumeDriver.Create", Name=name, Opts=None)
    plugin.call("VolumeDriver.Mount", Name=name, ID=ID)
    time.sleep(2)
    plugin.kill()
    plugin.start()
    assert plugin.mounts() == [name] and plugin.uses() == 1
    eventually(plugin.is_idle)


def test_a_mount_process_that_dies(engine, plugin, photos, run):
    name = f"photos@{photos.first}"
    container = run(name)
    for process in plugin.processes():
        os.kill(process, signal.SIGKILL)
    eventually(lambda: inspect(engine, name, "Status.mount") == "ended")
    assert "restart" in inspect(engine, name, "Status.advice")
    assert "its mount has ended" in plugin.log
    with pytest.raises(Failed, match="not connected"):
        engine.docker("exec", container, "cat", "/data/a.txt")
    other = run(name)
    assert engine.docker("exec", other, "cat", "/data/a.txt") == "one", "the next Mount mounts anew"
    engine.docker("restart", "--time", "0", container)
    assert engine.docker("exec", container, "cat", "/data/a.txt") == "one", "and a restart cures"
    assert plugin.mounts() == [name]


def test_mounts_that_ended_are_gone_after_a_start(engine, plugin, photos, run):
    name = f"photos@{photos.first}"
    container = run(name)
    plugin.kill()
    for process in plugin.processes():
        os.kill(process, signal.SIGKILL)
    plugin.start()
    assert plugin.mounts() == []
    assert inspect(engine, name, "Status.mount") == "ended"
    engine.docker("restart", "--time", "0", container)
    assert engine.docker("exec", container, "cat", "/data/a.txt") == "one"


def test_plugin_and_dockerd_killed_in_turn(engine, plugin, photos, run, tmp_path):
    """Whatever is killed, a running container reads on; and at the end nothing is left."""
    name = f"photos@{photos.first}"
    container = run(name)
    for turn in range(ROUNDS):
        # Either, or both in either order; dockerd asked to stop, or not.
        turns = [(plugin,), (engine,), (plugin, engine), (engine, plugin)][turn % 4]
        for one in turns:
            engine.stop() if one is engine and turn % 8 > 3 else one.kill()
        # A dockerd that starts first waits 15 s for each volume, so it does that once in a while.
        for one in sorted(turns, key=lambda one: (one is plugin) == (turn % 8 == 3)):
            one.start()
        assert engine.docker("exec", container, "cat", "/data/a.txt") == "one"
        engine.docker("cp", f"{container}:/data/a.txt", tmp_path / "copied")
        second = run(f"photos@{photos.second}")
        assert engine.docker("exec", second, "cat", "/data/a.txt") == "two"
        assert name in plugin.mounts()
        if turn % 3:
            engine.docker("rm", "--force", second)
    assert engine.docker("exec", container, "cat", "/data/a.txt") == "one"
    assert name in plugin.mounts()


@pytest.mark.parametrize("mutant", ["count-uses-once", "trust-uses"])
def test_counting_has_controls(tmp_path, served, photos, mutant):
    """The counting broken by name shows in what the traps above look at."""
    assert MUTANTS.exists(), f"{MUTANTS} is missing: ./tests/run builds it"
    name = f"photos@{photos.first}"
    plugin = Plugin(tmp_path / "plugin", served, binary=MUTANTS, env={"ELTON_MUTANT": mutant}).start()
    try:
        plugin.call("VolumeDriver.Create", Name=name, Opts=None)
        for call in ("Mount", "Mount", "Unmount"):
            plugin.call(f"VolumeDriver.{call}", Name=name, ID=ID)
        if mutant == "count-uses-once":
            assert plugin.is_idle(), "unmounted under a container that has it"
        else:
            time.sleep(7)
            assert not plugin.is_idle(), "an Unmount that is lost is a mount for ever"
    finally:
        plugin.end()
