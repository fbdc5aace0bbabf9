"""Tests of groups: the messages that were sent, and backends that are down."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import NamedTuple, NoReturn

from .. import conf
from ..exceptions import GroupsUnavailable
from ..protocol.messages import Message
from . import process, sending
from .backend import GroupsBackend, Presence, Publication, Sink, Want
from .dispatcher import Dispatcher
from .group import Group
from .local import LocalGroups
from .messages import CLOSE

_JOIN_TIMEOUT_SECONDS = 0.01  # of a backend that is down


class SentMessage(NamedTuple):
    """A message that was sent: str or bytes, and whether it waited for a commit."""

    data: Message
    at_commit: bool


@contextmanager
def sent_to(group: Group) -> Iterator[list[SentMessage]]:
    """Gather what is sent to `group` inside the `with` block, in a list, as soon as it leaves.

    What is sent inside a transaction is in it after the commit. With Django's TestCase, which never commits, that is
    what `captureOnCommitCallbacks(execute=True)` is for; a message outside of any other `atomic()` does not wait.
    """
    if not isinstance(group, Group):
        raise TypeError(f"sent_to() takes a group, like rooms[7], not {type(group).__name__}")
    messages: list[SentMessage] = []

    def observe(sent: sending.Sent) -> None:
        if (sent.alias, sent.group) == (group.alias, group.name) and sent.envelope.kind != CLOSE:
            messages.append(SentMessage(sent.envelope.data, sent.at_commit))

    sending.observers.append(observe)
    try:
        yield messages
    finally:
        sending.observers.remove(observe)


@contextmanager
def groups_down() -> Iterator[None]:
    """Let every backend be unreachable inside the `with` block: `send()` and `join()` raise GroupsUnavailable."""
    with ExitStack() as stack:
        for alias in conf.get("GROUPS"):
            stack.enter_context(_down(process.dispatcher(alias)))
        yield


@contextmanager
def _down(dispatcher: Dispatcher) -> Iterator[None]:
    backend = dispatcher.backend
    dispatcher.use(_Down(backend))
    sources = {0, *map(backend.source_of, dispatcher.watched())}
    for source in sources:
        dispatcher.lost("the test says so", source)
    try:
        yield
    finally:
        dispatcher.use(backend)
        backend.open(dispatcher)
        backend.watch(dispatcher.watched(), ())
        for source in sources:
            dispatcher.restored(source)


class _Down(GroupsBackend):
    """A backend that does not answer."""

    def __init__(self, backend: GroupsBackend) -> None:
        super().__init__(backend.alias, {**backend.settings, "JOIN_TIMEOUT": _JOIN_TIMEOUT_SECONDS})
        self._backend = backend

    def open(self, sink: Sink) -> None:
        """Receive nothing."""

    def close(self) -> None:
        """Have nothing to close."""

    def watch(self, add: Collection[str], drop: Collection[str]) -> None:
        """Confirm nothing."""

    def source_of(self, group: str) -> int:
        return self._backend.source_of(group)

    def publish(self, publications: Sequence[Publication]) -> NoReturn:
        _fail()

    def read(self, wants: Mapping[str, Want]) -> NoReturn:
        _fail()

    def clear(self, group: str) -> NoReturn:
        _fail()

    def renew(self) -> NoReturn:
        _fail()

    def attend(self, enter: Sequence[Presence], leave: Sequence[Presence]) -> NoReturn:
        _fail()

    def roster(self, group: str) -> NoReturn:
        _fail()

    def count(self, group: str) -> NoReturn:
        _fail()

    def resign(self, grace_seconds: float) -> NoReturn:
        _fail()


def _fail() -> NoReturn:
    raise GroupsUnavailable("the backend is down: the test says so")


def begin_anew() -> None:
    """Drop what another test has sent, and who was present there: each begins anew."""
    for dispatcher in process.dispatchers():
        if isinstance(dispatcher.backend, LocalGroups):
            dispatcher.backend.begin_anew()
