"""Pages that keep their positions: they go at random, or are thrown out, and come back to any server."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from urllib.parse import urlencode

from dwebsocket.groups.position import Position
from tests.peer import Peer
from tests.real.group_checker import has_end
from tests.real.group_crowd import PATIENCE_SECONDS, Crowd, Subscriber, until
from tests.real.group_histories import Place, Visit, check_histories, data, log, place, positions, told
from tests.real.group_site import Publisher, Result, last, unsure
from tests.real.servers import Server

#: How a connection ends.
ENDS: dict[str, Callable[[Peer], None]] = {
    "close": lambda peer: peer.send_close(1001),
    "end": lambda peer: None,
    "reset": lambda peer: peer.reset(),
}


class Page:
    """One page, whatever its connections: `come()` opens one with its positions, `go()` ends it."""

    def __init__(
        self, crowd: Crowd, name: str, groups: Sequence[str], *, receive_buffer: int = 0, **query: str
    ) -> None:
        self.name = name
        self.groups = groups
        self.connection: Subscriber | None = None
        self._crowd = crowd
        self._query = query
        self._receive_buffer = receive_buffer
        self._sent: dict[str, str] = {}
        self._at: dict[str, str] = {}  # the positions that it has
        self._visits: list[Visit] = []
        self._parsed: list[dict[str, object]] = []  # of the present connection, so far
        self._taken = 0
        self._here: set[str] = set()  # the groups that it has joined again
        self._lock = threading.Lock()

    def come(self, server: Server) -> None:
        with self._lock:
            sent = dict(self._at)
        query = [("group", group) for group in self.groups]
        query += [("since", f"{position}:{group}") for group, position in sent.items()]
        path = f"/page/?{urlencode([*query, *self._query.items()])}"
        connection = self._crowd.add(server, path, self.name, receive_buffer=self._receive_buffer)
        if self._receive_buffer:
            self._crowd.read(connection)
        with self._lock:
            self._sent, self.connection = sent, connection
            self._parsed, self._taken, self._here = [], 0, set()

    def go(self, how: str) -> None:
        """What comes on the connection from now on is not seen any more."""
        with self._lock:
            connection = self.connection
            if connection is None:
                return
            self._visits.append(self._present_visit())
            self.connection, self._here = None, set()
            self._crowd.end(connection, ENDS[how])

    @property
    def is_away(self) -> bool:
        """Whether it has no connection, or one that the server has ended."""
        return self.connection is None or self.connection.is_over or self.connection.close is not None

    def _present_visit(self) -> Visit:
        assert self.connection is not None
        entries = self.connection.log[self._taken :]
        self._taken += len(entries)
        fresh = data(entry.text for entry in entries)
        self._parsed += fresh
        self._at.update(positions([Visit({}, fresh)]))
        self._here.update(text["g"] for text in fresh if "p" in text)
        return Visit(self._sent, self._parsed)  # type: ignore[arg-type]

    def visits(self) -> list[Visit]:
        with self._lock:
            return [*self._visits, *([self._present_visit()] if self.connection is not None else [])]

    def present(self) -> Visit:
        """The visit of now."""
        with self._lock:
            return self._present_visit() if self.connection is not None else Visit({})

    def position(self, group: str) -> Position | None:
        """Where it is now; None while it has not joined."""
        with self._lock:
            if self.connection is not None:
                self._present_visit()
            return place(group, self._at[group]).position if group in self._here else None

    def has_joined(self) -> bool:
        return not self.is_away and all(self.position(group) is not None for group in self.groups)


class Pages:
    """Many of them. `tend()` lets them go and come in a thread, until the end of the `with`."""

    def __init__(self, crowd: Crowd, servers: Sequence[Server], chance: random.Random) -> None:
        self.all: list[Page] = []
        self.servers = list(servers)
        self._crowd = crowd
        self._chance = chance
        self._is_over = False
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._seconds = 0.0

    def open(self, count: int, groups: Sequence[str], *, receive_buffer: int = 0, **query: str) -> list[Page]:
        """So many more, evenly on all servers; each has joined."""
        start = len(self.all)
        made = [
            Page(self._crowd, f"page {start + number}", groups, receive_buffer=receive_buffer, **query)
            for number in range(count)
        ]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda at: made[at].come(self.servers[at % len(self.servers)]), range(count)))
        self.all += made
        self.wait_until_joined(made)
        return made

    def wait_until_joined(self, pages: Iterable[Page] | None = None, seconds: float = PATIENCE_SECONDS) -> None:
        for page in self.all if pages is None else pages:
            until(page.has_joined, f"{page.name}, {page.connection and page.connection.close}", seconds)

    def tend(self, seconds: float) -> None:
        """From now on each page goes after about so many seconds, and those that are away come back. 0: none goes."""
        self._seconds = seconds
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="pages", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """No page goes or comes any more."""
        self._is_over = True
        if self._thread is not None:
            self._thread.join()
        if self._error is not None:
            raise self._error

    def __enter__(self) -> Pages:
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        came_at: dict[Page, float] = {}
        try:
            while not self._is_over:
                for page in self.all:
                    now = time.monotonic()
                    if page.is_away:
                        if now - came_at.get(page, 0.0) > 0.2:  # it does not storm a server that throws it out
                            came_at[page] = now
                            self._come(page)
                    elif self._seconds and self._chance.random() < 0.05 / self._seconds:
                        page.go(self._chance.choice(sorted(ENDS)))
                        if self._chance.random() < 0.7:  # at once, or in a moment
                            self._come(page)
                time.sleep(0.05)
        except BaseException as error:
            self._error = error

    def _come(self, page: Page) -> None:
        page.go("end")
        with suppress(OSError, AssertionError):  # the server is away
            page.come(self._chance.choice(self.servers))

    # What is asked of them

    def wait_for_end(self, groups: Iterable[str]) -> dict[Place, str]:
        """Send a last message to each group, and return it when each page has it."""
        returned: dict[Place, str] = {}
        server = self.servers[0]
        for group in groups:
            answer: dict[str, str] = {}

            def sent(group: str = group, answer: dict[str, str] = answer) -> bool:
                text = f"{group} end{time.monotonic_ns()} 0"
                response = server.get(f"/publish/?{urlencode({'group': group, 'text': text})}")
                if response.status == 200:
                    answer.update(data([response.body.decode()])[0], text=text)
                return response.status == 200

            until(sent, f"a last message to {group}", 60)
            end = place(group, answer["position"])
            returned[end] = answer["text"]
            for page in self.all:
                if group in page.groups:
                    until(
                        lambda: page.position(group) == end.position,  # noqa: B023
                        f"{end} at {page.name}, which is at {page.position(group)}, {dict(told(page.visits()))}",
                        60,
                    )
        return returned

    def told(self) -> Counter[str]:
        return sum((told(page.visits()) for page in self.all), Counter())

    def check(
        self, results: Sequence[Result], returned: dict[Place, str] | None = None, *, may_lose: bool = True
    ) -> None:
        """Each page has all, in order, but where it was told."""
        known = dict(returned or {})
        for result in results:
            if result.position != "-":
                known[place(result.message.group, result.position)] = str(result.message)
        visits = {page.name: page.visits() for page in self.all}
        check_histories(visits, known, unsure=unsure(results), may_lose=may_lose)
        ends = last(results)
        for page in self.all:
            found = log(visits[page.name])
            for stream, number in ends.items():
                assert stream.group not in page.groups or has_end(found, stream, number), f"{page.name}: {stream}"

    def end_and_check(
        self, publishers: Sequence[Publisher], groups: Iterable[str], *, may_lose: bool = True, goes_on: bool = False
    ) -> None:
        """The publishers end; each page that is away comes back, and has all. `goes_on`: what happens then is seen."""
        self.tend(0)
        results = [result for publisher in publishers for result in publisher.stop()]
        assert any(result.position != "-" for result in results)
        self.wait_until_joined(seconds=60)
        returned = self.wait_for_end(groups)
        if not goes_on:
            self.stop()
        self.check(results, returned, may_lose=may_lose)
