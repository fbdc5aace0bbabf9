"""Rooms in which people talk. Each page is an ordinary view, and its WebSocket is the same view."""

import secrets
import time

from django.conf import settings
from django.contrib.auth import get_user_model, login
from django.contrib.auth.views import RedirectURLMixin, redirect_to_login
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.text import slugify
from django.views.generic import FormView

from dwebsocket import CloseCode, GroupsUnavailable, accept_websocket, user_group

from .forms import NameForm
from .groups import rooms

OPEN_ROOMS = ["lobby", "help", "music"]


@accept_websocket
def index(request):
    if not (me := person(request)):
        return ask_name(request)
    if request.is_websocket():
        return listen(request)
    if wanted := slugify(request.GET.get("room", ""), allow_unicode=True)[:40]:
        return redirect("chat:room", wanted)
    return render(request, "chat/index.html", {"me": me, "rooms": rooms_of(request)})


@accept_websocket(max_message_size=4 * 1024)  # bytes: the page allows 1000 characters
def room(request, name):
    if not (me := person(request)):
        return ask_name(request)
    if not request.is_websocket():
        remember(request, name)
        return render(request, "chat/room.html", {"me": me, "rooms": rooms_of(request), "room": name})
    return talk(request, me, name)


def talk(request, me, name):
    ws = request.websocket
    ws.join(rooms[name])  # what is said in the room reaches the page from here on, and this view does nothing for it
    join_own_group(request)
    ws.send_json({"type": "ready"})
    for text in ws:
        if not isinstance(text, str):
            return ws.close(CloseCode.UNSUPPORTED_DATA, "the chat is of text")
        message = {"type": "message", "from": me, "text": text, "at": time.time()}
        try:
            rooms[name].send_json(message)  # without exclude=ws: an author sees that it has arrived, in every tab
        except GroupsUnavailable:  # without this the connection would close with 1013; the page would come back
            ws.send_json({"type": "failed", "text": text})


def listen(request):
    """A page without a room: it shows what its user is told."""
    join_own_group(request)
    request.websocket.send_json({"type": "ready"})
    for _ in request.websocket:
        pass  # such a page says nothing


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
