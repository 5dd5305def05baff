"""Concurrent writers that remember what was acknowledged, and what must therefore be there afterwards."""

import dataclasses
import http.client
import random
import threading

from checks import hold, new_bucket, put_unsigned
from content import body
from raw import UNSIGNED, Raw
from server import Server

KEYS = [f"shared/{n}" for n in range(12)]
SMALL, LARGE = (4096, 20_000), (65_537, 300_000, 1 << 20)


@dataclasses.dataclass(frozen=True)
class Write:
    """An attempt; its body can be made again from its seed."""

    bucket: str
    key: str
    seed: str | None  # None deletes.
    sizes: tuple[int, ...]

    def body(self) -> bytes:
        return b"".join(body((self.seed, n), size) for n, size in enumerate(self.sizes))


class Load:
    """Writers on one server. `attempted` holds all that was sent, `acknowledged` what was answered, by number."""

    def __init__(self, server: Server):
        self.server = server
        with Raw(server) as raw:
            self.plain = new_bucket(raw, "kill-plain")
            self.versioned = new_bucket(raw, "kill-versioned", versioned=True)
        self.lock = threading.Lock()
        self.attempted: dict[tuple[str, str], list[Write]] = {}
        self.acknowledged: dict[tuple[str, int], Write] = {}
        self.checked: set[tuple[str, int]] = set()
        self.twice: list[tuple[str, int]] = []
        self.other: list[str] = []
        self.turn = 0

    def run(self, writers: int, acknowledgements: int, kill):
        """Writes until so many were acknowledged, then kills the server in the middle of it."""
        self.turn += 1
        enough, dead = threading.Event(), threading.Event()
        goal = len(self.acknowledged) + acknowledgements
        threads = [
            threading.Thread(target=self._write, args=(f"{self.turn}-{n}", n, goal, enough, dead), daemon=True)
            for n in range(writers)
        ]
        for thread in threads:
            thread.start()
        enough.wait(60)
        kill()
        dead.set()
        for thread in threads:
            thread.join(60)
        assert enough.is_set(), f"the load never got going: {self.other[:3]}"
        hold(not self.other, f"writes failed before the kill: {self.other[:3]}")

    def _write(self, name, index, goal, enough, dead):
        chosen = random.Random(name)
        with Raw(self.server, timeout=30) as raw:
            step = 0
            while not dead.is_set():
                step += 1
                write = self._choose(chosen, index, f"{name}-{step}")
                with self.lock:
                    self.attempted.setdefault((write.bucket, write.key), []).append(write)
                try:
                    reply = self._send(raw, write)
                except (OSError, http.client.HTTPException):
                    return  # Killed under our hands.
                if reply.status not in (200, 204):
                    if not enough.is_set():
                        self.other.append(str(reply))
                    return
                with self.lock:
                    number = (write.bucket, reply.number)
                    # A delete of what is not there makes no change: it says the newest number.
                    if write.seed is not None or write.bucket == self.versioned:
                        if number in self.acknowledged:
                            self.twice.append(number)
                        self.acknowledged[number] = write
                    if len(self.acknowledged) >= goal:
                        enough.set()

    def _choose(self, chosen, index, seed) -> Write:
        bucket = chosen.choice([self.plain, self.versioned])
        key = chosen.choice(KEYS)
        if chosen.random() < 0.1:
            return Write(bucket, key, None, ())
        if index == 0 and chosen.random() < 0.3:
            return Write(bucket, key, seed, (5 << 20, chosen.choice(SMALL)))
        return Write(bucket, key, seed, (chosen.choice(SMALL if chosen.random() < 0.8 else LARGE),))

    @staticmethod
    def _send(raw, write):
        if write.seed is None:
            return raw.delete(write.bucket, write.key)
        if len(write.sizes) == 1:
            return put_unsigned(raw, write.bucket, write.key, write.body())
        return _multipart(raw, write)

    def verify(self, everything=False):
        """After a restart: nothing acknowledged is missing or another, nothing is there in half."""
        hold(not self.twice, f"numbers were issued twice: {self.twice[:5]}")
        with Raw(self.server) as raw:
            for (bucket, number), write in self.acknowledged.items():
                if not everything and (bucket, number) in self.checked:
                    continue
                self._verify_number(raw, bucket, number, write)
                self.checked.add((bucket, number))
            for (bucket, key), writes in self.attempted.items():
                self._verify_newest(raw, bucket, key, writes)

    def _verify_number(self, raw, bucket, number, write):
        """As the acknowledgement said: by `--at-` in any bucket, by its version where S3 has versions."""
        reads = [raw.get(f"{bucket}--at-{number}", write.key)]
        if bucket == self.versioned:
            reads.append(raw.get(bucket, write.key, {"versionId": str(number)}))
        for reply in reads:
            if write.seed is None:
                hold(reply.status in (404, 405), f"{bucket}@{number} {write.key} was deleted: {reply.status}")
            else:
                hold(reply.status == 200, f"{bucket}@{number} {write.key} is gone: {reply}")
                hold(reply.body == write.body(), f"{bucket}@{number} {write.key} is another")
                hold(reply.number == number, f"{bucket}@{number} {write.key} says it is {reply.number}")

    def _verify_newest(self, raw, bucket, key, writes):
        """The newest state is the last acknowledged write or one that was under way, and whole."""
        reply = raw.get(bucket, key)
        last = max((n for (b, n), write in self.acknowledged.items() if (b, write.key) == (bucket, key)), default=0)
        if reply.status == 404:
            deleted = last and self.acknowledged[bucket, last].seed is None
            hold(not last or deleted or any(write.seed is None for write in writes), f"{key} of {bucket} is gone")
            return
        hold(reply.status == 200, f"{key} of {bucket}: {reply}")
        hold(reply.number >= last, f"{key} of {bucket} went back from {last} to {reply.number}")
        sizes = [write for write in writes if write.seed is not None and sum(write.sizes) == len(reply.body)]
        hold(any(write.body() == reply.body for write in sizes), f"{key} of {bucket} is nothing that was ever sent")


def _multipart(raw, write):
    path = raw.path(write.bucket, write.key)
    begun = raw.request("POST", path, {"uploads": ""})
    if begun.status != 200:
        return begun
    upload, listed = begun.xml.findtext("UploadId"), ""
    for number, size in enumerate(write.sizes, 1):
        query = {"partNumber": str(number), "uploadId": upload}
        sent = raw.request("PUT", path, query, body=body((write.seed, number - 1), size), payload=UNSIGNED)
        if sent.status != 200:
            return sent
        listed += f"<Part><PartNumber>{number}</PartNumber><ETag>{sent.headers['etag']}</ETag></Part>"
    document = f"<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>".encode()
    return raw.request("POST", path, {"uploadId": upload}, body=document)
