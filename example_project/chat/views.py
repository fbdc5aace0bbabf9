"""Rooms in which people talk. Each page is an ordinary view, and its WebSocket is the same view."""

import secrets
import time
from contextlib import suppress

from django.conf import settings
from django.contrib.auth import get_user_model, login
from django.contrib.auth.views import RedirectURLMixin, redirect_to_login
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.text import slugify
from django.views.generic import FormView

from dwebsocket import GroupsUnavailable, accept_websocket, envelope, user_group

from .forms import NameForm
from .groups import KEPT, rooms, typing

OPEN_ROOMS = ["lobby", "help", "music"]
AT_ONCE = 50  # messages of before that a page gets


@accept_websocket
def index(request):
    if not (me := person(request)):
        return ask_name(request)
    if request.is_websocket():
        return listen(request)
    if wanted := slugify(request.GET.get("room", ""), allow_unicode=True)[:40]:
        return redirect("chat:room", wanted)
    return render(request, "chat/index.html", {"me": me, "rooms": rooms_of(request)})


@accept_websocket(max_message_size=8 * 1024)  # bytes: the page allows 1000 characters
def room(request, name):
    if not (me := person(request)):
        return ask_name(request)
    if not request.is_websocket():
        remember(request, name)
        shown = {"me": me, "rooms": rooms_of(request), "room": name, "kept": KEPT}
        return render(request, "chat/room.html", shown)
    return talk(request, me, name)


def talk(request, me, name):
    ws = request.websocket
    # From here on what is said in the room reaches the page, and this view does nothing for it. A page that comes back
    # has its position in the URL, and gets what it has missed first. It learns who is here, and who comes and goes.
    ws.join(rooms[name], forward=envelope, presence=me, roster=True)
    ws.join(typing[name])
    join_own_group(request)
    ws.send_json({"type": "ready"})
    while (message := ws.wait_json()) is not None:
        match message:
            case {"say": str(text), "id": str(message_id)} if len(message_id) <= 40:
                say(ws, rooms[name], me, text, message_id)
            case {"typing": True}:
                with suppress(GroupsUnavailable):  # then it is not worth a word
                    typing[name].send_json({"type": "typing", "from": me}, exclude=ws)
            case {"before": None | str() as position}:
                send_earlier(ws, rooms[name], position)
            case _:
                return ws.close(4400, "this is not what a page of the chat says")


def say(ws, room, me, text, message_id):
    message = {"type": "message", "id": message_id, "from": me, "text": text, "at": time.time()}
    try:
        # Without exclude=ws: an author sees that it has arrived, in every tab. With once: a page that is not sure of it
        # may send it again, and the others see it once.
        room.send_json(message, once=f"{me['id']} {message_id}")
    except GroupsUnavailable:  # without this the connection would close with 1013; the page would come back
        ws.send_json({"type": "failed", "id": message_id})


def send_earlier(ws, room, position):
    """What was said before the message at `position`, or without one: what was said last."""
    messages = room.history(limit=None if position else AT_ONCE + 1)
    if position:
        positions = [message.position for message in messages]
        messages = messages[: positions.index(position) if position in positions else 0]
    more = len(messages) > AT_ONCE
    ws.send_json({"type": "earlier", "messages": [envelope(one) for one in messages[-AT_ONCE:]], "more": more})


def listen(request):
    """A page without a room: it shows what its user is told."""
    join_own_group(request)
    request.websocket.send_json({"type": "ready"})
    return request.websocket.stay_open()  # such a page says nothing: the view ends here, and the connection stays


def join_own_group(request):
    if request.user.is_authenticated:
        request.websocket.join(user_group(request.user))


# People: users with an account, and guests, who have said a name


def person(request):
    """Who asks, as the others see them; None before they have said a name."""
    if request.user.is_authenticated:
        return {"id": f"user-{request.user.pk}", "name": request.user.get_username()}
    return request.session.get("guest")


def ask_name(request):
    if request.is_websocket():
        # Open it, and close it with a code: of a refused WebSocket a page learns nothing, and would try for ever.
        request.websocket.accept()
        return request.websocket.close(4401, "say your name first")
    return redirect_to_login(request.get_full_path(), reverse("chat:name"))


class NameView(RedirectURLMixin, FormView):
    """Asks for a name, and goes on to ?next=…"""

    template_name = "chat/name.html"
    form_class = NameForm
    next_page = "chat:index"
    asks_for_no_password = settings.DEBUG

    def form_valid(self, form):
        name = form.cleaned_data["name"]
        if self.asks_for_no_password and "log_in" in self.request.POST:
            # For trying out alone. Your project has Django's LoginView.
            user, _ = get_user_model().objects.get_or_create(username=name)
            login(self.request, user)
        else:
            self.request.session["guest"] = {"id": f"guest-{secrets.token_hex(8)}", "name": name, "guest": True}
        return super().form_valid(form)


# Rooms: those that are always there, and those that this browser has been in


def rooms_of(request):
    return [*OPEN_ROOMS, *request.session.get("rooms", [])]


def remember(request, name):
    if name not in rooms_of(request):
        request.session["rooms"] = [*request.session.get("rooms", []), name][-20:]
