"""The class of `request.websocket`: what a project may subclass."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from django.core.exceptions import PermissionDenied
from django.http import HttpResponse
from django.middleware.gzip import GZipMiddleware
from django.utils.decorators import decorator_from_middleware

from dwebsocket import (
    Gap,
    GroupMessage,
    Groups,
    GroupsUnavailable,
    WebSocket,
    WebSocketClosed,
    connections,
    group,
    require_websocket,
)
from dwebsocket.connection.verbs import Verbs
from dwebsocket.groups import process
from tests.groups.backends import SETTING, ObedientGroups
from tests.groups.helpers import new_room
from tests.helpers import exchange, levels
from tests.links import assert_ends, until
from tests.peer import Close, text
from tests.sites import Site, all_told


class Shouting(WebSocket):
    """What a project makes of it."""

    def send(self, message: Any) -> None:
        super().send(message.upper())


def test_view_gets_a_websocket_with_every_verb(site: Site) -> None:
    @require_websocket
    def view(request):
        request.websocket.send(f"{type(request.websocket) is WebSocket} {isinstance(request.websocket, Verbs)}")

    assert site(view).connect().recv_message() == "True True"


def test_view_gets_the_class_of_the_project(site: Site) -> None:
    @require_websocket
    def view(request):
        request.websocket.send("hello")

    assert site(view, WEBSOCKET_CLASS=f"{__name__}.Shouting").connect().recv_message() == "HELLO"


@pytest.mark.parametrize("verb", ["join", "leave"])
@pytest.mark.parametrize(
    ("group", "says"),
    [
        ("room:7", "'room:7' is a str: write group('room:7'), or rooms[key] of the Groups that you have declared"),
        (Groups("a-whole"), "not Groups: take one of them, as in rooms[7]"),
        (7, "a group is made by Groups[key], group() or user_group(), not int"),
    ],
    ids=str,
)
def test_value_that_is_no_group_is_a_type_error_that_says_what_to_write(
    site: Site, group: Any, verb: str, says: str
) -> None:
    @require_websocket
    def view(request):
        with pytest.raises(TypeError) as caught:
            getattr(request.websocket, verb)(group)
        request.websocket.send(f"{request.websocket.groups} {caught.value}")

    answer = site(view).connect().recv_message()
    assert answer.startswith("frozenset() ")
    assert answer.endswith(says)


def test_join_that_the_backend_does_not_confirm_says_why(site: Site) -> None:
    @require_websocket
    def view(request):
        process.dispatcher("default")
        for lose in (False, True):
            if lose:
                ObedientGroups.made[-1].lose()
            else:
                ObedientGroups.made[-1].confirms = False
            with pytest.raises(GroupsUnavailable) as caught:
                request.websocket.join(group("room:7"), timeout=0.01)
            request.websocket.send(str(caught.value))

    peer = site(view, WEBSOCKET_GROUPS=SETTING).connect()
    said = "the backend of WEBSOCKET_GROUPS['default'] has not confirmed the group 'room:7' within 0.01 seconds"
    assert peer.recv_message() == said
    assert peer.recv_message() == f"{said}: the test says so"


# stay_open(): the view ends, the connection stays


def staying(site: Site, received: Any = None, closed: Any = None, before: Any = None) -> Any:
    """A view that stays open, and tells the test what it is told."""

    @require_websocket
    def view(request):
        if before is not None:
            before(request)
        return request.websocket.stay_open(received or site.tell, closed or (lambda *end: site.tell(end)))

    return view


def test_function_that_stays_open_is_told_of_every_message_and_of_the_end(site: Site) -> None:
    peer = site(staying(site)).connect()
    for message in ("text", b"binary", ""):
        peer.send_message(message)
    assert peer.close(4001, "bye") == Close(4001)
    assert all_told(site) == ["text", b"binary", "", (4001, "bye")]


def test_view_that_stays_open_answers(site: Site) -> None:
    @require_websocket
    def view(request):
        return request.websocket.stay_open(lambda message: request.websocket.send(f"echo {message}"))

    peer = site(view).connect()
    assert [exchange(peer, "a"), exchange(peer, "b")] == ["echo a", "echo b"]
    assert peer.close() == Close(1000)


def test_connection_that_stays_open_without_a_function_drops_messages_and_answers_pings(site: Site) -> None:
    @require_websocket
    def view(request):
        return request.websocket.stay_open()

    peer = site(view).connect()
    for number in range(100):
        peer.send_message(str(number) * 1000)
    peer.send_frame(9, b"still there?")
    assert peer.recv_frame().payload == b"still there?"
    assert peer.close(4001, "bye") == Close(4001)


def test_view_that_stays_open_gets_what_came_with_the_handshake(site: Site) -> None:
    peer = site(staying(site)).connect(early=text("early") + text("cut")[:-1])
    assert site.hear() == "early"
    peer.send_raw(text("cut")[-1:])
    assert site.hear() == "cut"
    assert peer.close() == Close(1000)
    assert all_told(site) == [(1000, "")]


def test_view_that_has_talked_before_stays_open_for_the_rest(site: Site) -> None:
    peer = site(staying(site, before=lambda request: site.tell(["view", request.websocket.wait()]))).connect()
    for message in ("to the view", "to the function"):
        peer.send_message(message)
    assert peer.close() == Close(1000)
    assert all_told(site) == [["view", "to the view"], "to the function", (1000, "")]


def test_view_that_stays_open_though_its_peer_has_left_is_told_of_the_end(site: Site) -> None:
    peer = site(staying(site, before=lambda request: list(request.websocket))).connect()
    assert peer.close(4001, "bye") == Close(4001)
    assert all_told(site) == [(4001, "bye")]


def test_view_that_closes_and_stays_open_is_told_of_the_end(site: Site) -> None:
    def close(request: Any) -> None:
        request.websocket.accept()
        request.websocket.close(4002, "go")

    assert_ends(site(staying(site, before=close)).connect(), 4002, "go")
    assert all_told(site) == [(4002, "go")]


def test_function_closes(site: Site) -> None:
    websockets: list[Any] = []
    received = lambda message: websockets[0].close(4003, str(message))  # noqa: E731
    view = staying(site, received, before=lambda request: websockets.append(request.websocket))
    peer = site(view).connect()
    peer.send_raw(text("first") + text("second"))
    assert_ends(peer, 4003, "first")
    assert all_told(site) == [(4003, "first")]


@pytest.mark.parametrize("where", ["received", "closed"])
def test_exception_of_a_function_is_treated_as_that_of_the_view(
    site: Site, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*about: Any) -> None:
        site.tell(about)
        raise PermissionDenied

    peer = site(staying(site, **{where: fail})).connect()
    if where == "received":
        peer.send_message("hello")
        assert_ends(peer, 4403, "Forbidden")
        assert all_told(site) == [("hello",), (4403, "Forbidden")]
    else:
        assert peer.close(4001) == Close(4001)
        assert all_told(site) == [(4001, "")]
    assert levels(caplog) == [("django.request", "WARNING")]


def test_groups_that_the_view_has_joined_for_itself_reach_the_function(site: Site) -> None:
    room = new_room()

    def join(request: Any) -> None:
        request.websocket.join(room, forward=False)
        request.websocket.send("joined")

    peer = site(staying(site, before=join)).connect()
    assert peer.recv_message() == "joined"
    room.send("hello")
    assert site.hear() == GroupMessage(room.name, "hello")
    process.dispatcher("default").lost("the test says so")
    process.dispatcher("default").watching([room.name])
    process.dispatcher("default").restored()
    assert site.hear() == Gap(room.name)
    assert peer.close() == Close(1000)
    assert all_told(site) == [(1000, "")]


@pytest.mark.parametrize("forward", [True, False])
def test_view_that_has_joined_a_group_needs_no_function(site: Site, forward: bool) -> None:
    room = new_room()

    @require_websocket
    def view(request):
        request.websocket.join(room, forward=forward)
        request.websocket.send("joined")
        return request.websocket.stay_open()

    peer = site(view).connect()
    assert peer.recv_message() == "joined"
    room.send("hello")
    if forward:
        assert peer.recv_message() == "hello"
    assert peer.close() == Close(1000)


def test_decorators_see_the_response_of_a_view_that_stays_open(site: Site) -> None:
    view = decorator_from_middleware(GZipMiddleware)(staying(site))
    peer = site(functools.wraps(view)(view)).connect()
    peer.send_message("hello")
    assert site.hear() == "hello"
    assert peer.close() == Close(1000)


# stay_open(), called wrongly


@pytest.mark.parametrize("returned", [None, True, "a string"], ids=repr)
def test_view_that_does_not_return_what_stay_open_gives_is_a_mistake_that_says_so(
    site: Site, returned: Any, caplog: pytest.LogCaptureFixture
) -> None:
    @require_websocket
    def view(request):
        request.websocket.stay_open(closed=lambda *end: site.tell(end))
        return returned

    assert_ends(site(view).connect(), 1011)
    assert all_told(site) == [(1011, "")]
    assert levels(caplog) == [("django.request", "ERROR")]
    assert "write `return request.websocket.stay_open(" in str(caplog.records[0].exc_info[1])  # type: ignore[index]


@pytest.mark.parametrize("joins", [False, True], ids=["refused", "opened"])
def test_view_that_returns_the_verb_and_does_not_call_it_is_a_mistake_that_says_so(
    site: Site, joins: bool, caplog: pytest.LogCaptureFixture
) -> None:
    @require_websocket
    def view(request):
        if joins:
            request.websocket.join(new_room())
        return request.websocket.stay_open

    if joins:
        assert_ends(site(view).connect(), 1011)
    else:
        assert site(view).handshake().status == 500
    site.until_idle()
    assert "write `return request.websocket.stay_open()`" in caplog.text


def test_error_that_is_returned_instead_closes_with_it(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    @require_websocket
    def view(request):
        request.websocket.stay_open(closed=lambda *end: site.tell(end))
        return HttpResponse(status=404)

    assert_ends(site(view).connect(), 4404, "Not Found")
    assert all_told(site) == [(4404, "Not Found")]


def test_exception_behind_stay_open_closes_and_is_told(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    @require_websocket
    def view(request):
        request.websocket.stay_open(closed=lambda *end: site.tell(end))
        raise RuntimeError("behind it")

    assert_ends(site(view).connect(), 1011)
    assert all_told(site) == [(1011, "")]
    assert levels(caplog) == [("django.request", "ERROR")]


def test_second_call_is_an_error_and_the_first_one_holds(site: Site) -> None:
    @require_websocket
    def view(request):
        response = request.websocket.stay_open(site.tell)
        with pytest.raises(RuntimeError, match="call it once, and return what it gives"):
            request.websocket.stay_open()
        return response

    peer = site(view).connect()
    peer.send_message("hello")
    assert site.hear() == "hello"
    assert peer.close() == Close(1000)


@pytest.mark.parametrize("where", ["received", "closed"])
def test_call_from_a_turn_is_an_error(site: Site, where: str, caplog: pytest.LogCaptureFixture) -> None:
    websockets: list[Any] = []

    def call(*about: Any) -> None:
        with pytest.raises(RuntimeError, match="was called before, or the view has ended"):
            websockets[0].stay_open()
        site.tell("refused")

    view = staying(site, before=lambda request: websockets.append(request.websocket), **{where: call})
    peer = site(view).connect()
    peer.send_message("hello")
    assert peer.close() == Close(1000)
    assert "refused" in all_told(site)
    assert levels(caplog) == []


def test_call_behind_a_refusal_is_refused(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    @require_websocket
    def view(request):
        request.websocket.close(1000)
        try:
            return request.websocket.stay_open(site.tell, site.tell)
        except WebSocketClosed as error:
            site.tell(error.websocket is request.websocket)
            raise

    assert site(view).handshake().status == 403
    assert all_told(site) == [True]


def test_call_when_the_view_has_ended_is_an_error(site: Site) -> None:
    @require_websocket
    def view(request):
        request.websocket.accept()
        site.tell(request.websocket)

    assert_ends(site(view).connect(), 1000)
    site.until_idle()
    with pytest.raises(RuntimeError, match="was called before, or the view has ended"):
        site.hear().stay_open()


async def asynchronous(*about: Any) -> None: ...


def generator(*about: Any) -> Iterator[None]:
    yield


async def asynchronous_generator(*about: Any) -> AsyncIterator[None]:
    yield


class AsynchronousCall:
    async def __call__(self, *about: Any) -> None: ...


class GeneratorCall:
    def __call__(self, *about: Any) -> Iterator[None]:
        yield


NO_FUNCTIONS = {
    "str": "no function",
    "async": asynchronous,
    "partial": functools.partial(asynchronous, 1),
    "generator": generator,
    "async generator": asynchronous_generator,
    "async call": AsynchronousCall(),
    "generator call": GeneratorCall(),
}


@pytest.mark.parametrize("which", ["received", "closed"])
@pytest.mark.parametrize("function", NO_FUNCTIONS.values(), ids=NO_FUNCTIONS)
def test_what_is_no_ordinary_function_is_a_type_error_before_the_101(
    site: Site, which: str, function: Any, caplog: pytest.LogCaptureFixture
) -> None:
    @require_websocket
    def view(request):
        return request.websocket.stay_open(**{which: function})

    assert site(view).handshake().status == 500
    assert f"{which} is an ordinary function, not" in str(caplog.records[0].exc_info[1])  # type: ignore[index]


# stay_open(): who is there


def test_connection_without_a_view_stands_among_the_connections_until_its_end(detached_site: Site) -> None:
    site = detached_site
    peer = site(staying(site)).connect("/here/")
    assert [info.path for info in connections()] == ["/here/"]
    until(lambda: not site.server.running, "the view to end")
    assert [info.path for info in connections()] == ["/here/"]
    assert peer.close() == Close(1000)
    site.until_idle()
    assert connections() == []
