"""WebSockets are closed from afar: all of a user, whatever groups they are in, and all of a session."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.db import transaction
from django.http import HttpRequest
from django.test import override_settings

from dwebsocket import GroupsUnavailable, disconnect_user, require_websocket
from dwebsocket.groups import control, process
from dwebsocket.groups.backend import Publication
from dwebsocket.groups.messages import TEXT, Envelope
from tests.groups.backends import SETTING
from tests.groups.helpers import leave
from tests.links import assert_ends
from tests.peer import Peer
from tests.sites import Site, changing


@require_websocket
def view(request: Any) -> None:
    request.websocket.send("open")
    request.websocket.wait()


def by_path(request: Any) -> None:
    """Let the path name the user: /7/ is the one of that key, and / is anonymous."""
    key = request.path.strip("/")
    request.user = User(pk=int(key)) if key else AnonymousUser()


def connect(site: Site, *paths: str) -> list[Peer]:
    peers = [site.connect(path) for path in paths]
    for peer in peers:
        assert peer.recv_message() == "open"
    return peers


def is_open(*peers: Peer) -> None:
    """Nothing has come, and they close as they should."""
    leave(*peers)


@pytest.mark.parametrize("use", [int, lambda key: User(pk=key), str])
def test_every_websocket_of_a_user_closes_and_no_other(site: Site, use: Callable[[int], Any]) -> None:
    with changing(by_path) as settings:
        one, two, other, anonymous = connect(site(view, **settings), "/7/", "/7/", "/77/", "/")
        disconnect_user(use(7))
        assert_ends(one, 4403)
        assert_ends(two, 4403)
        is_open(other, anonymous)


def test_code_and_reason_are_those_that_were_given(site: Site) -> None:
    with changing(by_path) as settings:
        [peer] = connect(site(view, **settings), "/7/")
        disconnect_user(7, 4000, "geh heim, ä")
        assert_ends(peer, 4000, "geh heim, ä")


def test_it_is_done_after_the_commit_or_never(site: Site) -> None:
    with changing(by_path) as settings:
        one, two, three = connect(site(view, **settings), "/7/", "/8/", "/9/")
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            disconnect_user(7)
            1 / 0  # noqa: B018
        with transaction.atomic():
            disconnect_user(8, reason="after")
            disconnect_user(9, now=True)
            assert_ends(three, 4403)
            two.send_frame(9, b"still open")
            assert two.recv_frame().payload == b"still open"
        assert_ends(two, 4403, "after")
        is_open(one)


def test_broker_that_does_not_answer_is_told(site: Site) -> None:
    with override_settings(WEBSOCKET_GROUPS=SETTING):
        backend: Any = process.dispatcher("default").backend
        backend.is_lost = True
        with pytest.raises(GroupsUnavailable):
            disconnect_user(7)


def test_project_whose_groups_are_set_wrongly_has_websockets_all_the_same(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    control._complain_once.cache_clear()
    site(view, WEBSOCKET_GROUPS={"default": {"BACKEND": "nowhere.Groups"}})
    for _ in range(2):
        is_open(*connect(site, "/"))
    assert caplog.text.count("no WebSocket of this process can be closed by another one") == 1
    assert "No module named 'nowhere'" in caplog.text
    control._complain_once.cache_clear()


def test_order_that_is_none_is_logged_and_the_next_one_obeyed(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    with changing(by_path) as settings:
        [peer] = connect(site(view, **settings), "/7/")
        process.dispatcher("default").backend.publish([Publication(control.GROUP, b"t  0 no JSON")])
        disconnect_user(7)
        assert_ends(peer, 4403)
    assert "JSONDecodeError" in caplog.text


def test_user_that_cannot_be_found_out_spares_no_other(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        @property
        def pk(self) -> int:
            raise LookupError("the database is gone")

    def change(request: Any) -> None:
        by_path(request)
        if request.path == "/6/":
            request.user = Broken()

    with changing(change) as settings:
        broken, *others = connect(site(view, **settings), "/6/", "/7/", "/7/", "/7/")
        disconnect_user(7)
        for peer in others:
            assert_ends(peer, 4403)
        is_open(broken)
    assert "whose WebSocket at '/6/' is could not be found out" in caplog.text


# Whose WebSocket is it?


def request_with(**attributes: Any) -> HttpRequest:
    request = HttpRequest()
    vars(request).update(attributes)
    return request


def test_digest_of_a_session_says_nothing_of_its_key() -> None:
    request = request_with(session=SimpleNamespace(session_key="abc"))
    digest = control._session_digest(request)
    assert digest == control._digest("abc") != control._digest("abd")
    assert digest is not None
    assert "abc" not in digest
    assert control._session_digest(request_with()) is None
    assert control._session_digest(request_with(session=SimpleNamespace(session_key=None))) is None


@pytest.mark.parametrize(
    "order",
    [
        b"5", b"null", b"{}", b'{"user": null, "code": 4403, "reason": ""}',
        b'{"user": "7", "code": 1006, "reason": ""}',
        b'{"user": "7", "code": "4403", "reason": ""}', b'{"session": "x", "code": 4401}',
    ],
)  # fmt: skip
def test_order_that_is_none_closes_nothing(order: bytes) -> None:
    with pytest.raises(ValueError, match="no order to close WebSockets"):
        control._obey(Envelope(TEXT, order))
