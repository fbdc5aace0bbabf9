"""Class-based views, and what annotates a view's request."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Generic

from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.views import View

from .conf import ViewOptions
from .decorators import accept_websocket, require_websocket
from .protocol.codes import CloseCode
from .protocol.messages import Message
from .upgrade.parking import can_park, events_of, talk
from .upgrade.request import Truth
from .websocket import Gap, GroupMessage, JoinableGroup, Joined, Overflow, Tick, Translate, WebSocket

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    WebSocketType = TypeVar("WebSocketType", bound=WebSocket, default=WebSocket)
else:
    from typing import TypeVar  # knows no default before Python 3.13

    WebSocketType = TypeVar("WebSocketType", bound=WebSocket)


class WebSocketRequest(HttpRequest, Generic[WebSocketType]):
    """The request of a view that may be a WebSocket, for annotations: `def chat(request: WebSocketRequest) -> None`.

    No request is an instance of it. `websocket` is None on plain HTTP, where `is_websocket` is false; it is not
    annotated so because every view that uses it has asked before, or takes nothing else. Where WEBSOCKET_CLASS is
    another class: `WebSocketRequest[ChatWebSocket]`.
    """

    is_websocket: Truth
    websocket: WebSocketType


class WebSocketView(View):
    """A class-based view that is told what happens on its WebSocket, and in the groups that it has joined.

    class Chat(LoginRequiredMixin, WebSocketView):
        def opened(self):
            self.send(f"hello {self.request.user}")

        def received(self, message):
            self.send(message)

    Mixins that refuse do so before the connection is open. A plain HTTP request is answered by `get()` and the other
    methods that Django calls; where the class has none of them, with 426. Exceptions are treated as those of any view:
    PermissionDenied closes with 4403, Http404 with 4404.

    Between two calls it is parked, if `parked` is true: it holds neither greenlet nor thread, and the next call may run
    in another one. Methods are called one at a time, in the context (language, time zone, URLconf) of the request.
    Attributes of `self` belong to the connection, a `threading.local` does not. Decorators and mixins around
    `dispatch()` end when `opened()` has returned. A database connection is given back after each call, and a
    transaction that a method leaves open is rolled back. A method that waits holds a greenlet, or one of
    WEBSOCKET_THREADS.
    """

    request: WebSocketRequest

    #: Whether it is parked between two calls: it holds no greenlet or thread then. Write False for a view whose methods
    #: wait for long, for one whose mixins must last as long as the connection, and for one with `release_db=False`.
    parked: ClassVar[bool] = True

    #: The options of `accept_websocket` for this view.
    websocket_options: ClassVar[ViewOptions] = {}

    @classmethod
    def as_view(cls, **initkwargs: Any) -> Callable[..., HttpResponseBase]:
        """The view for the URLconf.

        TypeError where a method that is called on the WebSocket is asynchronous or a generator, or has a name that is
        never called, where a mixin stands right of WebSocketView (it is never asked), and where `parked` is no bool.
        """
        _check_names(cls)
        _check_bases(cls)
        for method in (getattr(cls, hook) for hook in _HOOKS):
            if inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method):
                raise TypeError(f"{method.__qualname__} is asynchronous; here it is an ordinary method")
            if inspect.isgeneratorfunction(method):
                raise TypeError(f"{method.__qualname__} is a generator; self.send() sends a message, not yield")
        if not isinstance(parked := initkwargs.get("parked", cls.parked), bool):
            raise TypeError(f"{cls.__qualname__}.parked is {parked!r}: write True or False")
        serves_http = any(hasattr(cls, name) for name in cls.http_method_names if name != "options")
        decorate = accept_websocket if serves_http else require_websocket
        options: ViewOptions = initkwargs.get("websocket_options", cls.websocket_options)
        return decorate(**options)(super().as_view(**initkwargs))

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Answer plain HTTP. On a WebSocket, call `opened()` and be parked, or talk until the connection is over."""
        websocket = getattr(request, "websocket", None)
        if websocket is None:
            return super().dispatch(request, *args, **kwargs)
        websocket.accept()
        if self.parked and can_park(websocket):
            # Before opened(): if that raises, closed() is called.
            response: HttpResponseBase = websocket._opening.stay_open(_Methods(self))
            self._tell_opened()
            return response
        talk(websocket, self._opened_and_events(), _Methods(self))
        return HttpResponse()  # never sent, but decorators and mixins want to see one

    @property
    def websocket(self) -> WebSocket:
        """The WebSocket of this view; there is none on plain HTTP."""
        return self.request.websocket

    def opened(self) -> None:
        """The connection is open."""

    def received(self, message: Message) -> None:
        """A message has come: str for text, bytes for binary."""

    def group_message(self, message: GroupMessage) -> None:
        """A message has come from a group that this view has joined for itself (`forward=False`)."""

    def group_gap(self, gap: Gap) -> None:
        """Messages of such a group are missing: the backend could not be reached, or this view was too slow."""

    def closed(self, code: int, reason: str) -> None:
        """The connection is over; called once for each `opened()`, whatever has ended it."""

    def send(self, message: str | bytes | bytearray | memoryview) -> None:
        """Send a message, as `request.websocket.send()`."""
        self.request.websocket.send(message)

    def send_json(self, obj: Any) -> None:
        """Send a message as JSON, as `request.websocket.send_json()`."""
        self.websocket.send_json(obj)

    def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Close the connection; `closed()` is called when the method that does so has returned."""
        self.websocket.close(code, reason)

    def join(
        self,
        group: JoinableGroup,
        *,
        since: str | None = None,
        presence: Any = None,
        roster: bool = False,
        forward: bool | Translate | None = None,
        overflow: Overflow | None = None,
        timeout: float | None = None,
    ) -> Joined:
        """Get what is sent to `group`, as by `request.websocket.join()`.

        Where the class defines a method `group_message()`, that is called with each message, unless `forward`
        says otherwise; else the messages go straight to the peer. TypeError for `forward=False` where it has none.
        """
        if forward is None:
            forward = not self._takes_group_messages()
        if forward is False and not self._takes_group_messages():
            raise TypeError(f"forward=False calls group_message(), which {type(self).__qualname__} does not have")
        return self.websocket.join(
            group,
            since=since,
            presence=presence,
            roster=roster,
            forward=forward,
            overflow=overflow,
            timeout=timeout,
        )

    def leave(self, group: JoinableGroup) -> None:
        """Get nothing of `group` any more, as by `request.websocket.leave()`."""
        self.websocket.leave(group)

    @property
    def groups(self) -> frozenset[str]:
        """The names of the groups that the WebSocket is in."""
        return self.websocket.groups

    def events(self, every: float | None = None) -> Iterator[Message | GroupMessage | Gap | Tick]:
        """Everything that happens, as by `request.websocket.events()`: for a method that takes it from there."""
        return self.websocket.events(every)

    def _opened_and_events(self) -> Iterator[Any]:
        self._tell_opened()
        yield from events_of(self.websocket)

    def _tell_opened(self) -> None:
        opened: Callable[[], object] = self.opened
        if isinstance(opened(), HttpResponseBase):  # that of a view that means to refuse
            raise TypeError(
                "opened() has returned a response, which is never sent: raise PermissionDenied, or call self.close()"
            )

    def _group_event(self, event: GroupMessage | Gap) -> None:
        if isinstance(event, GroupMessage):
            self.group_message(event)
        else:
            self.group_gap(event)

    @classmethod
    def _takes_group_messages(cls) -> bool:
        return cls.group_message is not WebSocketView.group_message or cls.group_gap is not WebSocketView.group_gap


class _Methods:
    """The methods of a view that stays open, each bound when it is called: 40 bytes, not 64 for each."""

    __slots__ = ("_view",)

    def __init__(self, view: WebSocketView) -> None:
        self._view = view

    @property
    def received(self) -> Callable[[Any], None]:
        return self._view.received

    @property
    def closed(self) -> Callable[[int, str], None]:
        return self._view.closed

    @property
    def group_event(self) -> Callable[[Any], None]:
        return self._view._group_event


#: The hooks, and what the consumers of Channels and the WebSocket of a browser call the same.
_HOOKS = {
    "opened": ("connect", "websocket_connect", "on_connect", "on_open", "onopen"),
    "received": ("receive", "receive_json", "websocket_receive", "on_receive", "on_message", "onmessage"),
    "group_message": ("group_messages", "groupmessage", "on_group_message", "group_msg", "group_received"),
    "group_gap": ("group_gaps", "on_group_gap", "on_gap", "gap"),
    "closed": ("disconnect", "websocket_disconnect", "on_disconnect", "on_close", "onclose"),
}
_MEANT = {name: hook for hook, names in _HOOKS.items() for name in names}


def _check_names(cls: type[WebSocketView]) -> None:
    """TypeError for a method whose name says that it wants to be called on the WebSocket, and that never is.

    Only classes that are WebSocketViews are judged: a mixin of another kind may have another method `connect`.
    """
    for kind in cls.__mro__[: cls.__mro__.index(WebSocketView)]:
        if issubclass(kind, WebSocketView):
            for name in vars(kind):
                hook = _hook_meant_by(name)
                if hook is not None and inspect.isfunction(vars(kind)[name]):
                    raise TypeError(
                        f"{kind.__qualname__}.{name} is never called: did you mean {hook}?"
                        " (A method for your own use: give it another name, or let it come from a mixin.)"
                    )


def _check_bases(cls: type[WebSocketView]) -> None:
    """TypeError for a mixin whose `dispatch()` is never called on the WebSocket: it may be the one that refuses."""
    for kind in cls.__mro__[cls.__mro__.index(WebSocketView) + 1 :]:
        if kind is not View and "dispatch" in vars(kind):
            raise TypeError(
                f"{kind.__qualname__} has no effect on the WebSockets of {cls.__qualname__}, for it stands right of"
                f" WebSocketView in the bases: write class {cls.__name__}({kind.__name__}, WebSocketView)"
            )


def _hook_meant_by(name: str) -> str | None:
    """The hook that a method of that name may be meant for; None for the hooks themselves and for other names."""
    if hasattr(WebSocketView, name):
        return None
    return _MEANT.get(name) or next((hook for hook in _HOOKS if _is_misspelt(name, hook)), None)


def _is_misspelt(name: str, hook: str) -> bool:
    """Whether letters have changed their places, or one is missing or doubled; not `receiver`, nor `closed_at`."""
    written = name.lower().removeprefix("on_")
    missing = {hook[:at] + hook[at + 1 :] for at in range(len(hook))}
    doubled = {hook[:at] + hook[at] + hook[at:] for at in range(len(hook))}
    return sorted(written) == sorted(hook) or written in missing | doubled
