"""Network namespaces: machines of their own for clusters, as far as the network is concerned.

Each has two lines to this machine: `s3` for the clients of the tests, and `wan`, on which nothing but traffic between
clusters travels, so that its counters say what crossed. Names carry the process id: parallel workers do not meet, and
what a killed run left behind is known by it.
"""

import ipaddress
import json
import os
import pathlib
import re
import subprocess

FOLDER = pathlib.Path("/run/netns")
# Shared address space (RFC 6598), which no test machine routes: 15 bits of the process id, 16 machines of 8 addresses.
NETWORK = int(ipaddress.IPv4Address("100.64.0.0"))
MACHINES_MAX = 16
# Ethernet, IPv4 and TCP with timestamps, of every packet.
FRAME_BYTES = 14 + 20 + 32

_taken: set[int] = set()


class Machine:
    """A namespace with an address for clients and one for other clusters."""

    def __init__(self):
        _remove_leftovers()
        self.index = next(index for index in range(MACHINES_MAX) if index not in _taken)
        _taken.add(self.index)
        pid = os.getpid()
        self.name = f"elton-{pid}-{self.index}"
        base = NETWORK + ((pid & 0x7FFF) << 7) + (self.index << 3)
        address = lambda offset: str(ipaddress.IPv4Address(base + offset))
        # The ends on this machine, and those in the namespace.
        self.s3_gateway, self.s3 = address(1), address(2)
        self.gateway, self.wan = address(5), address(6)
        self._ends = f"el{pid}s{self.index}", f"el{pid}w{self.index}"
        try:
            self._make()
        except BaseException:
            self.remove()
            raise

    def _make(self):
        if (FOLDER / self.name).exists():
            _ip("netns", "del", self.name)
        _ip("netns", "add", self.name)
        for end, inside, here, there in (
            (self._ends[0], "s3", self.s3_gateway, self.s3),
            (self._ends[1], "wan", self.gateway, self.wan),
        ):
            _ip("link", "add", end, "type", "veth", "peer", "name", inside, "netns", self.name)
            # Counters are to say what clusters send, not how IPv6 looks for neighbours.
            pathlib.Path(f"/proc/sys/net/ipv6/conf/{end}/disable_ipv6").write_text("1")
            self.run("sh", "-c", f"echo 1 > /proc/sys/net/ipv6/conf/{inside}/disable_ipv6")
            _ip("addr", "add", f"{here}/30", "dev", end)
            _ip("link", "set", end, "up")
            _ip("-n", self.name, "addr", "add", f"{there}/30", "dev", inside)
            _ip("-n", self.name, "link", "set", inside, "up")
        _ip("-n", self.name, "link", "set", "lo", "up")
        _ip("-n", self.name, "route", "add", "default", "via", self.gateway)

    def command(self, *command) -> list[str]:
        """A command as it runs on this machine."""
        return ["nsenter", f"--net={FOLDER / self.name}", "--", *command]

    def run(self, *command):
        subprocess.run(self.command(*command), check=True, capture_output=True)

    def counted(self) -> "Counted":
        """What the interface to the other clusters has counted since it was made."""
        shown = json.loads(_ip("-n", self.name, "-j", "-s", "link", "show", "dev", "wan"))[0]["stats64"]
        return Counted(*(shown[way][what] for what in ("bytes", "packets") for way in ("tx", "rx")))

    def remove(self):
        # The kernel takes a namespace apart later, and the names of what joins it have to be free at once.
        for end in self._ends:
            if pathlib.Path(f"/sys/class/net/{end}").exists():
                _ip("link", "del", end)
        if (FOLDER / self.name).exists():
            _ip("netns", "del", self.name)
        _taken.discard(self.index)


class Counted:
    """Bytes and packets of an interface, out and in."""

    def __init__(self, sent, received, packets_sent, packets_received):
        self.sent, self.received = sent, received
        self.packets_sent, self.packets_received = packets_sent, packets_received

    def since(self, before: "Counted") -> "Counted":
        return Counted(*(getattr(self, name) - getattr(before, name) for name in vars(self)))

    @property
    def payload_sent(self) -> int:
        """Without the headers of Ethernet, IP and TCP: what TLS sent."""
        return max(0, self.sent - FRAME_BYTES * self.packets_sent)

    @property
    def payload_received(self) -> int:
        return max(0, self.received - FRAME_BYTES * self.packets_received)

    @property
    def payload(self) -> int:
        return self.payload_sent + self.payload_received

    def __repr__(self):
        return f"{self.payload_sent} B out, {self.payload_received} B in"


def _ip(*arguments) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr} (these tests need root)"
    return done.stdout


def _remove_leftovers():
    """Namespaces of runs that were killed. Their servers went with them."""
    for path in FOLDER.glob("elton-*-*") if FOLDER.exists() else ():
        found = re.fullmatch(r"elton-(\d+)-\d+", path.name)
        if found and not pathlib.Path(f"/proc/{found[1]}").exists():
            # Another worker may be at the same.
            subprocess.run(["ip", "netns", "del", path.name], capture_output=True)
