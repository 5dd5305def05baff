"""The wide area network between the clusters of a test: every connection between two of them passes through here.

A `Line` joins two clusters. It can be slow (`delay`, `rate`), down (`cut`), flicker (`flicker`) or lose what travels
one way (`swallow`), which is how an answer is lost whose question arrived.
"""

import asyncio
import collections
import contextlib
import socket
import struct
import threading
import time

PIECE_BYTES = 256 * 1024
# What may be under way in one direction of a connection: 1 Gbit/s over 250 ms.
UNDER_WAY_MAX = 32 * 1024 * 1024
PEER_PORT = 9001


class Line:
    """What joins two clusters, both ways."""

    def __init__(self, wan: "Wan"):
        self._wan = wan
        # Seconds one way, and bytes per second each way, of all connections together; None is as fast as this machine is.
        self.delay = 0.0
        self.rate: float | None = None
        self.up = True
        # Addresses of machines that nothing arrives at any more, and those that may not dial.
        self.swallowed: set[str] = set()
        self.barred: set[str] = set()
        # By the address that bytes go to: when the line has carried what it was given. All connections share the rate.
        self.free: dict[str, float] = {}
        # Bytes above TCP by the address that they went to.
        self.carried = collections.Counter()
        self.connections: set["Connection"] = set()

    def cut(self):
        """Ends all connections; new ones are refused until `mend`."""
        self.up = False
        self.flicker()

    def mend(self):
        self.up = True
        self.swallowed.clear()

    def flicker(self):
        """Ends all connections; new ones may be made at once."""
        self._wan.call(self._end_all)

    def _end_all(self):
        for connection in list(self.connections):
            connection.end()

    @contextlib.contextmanager
    def away(self):
        """Cut for a while."""
        self.cut()
        try:
            yield
        finally:
            self.mend()

    def bar(self, machine):
        """Nobody dials from this machine over this line: one reachable side has to be enough."""
        self.barred.add(machine.wan)

    def swallow(self, machine):
        """What goes to this machine is lost from now on, until `mend`. What comes from it arrives."""
        self.swallowed.add(machine.wan)


class Wan:
    """All lines of a test, carried by a thread of its own."""

    def __init__(self):
        self.lines: dict[frozenset, Line] = {}
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

    def call(self, work):
        """Does something where the connections live."""
        done = threading.Event()
        self.loop.call_soon_threadsafe(lambda: (work(), done.set()))
        assert done.wait(10), "the network of the test hangs"

    def line(self, one, other) -> Line:
        key = frozenset((one.wan, other.wan))
        return self.lines.setdefault(key, Line(self))

    def open_door(self, machine, port=PEER_PORT, inside=None):
        """From now on others reach the machine at this port of its gateway, and there what listens at `inside`; without
        it, the same port of its `wan`."""
        listener = socket.create_server((machine.gateway, port), backlog=64)
        listener.setblocking(False)
        asyncio.run_coroutine_threadsafe(self._keep(listener, machine, inside or (machine.wan, port)), self.loop)

    async def _keep(self, listener, machine, inside):
        with listener:
            while True:
                accepted, (source, _) = await self.loop.sock_accept(listener)
                line = self.lines.setdefault(frozenset((source, machine.wan)), Line(self))
                if not line.up or source in line.barred:
                    _reset(accepted)
                    continue
                asyncio.ensure_future(Connection(self, line, accepted, source, machine.wan, inside).run())

    def close(self):
        def stop():
            for task in asyncio.all_tasks(self.loop):
                task.cancel()
            self.loop.call_soon(self.loop.stop)

        for line in self.lines.values():
            line.flicker()
        self.loop.call_soon_threadsafe(stop)
        self.thread.join(10)
        self.loop.close()


class Connection:
    """A connection through the network: two sockets and what is under way between them."""

    def __init__(self, wan, line, accepted, source, target, inside):
        self.wan, self.line, self.source, self.target, self.inside = wan, line, source, target, inside
        self.sockets = [accepted]
        self.task = None

    def end(self):
        self.line.connections.discard(self)
        if self.task:
            self.task.cancel()
        for end in self.sockets:
            _reset(end)

    async def run(self):
        self.line.connections.add(self)
        self.task = asyncio.current_task()
        loop = self.wan.loop
        dialled = socket.socket()
        self.sockets.append(dialled)
        try:
            for end in self.sockets:
                end.setblocking(False)
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.sock_connect(dialled, self.inside)
            accepted = self.sockets[0]
            ways = [
                asyncio.ensure_future(self._carry(accepted, dialled, self.target)),
                asyncio.ensure_future(self._carry(dialled, accepted, self.source)),
            ]
            try:
                # Neither side closes one way only.
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
        except OSError:
            pass  # Who cannot be reached cannot be reached: the dialler's connection ends.
        finally:
            self.task = None
            self.end()

    async def _carry(self, source, target, address):
        """Moves bytes to the machine of `address`, each after its delay and no more than the rate."""
        loop, line = self.wan.loop, self.line
        waiting, under_way, room = collections.deque(), 0, asyncio.Condition()

        async def send():
            nonlocal under_way
            while True:
                async with room:
                    await room.wait_for(lambda: waiting)
                due, data = waiting[0]
                if line.rate:
                    free = max(line.free.get(address, 0.0), due - line.delay) + len(data) / line.rate
                    line.free[address] = free
                    due = max(due, free + line.delay)
                if (wait := due - time.monotonic()) > 0:
                    await asyncio.sleep(wait)
                if not data:
                    return
                if address not in line.swallowed:
                    await loop.sock_sendall(target, data)
                    line.carried[address] += len(data)
                async with room:
                    waiting.popleft()
                    under_way -= len(data)
                    room.notify_all()

        sender = asyncio.ensure_future(send())
        try:
            while True:
                try:
                    data = await loop.sock_recv(source, PIECE_BYTES)
                except ConnectionError:
                    data = b""
                async with room:
                    waiting.append((time.monotonic() + line.delay, data))
                    under_way += len(data)
                    room.notify_all()
                    if not data:
                        break
                    await room.wait_for(lambda: under_way < UNDER_WAY_MAX or sender.done())
                if sender.done():
                    break
            with contextlib.suppress(ConnectionError):
                await sender
        finally:
            sender.cancel()


def _reset(end: socket.socket):
    """Ends a connection so that both sides notice at once."""
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    end.close()
