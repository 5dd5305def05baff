"""What `tests/bench` measures once everything is built: the figures of docs, printed as a table with ratios."""

import argparse
import json
import os
import pathlib
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
BINARIES = ROOT / "target/release"
ACCESS, SECRET = "GK" + secrets.token_hex(12), secrets.token_hex(32)
MIB = 1 << 20


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
                raise SystemExit(f"{process.args[0]} does not answer") from None
            time.sleep(0.05)


class Server:
    """A server under measurement: started in a folder of its own, with its memory in view."""

    def __init__(self, name, folder):
        self.name, self.folder, self.port = name, folder, free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        folder.mkdir(parents=True, exist_ok=True)
        self.log = open(folder / "log", "ab")  # Open as long as the server lives.

    def spawn(self, *command, **env):
        self.process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", *map(str, command)],
            env=os.environ | env, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
        )  # fmt: skip
        wait_for(self.port, self.process)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(40)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def memory(self, field="VmRSS"):
        text = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(rf"{field}:\s+(\d+) kB", text)[1]) / 1024

    def env(self):
        return os.environ | {
            "AWS_ACCESS_KEY_ID": ACCESS, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_DEFAULT_REGION": self.region,
        }  # fmt: skip

    def load(self, operation, bucket, **options):
        arguments = [operation, self.endpoint, bucket, *(f"{name}={value}" for name, value in options.items())]
        done = subprocess.run([BINARIES / "elton-load", *arguments], env=self.env(), capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{self.name}: elton-load {' '.join(arguments)} failed: {done.stderr}")
        return json.loads(done.stdout)


class Elton(Server):
    region = "us-east-1"

    def start(self):
        self.spawn(
            BINARIES / "elton", "serve", "--data", self.folder / "data", "--listen", f"127.0.0.1:{self.port}",
            ELTON_ROOT_ACCESS_KEY=ACCESS, ELTON_ROOT_SECRET_KEY=SECRET,
        )  # fmt: skip

    def create_bucket(self, name):
        env = self.env() | {"ELTON_ENDPOINT": self.endpoint, "ELTON_ACCESS_KEY": ACCESS, "ELTON_SECRET_KEY": SECRET}
        subprocess.run([BINARIES / "elton", "bucket", "create", name], check=True, env=env, stdout=subprocess.DEVNULL)


class Garage(Server):
    """One node that syncs what it acknowledges, as Elton does."""

    region = "garage"

    def start(self):
        config, rpc, admin = self.folder / "garage.toml", free_port(), free_port()
        fresh = not config.exists()
        config.write_text(
            f'metadata_dir = "{self.folder}/meta"\ndata_dir = "{self.folder}/data"\ndb_engine = "lmdb"\n'
            'metadata_fsync = true\ndata_fsync = true\nreplication_factor = 1\ncompression_level = "none"\n'
            f'rpc_bind_addr = "127.0.0.1:{rpc}"\nrpc_public_addr = "127.0.0.1:{rpc}"\nrpc_secret = "{"0" * 64}"\n'
            f'[s3_api]\ns3_region = "garage"\napi_bind_addr = "127.0.0.1:{self.port}"\nroot_domain = ".s3.test"\n'
            f'[admin]\napi_bind_addr = "127.0.0.1:{admin}"\n'
        )
        self.config = config
        self.spawn(ROOT / "target/bench-rival/bin/garage", "-c", config, "server", RUST_LOG="garage=warn")
        if fresh:
            node = self.run("node", "id", "-q").split("@")[0]
            self.run("layout", "assign", "-z", "here", "-c", "100G", node[:16])
            self.run("layout", "apply", "--version", "1")
            self.run("key", "import", "--yes", "-n", "bench", ACCESS, SECRET)
        # It listens before it has found itself.
        self.run("bucket", "list")

    def run(self, *arguments):
        command = [ROOT / "target/bench-rival/bin/garage", "-c", self.config, *arguments]
        for _ in range(50):
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode == 0:
                return done.stdout.strip()
            time.sleep(0.2)
        raise SystemExit(f"garage {' '.join(arguments)}: {done.stderr}")

    def create_bucket(self, name):
        self.run("bucket", "create", name)
        self.run("bucket", "allow", "--read", "--write", "--owner", name, "--key", ACCESS)


def peak(server, work):
    """The highest resident memory while `work` runs."""
    highest, done = [server.memory()], threading.Event()

    def watch():
        while not done.is_set():
            highest.append(server.memory())
            done.wait(0.05)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        result = work()
    finally:
        done.set()
        thread.join()
    return max(highest), result


def measure(server, seconds):
    """Figure → value, in the order in which they are shown."""
    print(f"measuring {server.name}: some minutes", flush=True)
    found = {}
    server.start()
    time.sleep(1)
    found["idle memory, MiB"] = server.memory()
    server.create_bucket("bench")
    for size, word, count in ((4096, "4 KiB", 20_000), (MIB, "1 MiB", 400)):
        put = server.load("put", "bench", size=size, seconds=seconds)
        found[f"PUT {word}, /s"], found[f"PUT {word}, p99 ms"] = put["per_second"], put["p99_ms"]
        bucket = f"bench-{size}"
        server.create_bucket(bucket)
        server.load("fill", bucket, size=size, count=count)
        get = server.load("get", bucket, count=count, seconds=seconds)
        found[f"GET {word}, /s"], found[f"GET {word}, p99 ms"] = get["per_second"], get["p99_ms"]
    one = server.load("put", "bench", size=256 * MIB, connections=1, seconds=seconds)
    found["PUT 256 MiB by one, MiB/s"] = one["mib_per_second"]
    server.stop()
    # Anew, so that the memory is that of the transfers.
    server.start()
    highest, transfers = peak(server, lambda: server.load("transfers", "bench", count=256, size=64 * MIB))
    found["256 × 64 MiB up, MiB/s"] = transfers["put_mib_per_second"]
    found["256 × 64 MiB down, MiB/s"] = transfers["get_mib_per_second"]
    found["256 × 64 MiB, peak memory MiB"] = highest
    server.stop()
    return found


def listing(folder, keys):
    """LIST over keys that the core's commit made: the start with them, and the memory while listing."""
    found = {}
    server = Elton("elton", folder)
    began = time.monotonic()
    subprocess.run([BINARIES / "elton-fill", folder / "data", "many", str(keys)], check=True)
    found[f"commit of {keys:,} keys, s"] = time.monotonic() - began
    server.start()
    server.process.kill()
    server.process.wait()
    began = time.monotonic()
    server.start()
    found["start after SIGKILL, s"] = time.monotonic() - began
    before = server.memory()
    highest, listed = peak(server, lambda: server.load("list", "many"))
    if listed["keys"] != keys:
        raise SystemExit(f"{listed['keys']} keys were listed")
    found[f"LIST {keys:,} keys, keys/s"] = listed["keys_per_second"]
    found["LIST, memory before and at most, MiB"] = f"{before:.0f} → {highest:.0f}"
    server.stop()
    return found


def row(name, *values):
    shown = [f"{value:,.1f}" if isinstance(value, float) else str(value) for value in values]
    print(f"{name:42}" + "".join(f"{value:>14}" for value in shown), flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rival", default="none")
    parser.add_argument("--seconds", type=int, default=8)
    parser.add_argument("--keys", type=int, default=1_000_000)
    arguments = parser.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="bench-", dir=ROOT / "target"))
    try:
        md5 = json.loads(subprocess.run([BINARIES / "elton-load", "md5"], capture_output=True, check=True).stdout)
        row("MD5 of one core, MiB/s", float(md5["mib_per_second"]))
        ours = measure(Elton("elton", folder / "elton"), arguments.seconds)
        shutil.rmtree(folder / "elton")
        theirs = {}
        if arguments.rival != "none":
            theirs = measure(Garage("garage", folder / "garage"), arguments.seconds)
            shutil.rmtree(folder / "garage")
            row("", "elton", arguments.rival, "ratio")
        for name, value in ours.items():
            other = theirs.get(name)
            row(name, value, *([other, value / other] if other else []))
        for name, value in listing(folder / "list", arguments.keys).items():
            row(name, value)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


main()
