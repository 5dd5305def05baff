"""A Docker engine of the test's own, and the plugin that it finds.

The engine has its own data, sockets, pid file and bridge, so that one of the machine goes on undisturbed. Plugins have
only one place, /run/docker/plugins, so the plugin's socket has a name of its own there: that is what the driver is called.
"""

import contextlib
import http.client
import io
import itertools
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tarfile
import time

from server import BINARY, environment

START_SECONDS_MAX = 60
IMAGE = "elton-test"
_bridges = itertools.count()
# What the containers of the tests call.
APPLETS = ("sh", "cat", "ls", "sleep", "touch", "stat", "find", "id", "true")


def eventually(check, seconds=15):
    """What `check` returns once that is true."""
    end = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < end, f"not within {seconds} s: {check.__name__}"
        time.sleep(0.1)
    return found


def mountpoints() -> list[str]:
    return [line.split()[4] for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines()]


def is_alive(pid) -> bool:
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


class Failed(Exception):
    """A docker command that failed, with what it said."""


def image() -> bytes:
    """busybox, and a directory with a file in it: what dockerd would copy into an empty volume that is mounted there."""
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as image:
        image.add(shutil.which("busybox"), "bin/busybox")
        for applet in APPLETS:
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            image.addfile(link)
        seed = tarfile.TarInfo("seeded/from-the-image")
        seed.size = 5
        image.addfile(seed, io.BytesIO(b"image"))
    return tar.getvalue()


class Engine:
    """A dockerd."""

    def __init__(self, folder, *args):
        self.folder = pathlib.Path(folder)
        # Paths of sockets are short.
        self.run = pathlib.Path(f"/run/elton-test-{os.getpid()}-{self.folder.name}")
        self.bridge = f"elt{os.getpid() % 100000}-{self.folder.name[-4:]}"
        self.args = args
        self.process = None
        self.log_path = self.folder / "dockerd.log"

    def prepare(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        self.run.mkdir(parents=True)
        # `--bridge=none` would take away the one of an engine beside this.
        third = (os.getpid() + 97 * next(_bridges)) % 256
        subprocess.run(["ip", "link", "add", "name", self.bridge, "type", "bridge"], check=True)
        subprocess.run(["ip", "address", "add", f"10.213.{third}.1/24", "dev", self.bridge], check=True)
        subprocess.run(["ip", "link", "set", self.bridge, "up"], check=True)
        self.start()
        subprocess.run([*self.client(), "import", "-", IMAGE], input=image(), check=True, capture_output=True)
        return self

    def client(self):
        return ["docker", "-H", f"unix://{self.run}/docker.sock"]

    def start(self):
        # Whatever happens to the test, the engine goes with it.
        command = [
            "setpriv", "--pdeathsig", "TERM", "--", "dockerd", "--data-root", self.folder / "data", "--exec-root", self.run / "exec", "--pidfile", self.run / "pid",
            "-H", f"unix://{self.run}/docker.sock", "--bridge", self.bridge, "--iptables=false", "--ip6tables=false",
            "--ip-forward=false", "--ip-masq=false", "--userland-proxy=false", *self.args,
        ]  # fmt: skip
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(list(map(str, command)), stdout=log, stderr=log, env=environment())

        def answers():
            assert self.process.poll() is None, self.log_path.read_text()[-4000:]
            return subprocess.run([*self.client(), "version"], capture_output=True, env=environment()).returncode == 0

        eventually(answers, START_SECONDS_MAX)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)

    def kill(self):
        """SIGKILL. Its containerd goes with it, and where nobody reaps that the next dockerd would wait for it."""
        pid_file = self.run / "exec/containerd/containerd.pid"
        pid = int(pid_file.read_text())
        self.process.kill()
        self.process.wait()
        eventually(lambda: not is_alive(pid))
        pid_file.unlink(missing_ok=True)

    def docker(self, *args, timeout=120) -> str:
        """Runs a command to its end and returns what it printed."""
        command = [*self.client(), *map(str, args)]
        ended = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=timeout)
        if ended.returncode != 0:
            raise Failed(ended.stderr.strip())
        return ended.stdout.strip()

    def container(self, *args, command=("sleep", "1000")) -> str:
        """A container in the background, without a network."""
        return self.docker("run", "--detach", "--init=false", "--network=none", *args, IMAGE, *command)

    def once(self, *args, command) -> str:
        """What a container prints that is removed at once."""
        return self.docker("run", "--rm", "--network=none", *args, IMAGE, *command)

    def end(self):
        """Gone with all that it had, in whatever state it is."""
        if self.process is None:
            return
        if self.process.poll() is not None:
            self.start()
        containers = self.docker("ps", "--all", "--quiet").split()
        if containers:
            self.docker("rm", "--force", *containers)
        self.stop()
        # What a dockerd that was killed had mounted for itself.
        for point in reversed(mountpoints()):
            if point.startswith((f"{self.folder}/", f"{self.run}/")):
                subprocess.run(["umount", "--lazy", point], check=False)
        subprocess.run(["ip", "link", "delete", self.bridge], check=False)
        shutil.rmtree(self.run, ignore_errors=True)


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("", timeout=60)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


class Plugin:
    """An `elton docker-plugin`, and what it has mounted."""

    def __init__(self, folder, server, *args, binary=BINARY, env=None):
        self.folder = pathlib.Path(folder)
        self.state = self.folder / "state"
        self.driver = f"elton-test-{os.getpid()}-{self.folder.name}"
        self.socket = pathlib.Path(f"/run/docker/plugins/{self.driver}.sock")
        self.server, self.args, self.binary, self.env = server, args, binary, dict(env or {})
        self.log_path = self.folder / "plugin.log"
        self.process = None

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def command(self):
        return [
            "setpriv", "--pdeathsig", "KILL", "--", str(self.binary), "docker-plugin", "--socket", str(self.socket), "--state", str(self.state), "--cache",
            str(self.folder / "cache"), "--reconcile-interval", "300ms", "--forget-after", "4s", *self.args,
        ]  # fmt: skip

    def start(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.log_path, "ab") as log:
            env = self.server.client_env(ELTON_STATE=str(self.folder / "mounts"), **self.env)
            self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env)

        def answers():
            assert self.process.poll() is None, self.log[-4000:]
            with contextlib.suppress(OSError):
                return self.call("Plugin.Activate") == {"Implements": ["VolumeDriver"]}

        eventually(answers, START_SECONDS_MAX)
        return self

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(70)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def call(self, call, **fields):
        """As dockerd calls it: no Content-Type, an empty Host, a newline behind the JSON."""
        connection = UnixConnection(self.socket)
        try:
            connection.putrequest("POST", f"/{call}", skip_host=True, skip_accept_encoding=True)
            connection.putheader("Host", "")
            body = json.dumps(fields).encode() + b"\n" if call != "Plugin.Activate" else b""
            connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()

    def mounts(self) -> list[str]:
        """The folders of what it has mounted."""
        root = f"{self.state}/mnt/"
        return sorted(point.removeprefix(root) for point in mountpoints() if point.startswith(root))

    def processes(self) -> list[int]:
        """The processes that mount for it."""
        found = []
        for entry in pathlib.Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != self.process.pid:
                with contextlib.suppress(OSError):
                    arguments = (entry / "cmdline").read_bytes().split(b"\0")
                    if any(argument.startswith(f"{self.state}/mnt/".encode()) for argument in arguments):
                        found.append(int(entry.name))
        return found

    def uses(self) -> int:
        """What it has counted and kept."""
        volumes = json.loads((self.state / "volumes.json").read_text())["volumes"]
        return sum(sum(volume.get("uses", {}).values()) for volume in volumes.values())

    def is_idle(self) -> bool:
        return not self.mounts() and self.uses() == 0

    def end(self):
        if self.process is None:
            return
        if self.process.poll() is None:
            self.stop()
        self.socket.unlink(missing_ok=True)
        for folder in self.mounts():
            subprocess.run(["umount", "--lazy", f"{self.state}/mnt/{folder}"], check=False)
        # Places are immutable as long as they are there.
        subprocess.run(["chattr", "-R", "-i", self.state / "mnt"], check=False, capture_output=True)
