"""Class-based views: what they are told, and in which order, whatever ends the connection."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import gevent
import pytest
from django.contrib.auth.mixins import LoginRequiredMixin, PermissionRequiredMixin, UserPassesTestMixin
from django.contrib.auth.models import AnonymousUser, User
from django.core.exceptions import PermissionDenied
from django.db import connections
from django.http import Http404, HttpResponse
from django.urls import path
from django.utils.decorators import method_decorator
from django.views.decorators.cache import never_cache
from django.views.generic import TemplateView

from dwebsocket import CloseCode, Gap, GroupMessage, Tick, WebSocketView, shutdown
from dwebsocket.groups import process
from dwebsocket.process.registry import registry
from tests.groups.helpers import new_room
from tests.helpers import levels
from tests.links import assert_ends
from tests.peer import Close, Peer
from tests.sites import Site, Teller, all_told


def ended(peer: Peer) -> Close:
    """The Close frame that comes next; it is answered, and both hang up."""
    close = peer.recv_message()
    assert isinstance(close, Close), close
    peer.send_close()
    peer.read_to_eof()
    peer.abandon()
    return close


def leave(peer: Peer, code: int = 1000, reason: str = "") -> None:
    peer.close(code, reason)
    peer.read_to_eof()
    peer.abandon()


@pytest.fixture
def _reopened() -> Iterator[None]:
    """A process ends once; here it begins anew."""
    yield
    registry.forget()


# What it is told


def test_view_is_told_of_the_opening_of_every_message_and_of_the_end(site: Site) -> None:
    peer = site(Teller.as_view(site=site)).connect()
    for message in ("text", b"binary", ""):
        peer.send_message(message)
    leave(peer, 4001, "bye")
    assert all_told(site) == ["opened", "text", b"binary", "", (4001, "bye")]


def test_view_that_overrides_nothing_listens_until_the_peer_closes(site: Site) -> None:
    peer = site(WebSocketView.as_view()).connect()
    peer.send_message("to nobody")
    assert peer.close() == Close(1000)


def test_view_sends_text_binary_and_json_and_closes(site: Site) -> None:
    class View(WebSocketView):
        def opened(self) -> None:
            self.send("text")
            self.send(b"binary")
            self.send_json({"room": 7})
            self.close(4002, "done")
            site.tell("closed() has not been called yet")

        def closed(self, code: int, reason: str) -> None:
            site.tell((code, reason))

    peer = site(View.as_view()).connect()
    assert [peer.recv_message() for _ in range(3)] == ["text", b"binary", '{"room": 7}']
    assert_ends(peer, 4002, "done")
    assert all_told(site) == ["closed() has not been called yet", (4002, "done")]


def test_close_without_a_code_is_a_normal_one(site: Site) -> None:
    class View(Teller):
        def received(self, message: str | bytes) -> None:
            self.close()

    peer = site(View.as_view(site=site)).connect()
    peer.send_message("go")
    assert ended(peer) == Close(1000)
    assert all_told(site) == ["opened", (1000, "")]


def test_message_that_was_sent_before_the_view_closed_is_not_received_after_it(site: Site) -> None:
    class View(Teller):
        def received(self, message: str | bytes) -> None:
            super().received(message)
            self.close()

    peer = site(View.as_view(site=site)).connect()
    for message in ("first", "second"):
        peer.send_message(message)
    assert ended(peer) == Close(1000)
    assert all_told(site) == ["opened", "first", (1000, "")]


def test_two_connections_have_two_instances(site: Site) -> None:
    class Counter(WebSocketView):
        count = 0

        def received(self, message: str | bytes) -> None:
            self.count += 1
            self.send(str(self.count))

    site(Counter.as_view())
    for peer in (first := site.connect(), site.connect(), first):
        peer.send_message("count")
    assert [first.recv_message(), first.recv_message()] == ["1", "2"]
    assert leave(first) is None


def test_legacy_websocket_has_no_final_none(site: Site) -> None:
    site(Teller.as_view(site=site), WEBSOCKET_CLASS="dwebsocket.legacy.WebSocket")
    peer = site.connect()
    peer.send_message("hello")
    leave(peer)
    assert all_told(site) == ["opened", b"hello", (1000, "")]


# The end: closed() is called once, with what the peer is told


def raiser(error: BaseException) -> Callable[..., None]:
    def method(self: Any, *arguments: Any) -> None:
        raise error

    return method


@pytest.mark.parametrize("where", ["opened", "received"])
@pytest.mark.parametrize(
    ("error", "close", "level"),
    [
        (RuntimeError("broken"), Close(1011), "ERROR"),
        (PermissionDenied(), Close(4403, "Forbidden"), "WARNING"),
        (Http404(), Close(4404, "Not Found"), "WARNING"),
        (gevent.Timeout(5), Close(1011), "ERROR"),  # a BaseException that stops nobody
    ],
    ids=["fault", "forbidden", "404", "timeout"],
)
def test_exception_closes_as_that_of_any_view(
    site: Site, where: str, error: BaseException, close: Close, level: str, caplog: pytest.LogCaptureFixture
) -> None:
    view = type("View", (Teller,), {where: raiser(error)})
    peer = site(view.as_view(site=site)).connect()
    peer.send_message("hello")
    assert ended(peer) == close
    assert all_told(site) == [*(["opened"] if where == "received" else []), tuple(close)]
    assert levels(caplog) == [("django.request", level)]


def test_exception_in_closed_is_reported_and_closed_is_not_called_again(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    class View(Teller):
        def closed(self, code: int, reason: str) -> None:
            super().closed(code, reason)
            raise RuntimeError("in closed()")

    peer = site(View.as_view(site=site)).connect()
    leave(peer, 4001)
    assert all_told(site) == ["opened", (4001, "")]
    assert levels(caplog) == [("django.request", "ERROR")]


def test_server_that_stops_the_view_closes_with_1001(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    stop = gevent.GreenletExit if site.server.name == "pywsgi" else SystemExit
    view = type("View", (Teller,), {"received": raiser(stop())})
    peer = site(view.as_view(site=site)).connect()
    peer.send_message("stop")
    assert ended(peer) == Close(1001)
    assert all_told(site) == ["opened", (1001, "")]
    assert levels(caplog) == []
    if site.mode == "attached":  # the server's own way out, and its business
        site.server.errors.clear()


@pytest.mark.usefixtures("_reopened")
def test_process_that_ends_closes_with_1012(site: Site) -> None:
    peer = site(Teller.as_view(site=site)).connect()
    assert site.hear() == "opened"
    site.tell(shutdown(seconds=0.01))
    assert ended(peer) == Close(1012)
    assert sorted(all_told(site), key=str) == [(1012, ""), None]


@pytest.mark.parametrize("leaves", ["abandon", "reset"])
def test_peer_that_vanishes_closes_with_1006(site: Site, leaves: str) -> None:
    peer = site(Teller.as_view(site=site)).connect()
    getattr(peer, leaves)()
    opened, (code, _reason) = all_told(site)
    assert (opened, code) == ("opened", 1006)


def test_send_to_a_peer_that_has_left_ends_the_view_quietly(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    class View(Teller):
        def received(self, message: str | bytes) -> None:
            while True:
                self.send("tick")
                site.pause(0.005)

        def closed(self, code: int, reason: str) -> None:
            super().closed(code, reason)
            self.send("are you still there?")

    peer = site(View.as_view(site=site), WEBSOCKET_CLOSE_TIMEOUT=0.2).connect()
    peer.send_message("go")
    assert peer.recv_message() == "tick"
    leave(peer, 4001)
    assert all_told(site) == ["opened", (4001, "")]
    assert levels(caplog) == []


def test_code_is_that_of_the_close_frame_even_where_it_had_none(site: Site) -> None:
    peer = site(Teller.as_view(site=site)).connect()
    peer.send_frame(8)
    peer.read_to_eof()
    peer.abandon()
    assert all_told(site) == ["opened", (CloseCode.NO_STATUS_RCVD, "")]


# Before the 101


class OnlyUsers(LoginRequiredMixin, Teller):
    pass


class OnlyStaff(PermissionRequiredMixin, Teller):
    permission_required = "auth.view_user"


class OnlyAda(UserPassesTestMixin, Teller):
    raise_exception = True

    def test_func(self) -> bool:
        return self.request.user.get_username() == "ada"


def log_in(get_response: Any) -> Any:
    """Middleware: whoever says a name is that user."""

    def call(request: Any) -> Any:
        name = request.META.get("HTTP_X_USER")
        request.user = User(username=name, is_superuser=name == "ada") if name else AnonymousUser()
        return get_response(request)

    return call


@pytest.mark.parametrize(
    ("view", "user", "status"),
    [
        (OnlyUsers, None, 302),
        (OnlyUsers, "bob", 101),
        (OnlyStaff, None, 302),
        (OnlyStaff, "ada", 101),
        (OnlyAda, None, 403),
        (OnlyAda, "bob", 403),
        (OnlyAda, "ada", 101),
    ],
)
def test_mixins_refuse_before_the_connection_is_open(
    site: Site, view: Any, user: str | None, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    site(view.as_view(site=site), MIDDLEWARE=[f"{__name__}.log_in"])
    with site.peer() as peer:
        assert peer.handshake("/", {"X-User": user}).status == status
        if status == 101:
            leave(peer)
    assert all_told(site) == (["opened", (1000, "")] if status == 101 else [])


# Plain HTTP


class Page(Teller):
    def get(self, request: Any) -> HttpResponse:
        return HttpResponse("page")


def test_plain_http_is_answered_by_get(site: Site) -> None:
    site(Page.as_view(site=site))
    assert site.get().body == b"page"
    leave(site.connect())
    assert all_told(site) == ["opened", (1000, "")]


def test_plain_http_is_answered_by_the_get_of_a_mixin(site: Site) -> None:
    class View(WebSocketView, TemplateView):
        def render_to_response(self, context: Any, **kwargs: Any) -> Any:
            return HttpResponse("template")

    assert site(View.as_view(template_name="x.html")).get().body == b"template"
    assert site.connect().close() == Close(1000)


def test_plain_http_is_answered_with_426_where_no_method_serves_it(site: Site) -> None:
    assert site(Teller.as_view(site=site)).get().status == 426
    assert all_told(site) == []


def test_method_that_the_view_does_not_have_is_405_where_it_has_another(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    class View(WebSocketView):
        def post(self, request: Any) -> HttpResponse:
            return HttpResponse("posted")

    assert site(View.as_view()).get().status == 405
    assert site.connect().close() == Close(1000)


# as_view()


def test_arguments_of_the_url_and_of_as_view_are_attributes(site: Site) -> None:
    class View(WebSocketView):
        greeting = "hello"

        def opened(self) -> None:
            self.send(f"{self.greeting} {self.kwargs['room']} {self.request.GET['q']}")

    site(path("rooms/<int:room>/", View.as_view(greeting="welcome to")))
    assert site.connect("/rooms/7/?q=x").recv_message() == "welcome to 7 x"


def test_argument_of_as_view_that_the_view_does_not_have_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="invalid keyword 'nonsense'"):
        WebSocketView.as_view(nonsense=True)


class Subprotocol(WebSocketView):
    websocket_options = {"subprotocols": ["chat.v1"]}  # noqa: RUF012  # as a project writes it


@pytest.mark.parametrize(
    ("view", "chosen"),
    [
        (WebSocketView.as_view(), None),
        (Subprotocol.as_view(), "chat.v1"),
        (Subprotocol.as_view(websocket_options={"subprotocols": ["chat.v2"]}), "chat.v2"),
    ],
    ids=["none", "class", "as_view"],
)
def test_options_hold_for_the_view(site: Site, view: Any, chosen: str | None) -> None:
    with site(view).peer() as peer:
        response = peer.handshake("/", {"Sec-WebSocket-Protocol": "chat.v1, chat.v2"})
        assert response.headers.get("sec-websocket-protocol") == chosen


def test_option_that_there_is_not_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="nonsense"):
        WebSocketView.as_view(websocket_options={"nonsense": 1})


@pytest.mark.parametrize("name", ["opened", "received", "closed"])
def test_asynchronous_method_is_a_type_error_that_names_it(name: str) -> None:
    async def method(self: Any, *arguments: Any) -> None: ...

    with pytest.raises(TypeError, match="is asynchronous"):
        type("View", (WebSocketView,), {name: method}).as_view()


@pytest.mark.parametrize("name", ["opened", "received", "group_message", "group_gap", "closed"])
def test_method_that_is_a_generator_is_a_type_error_that_names_it(name: str) -> None:
    def method(self: Any, *arguments: Any) -> Iterator[None]:
        yield

    with pytest.raises(TypeError, match="is a generator; self"):
        type("View", (WebSocketView,), {name: method}).as_view()


@pytest.mark.parametrize("how", ["class", "as_view"])
def test_parked_that_is_no_bool_is_a_type_error_that_says_what_to_write(how: str) -> None:
    view: Any = type("View", (WebSocketView,), {"parked": "no"} if how == "class" else {})
    with pytest.raises(TypeError, match="parked is 'no': write True or False"):
        view.as_view(**({} if how == "class" else {"parked": "no"}))


@pytest.mark.parametrize("parks", [True, False], ids=["parked", "waits"])
def test_response_that_opened_returns_closes_and_is_told(
    site: Site, parks: bool, caplog: pytest.LogCaptureFixture
) -> None:
    class View(Teller):
        parked = parks

        def opened(self) -> Any:
            return HttpResponse(status=403)

    assert ended(site(View.as_view(site=site)).connect()) == Close(1011)
    assert all_told(site) == [(1011, "")]
    assert "raise PermissionDenied, or call self.close()" in caplog.text


# Decorators


def test_decorator_of_dispatch_sees_a_response_on_websocket_and_on_plain_http(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    @method_decorator(never_cache, name="dispatch")
    class View(Page):
        pass

    site(View.as_view(site=site))
    assert "no-store" in site.get().headers["cache-control"]
    leave(site.connect(), 4001)
    assert all_told(site) == ["opened", (4001, "")]
    assert levels(caplog) == []


def test_view_keeps_what_decorators_say_of_it() -> None:
    view: Any = method_decorator(never_cache, name="dispatch")(Page).as_view()
    assert view.view_class is Page
    assert view.accepts_websocket


def test_atomic_requests_holds_for_plain_http_alone(site: Site, tmp_path: Path) -> None:
    alias = str(tmp_path)
    atomic = {**connections.settings["default"], "NAME": tmp_path / "db.sqlite3", "ATOMIC_REQUESTS": True}

    class View(WebSocketView):
        def get(self, request: Any) -> HttpResponse:
            return HttpResponse(f"{connections[alias].in_atomic_block}")

        def opened(self) -> None:
            self.send(f"{connections[alias].in_atomic_block}")

    with mock.patch.dict(connections.settings, {alias: atomic}):
        assert site(View.as_view()).get().body == b"True"
        peer = site.connect()
        assert peer.recv_message() == "False"
        leave(peer)
        site.until_idle()


@pytest.mark.parametrize(
    ("name", "hook"),
    [
        *[(name, "opened") for name in ("connect", "websocket_connect", "on_open", "opend", "openned", "Opened")],
        *[(name, "group_message") for name in ("group_mesage", "on_group_message", "group_messages", "group_msg")],
        *[(name, "group_gap") for name in ("on_gap", "group_gp", "on_group_gap")],
        *[(name, "received") for name in ("receive", "websocket_receive", "receive_json", "on_message", "recieved")],
        *[(name, "received") for name in ("recived", "recevied", "receivedd", "on_received")],
        *[(name, "closed") for name in ("disconnect", "websocket_disconnect", "on_close", "clsoed", "on_closed")],
    ],
)
def test_method_that_is_never_called_is_a_type_error_that_suggests_what_is_meant(name: str, hook: str) -> None:
    base = type("Base", (WebSocketView,), {name: lambda self, *arguments: None})
    for view in (base, type("View", (base,), {})):
        with pytest.raises(TypeError, match=rf"^Base\.{name} is never called: did you mean {hook}\?"):
            view.as_view()


@pytest.mark.parametrize("mixin", [LoginRequiredMixin, PermissionRequiredMixin, UserPassesTestMixin])
def test_mixin_that_is_never_asked_is_a_type_error_that_says_where_it_belongs(mixin: type) -> None:
    base = type("Base", (WebSocketView, mixin), {})
    for view in (base, type("Base", (base,), {})):
        with pytest.raises(TypeError, match=rf"bases: write class Base\({mixin.__name__}, WebSocketView\)$"):
            view.as_view()
    assert type("View", (mixin, WebSocketView), {}).as_view()


class Broker:
    """A mixin that is no view, and has methods of its own by these names."""

    def connect(self) -> None: ...

    def disconnect(self) -> None: ...


def test_other_methods_and_attributes_of_a_view_are_its_own_business() -> None:
    names = [
        "receiver", "is_closed", "closed_at", "reopened", "close_all", "send", "close", "setup", "dispatch", "options",
        "get_context_data", "post", "delete", "head", "http_method_not_allowed", "message", "open", "connected",
        "handle_no_permission", "_receive", "test_func", "enclosed", "deceived",
    ]  # fmt: skip
    methods = {name: lambda self, *arguments: None for name in names}
    assert type("View", (LoginRequiredMixin, WebSocketView, TemplateView), methods).as_view()
    assert type("View", (Broker, WebSocketView), {"connect_timeout": 5, "receive": True}).as_view()


def test_method_that_was_told_of_the_end_itself_ends_the_view_as_ever(site: Site) -> None:
    returned = []

    class Asking(Teller):
        def received(self, message: str | bytes) -> None:
            self.site.tell([message, self.websocket.wait()])

        def dispatch(self, request: Any, *args: Any, **kwargs: Any) -> Any:
            returned.append(super().dispatch(request, *args, **kwargs).status_code)
            return HttpResponse()

    with site(Asking.as_view(site=site)).connect() as peer:
        peer.send_message("one")
        peer.close(4001, "bye")
        assert all_told(site) == ["opened", ["one", None], (4001, "bye")]
        assert returned == [200]


# Groups


class Room(Teller):
    """A view that joins a group, as its class variables say."""

    joins: Any = None

    def opened(self) -> None:
        self.join(self.joins)
        self.send("joined")
        self.site.tell(self.groups)

    def received(self, message: str | bytes) -> None:
        if message == "leave":
            self.leave(self.joins)
            self.send("left")
        else:
            super().received(message)


class Listener(Room):
    """One that takes the messages of its group."""

    def group_message(self, message: GroupMessage) -> None:
        self.site.tell(message)

    def group_gap(self, gap: Gap) -> None:
        self.site.tell(gap)


def test_view_that_does_not_take_the_messages_of_its_group_leaves_them_to_the_peer(site: Site) -> None:
    room = new_room()
    peer = site(Room.as_view(site=site, joins=room)).connect()
    assert peer.recv_message() == "joined"
    room.send("hello")
    assert peer.recv_message() == "hello"
    peer.send_message("leave")
    assert peer.recv_message() == "left"
    room.send("too late")
    leave(peer, 4001, "bye")
    assert all_told(site) == [{room.name}, (4001, "bye")]


def test_view_that_takes_them_is_told_of_each_and_of_all_else(site: Site) -> None:
    room = new_room()
    peer = site(Listener.as_view(site=site, joins=room)).connect()
    assert peer.recv_message() == "joined"
    assert site.hear() == {room.name}
    room.send("hello")
    assert site.hear() == GroupMessage(room.name, "hello")
    peer.send_message("of the peer")
    assert site.hear() == "of the peer"
    process.dispatcher("default").lost("the test says so")
    process.dispatcher("default").watching([room.name])
    process.dispatcher("default").restored()
    assert site.hear() == Gap(room.name)
    leave(peer, 4001, "bye")
    assert all_told(site) == [(4001, "bye")]


def test_view_that_takes_gaps_alone_takes_the_messages_too(site: Site) -> None:
    room = new_room()

    class View(Room):
        def group_gap(self, gap: Gap) -> None:
            site.tell(gap)

    peer = site(View.as_view(site=site, joins=room)).connect()
    assert peer.recv_message() == "joined"
    room.send("for the view")
    leave(peer)
    assert all_told(site) == [{room.name}, (1000, "")]


def test_forward_says_otherwise(site: Site) -> None:
    room, other = new_room(), new_room()

    class View(Listener):
        def opened(self) -> None:
            self.join(other, forward=lambda message: f"translated {message.data!s}", overflow="latest", timeout=1)
            super().opened()

    peer = site(View.as_view(site=site, joins=room)).connect()
    assert peer.recv_message() == "joined"
    assert site.hear() == {room.name, other.name}
    other.send("a")
    assert peer.recv_message() == "translated a"
    room.send("b")
    assert site.hear() == GroupMessage(room.name, "b")
    leave(peer)


def test_messages_that_no_method_would_take_are_a_mistake(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    class View(Room):
        def opened(self) -> None:
            with pytest.raises(TypeError, match=r"calls group_message\(\), which .*View does not have$"):
                self.join(self.joins, forward=False)
            super().opened()

    peer = site(View.as_view(site=site, joins=new_room())).connect()
    assert peer.recv_message() == "joined"
    leave(peer)


def test_method_that_takes_events_from_there_has_them_all(site: Site) -> None:
    room = new_room()

    class View(Listener):
        def received(self, message: str | bytes) -> None:
            for event in self.events(every=0.01):
                site.tell(event)
                if isinstance(event, GroupMessage):
                    break

    peer = site(View.as_view(site=site, joins=room)).connect()
    assert peer.recv_message() == "joined"
    assert site.hear() == {room.name}
    peer.send_message("go")
    assert site.hear() == Tick(1)
    room.send("hello")
    while isinstance(event := site.hear(), Tick):
        pass
    assert event == GroupMessage(room.name, "hello")
    leave(peer)


def test_exception_of_a_method_for_groups_closes_as_any_other(site: Site) -> None:
    room = new_room()

    class View(Listener):
        def group_message(self, message: GroupMessage) -> None:
            raise PermissionDenied

    peer = site(View.as_view(site=site, joins=room)).connect()
    assert peer.recv_message() == "joined"
    room.send("hello")
    assert ended(peer).code == 4403
    assert all_told(site)[1][0] == 4403


def test_view_closes_itself_from_a_message_of_its_group(site: Site) -> None:
    room = new_room()

    class View(Listener):
        def group_message(self, message: GroupMessage) -> None:
            self.close(4000, "told to")

    peer = site(View.as_view(site=site, joins=room)).connect()
    assert peer.recv_message() == "joined"
    room.send("1")
    assert ended(peer) == Close(4000, "told to")
    assert all_told(site) == [{room.name}, (4000, "told to")]


@pytest.mark.parametrize("method", ["group_message", "group_gap"])
def test_method_for_groups_is_no_coroutine(method: str) -> None:
    async def called(self: Any, event: Any) -> None: ...

    with pytest.raises(TypeError, match="is asynchronous"):
        type("View", (WebSocketView,), {method: called}).as_view()
