"""The views of groups that the tests with real servers talk to."""

import gc
import json
import logging
import os
import threading
import time
from contextlib import suppress

from django.contrib.auth.models import Group as Row
from django.contrib.auth.models import User
from django.db import transaction
from django.dispatch import receiver
from django.http import HttpResponse, JsonResponse

import tests.project.groups  # noqa: F401  # which declares them
from dwebsocket import (
    Gap,
    GroupMessage,
    GroupsUnavailable,
    envelope,
    group,
    group_overflow,
    group_presence_changed,
    require_websocket,
)

logger = logging.getLogger(__name__)


@receiver(group_overflow)
def tell_overflow(websocket, group, **about):
    logger.info("overflow of %s", group)


@receiver(group_presence_changed)
def tell_presence(group, joined, left, **about):
    logger.info(
        "presence of %s: came %s, went %s", group, *([member.user for member in some] for some in (joined, left))
    )


@require_websocket(max_groups=20_000, close_timeout=0.5)
def member(request):
    """Join every `?group=`, and say so; with `?forward=0` the view passes the messages on. Then obey the peer.

    "join NAME", "leave NAME" and "send NAME TEXT" are answered with "joined", "left" and "sent" or "failed", "pid"
    with the number of the process; anything else comes back.
    """
    websocket = request.websocket
    options = {"forward": request.GET.get("forward") != "0", "overflow": request.GET.get("overflow")}
    for name in request.GET.getlist("group"):
        websocket.join(group(name), **options)
        websocket.send(f"joined {name}")
    for event in websocket.events():
        if isinstance(event, GroupMessage):
            websocket.send(event.data)
        elif isinstance(event, Gap):
            websocket.send(f"gap {event.group}")
        else:
            websocket.send(obey(websocket, event, options))


def obey(websocket, order, options):
    verb, _, rest = order.partition(" ")
    if verb == "join":
        websocket.join(group(rest), **options)
        return f"joined {rest}"
    if verb == "leave":
        websocket.leave(group(rest))
        return f"left {rest}"
    if verb == "send":
        name, _, text = rest.partition(" ")
        try:
            group(name).send(text)
        except GroupsUnavailable:
            return f"failed {text}"
        return f"sent {text}"
    if verb == "pid":
        return f"pid {os.getpid()}"
    return order


@require_websocket(max_groups=20_000, close_timeout=0.5)
def page(request):
    """Join every `?group=` for a page that keeps its positions; with `?user=` that one is present.

    "pid" is answered with the number of the process; anything else comes back.
    """
    websocket = request.websocket
    options = {"forward": envelope, "roster": "roster" in request.GET}
    if "user" in request.GET:
        request.user = User(pk=int(request.GET["user"]))
        options["presence"] = {"name": request.GET["user"]}
    for name in request.GET.getlist("group"):
        websocket.join(group(name), **options)
    for order in websocket:
        websocket.send(obey(websocket, order, options))


def members(request):
    """Who is present in `?group=`: the users, with the number of their WebSockets, and both numbers."""
    asked = group(request.GET["group"])
    try:
        found = {member.user: member.sockets for member in asked.members()}
        return JsonResponse({"members": found, "sockets": asked.count(), "users": asked.count(users=True)})
    except GroupsUnavailable as unavailable:
        return JsonResponse({"error": str(unavailable)}, status=503)


@require_websocket(max_groups=20_000, close_timeout=0.5)
def member_of_many(request):
    """Join `?prefix=` with the numbers from 0 to `?count=`, say "joined", and wait; leave them all when told."""
    websocket = request.websocket
    groups = [group(f"{request.GET['prefix']}.{number}") for number in range(int(request.GET["count"]))]
    threads = [
        threading.Thread(target=lambda part=groups[at::20]: [websocket.join(g) for g in part]) for at in range(20)
    ]
    websocket.accept()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    websocket.send("joined")
    for message in websocket:
        if message == "leave":
            for joined in groups:
                websocket.leave(joined)
        websocket.send(message)


@require_websocket
def member_in_chunks(request):
    """Join `?group=`, then send one message of `?chunks=` parts, with `?seconds=` between two of them; then echo."""
    websocket = request.websocket
    websocket.join(group(request.GET["group"]))
    websocket.send("joined")
    websocket.wait()

    def chunks():
        for _ in range(int(request.GET["chunks"])):
            yield "c"
            time.sleep(float(request.GET["seconds"]))

    websocket.send_chunks(chunks())
    for message in websocket:
        websocket.send(message)


def publish(request):
    """Send `?text=` to `?group=`, and say how that went, and how long it took."""
    began = time.monotonic()
    position = error = None
    try:
        position = group(request.GET["group"]).send(request.GET["text"])
    except GroupsUnavailable as unavailable:
        error = str(unavailable)
    answer = {"error": error, "position": position, "seconds": time.monotonic() - began, "pid": os.getpid()}
    return JsonResponse(answer, status=503 if error else 200)


def save_and_publish(request):
    """Write a row, and send its primary key to `?group=`, in the transaction of the request; with `?fail=` fail."""
    row = Row.objects.create(name=request.GET["name"])
    with suppress(ZeroDivisionError), transaction.atomic():
        group(request.GET["group"]).send("never")
        raise ZeroDivisionError  # a savepoint that is rolled back takes its messages with it
    group(request.GET["group"]).send(str(row.pk))
    if "fail" in request.GET:
        raise RuntimeError("behind the write")
    return HttpResponse(str(row.pk))


@require_websocket
def reader_of_rows(request):
    """Join `?group=`; of each message, which is a primary key, look for the row, and say its name."""
    websocket = request.websocket
    websocket.join(group(request.GET["group"]), forward=False)
    websocket.send("joined")
    for event in websocket.events():
        if isinstance(event, GroupMessage):
            websocket.send(Row.objects.filter(pk=event.data).values_list("name", flat=True).first() or "no row")


def facts(request):
    """What this process holds."""
    gc.collect()
    from gevent.monkey import is_module_patched

    greenlets = 0
    if is_module_patched("threading"):
        import greenlet

        greenlets = sum(isinstance(thing, greenlet.greenlet) and not thing.dead for thing in gc.get_objects())
    return JsonResponse({"pid": os.getpid(), "threads": threading.active_count(), "greenlets": greenlets})


def publish_in_child(request):
    """Publish, fork, and let the child publish, and the parent again; say how that went in both."""
    name = request.GET["group"]
    group(name).send("parent before")
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            group(name).send("child")
            os.write(write, b"sent")
        except BaseException as error:
            os.write(write, repr(error).encode())
        finally:
            os._exit(0)
    os.close(write)
    with open(read, "rb") as answer:
        said = answer.read().decode()
    os.waitpid(child, 0)
    group(name).send("parent after")
    return HttpResponse(json.dumps({"child": said}))
