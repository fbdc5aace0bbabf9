"""`manage.py websocket_doctor URL`: find faults between a client and a view, and say what to do about them."""

from __future__ import annotations

import re
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from urllib.parse import urljoin, urlsplit

from django.core.management.base import CommandError, CommandParser

from ...client import (
    ClientConnection,
    HandshakeFailed,
    Refused,
    Response,
    Stream,
    Target,
    TLSStream,
    dial,
    open_websocket,
)
from ...client.command import (
    ClientCommand,
    Opening,
    body_in_words,
    close_in_words,
    not_negative,
    opening,
    printable,
    size_in_words,
    trust,
)
from ...protocol.codes import CloseCode
from ...protocol.exceptions import ProtocolError, WebSocketClosed

SIZE_BYTES = 1 << 20
IDLE_SECONDS = 60.0
_CLOSE_SECONDS = 1.0  # a courtesy to the peer: the close tests nothing
_REDIRECTS = (301, 302, 303, 307, 308)

_NGINX = (
    "behind nginx, the location needs:",
    "    proxy_http_version 1.1;",
    "    proxy_set_header Host $http_host;",
    "    proxy_set_header Upgrade $http_upgrade;",
    '    proxy_set_header Connection "upgrade";',
)
_STRIPPED = (
    "a proxy in between has removed the Upgrade header, or speaks HTTP/1.0 to the server: it has to pass WebSockets on",
    *_NGINX,
)

#: Advice by status; the server's text is printed above it.
_ADVICE: dict[int, Sequence[str]] = {
    400: (
        "a view that is not decorated with accept_websocket or require_websocket, a Host that ALLOWED_HOSTS does not"
        " name, or a proxy that does not pass WebSockets on: the sentence above, or the log of the server, says which",
        *_NGINX,
    ),
    401: ("the URL wants credentials: --header 'Authorization: …' or --header 'Cookie: …'",),
    403: (
        "if it is the origin: WEBSOCKET_ALLOWED_ORIGINS or CSRF_TRUSTED_ORIGINS name the sites that may, the proxy has"
        " to pass the Host on (nginx: proxy_set_header Host $http_host), and where it ends TLS, SECURE_PROXY_SSL_HEADER"
        " has to be set; --origin tries another one",
        "if it is the view: it wants a session (--header 'Cookie: sessionid=…') or a permission",
    ),
    404: ("no view has this URL: look for a missing slash or prefix, and for a proxy that changes the path",),
    405: ("the view does not take GET, with which every WebSocket is opened",),
    426: _STRIPPED,
    429: ("too many attempts: something limits their rate",),
    500: ("the view, or a middleware, raised an exception before it accepted: it is in the log of the server",),
    501: (
        "this server does not give its sockets away, so it can serve no WebSocket; gunicorn, gevent's pywsgi,"
        " runserver, uWSGI, Werkzeug and cheroot can",
    ),
    502: ("the proxy cannot reach the server behind it: is it running, and where proxy_pass says?",),
    503: (
        "the server takes no more: WEBSOCKET_MAX_CONNECTIONS is reached, it is about to end, or the proxy has no server"
        " to pass on to",
    ),
    504: ("the server behind the proxy does not answer in time: is it busy, or are all its threads taken?",),
}
#: With these statuses, an answer of dwebsocket itself says what is wrong, so that no advice is needed.
_EXPLAINED = (400, 403, 426)
_EXPLANATION = re.compile("WebSocket|WEBSOCKET_|SECURE_PROXY_SSL_HEADER|nginx")
_NO_KEY = (
    "a proxy in between has removed the Sec-WebSocket-Key, or made a request without one: Envoy does that with a"
    " WebSocket over HTTP/2 (leave allow_connect off: browsers then use HTTP/1.1)",
)
_OTHER_ADVICE = ("no WebSocket is served at this URL: what answered is an ordinary page, or another server",)
_ORDINARY_PAGE = (
    "the view there serves ordinary pages (it is not decorated with accept_websocket or require_websocket), or",
    *_STRIPPED,
)

#: By OpenSSL's number of the error (X509_V_ERR_…).
_CERTIFICATE_ADVICE = {
    9: "the certificate is not valid yet: look at the clocks",
    10: "the certificate has expired: renew it",
    18: "the certificate is signed by itself: browsers refuse it too; --insecure tries without looking at it",
    19: "the certificate comes from an authority that is not known here; --insecure tries without looking at it",
    20: "an intermediate certificate is missing (nginx: ssl_certificate wants the whole chain), or the authority is not"
    " known here; --insecure tries without looking at it",
    62: "the certificate is for another name",
    64: "the certificate is for another name: with an IP address hardly any fits",
}
_OTHER_CERTIFICATE_ADVICE = "browsers refuse this certificate too; --insecure tries without looking at it"

_NO_TLS = ("no TLS is spoken at this port, or none that is known here: try ws:// or another port",)
_NO_LISTENER = ("is the server running, and does it listen on this address, not on 127.0.0.1 alone?",)
_NOWHERE = ("a firewall drops what is sent there, or the server is not at this address",)
_NO_WEBSOCKET_SERVER = ("this is no WebSocket server, or not the right port of one (does it want wss://?)",)
_BUSY = (
    "all threads or workers of the server are taken (a sync worker by one attached WebSocket), or a proxy holds the"
    " answer back",
)
_HELD_BACK = (
    "what is sent does not come through in both directions: a proxy that passed the handshake on, but buffers what"
    " follows or does not pass it on (a content filter, an antivirus, a load balancer in HTTP mode)",
)
_CUT_BY_SIZE = (
    "something between here and the view does not let it through (a firewall or proxy that inspects what is sent), or"
    " the server broke off: see its log",
)
_NOT_READ = "the view does not read what is sent to it, or something holds it back (a view that echoes tells which)"
_SILENCE = (
    "a proxy or load balancer ends what is silent (nginx: proxy_read_timeout, 60 seconds if not set): make its time"
    " longer, and WEBSOCKET_PING_INTERVAL (20 seconds if not set, None switches pings off) shorter than it",
)
_DEAD = (
    "a device between here and the server has dropped the connection without telling (a NAT, a firewall):"
    " WEBSOCKET_PING_INTERVAL has to be shorter than the time after which it does",
)


class Wrong(Exception):
    """A fault, with `advice`, a sentence a line."""

    def __init__(self, what: str, advice: Sequence[str] = ()) -> None:
        super().__init__(what)
        self.advice = advice


class Unknown(Exception):
    """A test that could not be made, without a fault."""


class Step(NamedTuple):
    """One test: `examine` returns what is well. After a failure of a `vital` one, no other can be made."""

    name: str
    vital: bool
    examine: Callable[[Examination], str]


class Command(ClientCommand):
    """Tries a WebSocket step by step, and says what is wrong and what to do."""

    help = (
        "Tries a WebSocket step by step: name, connection, TLS, opening handshake, ping, a large message, and a time of"
        " silence. Says what is wrong and what to do about it. It takes a minute, for the silence (--idle). Exit code 1"
        " if anything is wrong. The handshake says the site's own origin unless --origin gives another one."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Add those of the client, the size of the large message and the length of the silence."""
        super().add_arguments(parser)
        parser.add_argument(
            "--size", type=int, default=SIZE_BYTES, metavar="BYTES",
            help="the size of the large message, which the view gets as text (default: %(default)s; 0 sends none)",
        )  # fmt: skip
        parser.add_argument(
            "--idle", type=not_negative, default=IDLE_SECONDS, metavar="SECONDS",
            help="how long to be silent (default: %(default)s; 0 leaves it out)",
        )  # fmt: skip

    def handle(self, *args: Any, url: str, **options: Any) -> None:
        """Print a line for each step, and the advice below a fault."""
        examination = Examination(url, options)
        steps = [step for step in STEPS if examination.includes(step)]
        wrong = 0
        try:
            for step in steps:
                went_well = self._take(step, examination)
                wrong += not went_well
                if step.vital and not went_well:
                    break
        finally:
            examination.end()
        if wrong:
            raise CommandError("something is wrong, see above")
        self.stdout.write("Nothing is wrong.")

    def _take(self, step: Step, examination: Examination) -> bool:
        try:
            self._tell("ok", step, step.examine(examination))
        except Unknown as unknown:
            self._tell("?", step, str(unknown))
        except ProtocolError as error:
            self._tell("WRONG", step, f"what arrives is not RFC 6455: {error}")
            self.stdout.write("       a proxy changes what it passes on, or the server is broken")
            return False
        except Wrong as wrong:
            self._tell("WRONG", step, str(wrong))
            for sentence in wrong.advice:
                self.stdout.write(f"       {printable(sentence)}")
            return False
        return True

    def _tell(self, verdict: str, step: Step, what: str) -> None:
        first, *more = map(printable, what.split("\n"))
        self.stdout.write("\n".join([f"{verdict:<6} {step.name}: {first}", *(f"       | {line}" for line in more)]))
        self.stdout.flush()


class Examination:
    """The connection under test, and the steps that test it."""

    def __init__(self, url: str, options: dict[str, Any]) -> None:
        self._url = url
        self._target = Target.parse(url)
        self._opening: Opening = opening(options)
        if self._opening["origin"] is None:
            self._opening["origin"] = self._target.origin
        self._trust = trust(options)
        self._timeout: float = options["timeout"]
        self._size: int = options["size"]
        self._idle: float = options["idle"]
        self._stream: Stream | None = None
        self._websocket: ClientConnection | None = None

    def includes(self, step: Step) -> bool:
        """Whether the step was asked for."""
        return {"large message": self._size > 0, "silence": self._idle > 0}.get(step.name, True)

    def end(self) -> None:
        """Close the WebSocket with a closing handshake, and its socket."""
        if self._websocket is not None:
            self._websocket.close(timeout=_CLOSE_SECONDS)
        if self._stream is not None:
            self._stream.close()

    def name(self) -> str:
        """Look up the addresses of the host."""
        try:
            found = socket.getaddrinfo(self._target.host, self._target.port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise Wrong(f"{self._target.host!r} has no address: {error.strerror}", ["is the name right?"]) from None
        return f"{self._target.host} is {', '.join(dict.fromkeys(str(entry[4][0]) for entry in found))}"

    def connection(self) -> str:
        """Connect: a server must be there, and have a certificate."""
        begin = time.monotonic()
        stream = self._dial()
        took = milliseconds(time.monotonic() - begin)
        version = f", {stream.version()}" if isinstance(stream, TLSStream) else ""
        return f"connected to port {self._target.port} in {took}{version}"

    def handshake(self) -> str:
        """Open the WebSocket."""
        begin = time.monotonic()
        websocket = self._open(self._stream or self._dial())
        took = milliseconds(time.monotonic() - begin)
        chosen = f", subprotocol {websocket.subprotocol}" if websocket.subprotocol else ""
        return f"accepted in {took}{chosen}, for pages of {self._opening['origin']}"

    def ping(self) -> str:
        """Ping: frames must travel both ways."""
        return f"answered in {milliseconds(self._ping(self._renewed(), _HELD_BACK))}"

    def large_message(self) -> str:
        """Send a large message, which must come through; the view may do with it as it likes."""
        size = size_in_words(self._size)
        websocket = self._renewed()
        try:
            websocket.send("x" * self._size, timeout=self._timeout)
            self._wait_for_it(websocket, size)
        except TimeoutError:
            raise Wrong(f"{size} did not go through within {self._timeout:g} seconds", _CUT_BY_SIZE) from None
        except WebSocketClosed:
            return self._end_by_size(websocket, size)
        return f"{size} went through"

    def _wait_for_it(self, websocket: ClientConnection, size: str) -> None:
        try:
            websocket.ping(self._timeout)
        except TimeoutError:  # where a view does not take what has arrived, a server reads no further
            websocket.close(timeout=_CLOSE_SECONDS)
            raise Unknown(f"{size} went out, but nothing was answered: {_NOT_READ}") from None

    def _end_by_size(self, websocket: ClientConnection, size: str) -> str:
        code, reason = end_of(websocket, self._timeout)
        said = close_in_words(code, reason)
        if code == CloseCode.MESSAGE_TOO_BIG:
            advice = (
                "WEBSOCKET_MAX_MESSAGE_SIZE, or max_message_size of the view, says the limit (--size tries another)"
            )
            raise Wrong(f"{size} is more than the server takes: {said}", [advice])
        if code == CloseCode.ABNORMAL_CLOSURE:
            raise Wrong(f"the connection was cut by a message of {size} ({reason})", _CUT_BY_SIZE)
        return f"{size} went through; the view then closed with {said}"

    def silence(self) -> str:
        """Be silent: the connection must stay open."""
        websocket = self._renewed()
        before = websocket.pings_received
        begin = time.monotonic()
        try:
            while (left := begin + self._idle - time.monotonic()) > 0:
                websocket.receive(left)
        except TimeoutError:
            pass
        except WebSocketClosed:
            self._end_by_silence(websocket, time.monotonic() - begin, websocket.pings_received - before)
        came = pings_in_words(websocket.pings_received - before)
        took = milliseconds(self._ping(websocket, _DEAD))
        return f"still open after {self._idle:g} seconds, in which {came}; answered in {took}"

    def _end_by_silence(self, websocket: ClientConnection, seconds: float, pings: int) -> None:
        code, reason = end_of(websocket, self._timeout)
        said = close_in_words(code, reason)
        if code == CloseCode.ABNORMAL_CLOSURE:
            what = f"the connection was cut after {seconds:.1f} seconds, in which {pings_in_words(pings)}"
            raise Wrong(what, _SILENCE)
        if code in (CloseCode.GOING_AWAY, CloseCode.SERVICE_RESTART):
            raise Unknown(f"the server ended the connection after {seconds:.1f} seconds ({said}): does it restart?")
        why = ", perhaps for what the large message said: --size 0 sends none" if self._size else ""
        raise Unknown(f"the view closed the connection after {seconds:.1f} seconds ({said}){why}")

    def _ping(self, websocket: ClientConnection, advice: Sequence[str]) -> float:
        try:
            return websocket.ping(self._timeout)
        except TimeoutError:
            raise Wrong(f"no answer within {self._timeout:g} seconds", advice) from None
        except WebSocketClosed:
            code, reason = end_of(websocket, self._timeout)
        if code == CloseCode.ABNORMAL_CLOSURE:
            raise Wrong(f"the connection was cut ({reason})", advice)
        raise Unknown(f"the view closed the connection first, with {close_in_words(code, reason)}")

    def _renewed(self) -> ClientConnection:
        """Return the WebSocket, or a new one where the view, or an earlier step, has ended it."""
        if self._websocket is None or self._websocket.closed:
            return self._open(self._dial())
        return self._websocket

    def _dial(self) -> Stream:
        try:
            self._stream = dial(self._target, time.monotonic() + self._timeout, self._trust)
        except ssl.SSLCertVerificationError as error:
            advice = _CERTIFICATE_ADVICE.get(error.verify_code, _OTHER_CERTIFICATE_ADVICE)
            raise Wrong(f"the certificate is refused: {error.verify_message}", [advice]) from None
        except ssl.SSLError as error:
            raise Wrong(f"no TLS ({error.reason or error})", _NO_TLS) from None
        except ConnectionRefusedError:
            raise Wrong(f"no server listens on port {self._target.port}", _NO_LISTENER) from None
        except TimeoutError:
            raise Wrong(f"no answer within {self._timeout:g} seconds", _NOWHERE) from None
        except OSError as error:
            raise Wrong(f"no connection: {error}") from None
        return self._stream

    def _open(self, stream: Stream) -> ClientConnection:
        deadline = time.monotonic() + self._timeout
        try:
            self._websocket = open_websocket(stream, self._target, deadline, **self._opening)
        except Refused as refused:
            raise self._refused(refused) from None
        except HandshakeFailed as error:
            raise Wrong(str(error), _NO_WEBSOCKET_SERVER) from None
        except TimeoutError:
            raise Wrong(f"no answer within {self._timeout:g} seconds", _BUSY) from None
        except OSError as error:
            raise Wrong(f"the connection broke: {error}", _NO_WEBSOCKET_SERVER) from None
        except ValueError as error:
            raise CommandError(str(error)) from None
        return self._websocket

    def _refused(self, refused: Refused) -> Wrong:
        response = refused.response
        server = f" (Server: {printable(response.get('server') or '')})" if response.get("server") else ""
        said = sentences(response, refused.body)
        advice = [*self._advice(response, " ".join(said))]
        if response.http_version == "HTTP/1.0":
            advice.append("the answer is HTTP/1.0, which knows no WebSockets: a proxy, or the server, speaks only that")
        return Wrong("\n".join([f"{printable(str(refused))}{server}", *said]), advice)

    def _advice(self, response: Response, said: str) -> Sequence[str]:
        if response.status in _REDIRECTS:
            return [self._redirect(response.get("location") or "")]
        if 200 <= response.status < 300:
            return _ORDINARY_PAGE
        if response.status in _EXPLAINED and "Sec-WebSocket-Key" in said:
            return _NO_KEY
        if response.status in _EXPLAINED and _EXPLANATION.search(said):
            return _NGINX if "nginx: proxy_http_version" in said or "nginx: Connection" in said else ()
        return _ADVICE.get(response.status, _OTHER_ADVICE)

    def _redirect(self, location: str) -> str:
        """Explain the redirect, which no WebSocket follows."""
        base = f"{'https' if self._target.secure else 'http'}://{self._target.authority}{self._target.resource}"
        here = urlsplit(base)
        try:
            there = urlsplit(urljoin(base, location))
        except ValueError:
            return f"it redirects to {location}, which is no URL"
        place = f"it redirects to {there.geturl()}, and a WebSocket follows no redirect: "
        if (there.scheme, there.path) == ("https", here.path) and here.scheme == "http":
            return place + "open it with wss:// (SECURE_SSL_REDIRECT, or the proxy, sends everything to https)"
        if there.path == f"{here.path}/":
            return place + "its URL ends with a slash (APPEND_SLASH redirects every URL without one)"
        if there.path == here.path:
            return place + f"open it at {there.netloc}"
        return place + "where that is a login page, the view wants a session: --header 'Cookie: sessionid=…'"


STEPS = (
    Step("name", True, Examination.name),
    Step("connection", True, Examination.connection),
    Step("opening handshake", True, Examination.handshake),
    Step("ping", False, Examination.ping),
    Step("large message", False, Examination.large_message),
    Step("silence", False, Examination.silence),
)


def end_of(websocket: ClientConnection, timeout: float) -> tuple[int, str]:
    """Return the close code and reason, after reading all that arrived before, for at most `timeout` seconds."""
    deadline = time.monotonic() + timeout
    try:
        while (left := deadline - time.monotonic()) > 0:
            websocket.receive(min(left, _CLOSE_SECONDS))
    except WebSocketClosed as closed:
        return closed.close_code, closed.close_reason
    except TimeoutError:
        pass
    return CloseCode.ABNORMAL_CLOSURE, "no close frame came"


def sentences(response: Response, body: bytes) -> list[str]:
    """The lines of a body of plain text; none of a page."""
    is_text = (response.get("content-type") or "").startswith("text/plain")
    return body_in_words(response, body) if is_text else []


def milliseconds(seconds: float) -> str:
    """The time, as "1.2 ms"."""
    return f"{seconds * 1000:.1f} ms"


def pings_in_words(count: int) -> str:
    """The number of pings that came from the server, in words."""
    return {0: "no ping of the server came", 1: "one ping of the server came"}.get(count, f"{count} pings of it came")
