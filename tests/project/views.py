"""The views that the tests with real servers talk to. ``?note=NAME`` names the file a view leaves a note in."""

import gc
import os
import sys
import threading
import time
from contextlib import suppress

from django.conf import settings
from django.contrib.auth import login
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import Group, User
from django.core.exceptions import PermissionDenied
from django.db import connection, transaction
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.utils.decorators import method_decorator
from django.views import View

import dwebsocket
from dwebsocket import WebSocketClosed, WebSocketView, accept_websocket, require_websocket
from dwebsocket.connection.connection import Connection
from dwebsocket.process.registry import registry

MIB = 1 << 20
PATIENCE_SECONDS = 20


def leave_note(request: HttpRequest, text: str) -> None:
    """Append a line to the file that the request names, for a test that waits for it."""
    if name := request.GET.get("note"):
        with open(settings.NOTES / name, "a") as notes:
            notes.write(text + "\n")


def sleep_until_woken(request: HttpRequest) -> None:
    """Return when the test has made the file ``NAME.wake``, without touching the WebSocket meanwhile."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (settings.NOTES / f"{request.GET['note']}.wake").exists():
        assert time.monotonic() < deadline, "nobody woke the view"
        time.sleep(0.01)


# Plain HTTP


def plain(request):
    return HttpResponse("plain", content_type="text/plain")


def pid(request):
    return HttpResponse(str(os.getpid()))


def shutdown(request):
    """Do what the end of the process would do, and go on."""
    threading.Thread(target=dwebsocket.shutdown).start()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not registry.is_ending:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return HttpResponse("ending")


def census(request):
    """How much of everything this process has that a connection could leave behind."""
    gc.collect()
    greenlet = sys.modules.get("greenlet")
    return JsonResponse(
        {
            "threads": threading.active_count(),
            "greenlets": sum(isinstance(thing, greenlet.greenlet) for thing in gc.get_objects()) if greenlet else 0,
            "connections": sum(isinstance(thing, Connection) for thing in gc.get_objects()),
        }
    )


@accept_websocket
def session(request):
    """Over HTTP: keep ``?colour=`` in the session. Over a WebSocket: send it back."""
    if request.is_websocket():
        request.websocket.send(request.session.get("colour", "none"))
        return None
    request.session["colour"] = request.GET["colour"]
    return HttpResponse("kept")


# Echoes


@accept_websocket
def echo(request):
    if not request.is_websocket():
        return HttpResponse("echo over HTTP")
    try:
        for message in request.websocket:
            request.websocket.send(message)
    finally:
        leave_note(request, "finally")


@require_websocket
def greet(request):
    """Say hello, and wait for nothing in particular."""
    try:
        request.websocket.send("hello")
        request.websocket.wait()
    finally:
        leave_note(request, "finally")


@require_websocket
def echo_once(request):
    message = request.websocket.wait()
    request.websocket.send(message)


@require_websocket
def echo_by_read(request):
    websocket = request.websocket
    while not websocket.closed:
        if websocket.has_messages():
            websocket.send(websocket.read())
        else:
            time.sleep(0.005)


@require_websocket(max_message_size=16 * MIB)
def echo_big(request):
    for message in request.websocket:
        request.websocket.send(message)


@require_websocket(detach=False)
def echo_attached(request):
    for message in request.websocket:
        request.websocket.send(message)


@method_decorator(accept_websocket, name="dispatch")
class EchoByClass(View):
    def get(self, request):
        if not request.is_websocket:
            return HttpResponse("echo over HTTP")
        for message in request.websocket:
            request.websocket.send(message)


class Parked(WebSocketView):
    """An echo in turns, which does what some messages say."""

    def received(self, message):
        if message == "sleep":
            self.send("asleep")
            sleep_until_woken(self.request)
            self.send("awake")
        elif message == "wait":
            self.send(f"waited for {self.websocket.wait()}")
        elif message == "raise":
            raise RuntimeError("the method has failed")
        elif message == "fork":
            if not (child := os.fork()):
                sys.exit()
            self.send(f"child: {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}")
        else:
            self.send(message)

    def closed(self, code, reason):
        leave_note(self.request, str(code))


class OwnThread(Parked):
    parked = False


@require_websocket
def stays(request):
    """An echo without a view."""
    return request.websocket.stay_open(
        received=request.websocket.send,
        closed=lambda code, reason: leave_note(request, str(code)),
    )


def undecorated(request):
    if not request.is_websocket:
        return HttpResponse("echo over HTTP")
    for message in request.websocket:
        request.websocket.send(message)


# Verbs


@require_websocket
def count(request):
    """Once three messages wait: send how many there are, then each of them, then what ``read`` falls back to."""
    websocket = request.websocket
    deadline = time.monotonic() + PATIENCE_SECONDS
    while websocket.count_messages() < 3 and time.monotonic() < deadline:
        time.sleep(0.005)
    websocket.send(str(websocket.count_messages()))
    while websocket.has_messages():
        websocket.send(websocket.read())
    websocket.send(websocket.read("nothing"))


@require_websocket
def json(request):
    request.websocket.send_json({"got": request.websocket.wait_json()})


@require_websocket
def wait_a_moment(request):
    message = request.websocket.wait(timeout=0.05)
    request.websocket.send(f"{message} {request.websocket.closed}")
    for message in request.websocket:
        request.websocket.send(message)


@require_websocket(subprotocols=["chat.v2", "chat.v1"])
def subprotocol(request):
    request.websocket.accept()
    request.websocket.send(str(request.websocket.subprotocol))


@require_websocket
def database(request):
    for message in request.websocket:
        with connection.cursor() as cursor:
            cursor.execute("SELECT UPPER(%s)", [message])
            request.websocket.send(cursor.fetchone()[0])


# Endings


@require_websocket
def unused(request):
    return None


@require_websocket
def accept_only(request):
    request.websocket.accept(headers={"X-Greeting": "hello"})


@require_websocket
def close(request):
    """Wait for one message, then close with ``?code=`` and ``?reason=``."""
    request.websocket.wait()
    request.websocket.close(int(request.GET["code"]), request.GET.get("reason", ""))
    leave_note(request, f"{request.websocket.closed} {request.websocket.close_code}")


# Views that do not wait for messages


@require_websocket(streaming=True)
def swallow(request):
    """Say how long each message was, whatever its size."""
    while not request.websocket.closed:
        request.websocket.send(str(sum(map(len, request.websocket.receive_chunks()))))


@require_websocket
def pour(request):
    """One message of `?mib=` chunks of that size."""
    request.websocket.send_chunks(bytes(MIB) for _ in range(int(request.GET["mib"])))


@require_websocket
def push(request):
    for number in range(int(request.GET["count"])):
        request.websocket.send(str(number))


@require_websocket
def push_for_ever(request):
    try:
        while True:
            request.websocket.send("tick")
            time.sleep(0.02)
    finally:
        leave_note(request, "finally")


@require_websocket(send_timeout=0.5, close_timeout=0.5)
def flood(request):
    try:
        while True:
            request.websocket.send(bytes(1 << 16))
    finally:
        leave_note(request, "finally")


THREADS, MESSAGES_EACH = 8, 50


def message_of(thread: int, number: int) -> str:
    """A message whose every character says which thread sent it, from a few bytes to some frames' worth of segments."""
    return f"{thread} {number} " + chr(ord("a") + thread) * (thread * number * 37)


@require_websocket
def threads(request):
    request.websocket.accept()

    def send_all(thread):
        for number in range(MESSAGES_EACH):
            request.websocket.send(message_of(thread, number))

    senders = [threading.Thread(target=send_all, args=[thread]) for thread in range(THREADS)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()


@require_websocket(detach=False, close_timeout=0.3)
def ends_before_its_thread(request):
    """End while a thread of our own sends to a peer that does not read."""
    request.websocket.accept()

    def send():
        with suppress(WebSocketClosed):
            while True:
                request.websocket.send(bytes(1 << 16))

    threading.Thread(target=send, daemon=True).start()
    time.sleep(0.2)


@require_websocket
def sleepy(request):
    try:
        request.websocket.send("asleep")
        sleep_until_woken(request)
        request.websocket.send("awake")
    finally:
        leave_note(request, "finally")


@require_websocket
def watch_closed(request):
    """Never read; leave a note once ``closed`` is true."""
    request.websocket.accept()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not request.websocket.closed and time.monotonic() < deadline:
        time.sleep(0.005)
    leave_note(request, f"{request.websocket.closed} {request.websocket.close_code}")


@require_websocket(ping_interval=0.2, ping_timeout=1, close_timeout=0.5)
def pinged(request):
    try:
        for message in request.websocket:
            request.websocket.send(message)
    finally:
        leave_note(request, "finally")


@require_websocket(ping_interval=0.1)
def ponged(request):
    """Say so when the client has answered a ping."""
    websocket = request.websocket
    websocket.accept()
    while websocket.latency is None and not websocket.closed:
        time.sleep(0.01)
    websocket.send("answered")


@require_websocket(ping_interval=0.2, ping_timeout=1, close_timeout=0.5)
def pinged_asleep(request):
    request.websocket.accept()
    sleep_until_woken(request)


# Errors and refusals


@require_websocket
def raise_before(request):
    raise RuntimeError("before the accept")


@require_websocket
def raise_after(request):
    request.websocket.send("accepted")
    raise RuntimeError("after the accept")


@require_websocket
def refuse_custom(request):
    return HttpResponse("no seat left", status=402, headers={"X-Seats": "0"})


@require_websocket
def refuse_not_found(request):
    raise Http404("no such room")


@require_websocket
def refuse_forbidden(request):
    raise PermissionDenied("not for you")


@login_required
@require_websocket
def refuse_login(request):
    request.websocket.send("secret")


@require_websocket
def refuse_close(request):
    request.websocket.close()


# Hostile peers (tests/real/test_hostile.py)


@require_websocket(ping_interval=0.2, ping_timeout=20)
def bystander(request):
    for message in request.websocket:
        request.websocket.send(message)


@require_websocket(compression=True, send_timeout=0.5, close_timeout=0.5)
def victim(request):
    """An echo with little patience; of a long message, its length."""
    try:
        for message in request.websocket:
            request.websocket.send(message if len(message) <= 50 else str(len(message)))
    finally:
        leave_note(request, f"finally {request.websocket.close_code}")


@require_websocket(compression=True, ping_interval=0.2, ping_timeout=0.5, close_timeout=0.5)
def deaf(request):
    """Read nothing until woken, then everything; say how many messages that were."""
    request.websocket.accept()
    sleep_until_woken(request)
    count = sum(1 for _ in request.websocket)
    leave_note(request, f"{count} {request.websocket.close_code}")


@require_websocket(send_timeout=0.5, close_timeout=0.5)
def torrent(request):
    """Send for ever; say which error ended it."""
    try:
        while True:
            request.websocket.send(bytes(1 << 16))
    except WebSocketClosed as error:
        leave_note(request, f"{type(error).__name__} {request.websocket.closed}")
        raise


@require_websocket
def text_only(request):
    for message in request.websocket:
        request.websocket.send("you said " + message)


@require_websocket
def binary_only(request):
    for message in request.websocket:
        request.websocket.send(message.hex())


# The database while a view waits (tests/real/test_database.py)


def log_in(request):
    """Make a user, and log it in."""
    login(request, User.objects.create_user(request.GET["name"]))
    return HttpResponse("logged in")


def count_groups(message: str) -> str:
    return f"{message}: {Group.objects.count()} groups"


def server_process() -> int:
    """The process of the database server that this thread or greenlet talks to."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        return cursor.fetchone()[0]


@require_websocket
def groups(request):
    """How many groups there are, at once and after each message."""
    request.websocket.send(count_groups("hello"))
    for message in request.websocket:
        request.websocket.send(count_groups(message))


@require_websocket(release_db=True)
def groups_released(request):
    request.websocket.send(count_groups("hello"))
    request.websocket.wait()


@login_required
@require_websocket
def visitor(request):
    """The same, and who asks: its session and its user come from the database as well."""
    request.websocket.send(f"{request.user.username}, {count_groups('hello')}")
    for message in request.websocket:
        request.user.refresh_from_db()
        request.websocket.send(f"{request.user.username}, {count_groups(message)}")


@login_required
@require_websocket(detach=False)
def visitor_asleep(request):
    """Accept, and do nothing at all until woken; then the same."""
    request.websocket.accept()
    sleep_until_woken(request)
    request.websocket.send(f"{request.user.username}, {count_groups('hello')}")
    for message in request.websocket:
        request.websocket.send(count_groups(message))


@require_websocket
def processes(request):
    """Which process of the database server each message is answered with."""
    for _ in request.websocket:
        request.websocket.send(str(server_process()))


@require_websocket(release_db=False)
def processes_kept(request):
    for _ in request.websocket:
        request.websocket.send(str(server_process()))


BLOCKS = {
    "wait": lambda websocket: websocket.wait(),
    "timed-wait": lambda websocket: websocket.wait(timeout=60),
    "iteration": lambda websocket: next(iter(websocket)),
    "send": lambda websocket: websocket.send(bytes(32 * MIB)),
    "chunks": lambda websocket: websocket.send_chunks(bytes(MIB) for _ in range(32)),
}


@require_websocket(send_timeout=60)
def block(request):
    """Ask the database, wait for the peer in the way of ``?by=``, and ask again."""
    request.websocket.send(count_groups("before"))
    BLOCKS[request.GET["by"]](request.websocket)
    request.websocket.send(count_groups("after"))


@require_websocket(close_timeout=60)
def ask_and_end(request):
    request.websocket.send(count_groups("hello"))


def send_rows(request):
    """Every group, one by one as the database gives them out: when a message asks for it, or one after the other."""
    names = Group.objects.order_by("pk").values_list("name", flat=True)
    for name in names.iterator(chunk_size=2):
        if "ask" in request.GET:
            request.websocket.wait()
        request.websocket.send(name.ljust(int(request.GET["size"])))
    request.websocket.wait()


@require_websocket(send_timeout=60)
def rows(request):
    send_rows(request)


@login_required
@require_websocket(send_timeout=60, detach=False)
def rows_for_a_visitor(request):
    send_rows(request)


@require_websocket
def cursor_held(request):
    """What the database makes of each message, all with the cursor that was there before the first."""
    with connection.cursor() as cursor:
        for message in request.websocket:
            cursor.execute("SELECT UPPER(%s)", [message])
            request.websocket.send(cursor.fetchone()[0])


INSISTED_ON = {
    "wait": lambda websocket: websocket.wait(),
    "timed-wait": lambda websocket: websocket.wait(timeout=60),
    "read": lambda websocket: websocket.read(),
    "has_messages": lambda websocket: websocket.has_messages(),
    "closed": lambda websocket: websocket.closed,
    "send": lambda websocket: websocket.send("into the void"),
}


def insist(request):
    """Call the verb of ``?by=`` until the test says stop, whatever it raises, and never pause."""
    request.websocket.accept()
    while not (settings.NOTES / f"{request.GET['note']}.wake").exists():
        with suppress(WebSocketClosed):
            INSISTED_ON[request.GET["by"]](request.websocket)


@require_websocket
def insist_new(request):
    insist(request)


@require_websocket(websocket_class="dwebsocket.legacy.WebSocket")
def insist_old(request):
    insist(request)


def add_and_wait(request):
    """Add the group of ``?name=``; say at each message which process that is in, and how many such groups it sees."""
    with transaction.atomic():
        Group.objects.create(name=request.GET["name"])
        for _ in request.websocket:
            request.websocket.send(f"{server_process()} {Group.objects.filter(name=request.GET['name']).count()}")


@require_websocket
def transaction_of_a_function(request):
    add_and_wait(request)


@method_decorator(require_websocket, name="dispatch")
class TransactionOfAClass(View):
    def get(self, request):
        add_and_wait(request)


def add_group(request):
    """Add the group of ``?name=``, say whether that is in a transaction, and fail: over HTTP with ``?fail=``."""
    Group.objects.create(name=request.GET["name"])
    is_atomic = str(connection.in_atomic_block)
    if request.is_websocket():
        request.websocket.send(is_atomic)
        request.websocket.wait()
    elif "fail" not in request.GET:
        return HttpResponse(is_atomic)
    raise RuntimeError("behind the write")


@accept_websocket
def add(request):
    return add_group(request)


@method_decorator(accept_websocket, name="dispatch")
class AddByClass(View):
    def get(self, request):
        return add_group(request)


@transaction.non_atomic_requests
@accept_websocket
def add_exempt_above(request):
    return add_group(request)


@accept_websocket
@transaction.non_atomic_requests
def add_exempt_below(request):
    return add_group(request)
