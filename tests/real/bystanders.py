"""Clients that only want to go on while somebody else attacks their server."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from weakref import WeakKeyDictionary

from tests.peer import PING, PONG, TEXT, Frame, frame, text
from tests.real.servers import PATIENCE_SECONDS, Server

COUNT = 5
STALL_SECONDS = 5.0  # nobody who was served within milliseconds may wait so long: then somebody else blocks the server
MAY_GROW_MIB = 16

_PAUSE_SECONDS = 0.005
_at_first_mib: WeakKeyDictionary[Server, float] = WeakKeyDictionary()


class Bystander:
    """A connection that echoes, pings and answers pings until it is told to stop. Whatever is wrong is an error."""

    def __init__(self, server: Server) -> None:
        self.peer = server.peer(PATIENCE_SECONDS)
        self.echoes = 0
        self.pinged = 0
        self.slowest_seconds = 0.0

    def run(self, stop: threading.Event) -> None:
        self.peer.connect("/bystander/")
        while not stop.wait(_PAUSE_SECONDS):
            started = time.monotonic()
            self._exchange()
            self.slowest_seconds = max(self.slowest_seconds, time.monotonic() - started)
            self.echoes += 1
        assert self.peer.close().code == 1000
        assert self.peer.read_to_eof() == b""

    def _exchange(self) -> None:
        """A ping and a message go out; the pong and the message come back, and nothing else but pings."""
        message = f"echo {self.echoes}".encode()
        self.peer.send_raw(frame(PING, message) + text(message.decode()))
        answers = []
        while len(answers) < 2:
            received = self.peer.recv_frame()
            if received.opcode == PING:
                self.peer.send_frame(PONG, received.payload)
                self.pinged += 1
            else:
                answers.append(received)
        assert sorted(answers, reverse=True) == [Frame(PONG, message), Frame(TEXT, message)]


class Watch:
    """How the server does during an attack: plain HTTP is answered, and its memory stays what it was."""

    def __init__(self, server: Server, http: bool) -> None:
        self.peak_mib = 0.0
        self.slowest_seconds = 0.0
        self._server = server
        self._http = http

    def run(self, stop: threading.Event) -> None:
        next_request = 0.0
        while not stop.wait(_PAUSE_SECONDS):
            self.peak_mib = max(self.peak_mib, self._server.resident_mib())
            if self._http and time.monotonic() >= next_request:
                self._request()
                next_request = time.monotonic() + 0.1

    def _request(self) -> None:
        started = time.monotonic()
        with self._server.peer(PATIENCE_SECONDS) as peer:
            assert peer.http("/plain/", {"Connection": "close"}).body == b"plain"
        self.slowest_seconds = max(self.slowest_seconds, time.monotonic() - started)


@contextmanager
def undisturbed(server: Server, *, may_grow_mib: float = MAY_GROW_MIB, http: bool = True) -> Iterator[Watch]:
    """What happens inside disturbs nobody: bystanders go on as before, without one echo wrong, missing or late.

    Plain HTTP is answered meanwhile (``http``), the worker never occupies ``may_grow_mib`` more than it did when it
    first had bystanders, and at the end no descriptor of whoever was inside is open.
    """
    stop = threading.Event()
    with ExitStack() as stack:
        clients = [Bystander(server) for _ in range(COUNT)]
        for client in clients:
            stack.enter_context(client.peer)
        pool = stack.enter_context(ThreadPoolExecutor(COUNT + 1))
        stack.callback(stop.set)
        running = [pool.submit(client.run, stop) for client in clients]

        def go_on(echoes: int) -> None:
            """Return when each bystander has done so many more."""
            goals = [client.echoes + echoes for client in clients]

            def done() -> bool:
                for future in running:
                    if future.done():
                        future.result()
                return all(client.echoes >= goal for client, goal in zip(clients, goals, strict=True))

            server.until(done, f"{echoes} more echoes of each bystander")

        go_on(20)
        usual_seconds = max(client.slowest_seconds for client in clients)
        at_first_mib = _at_first_mib.setdefault(server, server.resident_mib())
        descriptors = server.file_descriptors()
        watch = Watch(server, http)
        running.append(pool.submit(watch.run, stop))

        yield watch

        go_on(5)
        server.until(lambda: all(client.pinged for client in clients), "a ping for each bystander")
        stop.set()
        for future in running:
            future.result()
    watch.slowest_seconds = slowest = max(watch.slowest_seconds, *(client.slowest_seconds for client in clients))
    grown = watch.peak_mib - at_first_mib
    print(f"bystanders: slowest {slowest:.3f} s (before: {usual_seconds:.3f} s); memory: {grown:+.1f} MiB")
    assert slowest < STALL_SECONDS + 10 * usual_seconds
    if grown >= may_grow_mib:
        del _at_first_mib[server]  # no other test is to fail for what this one found
        raise AssertionError(f"the worker has grown by {grown:.1f} MiB")
    # The bystanders have left too.
    server.until(lambda: server.file_descriptors() <= descriptors - COUNT, f"{descriptors - COUNT} descriptors")
