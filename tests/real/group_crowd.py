"""Many WebSockets at once, read by one thread: what each has received, and when."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from tests.peer import BINARY, CLOSE, PING, PONG, TEXT, Close, Peer, decode, parse_close
from tests.real.group_checker import GapIn, Message, parse_all
from tests.real.servers import Server

PATIENCE_SECONDS = 30.0

T = TypeVar("T")


def until(condition: Callable[[], T | None], wanted: str, seconds: float = PATIENCE_SECONDS) -> T:
    """What `condition` returns, once that is true."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, f"waited {seconds:g} s in vain for {wanted}"
        time.sleep(0.005)
    return result


class Entry(NamedTuple):
    at: float
    text: str


class Subscriber:
    """One WebSocket of the crowd: `log` is what it has received, `close` the close frame, `is_over` after the end."""

    def __init__(self, name: str, peer: Peer) -> None:
        self.name = name
        self.peer = peer
        self.log: list[Entry] = []
        self.close: Close | None = None
        self.is_over = False
        self.is_reading = True

    def send(self, text: str) -> None:
        self.peer.send_message(text)

    def texts(self) -> list[str]:
        return [entry.text for entry in list(self.log)]

    def entries(self) -> list[Message | GapIn]:
        return parse_all(self.texts())

    def has(self, text: str, since: int = 0) -> bool:
        return any(entry.text == text for entry in self.log[since:])

    def wait_for(self, text: str, since: int = 0, seconds: float = PATIENCE_SECONDS) -> Entry:
        """The first entry from `since` on that is `text`."""

        def found() -> Entry | None:
            return next((entry for entry in self.log[since:] if entry.text == text), None)

        def news() -> str:
            return f"{text!r} at {self.name}, which has {self.texts()[-5:]}, {self.close}"

        try:
            return until(found, text, seconds)
        except AssertionError:
            raise AssertionError(f"waited {seconds:g} s in vain for {news()}") from None

    def ask(self, text: str, answer: str, seconds: float = PATIENCE_SECONDS) -> Entry:
        """Send `text`, and return the answer, which must be new."""
        since = len(self.log)
        self.send(text)
        return self.wait_for(answer, since, seconds)

    def ask_pid(self) -> str:
        """The process that serves it."""
        since = len(self.log)
        self.send("pid")
        return until(
            lambda: next((text.split()[1] for _, text in self.log[since:] if text.startswith("pid ")), None), "the pid"
        )


class Crowd:
    """The WebSockets that a test has opened; all are read as fast as they come."""

    def __init__(self) -> None:
        self.subscribers: list[Subscriber] = []
        self._by_descriptor: dict[int, Subscriber] = {}
        self._epoll = select.epoll()
        self._ending: deque[tuple[Subscriber, Callable[[Peer], None]]] = deque()
        self._is_over = False
        self._thread = threading.Thread(target=self._run, name="crowd", daemon=True)
        self._thread.start()

    def add(self, server: Server, path: str, name: str = "", *, receive_buffer: int = 0) -> Subscriber:
        """Open one. `receive_buffer`: bytes that its kernel holds; then it is not read until `read()`."""
        if receive_buffer:
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            sock.settimeout(PATIENCE_SECONDS)
            sock.connect((server.host, server.port))
            peer = Peer.over(sock, PATIENCE_SECONDS)
            peer.host = f"{server.host}:{server.port}"
        else:
            peer = server.peer(PATIENCE_SECONDS)
        try:
            peer.connect(path)
        except BaseException:
            peer.abandon()
            raise
        subscriber = Subscriber(name or f"{path} {len(self.subscribers)}", peer)
        self.subscribers.append(subscriber)
        subscriber.is_reading = not receive_buffer
        if subscriber.is_reading:
            self.read(subscriber)
        return subscriber

    def read(self, subscriber: Subscriber) -> None:
        """From now on read that one."""
        subscriber.is_reading = True
        self._take(subscriber)
        descriptor = subscriber.peer.sock.fileno()
        self._by_descriptor[descriptor] = subscriber
        self._epoll.register(descriptor, select.EPOLLIN)

    def pause(self, subscriber: Subscriber) -> None:
        subscriber.is_reading = False
        self._epoll.unregister(subscriber.peer.sock.fileno())

    def resume(self, subscriber: Subscriber) -> None:
        subscriber.is_reading = True
        self._epoll.register(subscriber.peer.sock.fileno(), select.EPOLLIN)

    def end(self, subscriber: Subscriber, how: Callable[[Peer], None]) -> None:
        """Forget that one; soon `how` ends its connection."""
        self.subscribers.remove(subscriber)
        self._ending.append((subscriber, how))

    def close(self) -> None:
        self._is_over = True
        self._thread.join()
        for subscriber in self.subscribers:
            subscriber.peer.abandon()
        self._epoll.close()

    def __enter__(self) -> Crowd:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def logs(self) -> dict[str, list[Message | GapIn]]:
        return {subscriber.name: subscriber.entries() for subscriber in self.subscribers}

    # In the thread

    def _run(self) -> None:
        while not self._is_over:
            self._end_some()
            for descriptor, _ in self._epoll.poll(0.1):
                subscriber = self._by_descriptor[descriptor]
                if not subscriber.is_reading or subscriber.is_over:
                    continue
                try:
                    data = subscriber.peer.sock.recv(1 << 18, socket.MSG_DONTWAIT)
                except BlockingIOError:
                    continue
                except OSError:
                    data = b""
                if data:
                    subscriber.peer.buffer += data
                    self._take(subscriber)
                else:
                    subscriber.is_over = True
                    with contextlib.suppress(OSError):
                        self._epoll.unregister(descriptor)
        self._end_some()

    def _end_some(self) -> None:
        """Here only: no descriptor is taken for that of another one."""
        while self._ending:
            subscriber, how = self._ending.popleft()
            subscriber.is_over = True
            del self._by_descriptor[subscriber.peer.sock.fileno()]
            with contextlib.suppress(OSError):
                self._epoll.unregister(subscriber.peer.sock.fileno())
            with contextlib.suppress(OSError):
                how(subscriber.peer)
            subscriber.peer.abandon()

    @staticmethod
    def _take(subscriber: Subscriber) -> None:
        now, buffer = time.monotonic(), subscriber.peer.buffer
        while (found := decode(buffer)) is not None:
            received, size = found
            del buffer[:size]
            assert received.mask is None
            assert received.fin
            assert received.rsv == 0
            if received.opcode == TEXT or received.opcode == BINARY:
                subscriber.log.append(Entry(now, received.payload.decode()))
            elif received.opcode == PING:
                with contextlib.suppress(OSError):
                    subscriber.peer.send_frame(PONG, received.payload)
            elif received.opcode == CLOSE:
                subscriber.close = parse_close(received.payload)
                with contextlib.suppress(OSError):
                    subscriber.peer.send_frame(CLOSE, received.payload)
