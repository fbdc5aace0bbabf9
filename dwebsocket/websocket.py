"""The WebSocket that a view gets."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, cast

from .connection import verbs
from .connection.connection import Connection
from .connection.verbs import Verbs
from .protocol.messages import Message
from .reactors.clock import monotonic

if TYPE_CHECKING:
    from django.http import HttpResponse

__all__ = ["Gap", "GroupMessage", "Joined", "Tick", "WebSocket"]


class GroupMessage(NamedTuple):
    """A message that was sent to a group: the group's name, and str or bytes as it was sent."""

    group: str
    data: Message
    position: str | None = None

    def json(self) -> Any:
        """The data, decoded from JSON. ValueError where it is none."""
        return json.loads(self.data)


class Gap(NamedTuple):
    """Messages of this group are missing here: the backend could not be reached, or the view was too slow."""

    group: str


class Tick(NamedTuple):
    """The time that `events(every=…)` was told has passed; `number` counts from 1."""

    number: int


class Joined(NamedTuple):
    """The answer of `join()`. The attributes say something where the group has a history."""

    position: str | None = None
    recovered: bool | None = None
    missed: int = 0


#: What happens to messages for a peer that is too slow, or for a view.
Overflow = Literal["close", "drop_new", "drop_oldest", "latest"]

#: Translates a message of a group for the peer: what it returns is sent; None: nothing.
Translate = Callable[[GroupMessage], "Message | None"]

#: Called with each message of the peer; with a GroupMessage or a Gap, too, of groups joined with `forward=False`.
Received = Callable[[Any], object]

#: Called with the close code and the reason when the connection is over.
Closed = Callable[[int, str], object]


class Handlers(Protocol):
    """The functions that are called on a connection that stays open without its view; None: nothing is called."""

    @property
    def received(self) -> Received | None: ...  # pragma: no cover
    @property
    def closed(self) -> Closed | None: ...  # pragma: no cover
    @property
    def group_event(self) -> Received | None: ...  # pragma: no cover


class Functions(NamedTuple):
    """The functions that the view has given to `stay_open()`."""

    received: Received | None
    closed: Closed | None
    group_event: Received | None  # with messages of groups, and gaps


class JoinableGroup(Protocol):
    """A Group, as far as a WebSocket knows it."""

    @property
    def name(self) -> str: ...  # pragma: no cover
    @property
    def alias(self) -> str: ...  # pragma: no cover
    def send_json(self, obj: Any) -> object: ...  # pragma: no cover


class Members(Protocol):
    """The groups of one WebSocket."""

    @property
    def id(self) -> bytes:
        """The name of the WebSocket among those of all processes."""
        ...  # pragma: no cover

    def join(
        self,
        group: JoinableGroup,
        connection: Connection,
        *,
        since: str | None,
        presence: Any,
        roster: bool,
        forward: bool | Translate,
        overflow: Overflow | None,
        timeout_seconds: float | None,
    ) -> Joined | None:
        """Become a member; return when every later message arrives. None: the connection has ended meanwhile."""
        ...  # pragma: no cover

    def leave(self, group: JoinableGroup) -> None:
        """Be a member no more."""
        ...  # pragma: no cover

    def names(self) -> frozenset[str]:
        """The names of the groups."""
        ...  # pragma: no cover

    def has_events(self) -> bool:
        """Whether a message waits for the view."""
        ...  # pragma: no cover

    def take_event(self) -> GroupMessage | Gap | None:
        """The next of these messages."""
        ...  # pragma: no cover


class Opening(verbs.Opening, Protocol):
    """The opening handshake, as far as a WebSocket knows it."""

    def members(self) -> Members | None:
        """The groups of this WebSocket; None once its view has ended."""
        ...  # pragma: no cover

    def stay_open(self, handlers: Handlers) -> HttpResponse:
        """The response of a view whose connection stays open."""
        ...  # pragma: no cover


class WebSocket(Verbs):
    """A WebSocket as a view sees it (`request.websocket`).

    The opening handshake is answered by `accept()`, or by the first verb that needs the connection. Until then the
    view can still refuse: by returning an HttpResponse, by raising Http404 or PermissionDenied, or by `close()`.

    Every method may be called from any thread or greenlet.
    """

    def join(
        self,
        group: JoinableGroup,
        *,
        since: str | None = None,
        presence: Any = None,
        roster: bool = False,
        forward: bool | Translate = True,
        overflow: Overflow | None = None,
        timeout: float | None = None,
    ) -> Joined:
        """Get every message that is sent to `group` from now on, until `leave()` or the end of the connection.

        The messages go straight to the peer. With `forward=False` the view gets them, by `events()`. With a function
        the peer gets what it makes of a GroupMessage, or nothing where it returns None: it is called once for each
        message and process, not for each WebSocket, and must not wait. With `forward=envelope` it gets the group and
        the position with each message. A second `join()` of a group changes all that.

        `since`: a position; what was sent behind it comes first, if the group has a history that reaches back so far,
        and `Joined.recovered` says whether it does. Without it the position counts that the page has sent in the URL,
        as `?since=<position>:<group>`. START: all that is kept comes first.

        `presence` is what `group.members()` shows of this member: anything that JSON can hold, in 1024 bytes, or True.
        `roster=True`: the peer, or the view, gets who is present, as JSON, and then who comes and goes.

        `overflow` says what happens when the peer is too slow: "close" (with 1013), "drop_new", "drop_oldest" or
        "latest"; without it the group says so. Returns when the backend has confirmed, after at most `timeout` seconds
        (JOIN_TIMEOUT of WEBSOCKET_GROUPS, 5).

        GroupsUnavailable when it does not: a view that does not handle it closes with 1013. TooManyGroups for more than
        `max_groups` (128). WebSocketClosed when the connection is closed. TypeError for what is no group, ValueError
        for another `overflow`. HistoryDisabled and PresenceDisabled where the Groups are
        declared without what is asked for.
        """
        _check_group(group)
        if since is not None and not isinstance(since, str):
            raise TypeError(f"since is a position, as join() or a message has it, not {type(since).__name__}")
        if not isinstance(forward, bool) and not callable(forward):
            raise TypeError(f"forward is True, False or a function, not {type(forward).__name__}")
        hash(forward)  # members with the same function share what it makes: TypeError, before anything is joined
        connection, members = self._open_to_join(), self._members()
        if members is None:
            raise self._end_error()
        joined = members.join(
            group,
            connection,
            since=since,
            presence=presence,
            roster=roster,
            forward=forward,
            overflow=overflow,
            timeout_seconds=timeout,
        )
        if joined is None:
            raise self._end_error()
        return joined

    def leave(self, group: JoinableGroup) -> None:
        """Get nothing of `group` any more once this returns; does nothing where it was not joined."""
        _check_group(group)
        if (members := self._members()) is not None:
            members.leave(group)

    @property
    def groups(self) -> frozenset[str]:
        """The names of the groups that it is in."""
        members = self._members()
        return frozenset() if members is None else members.names()

    def events(self, every: float | None = None) -> Iterator[Message | GroupMessage | Gap | Tick]:
        """Everything that happens, in one loop, until the connection closes.

        str and bytes are the peer's messages; GroupMessage comes from a group that was joined with `forward=False`; Gap
        says that messages of such a group are missing; Tick comes every `every` seconds. ValueError where that is not
        above 0.
        """
        if every is not None and not (isinstance(every, (int, float)) and every > 0):
            raise ValueError(f"every is a number of seconds above 0, not {every!r}")
        return self._events(every)

    def _events(self, every: float | None) -> Iterator[Message | GroupMessage | Gap | Tick]:
        members, ticks = self._members(), 0
        began = monotonic()
        if self._end_was_told:
            self._let_others_run()
        while members is not None and not self._end_was_told:
            if (event := members.take_event()) is not None:
                yield event
            timeout = None if every is None else began + (ticks + 1) * every - monotonic()
            if timeout is not None and timeout <= 0:
                ticks += 1
                yield Tick(ticks)
            elif (message := self._next_unless(timeout, members.has_events)) is not None:
                yield message

    def stay_open(self, received: Received | None = None, closed: Closed | None = None) -> HttpResponse:
        """The response of a view that ends here, while the connection stays open: `return websocket.stay_open()`.

        An idle connection holds no greenlet or thread then. `received(message)` is called with each message of the
        peer, one after the other, in the view's context (language, time zone, URLconf); with each GroupMessage and Gap,
        too, where the view has joined groups with `forward=False`. Without it, messages are dropped. `closed(code,
        reason)` is called once, when the connection is over. Exceptions of both are treated as those of the view.

        Accepts the opening handshake, if that was not done. WebSocketClosed where it was refused; RuntimeError for a
        second call, and when the view has ended; TypeError for an asynchronous function, a generator, or no function.
        """
        for name, function in (("received", received), ("closed", closed)):
            if function is not None and not _is_ordinary(function):
                raise TypeError(f"{name} is an ordinary function, not {function!r}: write a def without async or yield")
        self._open_to_stay()
        return cast(Opening, self._opening).stay_open(Functions(received, closed, received))

    def member_id(self) -> bytes:
        """The name of this WebSocket among those of all processes, for messages that it does not get."""
        members = self._members()
        return b"" if members is None else members.id

    def _members(self) -> Members | None:
        return cast(Opening, self._opening).members()


def _is_ordinary(function: object) -> bool:
    """Whether a call of it runs it: that of an asynchronous function or a generator runs nothing."""
    called = (function, getattr(function, "__call__", None))  # noqa: B004
    delayed = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
    return callable(function) and not any(is_delayed(each) for each in called for is_delayed in delayed)


def _check_group(group: object) -> None:
    if isinstance(group, str):
        raise TypeError(
            f"{group!r} is a str: write group({group!r}), or rooms[key] of the Groups that you have declared"
        )
    are_many = hasattr(group, "__getitem__")  # of Groups, which have a name and an alias, too
    if are_many or not hasattr(group, "alias"):
        hint = ": take one of them, as in rooms[7]" if are_many else ""
        raise TypeError(f"a group is made by Groups[key], group() or user_group(), not {type(group).__name__}{hint}")
