"""Machines that are watched, or driven."""

import json
import select
import socket
import subprocess
import threading
import time

from django.http import HttpResponse

from dwebsocket.decorators import accept_websocket, require_websocket

# The console of a game server, through a socket of its own. Four lines are not those of 0.5: it asked select() about
# request.websocket.protocol.sock.fileno() too.

consoles = []


@accept_websocket
def console(request):
    ours, theirs = socket.socketpair()
    consoles.append(theirs)
    try:
        while not request.websocket.is_closed():
            readable, _, _ = select.select([ours], [], [], 0.01)
            if readable:
                request.websocket.send(ours.recv(4096))
            if request.websocket.has_messages():
                message = request.websocket.read()
                if message is None:
                    break
                ours.sendall(message)
    finally:
        ours.close()


# A shell: a thread sends what a process says, the view reads what the user types.


class Output(threading.Thread):
    def __init__(self, websocket, stream):
        threading.Thread.__init__(self, daemon=True)
        self.websocket = websocket
        self.stream = stream

    def run(self):
        for line in self.stream:
            self.websocket.send(line)


@accept_websocket
def shell(request):
    process = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    output = Output(request.websocket, process.stdout)
    output.start()
    for line in request.websocket:
        if line is None:
            break
        process.stdin.write(line + b"\n")
        process.stdin.flush()
    process.stdin.close()
    process.wait()
    output.join()
    process.stdout.close()


@accept_websocket
def shell_tail(request):
    lines = iter(["line one\n", "line two\n"])
    while True:
        line = next(lines, "")
        if line:
            request.websocket.send(line.encode("utf-8"))
        else:
            time.sleep(0.01)
        if request.websocket.is_closed():
            break


# Drones on a map.

position = {"lat": 0, "lon": 0}


@require_websocket
def drone(request):
    while True:
        message = request.websocket.wait()
        if message is None:
            break
        fix = json.loads(message.decode())
        position.update(fix)


@require_websocket
def drone_map(request):
    while True:
        request.websocket.send(json.dumps(position).encode())
        time.sleep(0.01)


# Diagnostics: what a device says goes to the page that watches it, and back.

devices = {}
watchers = {}


@accept_websocket
def device(request, number):
    devices[number] = request.websocket
    for message in request.websocket:
        if not message:
            break
        if number in watchers:
            watchers[number].send(b"device: " + message)
    devices.pop(number)


@accept_websocket
def watcher(request, number):
    if not request.is_websocket():
        return HttpResponse("the page")
    watchers[number] = request.websocket
    for message in request.websocket:
        if not message:
            break
        if message.startswith(b"do "):
            devices[number].send(message[3:])
    watchers.pop(number)


# Another shell: it looks for output while nothing is typed.


@accept_websocket
def polling_shell(request):
    output = ["$ "]
    while True:
        while not request.websocket.has_messages():
            if output:
                request.websocket.send("".join(output))
                output = []
            time.sleep(0.01)
        command = request.websocket.wait()
        if not command:
            break
        output.append("you typed " + command.decode())


# Five small ones: a clock, the end of a log in two ways, a loop over messages, and one that waits for each.


@require_websocket
def clock(request):
    while 1:
        request.websocket.send(time.strftime("%H:%M:%S").encode())
        time.sleep(0.01)


@require_websocket
def log_tail(request):
    number = 0
    while True:
        try:
            request.websocket.read()
        except EOFError:
            break
        number += 1
        request.websocket.send("line " + str(number))
        time.sleep(0.01)


@require_websocket
def while_not_closed(request):
    while not request.websocket.closed:
        request.websocket.send(b"tick")
        time.sleep(0.01)


@require_websocket
def over_messages(request):
    for message in request.websocket:
        request.websocket.send(message)


@require_websocket
def has_messages(request):
    while True:
        while not request.websocket.has_messages():
            time.sleep(0.01)
        message = request.websocket.read()
        if message:
            request.websocket.send(message)
