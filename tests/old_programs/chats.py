"""People who talk to each other, or to a machine that answers."""

import json
import time
from collections import defaultdict

from django.http import HttpResponse

from dwebsocket import accept_websocket, require_websocket
from dwebsocket.websocket import WebSocket

# A chat; a page pushes by HTTP. Who has left stays in the dict.

OnlineUsers = {}


@accept_websocket
def online(request, user):
    if not request.is_websocket():
        return HttpResponse("the page")
    OnlineUsers[user] = request.websocket
    while True:
        message = request.websocket.wait()
        if not message:
            break
        OnlineUsers[user].send(message)


def push(request):
    for user in OnlineUsers:
        OnlineUsers[user].send(json.dumps({"to": user}).encode("utf-8"))
    return HttpResponse("pushed to " + str(len(OnlineUsers)))


# A centre of notifications: every tab of a user under the name of its socket.

clients = defaultdict(dict)


@require_websocket
def notifications(request, user):
    clients[user][str(request.websocket)] = request.websocket
    try:
        for message in request.websocket:
            if not message:
                break
            for key in clients[user]:
                clients[user][key].send(message)
    finally:
        del clients[user][str(request.websocket)]


# Customer service: a robot that answers.

ANSWERS = {"opening hours": "nine to five"}


@accept_websocket
def robot(request):
    for message in request.websocket:
        if message is None:
            break
        question = str(message, encoding="utf-8")
        request.websocket.send(ANSWERS.get(question, "pardon?").encode("utf-8"))


# A blog that counts its readers.


@accept_websocket
def blog(request):
    while 1:
        message = request.websocket.wait()
        if message:
            request.websocket.send(b"read: " + message)


# A game, which adds a method to the class.


def add_send_data():
    WebSocket.send_data = lambda self, kind, **data: self.send(json.dumps(dict(data, kind=kind)))


@require_websocket
def alchemy(request):
    elements = []
    for message in request.websocket:
        if message is None:
            break
        elements.append(message.decode("utf-8"))
        request.websocket.send_data("mixed", of=elements)


# A chat room: a list of requests.

room = []


@accept_websocket
def chat_room(request):
    room.append(request)
    while True:
        message = request.websocket.wait()
        if request.websocket.is_closed():
            room.remove(request)
            break
        for member in room:
            member.websocket.send(message)


# A heartbeat, and a queue for each user.

queues = defaultdict(list)


@accept_websocket
def heartbeat(request, user):
    last = time.time()
    while not request.websocket.is_closed():
        if request.websocket.has_messages():
            message = request.websocket.read()
            if message == b"ping":
                last = time.time()
                request.websocket.send(b"pong")
        while queues[user]:
            request.websocket.send(queues[user].pop(0))
        if time.time() - last > 30:
            break
        time.sleep(0.01)


# A class room.

pupils = set()


@accept_websocket
def class_room(request):
    pupils.add(request.websocket)
    try:
        while True:
            message = request.websocket.wait()
            if message:
                said = json.loads(message.decode("utf-8"))
                for pupil in pupils:
                    pupil.send(json.dumps({"said": said["text"]}).encode("utf-8"))
    except Exception:
        pass
    finally:
        pupils.discard(request.websocket)


# An echo to everybody.

everybody = []


@require_websocket
def echo(request):
    everybody.append(request.websocket)
    for message in request.websocket:
        if message is None:
            everybody.remove(request.websocket)
            break
        said = str(message, "utf-8")
        for one in everybody:
            one.send(("somebody said " + said).encode())


# Requests for friendship.


@accept_websocket
def friends(request):
    if request.is_websocket():
        for message in request.websocket:
            if not message:
                break
            asked = json.loads(message)
            if asked["friend"] == "anna":
                request.websocket.send(b'{"state": "asked"}')
            else:
                request.websocket.send(b'{"state": "unknown"}')
