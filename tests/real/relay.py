"""A TCP relay between clients and a server, which a test makes worse while it runs."""

from __future__ import annotations

import select
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable

_PIECE_BYTES = 64 * 1024
_MAX_QUEUED_BYTES = 1024 * 1024
_CONNECT_SECONDS = 2.0


class Way:
    """What happens to the bytes of one direction, of all connections.

    `is_held`: they stay where they are, as in a network that has lost its packets; once it is false again they go on,
    as TCP would send them again. `delay_seconds` is the time that each byte takes. `trickle_bytes`: only so many leave
    in `trickle_seconds`; 0: as many as there are.
    """

    def __init__(self) -> None:
        self.is_held = False
        self.delay_seconds = 0.0
        self.trickle_bytes = 0
        self.trickle_seconds = 0.0


class _Pipe:
    """One direction of one connection."""

    def __init__(self, source: socket.socket, target: socket.socket, way: Way) -> None:
        self.source = source
        self.target = target
        self.way = way
        self.is_at_end = False  # of what the source sends
        self.is_done = False  # the target has been told so
        self._pieces: deque[tuple[float, bytes]] = deque()  # when each is due
        self._queued = 0
        self._not_before = 0.0

    @property
    def wants_to_read(self) -> bool:
        return not self.is_at_end and not self.way.is_held and self._queued < _MAX_QUEUED_BYTES

    def due(self) -> float | None:
        """When `write()` has something to do; None: never, or not before `way` changes."""
        if self.way.is_held or self.is_done:
            return None
        if self._pieces:
            return max(self._pieces[0][0], self._not_before)
        return 0.0 if self.is_at_end else None

    def read(self, now: float) -> None:
        data = self.source.recv(_PIECE_BYTES)
        if data:
            self._pieces.append((now + self.way.delay_seconds, data))
            self._queued += len(data)
        else:
            self.is_at_end = True

    def write(self, now: float) -> None:
        while (due := self.due()) is not None and due <= now:
            if not self._pieces:
                self.is_done = True
                self.target.shutdown(socket.SHUT_WR)
                return
            at, data = self._pieces[0]
            few = self.way.trickle_bytes
            count = self.target.send(data[:few] if few else data)
            self._queued -= count
            if count == len(data):
                self._pieces.popleft()
            else:
                self._pieces[0] = (at, data[count:])
            if few:
                self._not_before = now + self.way.trickle_seconds


class Relay:
    """Accepts connections on `port`, and passes each on to a port of 127.0.0.1. Its methods return when it is done.

    `up` is the way to the server, `down` the way back.
    """

    def __init__(self, target_port: int) -> None:
        self.up, self.down = Way(), Way()
        self.accepted = 0  # connections, ever
        self._target = ("127.0.0.1", target_port)
        self._pairs: list[tuple[_Pipe, _Pipe]] = []
        self._orders: deque[tuple[Callable[[], None], threading.Event]] = deque()
        self._is_over = False
        self._waker, self._alarm = socket.socketpair()
        self._listener: socket.socket | None = None
        self.port = 0
        self._listen()
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)
        self._thread.start()

    # What a test does

    def cut(self) -> None:
        """Reset every connection there is; new ones are accepted."""
        self._do(self._cut)

    def refuse(self) -> None:
        """Reset every connection, and refuse new ones, until `accept()`."""
        self._do(self._refuse)

    def accept(self) -> None:
        self._do(self._listen)

    def hold(self, *ways: Way) -> None:
        """Let nothing through any more, one way or, without an argument, both; `go_on()` ends it."""

        def order() -> None:
            for way in ways or (self.up, self.down):
                way.is_held = True

        self._do(order)

    def go_on(self) -> None:
        def order() -> None:
            self.up.is_held = self.down.is_held = False

        self._do(order)

    def half_close(self, way: Way) -> None:
        """Tell the end to which `way` leads that nothing will come any more, of every connection."""

        def order() -> None:
            for pair in self._pairs:
                for pipe in pair:
                    if pipe.way is way:
                        pipe.is_at_end = True

        self._do(order)

    def trickle(self, way: Way, count: int, seconds: float) -> None:
        """Let `count` bytes through, then wait; 0 ends it."""

        def order() -> None:
            way.trickle_bytes, way.trickle_seconds = count, seconds

        self._do(order)

    def delay(self, way: Way, seconds: float) -> None:
        def order() -> None:
            way.delay_seconds = seconds

        self._do(order)

    def lead_to(self, port: int) -> None:
        """Reset every connection; new ones are passed on to that port."""

        def order() -> None:
            self._target = ("127.0.0.1", port)
            self._cut()

        self._do(order)

    @property
    def connections(self) -> int:
        return len(self._pairs)

    def close(self) -> None:
        self._do(self._refuse)
        self._is_over = True
        self._waker.send(b"\0")
        self._thread.join()
        self._waker.close()
        self._alarm.close()

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # In the thread

    def _do(self, order: Callable[[], None]) -> None:
        done = threading.Event()
        self._orders.append((order, done))
        self._waker.send(b"\0")
        assert done.wait(20), "the relay has ended"

    def _listen(self) -> None:
        if self._listener is None:
            self._listener = socket.create_server(("127.0.0.1", self.port), backlog=512)
            self._listener.setblocking(False)
            self.port = self._listener.getsockname()[1]

    def _refuse(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        self._cut()

    def _cut(self) -> None:
        for pair in list(self._pairs):
            self._end(pair)

    def _end(self, pair: tuple[_Pipe, _Pipe], *, is_reset: bool = True) -> None:
        self._pairs.remove(pair)
        for pipe in pair:
            if is_reset:
                pipe.source.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            pipe.source.close()

    def _run(self) -> None:
        while not self._is_over:
            self._turn()

    def _turn(self) -> None:
        while self._orders:
            order, done = self._orders.popleft()
            order()
            done.set()
        now = time.monotonic()
        for pair in list(self._pairs):
            self._guard(pair, lambda pipe: pipe.write(now))
        poller = select.poll()
        poller.register(self._alarm, select.POLLIN)
        if self._listener is not None:
            poller.register(self._listener, select.POLLIN)
        dues = []
        for pair in self._pairs:
            masks: dict[socket.socket, int] = {}
            for pipe in pair:
                if pipe.wants_to_read:
                    masks[pipe.source] = masks.get(pipe.source, 0) | select.POLLIN
                if (due := pipe.due()) is None:
                    continue
                if due > now:
                    dues.append(due)
                else:  # it is due, and the socket took nothing
                    masks[pipe.target] = masks.get(pipe.target, 0) | select.POLLOUT
            for sock, mask in masks.items():
                poller.register(sock, mask)
        timeout = max(0.0, min(dues) - now) * 1000 + 1 if dues else None
        ready = {descriptor for descriptor, _ in poller.poll(timeout)}
        if self._alarm.fileno() in ready:
            self._alarm.recv(4096)
        now = time.monotonic()
        for pair in list(self._pairs):
            self._guard(
                pair, lambda pipe: pipe.read(now) if pipe.wants_to_read and pipe.source.fileno() in ready else None
            )
        if self._listener is not None and self._listener.fileno() in ready:
            self._take()

    def _guard(self, pair: tuple[_Pipe, _Pipe], work: Callable[[_Pipe], None]) -> None:
        for pipe in pair:
            try:
                work(pipe)
            except BlockingIOError:
                continue
            except OSError:
                self._end(pair)
                return
        if all(pipe.is_done for pipe in pair):
            self._end(pair, is_reset=False)

    def _take(self) -> None:
        assert self._listener is not None
        try:
            client, _ = self._listener.accept()
        except OSError:
            return
        self.accepted += 1
        try:
            server = socket.create_connection(self._target, _CONNECT_SECONDS)
        except OSError:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
            return
        for sock in (client, server):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._pairs.append((_Pipe(client, server, self.up), _Pipe(server, client, self.down)))
