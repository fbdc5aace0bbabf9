from time import strftime

from django.shortcuts import render

from dwebsocket import accept_websocket, require_websocket

watching = set()


@accept_websocket
def echo(request):
    if not request.is_websocket():
        return render(request, "example/echo.html")
    for message in request.websocket:
        request.websocket.send(message)


@require_websocket
def echo_once(request):
    message = request.websocket.wait()
    request.websocket.send(message)


@require_websocket
def clock(request):
    ws = request.websocket
    watching.add(ws)
    try:
        while not ws.closed:
            now = strftime("%H:%M:%S")
            ws.send(f"{now}, {len(watching)} watching")
            ws.wait(timeout=1)
    finally:
        watching.remove(ws)
