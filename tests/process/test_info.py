"""What is known of a WebSocket that is open."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest
from django.contrib.auth.models import User
from django.http import HttpRequest

from dwebsocket import connections, require_websocket
from tests.links import until
from tests.peer import TEXT, Close, frame, text
from tests.process.helpers import answered, echo, leave_when_told
from tests.sites import Site


def test_connection_says_whose_it_is_and_what_has_passed(site: Site) -> None:
    @require_websocket
    def view(request: HttpRequest) -> None:
        request.user = User(username="ada")
        site.tell(request)
        echo(request)

    peer = answered(site(view).connect("/rooms/7/?q=1"))
    until(lambda: connections()[0].bytes_sent)  # counted when the kernel has taken them: the peer may be faster
    (info,) = connections()
    assert info.request is site.hear()
    assert info.websocket is info.request.websocket
    assert (info.path, info.user, info.address) == ("/rooms/7/", "ada", "127.0.0.1")
    assert info.seconds >= 0
    assert info.traffic == {
        "seconds": info.seconds, "messages_received": 1, "messages_sent": 1,
        "bytes_received": len(text("hello")), "bytes_sent": len(frame(TEXT, b"hello", mask=None)),
    }  # fmt: skip
    peer.reset()


def test_what_is_known_of_a_connection_does_not_change_and_cannot_be_changed(site: Site) -> None:
    peer = answered(site(echo).connect())
    (before,) = connections()
    answered(peer)
    (after,) = connections()
    assert (before.messages_received, after.messages_received) == (1, 2)
    assert after.seconds > before.seconds
    with pytest.raises(FrozenInstanceError):
        before.messages_received = 2  # type: ignore[misc]
    peer.reset()


def test_connection_can_be_closed_by_whoever_has_found_it(site: Site) -> None:
    peer = answered(site(echo).connect("/rooms/7/"))
    for info in connections():
        info.websocket.close(4000, "the room is closed")
    assert leave_when_told(peer)[0] == Close(4000, "the room is closed")
    site.until_idle()
    assert connections() == []
