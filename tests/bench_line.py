"""What a line between two clusters gives one plain TCP stream: what `bench_federation.py` compares with.

    bench_line.py serve HOST PORT BYTES     sends so many bytes to whoever asks with one
    bench_line.py take HOST PORT BYTES      asks, and prints the seconds until the last one has come
    bench_line.py get HOST PORT BYTES PATH  the same for an object

Whoever asks is a process of its own: the network is a thread of the bench, and would stand still meanwhile.
"""

import contextlib
import http.client
import socket
import subprocess
import sys
import time

PORT = 9100
PIECE = b"\0" * (1 << 20)
SECONDS_MAX = 300


class Plain:
    """A stream of `size` bytes from one machine to another, over the line that joins them."""

    def __init__(self, wan, source, size):
        self.source, self.size = source, size
        wan.open_door(source, PORT)
        command = source.command(sys.executable, __file__, "serve", source.wan, str(PORT), str(size))
        self.server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.server.stdout.readline() == "listening\n", "nobody sends"

    def seconds(self, target) -> float:
        """How long it takes on its way to `target`, the asking included."""
        return _asked(target.command(sys.executable, __file__, "take", self.source.gateway, str(PORT), str(self.size)))

    def __enter__(self) -> "Plain":
        return self

    def __exit__(self, *_):
        self.server.kill()
        self.server.wait()


def object_seconds(cluster, bucket, key, size) -> float:
    """How long it takes to read an object of `size` bytes."""
    with cluster.raw() as raw:
        host, path = raw.endpoint, raw.presign("GET", raw.path(bucket, key))
    return _asked([sys.executable, __file__, "get", host.hostname, str(host.port), str(size), path])


def _asked(command) -> float:
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS_MAX)
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


def serve(host, port, size):
    with socket.create_server((host, port)) as listener:
        print("listening", flush=True)
        while True:
            asker, _ = listener.accept()
            with asker:
                assert asker.recv(1) == b"?"
                for at in range(0, size, len(PIECE)):
                    asker.sendall(PIECE[: size - at])
                # Until the asker has it all: the network resets a connection that one side has closed.
                with contextlib.suppress(ConnectionResetError):
                    asker.recv(1)


def take(host, port, size):
    with socket.create_connection((host, port), timeout=SECONDS_MAX) as asked:
        began = time.monotonic()
        asked.sendall(b"?")
        swallow(asked.recv_into, size)
        print(time.monotonic() - began)


def get(host, port, size, path):
    asked = http.client.HTTPConnection(host, port, timeout=SECONDS_MAX)
    with contextlib.closing(asked):
        began = time.monotonic()
        asked.request("GET", path)
        reply = asked.getresponse()
        assert reply.status == 200, reply.read()
        swallow(reply.readinto, size)
        print(time.monotonic() - began)


def swallow(read_into, size):
    buffer, came = bytearray(len(PIECE)), 0
    while came < size:
        count = read_into(buffer)
        assert count, f"it ended after {came} bytes"
        came += count


if __name__ == "__main__":
    work, host, port, size, *path = sys.argv[1:]
    {"serve": serve, "take": take, "get": get}[work](host, int(port), int(size), *path)
