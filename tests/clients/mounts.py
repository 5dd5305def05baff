"""Mounts snapshots with `elton mount`, and ends what it mounted whatever happens."""

import json
import os
import pathlib
import signal
import subprocess
import time

from server import elton


class Mounts:
    """The mounts of one host: a state and a cache directory, and a server."""

    def __init__(self, folder: pathlib.Path, server):
        self.folder, self.server = folder, server
        self.state, self.cache = folder / "state", folder / "cache"
        self.count = 0
        self.mounted = []

    def place(self) -> pathlib.Path:
        self.count += 1
        path = self.folder / f"mnt-{self.count}"
        path.mkdir()
        return path

    def env(self, cache=None) -> dict[str, str]:
        return {"ELTON_STATE": str(self.state), "ELTON_CACHE": str(cache or self.cache)}

    def run(self, *arguments, cache=None, timeout=120):
        return elton(*arguments, server=self.server, env=self.env(cache), timeout=timeout)

    def mount(self, what, *options, at=None, cache=None) -> pathlib.Path:
        path = at or self.place()
        done = self.run("mount", what, path, "--json", *options, cache=cache)
        assert done.returncode == 0, done.stderr
        self.mounted.append(path)
        self.record = json.loads(done.stdout)
        return path

    def umount(self, path, *options):
        done = self.run("umount", path, *options)
        assert done.returncode == 0, done.stderr

    def status(self, path) -> dict:
        """What a mount says of itself."""
        done = self.run("status", "--json")
        found = [mount for mount in json.loads(done.stdout)["mounts"] if mount["mountpoint"] == str(path)]
        assert len(found) == 1, done.stdout
        return found[0]

    def counters(self, path) -> dict:
        return self.status(path)["counters"]

    def kill(self, path):
        """SIGKILL for the process that serves a mount."""
        pid = self.status(path)["pid"]
        os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while pathlib.Path(f"/proc/{pid}/stat").exists():
            if pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                break
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def end(self):
        for path in reversed(self.mounted):
            subprocess.run(["umount", "--lazy", str(path)], check=False, capture_output=True)
