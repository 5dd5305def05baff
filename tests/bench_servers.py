"""The servers that `bench.py` measures: each in a folder of its own, with its memory and processor time in view."""

import json
import os
import pathlib
import re
import secrets
import signal
import socket
import subprocess
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[1]
BINARIES = ROOT / "target/release"
GARAGE = ROOT / "target/bench-rival/bin/garage"
ACCESS, SECRET = "GK" + secrets.token_hex(12), secrets.token_hex(32)
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port, process, seconds=60):
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{process.args[4]} does not answer; its log is beside its data") from None
            time.sleep(0.01)


def processor_seconds(process) -> float:
    """What a process has taken of the processors so far."""
    fields = pathlib.Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


class Server:
    """`with server:` is how long it runs; its data stays, so that it can run again."""

    def __init__(self, folder):
        self.folder, self.port = folder, free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        folder.mkdir(parents=True)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self):
        self.process.kill()
        self.process.wait()

    def spawn(self, *command, **env):
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "--", *map(str, command)],
                env=os.environ | env, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        wait_for(self.port, self.process)

    def memory(self, field="VmRSS"):
        """Resident, in MiB."""
        text = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(rf"{field}:\s+(\d+) kB", text)[1]) / 1024

    def processor_seconds(self):
        return processor_seconds(self.process)

    def env(self):
        return os.environ | {
            "AWS_ACCESS_KEY_ID": ACCESS, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_DEFAULT_REGION": self.region,
        }  # fmt: skip

    def load(self, operation, bucket, **options):
        """What `elton-load` found, and the server's `processor_seconds` meanwhile."""
        arguments = [operation, self.endpoint, bucket, *(f"{name}={value}" for name, value in options.items())]
        before = self.processor_seconds()
        done = subprocess.run([BINARIES / "elton-load", *arguments], env=self.env(), capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{self.name}: elton-load {' '.join(arguments)} failed: {done.stderr}")
        return json.loads(done.stdout) | {"processor_seconds": self.processor_seconds() - before}

    def peak(self, work):
        """The most resident memory while `work` runs, in MiB, and what it returned."""
        # 5 makes the kernel forget the high-water mark (proc(5)), so that no peak falls between two looks.
        pathlib.Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")
        result = work()
        return self.memory("VmHWM"), result


class Elton(Server):
    name, region = "elton", "us-east-1"

    def start(self):
        self.spawn(
            BINARIES / "elton", "serve", "--data", self.folder / "data", "--listen", f"127.0.0.1:{self.port}",
            ELTON_ROOT_ACCESS_KEY=ACCESS, ELTON_ROOT_SECRET_KEY=SECRET,
        )  # fmt: skip
        # A port that takes connections says nothing about who will answer them. Any status but 200 raises.
        urllib.request.urlopen(f"{self.endpoint}/_elton/ready", timeout=60).close()

    def create_bucket(self, name):
        env = self.env() | {"ELTON_ENDPOINT": self.endpoint, "ELTON_ACCESS_KEY": ACCESS, "ELTON_SECRET_KEY": SECRET}
        subprocess.run([BINARIES / "elton", "bucket", "create", name], check=True, env=env, stdout=subprocess.DEVNULL)


class Garage(Server):
    """One node that syncs what it acknowledges, as Elton does."""

    name, region = "garage", "garage"

    def start(self):
        self.config, rpc, admin = self.folder / "garage.toml", free_port(), free_port()
        fresh = not self.config.exists()
        self.config.write_text(
            f'metadata_dir = "{self.folder}/meta"\ndata_dir = "{self.folder}/data"\ndb_engine = "lmdb"\n'
            'metadata_fsync = true\ndata_fsync = true\nreplication_factor = 1\ncompression_level = "none"\n'
            f'rpc_bind_addr = "127.0.0.1:{rpc}"\nrpc_public_addr = "127.0.0.1:{rpc}"\nrpc_secret = "{"0" * 64}"\n'
            f'[s3_api]\ns3_region = "garage"\napi_bind_addr = "127.0.0.1:{self.port}"\nroot_domain = ".s3.test"\n'
            f'[admin]\napi_bind_addr = "127.0.0.1:{admin}"\n'
        )
        self.spawn(GARAGE, "-c", self.config, "server", RUST_LOG="garage=warn")
        if fresh:
            node = self.run("node", "id", "-q").split("@")[0]
            self.run("layout", "assign", "-z", "here", "-c", "100G", node[:16])
            self.run("layout", "apply", "--version", "1")
            self.run("key", "import", "--yes", "-n", "bench", ACCESS, SECRET)
        # It listens before it has found itself.
        self.run("bucket", "list")

    def run(self, *arguments):
        for _ in range(50):
            done = subprocess.run([GARAGE, "-c", self.config, *arguments], capture_output=True, text=True)
            if done.returncode == 0:
                return done.stdout.strip()
            time.sleep(0.2)
        raise SystemExit(f"garage {' '.join(arguments)}: {done.stderr}")

    def create_bucket(self, name):
        self.run("bucket", "create", name)
        self.run("bucket", "allow", "--read", "--write", "--owner", name, "--key", ACCESS)
