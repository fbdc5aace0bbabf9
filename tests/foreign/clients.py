"""Clients for Python that other people wrote, behind one interface, and the conversation that each has with a server.

`python -m tests.foreign.clients NAME converse URL PLAN` prints as JSON what the client saw, for
tests/real/test_foreign_clients.py to judge. It is a program because these packages need an environment of their own,
and threads and loops of their own.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import queue
import re
import socket
import sys
import traceback
from contextlib import AsyncExitStack
from pathlib import Path
from urllib.parse import urlsplit

LIMIT_SECONDS = 15
MIB = 1 << 20


class Ended(Exception):
    """The connection has ended: the code and the reason of the peer's Close frame."""


class Refused(Exception):
    """The opening handshake was refused: the status, or None where the client does not tell."""


class Client:
    """One connection of one client; those of libraries without coroutines block, which disturbs nothing here."""

    subprotocol = None

    @staticmethod
    def run(main, *arguments):
        return asyncio.run(main(*arguments))

    async def connect(self, url, subprotocols, headers):
        """Return when the connection is open. Raises Refused."""
        raise NotImplementedError

    async def send(self, message):
        raise NotImplementedError

    async def receive(self):
        """The next message, `str` or `bytes`. Raises Ended."""
        raise NotImplementedError

    async def close(self, code, reason):
        """Return when the closing handshake is over."""
        raise NotImplementedError

    async def leave(self):
        """Give back what is left."""


class Aiohttp(Client):
    async def connect(self, url, subprotocols, headers):
        import aiohttp

        self.session = aiohttp.ClientSession()
        try:
            self.ws = await self.session.ws_connect(
                url, protocols=subprotocols, headers=headers, compress=15, max_msg_size=0
            )
        except aiohttp.WSServerHandshakeError as error:
            raise Refused(error.status) from None
        self.subprotocol = self.ws.protocol

    async def send(self, message):
        await (self.ws.send_str if isinstance(message, str) else self.ws.send_bytes)(message)

    async def receive(self):
        from aiohttp import WSMsgType

        message = await self.ws.receive()
        if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
            return message.data
        assert message.type is WSMsgType.CLOSE, message
        raise Ended(message.data, message.extra)

    async def close(self, code, reason):
        await self.ws.close(code=code, message=reason.encode())

    async def leave(self):
        await self.session.close()


class HttpxWs(Client):
    async def connect(self, url, subprotocols, headers):
        import httpx
        import httpx_ws

        self.stack = AsyncExitStack()
        http = await self.stack.enter_async_context(httpx.AsyncClient())
        options = {"subprotocols": subprotocols or None, "headers": headers, "keepalive_ping_interval_seconds": None}
        try:
            self.ws = await self.stack.enter_async_context(httpx_ws.aconnect_ws(url, http, **options))
        except httpx_ws.WebSocketUpgradeError as error:
            raise Refused(error.response.status_code) from None
        self.subprotocol = self.ws.subprotocol

    async def send(self, message):
        await (self.ws.send_text if isinstance(message, str) else self.ws.send_bytes)(message)

    async def receive(self):
        import httpx_ws

        try:
            return (await self.ws.receive()).data
        except httpx_ws.WebSocketDisconnect as end:
            raise Ended(end.code, end.reason or "") from None

    async def close(self, code, reason):
        await self.ws.close(code, reason)

    async def leave(self):
        await self.stack.aclose()


class Wsproto(Client):
    async def connect(self, url, subprotocols, headers):
        from wsproto import ConnectionType, WSConnection, events
        from wsproto.extensions import PerMessageDeflate

        parts = urlsplit(url)
        self.socket = socket.create_connection((parts.hostname, parts.port), LIMIT_SECONDS)
        self.wire = WSConnection(ConnectionType.CLIENT)
        target = f"{parts.path}?{parts.query}" if parts.query else parts.path
        lines = [(name.encode(), value.encode()) for name, value in headers.items()]
        self.write(events.Request(parts.netloc, target, [PerMessageDeflate()], lines, subprotocols))
        answer = self.event()
        if isinstance(answer, events.RejectConnection):
            raise Refused(answer.status_code)
        assert isinstance(answer, events.AcceptConnection), answer
        self.subprotocol = answer.subprotocol

    def write(self, event):
        self.socket.sendall(self.wire.send(event))

    def event(self):
        while (event := next(self.wire.events(), None)) is None:
            self.wire.receive_data(self.socket.recv(1 << 16) or None)
        return event

    async def send(self, message):
        from wsproto.events import BytesMessage, TextMessage

        self.write((TextMessage if isinstance(message, str) else BytesMessage)(message))

    async def receive(self):
        from wsproto import events

        parts = []
        while True:
            event = self.event()
            if isinstance(event, events.Ping):
                self.write(event.response())
            elif isinstance(event, events.CloseConnection):
                self.write(event.response())
                assert self.socket.recv(1) == b"", "something after the Close frame"
                raise Ended(event.code, event.reason or "")
            else:
                parts.append(event.data)
                if event.message_finished:
                    return (b"" if isinstance(event.data, bytes) else "").join(parts)

    async def close(self, code, reason):
        from wsproto.events import CloseConnection

        self.write(CloseConnection(code, reason))
        while not isinstance(self.event(), CloseConnection):
            pass
        assert self.socket.recv(1) == b"", "something after the Close frame"

    async def leave(self):
        self.socket.close()


class Picows(Client):
    async def connect(self, url, subprotocols, headers):
        import picows

        messages = asyncio.Queue()

        class Listener(picows.WSListener):
            def on_ws_frame(self, transport, frame):
                kind = frame.msg_type
                if kind == picows.WSMsgType.TEXT:
                    messages.put_nowait(frame.get_payload_as_utf8_text())
                elif kind == picows.WSMsgType.BINARY:
                    messages.put_nowait(frame.get_payload_as_bytes())
                elif kind == picows.WSMsgType.CLOSE:
                    messages.put_nowait(Ended(int(frame.get_close_code()), frame.get_close_reason() or ""))
                    if not transport.is_close_frame_sent:
                        transport.send_close(frame.get_close_code())
                    transport.disconnect()

        if subprotocols:
            headers = {**headers, "Sec-WebSocket-Protocol": ", ".join(subprotocols)}
        try:
            self.transport, _ = await picows.ws_connect(Listener, url, extra_headers=headers)
        except picows.WSInvalidStatusError as error:
            raise Refused(int(error.response.status)) from None
        self.messages = messages
        self.subprotocol = self.transport.response.headers.get("Sec-WebSocket-Protocol")

    async def send(self, message):
        from picows import WSMsgType

        kind = WSMsgType.TEXT if isinstance(message, str) else WSMsgType.BINARY
        self.transport.send(kind, message.encode() if isinstance(message, str) else message)

    async def receive(self):
        return raised(await self.messages.get())

    async def close(self, code, reason):
        self.transport.send_close(code, reason.encode())
        await self.transport.wait_disconnected()

    async def leave(self):
        self.transport.disconnect()


class Tornado(Client):
    async def connect(self, url, subprotocols, headers):
        from tornado.httpclient import HTTPClientError, HTTPRequest
        from tornado.websocket import websocket_connect

        request = HTTPRequest(url, headers=headers)
        try:
            self.ws = await websocket_connect(
                request, subprotocols=subprotocols or None, compression_options={}, max_message_size=16 * MIB
            )
        except HTTPClientError as error:
            raise Refused(error.code) from None
        self.subprotocol = self.ws.selected_subprotocol

    async def send(self, message):
        await self.ws.write_message(message, binary=isinstance(message, bytes))

    async def receive(self):
        message = await self.ws.read_message()
        if message is None:
            raise Ended(self.ws.close_code, self.ws.close_reason or "")
        return message

    async def close(self, code, reason):
        self.ws.close(code, reason)
        while await self.ws.read_message() is not None:
            pass


class Autobahn(Client):
    async def connect(self, url, subprotocols, headers):
        from autobahn.asyncio.websocket import WebSocketClientFactory, WebSocketClientProtocol
        from autobahn.websocket.compress import (
            PerMessageDeflateOffer,
            PerMessageDeflateResponse,
            PerMessageDeflateResponseAccept,
        )

        messages, opened = asyncio.Queue(), asyncio.get_running_loop().create_future()

        class Protocol(WebSocketClientProtocol):
            def onOpen(self):  # noqa: N802
                opened.set_result(None)

            def onMessage(self, payload, isBinary):  # noqa: N802, N803
                messages.put_nowait(bytes(payload) if isBinary else payload.decode())

            def onClose(self, wasClean, code, reason):  # noqa: N802, N803
                if opened.done():
                    messages.put_nowait(Ended(code, reason or ""))
                else:
                    opened.set_exception(Refused(403 if "403" in reason else None))

        def accept(response):
            if isinstance(response, PerMessageDeflateResponse):
                return PerMessageDeflateResponseAccept(response)
            return None

        factory = WebSocketClientFactory(url, protocols=subprotocols, headers=headers)
        factory.protocol = Protocol
        factory.setProtocolOptions(
            perMessageCompressionOffers=[PerMessageDeflateOffer()],
            perMessageCompressionAccept=accept,
            closeHandshakeTimeout=LIMIT_SECONDS,
        )
        loop = asyncio.get_running_loop()
        _, self.protocol = await loop.create_connection(factory, factory.host, factory.port)
        await opened
        self.messages = messages
        self.subprotocol = self.protocol.websocket_protocol_in_use

    async def send(self, message):
        binary = isinstance(message, bytes)
        self.protocol.sendMessage(message if binary else message.encode(), isBinary=binary)

    async def receive(self):
        return raised(await self.messages.get())

    async def close(self, code, reason):
        self.protocol.sendClose(code, reason)
        await self.protocol.is_closed


class WebsocketClient(Client):
    async def connect(self, url, subprotocols, headers):
        import websocket

        try:
            self.ws = websocket.create_connection(
                url, timeout=LIMIT_SECONDS, subprotocols=subprotocols or None, header=headers
            )
        except websocket.WebSocketBadStatusException as error:
            raise Refused(error.status_code) from None
        self.subprotocol = self.ws.subprotocol

    async def send(self, message):
        import websocket

        self.ws.send(message, websocket.ABNF.OPCODE_TEXT if isinstance(message, str) else websocket.ABNF.OPCODE_BINARY)

    async def receive(self):
        import websocket

        opcode, data = self.ws.recv_data()  # it answers pings and the Close frame
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            raise Ended(int.from_bytes(data[:2], "big"), data[2:].decode())
        return data.decode() if opcode == websocket.ABNF.OPCODE_TEXT else data

    async def close(self, code, reason):
        self.ws.close(code, reason.encode(), timeout=LIMIT_SECONDS)

    async def leave(self):
        self.ws.shutdown()


class Websockets(Client):
    async def connect(self, url, subprotocols, headers):
        from websockets.asyncio.client import connect
        from websockets.exceptions import InvalidStatus

        try:
            self.ws = await connect(
                url, subprotocols=subprotocols or None, additional_headers=headers, max_size=None, proxy=None
            )
        except InvalidStatus as error:
            raise Refused(error.response.status_code) from None
        self.subprotocol = self.ws.subprotocol

    async def send(self, message):
        await self.ws.send(message)

    async def receive(self):
        from websockets.exceptions import ConnectionClosed

        try:
            return await self.ws.recv()
        except ConnectionClosed as end:
            raise Ended(end.rcvd.code, end.rcvd.reason) from None

    async def close(self, code, reason):
        await self.ws.close(code, reason)


class TrioWebsocket(Client):
    @staticmethod
    def run(main, *arguments):
        import trio

        return trio.run(main, *arguments)

    async def connect(self, url, subprotocols, headers):
        import trio_websocket

        self.stack = AsyncExitStack()
        lines = [(name.encode(), value.encode()) for name, value in headers.items()]
        opening = trio_websocket.open_websocket_url(
            url, subprotocols=subprotocols or None, extra_headers=lines, max_message_size=16 * MIB
        )
        try:
            self.ws = await self.stack.enter_async_context(opening)
        except trio_websocket.ConnectionRejected as error:
            raise Refused(error.status_code) from None
        self.subprotocol = self.ws.subprotocol

    async def send(self, message):
        await self.ws.send_message(message)

    async def receive(self):
        from trio_websocket import ConnectionClosed

        try:
            return await self.ws.get_message()
        except ConnectionClosed as end:
            raise Ended(end.reason.code, end.reason.reason or "") from None

    async def close(self, code, reason):
        await self.ws.aclose(code, reason)

    async def leave(self):
        await self.stack.aclose()


class Lomond(Client):
    async def connect(self, url, subprotocols, headers):
        import lomond

        self.ws = lomond.WebSocket(url, protocols=subprotocols or None, compress=True)
        for name, value in headers.items():
            self.ws.add_header(name.encode(), value.encode())
        self.events = iter(self.ws.connect(ping_rate=0))
        event = self.until("ready", "rejected", "connect_fail")
        if event.name == "rejected":
            raise Refused(event.response.status_code)
        self.subprotocol = event.protocol

    def until(self, *names):
        return next(event for event in self.events if event.name in names)

    async def send(self, message):
        (self.ws.send_text if isinstance(message, str) else self.ws.send_binary)(message)

    async def receive(self):
        event = self.until("text", "binary", "closing")
        if event.name == "closing":
            self.until("disconnected")
            raise Ended(event.code, event.reason or "")
        return event.text if event.name == "text" else event.data

    async def close(self, code, reason):
        self.ws.close(code, reason)
        self.until("closed")
        self.until("disconnected")


class Ws4py(Client):
    async def connect(self, url, subprotocols, headers):
        from ws4py.client.threadedclient import WebSocketClient
        from ws4py.exc import HandshakeError

        messages = queue.Queue()

        class Listener(WebSocketClient):
            def received_message(self, message):
                messages.put(str(message) if message.is_text else bytes(message.data))

            def closed(self, code, reason=None):
                messages.put(Ended(code, reason.decode() if isinstance(reason, bytes) else reason or ""))

        self.messages = messages
        # It would say ws://, which is the origin of no page.
        self.ws = Listener(url, subprotocols or None, headers=list(headers.items()), exclude_headers=["Origin"])
        try:
            self.ws.connect()
        except HandshakeError as error:
            raise Refused(int(re.findall(r"\d+", str(error))[-1])) from None
        chosen = self.ws.protocols
        self.subprotocol = chosen[0].decode() if chosen and isinstance(chosen[0], bytes) else chosen and chosen[0]

    async def send(self, message):
        self.ws.send(message, binary=isinstance(message, bytes))

    async def receive(self):
        return raised(self.messages.get(timeout=LIMIT_SECONDS))

    async def close(self, code, reason):
        self.ws.close(code, reason)
        while not isinstance(self.messages.get(timeout=LIMIT_SECONDS), Ended):
            pass


CLIENTS = {
    "aiohttp": Aiohttp,
    "autobahn": Autobahn,
    "httpx-ws": HttpxWs,
    "lomond": Lomond,
    "picows": Picows,
    "tornado": Tornado,
    "trio-websocket": TrioWebsocket,
    "websocket-client": WebsocketClient,
    "websockets": Websockets,
    "ws4py": Ws4py,
    "wsproto": Wsproto,
}


def raised(message):
    if isinstance(message, Ended):
        raise message
    return message


# The conversation


def digest(message):
    """The kind of a message, its length in bytes, and what it says in short."""
    data = message.encode() if isinstance(message, str) else message
    return [type(message).__name__, len(data), hashlib.sha256(data).hexdigest()]


class Conversation:
    def __init__(self, kind, url, plan):
        self.kind = kind
        self.url = url
        self.plan = plan

    async def open(self, path, subprotocols=(), headers=None):
        client = self.kind()
        await client.connect(self.url + path, list(subprotocols), headers or {})
        return client

    async def echoes(self):
        client = await self.open("/echo/")
        heard = []
        for message in [*self.plan["texts"], *(os.urandom(size) for size in self.plan["sizes"])]:
            await client.send(message)
            heard.append(digest(await client.receive()) == digest(message))
        await client.close(1000, "")
        await client.leave()
        return heard

    async def limit(self):
        client = await self.open("/echo/")
        await client.send(bytes(MIB + 1))
        return (await self.end_of(client))[0]

    async def end_of(self, client):
        try:
            unexpected = await client.receive()
        except Ended as end:
            await client.leave()
            return list(end.args)
        raise AssertionError(f"a message: {unexpected!r:.100}")

    async def subprotocol(self):
        client = await self.open("/subprotocol/", self.plan["subprotocols"])
        told = await client.receive()
        await client.leave()
        return [client.subprotocol, told]

    async def header(self):
        client = await self.open("/session/", headers={"Cookie": self.plan["cookie"]})
        told = await client.receive()
        await client.leave()
        return told

    async def server_closes(self):
        ends = []
        for path in self.plan["closes"]:
            client = await self.open(path)
            await client.send("go")
            ends.append(await self.end_of(client))
        return ends

    async def compression(self):
        client = await self.open("/victim/")
        await client.send("x" * 100_000)
        told = await client.receive()
        await client.close(3000, "bye")
        await client.leave()
        return told

    async def ping(self):
        client = await self.open("/ponged/")
        told = await client.receive()
        await client.leave()
        return told

    async def refusal(self):
        try:
            await self.open("/refuse/forbidden/")
        except Refused as refused:
            return refused.args[0]
        return "open"

    async def pushes(self):
        client = await self.open(self.plan["push"])
        return [await client.receive() for _ in range(3)]  # and the process ends


async def converse(kind, url, plan):
    conversation = Conversation(kind, url, plan)
    for name in plan["parts"]:
        try:
            said = await getattr(conversation, name)()
        except Exception:
            said = traceback.format_exc()
        print(json.dumps([name, said]), flush=True)
    os._exit(0)  # as a process does that is killed


async def wait(kind, url, plan):
    """Say so when it is open, and then how it ended."""
    conversation = Conversation(kind, url, plan)
    client = await conversation.open("/greet/")
    print(json.dumps(await client.receive()), flush=True)
    print(json.dumps(await conversation.end_of(client)), flush=True)
    os._exit(0)


if __name__ == "__main__":
    name, what, url, plan = sys.argv[1:]  # the plan is a file: it holds the messages
    kind = CLIENTS[name]
    kind.run({"converse": converse, "wait": wait}[what], kind, url, json.loads(Path(plan).read_text()))
