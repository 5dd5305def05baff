"""Real clusters, each on a machine of its own (`network.py`), joined by a network that can be spoilt (`wan.py`)."""

import contextlib
import itertools
import json
import pathlib
import time

from checks import command
from network import Counted, Machine
from raw import Raw
from server import Server, elton
from wan import PEER_PORT, Line, Wan

# How long a link may take to come up, and what is known of one to change.
PATIENCE = 30
METRICS_TOKEN = "metrics-of-the-tests"

_names = itertools.count(1)


class Cluster(Server):
    """A cluster: a server that other clusters can reach."""

    def __init__(self, folder, name, wan: Wan, *, called=None, reachable=True, **options):
        self.machine = Machine()
        options.setdefault("args", [])
        if reachable:
            wan.open_door(self.machine)
            peers = ["--peer-listen", f"{self.machine.wan}:{PEER_PORT}"]
            peers += ["--peer-advertise", f"{self.machine.gateway}:{PEER_PORT}"]
        else:
            peers = ["--peer-listen", "off"]
        options["args"] = ["--name", called or name, *peers, *options["args"]]
        super().__init__(pathlib.Path(folder) / name, machine=self.machine, **options)
        self.env["ELTON_METRICS_TOKEN"] = METRICS_TOKEN
        # By what others know it, unless they know another one of that name.
        self.name = called or name
        # Who numbers the buckets that tests make here; itself, unless told otherwise.
        self.home: Cluster | None = None

    def make_bucket(self, raw, name):
        if self.home is None:
            super().make_bucket(raw, name)
        else:
            shared_bucket(self.home, self, name=name)

    # What an operator does.

    def run(self, *arguments) -> str:
        """An `elton` command that must succeed."""
        return command(self, *arguments)

    def shown(self, *arguments):
        """What an `elton` command says in JSON."""
        return json.loads(self.run(*arguments, "--json"))

    def refused(self, *arguments) -> str:
        """What an `elton` command says that must fail."""
        done = elton(*arguments, server=self)
        assert done.returncode == 1, f"elton {arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stderr

    def invite(self) -> str:
        return self.run("peer", "invite").strip().splitlines()[-1]

    def peers(self) -> dict[str, dict]:
        """The clusters that are known here, by name."""
        return {peer["name"]: peer for peer in self.shown("peer", "ls")["peers"]}

    def traffic(self) -> dict[tuple[str, str], tuple[int, int]]:
        """(cluster, purpose) → bytes sent and received, as Elton counts them."""
        counted = {}
        # A row is of one bucket.
        for row in self.shown("peer", "ls")["traffic"]:
            sent, received = counted.get((row["cluster"], row["purpose"]), (0, 0))
            counted[row["cluster"], row["purpose"]] = sent + row["sent"], received + row["received"]
        return counted

    def wait_for_link(self, name: str):
        """Until another cluster can be asked. A question dials at once; without one it is dialled ever more rarely."""

        def connected():
            if self.peers().get(name, {}).get("connected"):
                return True
            elton("bucket", "link", f"{name}/no-such-bucket", server=self)
            return False

        wait(connected, lambda: f"{self.name} has no link to {name}: {self.peers()}")

    def metrics(self) -> str:
        with self.raw() as raw:
            headers = {"host": raw.endpoint.netloc, "authorization": f"Bearer {METRICS_TOKEN}"}
            return raw.send("GET", "/_elton/metrics", headers).body.decode()

    def raw(self, **options) -> Raw:
        return Raw(self, **options)

    # What crosses.

    @contextlib.contextmanager
    def counting(self):
        """Counts what the line to other clusters carries: `with a.counting() as crossed: …`, then `crossed()`."""
        before = self.machine.counted()
        final: list[Counted] = []
        yield lambda: final[0] if final else self.machine.counted().since(before)
        final.append(self.machine.counted().since(before))

    def end(self):
        super().end()
        self.machine.remove()


class Clusters:
    """Some clusters and the network between them."""

    def __init__(self, folder):
        self.folder, self.wan, self.all = folder, Wan(), {}

    def add(self, name, **options) -> Cluster:
        """A running cluster that knows no other."""
        self.all[name] = Cluster(self.folder, name, self.wan, **options)
        return self.all[name].start()

    def __enter__(self) -> "Clusters":
        return self

    def __exit__(self, *_):
        for cluster in self.all.values():
            cluster.end()
        self.wan.close()

    def line(self, one: Cluster, other: Cluster) -> Line:
        return self.wan.line(one.machine, other.machine)


def started(folder, *names, joined=True, **options) -> Clusters:
    """Clusters of these names, of which each knows each."""
    clusters = Clusters(folder)
    try:
        made = [clusters.add(name, **options) for name in names]
        if joined:
            for one, other in itertools.combinations(made, 2):
                join(one, other)
    except BaseException:
        clusters.__exit__()
        raise
    return clusters


def join(inviter: Cluster, joiner: Cluster):
    """Two clusters know each other from now on, and their links are up."""
    joiner.run("peer", "join", inviter.invite())
    joiner.wait_for_link(inviter.name)
    inviter.wait_for_link(joiner.name)


def bucket_name(word="shared") -> str:
    return f"{word}-{next(_names)}"


def shared_bucket(home: Cluster, *members: Cluster, name=None, rights="rw", versioned=False, at=None) -> str:
    """A bucket that `home` numbers and that is linked, under the same name, at the members."""
    name = name or bucket_name()
    home.run("bucket", "create", name)
    if versioned:
        home.run("bucket", "set", name, "--versioning", "enabled")
    for member in members:
        link(home, name, member, rights)
    return name


def link(home: Cluster, bucket: str, member: Cluster, rights="rw"):
    home.run("bucket", "share", bucket, "--with", member.name, f"--{rights}")
    member.run("bucket", "link", f"{home.name}/{bucket}")


def wait(condition, message, seconds=PATIENCE):
    """Until something is so."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, message() if callable(message) else message
        time.sleep(0.05)
    return found
