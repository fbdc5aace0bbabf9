"""The decorators: what they take, what they give, and where that fits in."""

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.urls import path
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.csrf import csrf_exempt
from typing_extensions import assert_type

from dwebsocket import WebSocket, WebSocketRequest, accept_websocket, legacy, require_websocket, session_alive


@require_websocket
def talk(request: WebSocketRequest, room: str, *, loud: bool = False) -> None:
    assert_type(request.websocket, WebSocket)
    assert_type(request.is_websocket(), bool)
    assert_type(bool(request.is_websocket), bool)
    assert_type(request.path, str)


@accept_websocket
def talk_or_page(request: WebSocketRequest) -> HttpResponse | None:
    if not request.is_websocket():
        return HttpResponse("page")
    for message in request.websocket:
        request.websocket.send(message)
    return None


@require_websocket
def listens(request: WebSocketRequest) -> HttpResponse:
    return request.websocket.stay_open()


@accept_websocket(max_groups=1)
def listens_or_page(request: WebSocketRequest) -> HttpResponseBase:
    return request.websocket.stay_open() if request.is_websocket() else JsonResponse({})


@accept_websocket
def keeps_its_type(request: HttpRequest) -> JsonResponse:
    return JsonResponse({})


@accept_websocket(
    websocket_class=legacy.WebSocket,
    origins=["https://example.com"],
    require_origin=True,
    subprotocols=("chat.v2", "chat.v1"),
    detach=False,
    release_db=False,
    guard=[session_alive, "project.guards.is_member"],
    guard_interval=0.5,
    compression={"level": 1, "mem_level": 1, "server_max_window_bits": 9, "server_no_context_takeover": True},
    compression_min_size=0,
    max_message_size=None,
    streaming=True,
    receive_queue=1,
    max_groups=3,
    send_timeout=None,
    ping_interval=2.5,
    ping_timeout=None,
    close_timeout=1,
    idle_timeout=300,
)
def has_every_option(request: WebSocketRequest, number: int) -> None: ...


@require_websocket(origins=("*",), subprotocols=["chat"], compression=True, guard=session_alive, websocket_class="a.B")
def has_some_options(request: WebSocketRequest) -> HttpResponse | None: ...


@accept_websocket(idle_timeout=60)
def keeps_its_type_with_options(request: HttpRequest) -> JsonResponse:
    return JsonResponse({})


@login_required
@csrf_exempt
@require_websocket
def for_members(request: WebSocketRequest) -> None: ...


@method_decorator(accept_websocket, name="dispatch")
class Page(View):
    def get(self, request: WebSocketRequest) -> HttpResponse:
        return HttpResponse()


@method_decorator(require_websocket(max_message_size=100), name="dispatch")
class Talk(View):
    def get(self, request: WebSocketRequest) -> HttpResponse | None:
        return None


urlpatterns = [
    path("talk/<room>/", talk),
    path("talk-or-page/", talk_or_page, name="echo"),
    path("listens/", listens),
    path("listens-or-page/", listens_or_page),
    path("keeps-its-type/", keeps_its_type),
    path("has-every-option/<int:number>/", has_every_option),
    path("has-some-options/", has_some_options),
    path("members/", for_members),
    path("page/", Page.as_view()),
    path("talk/", Talk.as_view()),
    path("undecorated/", accept_websocket(talk_or_page)),
    path("given-options/", require_websocket(detach=False)(talk_or_page)),
]


def call(request: WebSocketRequest) -> None:
    assert_type(talk(request, "lobby", loud=True), HttpResponseBase)
    assert_type(talk_or_page(request), HttpResponseBase)
    assert_type(listens(request), HttpResponse)
    assert_type(keeps_its_type(request), JsonResponse)
    assert_type(has_every_option(request, number=1), HttpResponseBase)
    assert_type(has_some_options(request), HttpResponseBase)
    assert_type(keeps_its_type_with_options(request), JsonResponse)
    assert_type(for_members(request), HttpResponseBase)
