"""Starts, stops and kills the real `elton serve`."""

import os
import pathlib
import re
import signal
import socket
import subprocess
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = pathlib.Path(os.environ.get("ELTON_TEST_BINARY", ROOT / "target/release/elton"))
MUTANTS = pathlib.Path(os.environ.get("ELTON_TEST_MUTANTS_BINARY", ROOT / "target/release/elton-mutants"))
# Fills a bucket through the core's commit.
FILL = ROOT / "target/release/elton-fill"

ACCESS_KEY = "ELTONTESTACCESSKEY01"
SECRET_KEY = "test/secret+key0123456789abcdefghijklmnop"

START_SECONDS_MAX = 30
STOP_SECONDS_MAX = 40


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment(**extra: str) -> dict[str, str]:
    """The caller's environment without anything that steers Elton or an AWS client, and with our keys."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AWS_", "ELTON_", "RCLONE_", "BOTO"))
        and name not in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "LD_PRELOAD")
        and not name.lower().endswith("_proxy")
    }
    return kept | {"RUST_BACKTRACE": "1"} | extra


class StartFailed(Exception):
    """The server ended, or said nothing, instead of answering."""

    def __init__(self, status, log):
        super().__init__(f"elton serve: exit status {status}\n{log}")
        self.status, self.log = status, log


class Server:
    """One data directory and the process that serves it, if any."""

    def __init__(self, data, *, binary=BINARY, tls=False, args=(), env=None, keys=True, machine=None):
        """`machine` is the network namespace that it runs in (`network.py`); without one it knows no other cluster."""
        self.data = pathlib.Path(data)
        self.machine = machine
        self.binary, self.tls, self.args, self.env, self.keys = binary, tls, list(args), dict(env or {}), keys
        self.host, self.port = (machine.s3, 9000) if machine else ("127.0.0.1", free_port())
        self.process = None
        self.endpoint = None
        self.log_path = self.data.with_name(self.data.name + ".log")
        self.start_seconds = None

    # What clients need.

    @property
    def certificate(self) -> pathlib.Path | None:
        """What clients of `--tls-self-signed` trust."""
        return self.data / "tls/ca.pem" if self.tls else None

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def client_env(self, **extra: str) -> dict[str, str]:
        """What a command line client needs to find this server."""
        env = environment(
            HOME=str(self.data.parent),
            AWS_ACCESS_KEY_ID=ACCESS_KEY,
            AWS_SECRET_ACCESS_KEY=SECRET_KEY,
            # In regions that they know as old ones, AWS clients still presign with SigV2.
            AWS_DEFAULT_REGION="elton",
            AWS_CONFIG_FILE="/dev/null",
            AWS_SHARED_CREDENTIALS_FILE="/dev/null",
            AWS_EC2_METADATA_DISABLED="true",
            AWS_ENDPOINT_URL=self.endpoint,
            ELTON_ENDPOINT=self.endpoint,
            ELTON_ACCESS_KEY=ACCESS_KEY,
            ELTON_SECRET_KEY=SECRET_KEY,
        )
        if self.tls:
            env |= {"AWS_CA_BUNDLE": str(self.certificate), "ELTON_CA_CERT": str(self.certificate)}
        return env | extra

    # Its life.

    def command(self) -> list[str]:
        command = [str(self.binary), "serve", "--data", str(self.data), "--listen", f"{self.host}:{self.port}"]
        if self.tls:
            command.append("--tls-self-signed")
        # Whatever happens to the test, the server goes with it.
        command = ["setpriv", "--pdeathsig", "KILL", "--", *command, *self.args]
        return self.machine.command(*command) if self.machine else command

    def spawn(self):
        env = environment(**({"ELTON_PEER_LISTEN": "off"} | self.env))
        if self.keys:
            env |= {"ELTON_ROOT_ACCESS_KEY": ACCESS_KEY, "ELTON_ROOT_SECRET_KEY": SECRET_KEY}
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, env=env, text=True
            )

    def start(self, seconds_max=START_SECONDS_MAX) -> "Server":
        """Returns once the endpoint was printed; raises StartFailed if the process ends before."""
        log_start = self.log_path.stat().st_size if self.log_path.exists() else 0
        began = time.monotonic()
        self.spawn()
        too_late = threading.Timer(seconds_max, self.process.kill)
        too_late.start()
        try:
            for line in self.process.stdout:
                if found := re.fullmatch(r"S3 endpoint (https?://\S+)\s*", line):
                    self.endpoint = found[1]
                    self.start_seconds = time.monotonic() - began
                    # Nobody reads on, and a full pipe must never stop the server.
                    threading.Thread(target=_drain, args=(self.process.stdout,), daemon=True).start()
                    return self
        finally:
            too_late.cancel()
        status = self.process.wait()
        self.process.stdout.close()
        self.process = None
        raise StartFailed(status, self.log[log_start:])

    def stop(self) -> int:
        """Asks the server to end, as an operator would, and returns its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self._gone()

    def kill(self):
        """SIGKILL: the process has no say in it."""
        self.process.kill()
        self._gone()

    def make_bucket(self, raw, name: str):
        """A bucket, for tests that can run on any: at a member of other clusters' buckets it is one of these."""
        reply = raw.request("PUT", raw.path(name))
        assert reply.status == 200, reply

    def restart(self) -> "Server":
        self.stop()
        return self.start()

    def _gone(self) -> int:
        status = self.process.wait(STOP_SECONDS_MAX)
        self.process = None
        return status

    def end(self):
        """For fixtures: gone, in whatever state it is."""
        if self.process is not None:
            self.process.kill()
            self._gone()

    def __enter__(self):
        return self if self.process else self.start()

    def __exit__(self, *_):
        self.end()

    def resident_bytes(self) -> int:
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024


def _drain(stream):
    for _ in stream:
        pass


def elton(*args, server=None, env=None, cwd=None, stdin=subprocess.DEVNULL, timeout=120, binary=BINARY):
    """Runs an `elton` command to its end."""
    full = server.client_env(**(env or {})) if server else environment(**(env or {}))
    return subprocess.run(
        [str(binary), *map(str, args)], stdin=stdin, capture_output=True, text=True, env=full, cwd=cwd, timeout=timeout
    )
