"""A message leaves: now, or after the commit, and what becomes of one that cannot."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import transaction
from django.test import TestCase, override_settings

from dwebsocket import GroupsUnavailable, group
from dwebsocket.groups import process, sending
from dwebsocket.groups.messages import TEXT, Envelope
from dwebsocket.groups.sending import Sent
from tests.groups.backends import SETTING, ObedientGroups


@pytest.fixture
def backend() -> Iterator[ObedientGroups]:
    with override_settings(WEBSOCKET_GROUPS=SETTING):
        backend = process.dispatcher("default").backend
        assert isinstance(backend, ObedientGroups)
        yield backend


@pytest.fixture
def sent() -> Iterator[list[Sent]]:
    gathered: list[Sent] = []
    sending.observers.append(gathered.append)
    yield gathered
    sending.observers.remove(gathered.append)


def published(backend: ObedientGroups) -> list[bytes]:
    return [Envelope.parse(publication.payload).payload for publication in backend.published]


def test_message_has_left_when_send_returns(backend: ObedientGroups, sent: list[Sent]) -> None:
    group("room:7").send("a", once="x", key="k")
    [publication] = backend.published
    assert (publication.group, publication.once) == ("room:7", "x")
    assert Envelope.parse(publication.payload) == Envelope(TEXT, b"a", b"", b"k")
    assert sent == [Sent("default", "room:7", Envelope(TEXT, b"a", b"", b"k"), at_commit=False)]


def test_inside_a_transaction_it_leaves_after_the_commit_in_the_order_of_the_calls(
    backend: ObedientGroups, sent: list[Sent]
) -> None:
    with transaction.atomic():
        group("room:7").send("1")
        group("room:8").send("2")
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            group("room:7").send("rolled back")
            1 / 0  # noqa: B018
        group("room:7").send("3")
        assert backend.published == []
    assert published(backend) == [b"1", b"2", b"3"]
    assert [one.at_commit for one in sent] == [True] * 3


def test_now_does_not_wait(backend: ObedientGroups, sent: list[Sent]) -> None:
    with transaction.atomic():
        group("room:7").send("a", now=True)
        assert published(backend) == [b"a"]
    assert [one.at_commit for one in sent] == [False]


def test_using_regards_one_database(backend: ObedientGroups) -> None:
    with transaction.atomic():
        group("room:7").send("a", using="default")
        assert backend.published == []
    assert published(backend) == [b"a"]


def test_object_is_encoded_at_once(backend: ObedientGroups) -> None:
    state = {"state": "before"}
    with transaction.atomic():
        group("room:7").send_json(state)
        state["state"] = "behind"
    assert published(backend) == [b'{"state": "before"}']


def test_mistakes_are_told_at_once_and_not_at_the_commit(backend: ObedientGroups) -> None:
    with transaction.atomic():
        with pytest.raises(TypeError):
            group("room:7").send(7)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="MAX_MESSAGE_SIZE"):
            group("room:7").send("x" * (1 << 21))
    assert backend.published == []


def test_broker_that_is_gone_is_an_error_now_and_a_line_of_the_log_at_the_commit(
    backend: ObedientGroups, sent: list[Sent], caplog: pytest.LogCaptureFixture
) -> None:
    backend.is_lost = True
    with pytest.raises(GroupsUnavailable):
        group("room:7").send("a")
    called: list[int] = []
    with transaction.atomic():
        with pytest.raises(GroupsUnavailable):
            group("room:7").send("a", now=True)
        group("room:7").send("b")
        transaction.on_commit(lambda: called.append(1))
    assert called == [1]
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == [
        "a message to the group 'room:7' is lost: it was to be sent after the commit"
    ]
    assert sent == []


class InATestCase(TestCase):
    """Its own blocks are no transactions."""

    def test_message_leaves_at_once(self) -> None:
        sent: list[Any] = []
        sending.observers.append(sent.append)
        self.addCleanup(sending.observers.remove, sent.append)
        group("room:7").send("a")
        assert [one.at_commit for one in sent] == [False]
        with self.captureOnCommitCallbacks(execute=True), transaction.atomic():
            group("room:7").send("b")
            assert len(sent) == 1
        assert [one.at_commit for one in sent] == [False, True]
