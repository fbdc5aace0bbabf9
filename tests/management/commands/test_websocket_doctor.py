"""`manage.py websocket_doctor`, with servers written by hand: what it finds on each way, and what it advises."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable

import pytest
import trustme

from tests.client.far import Far, flood, listening, said, shake_hands
from tests.links import PATIENCE_SECONDS
from tests.management.commands.helpers import answering, doctor, http
from tests.peer import BINARY, CLOSE, PING, PONG, TEXT, close_payload


def examine(serve: Callable[[Far], None], *options: str) -> list[str]:
    """The lines behind the first two, which say that a connection was made; at the end a "!" if something is wrong."""
    with listening(serve) as port:
        lines, error = doctor(f"ws://127.0.0.1:{port}/chat", *options)
    assert lines[:2] == [
        "ok     name: 127.0.0.1 is 127.0.0.1",
        f"ok     connection: connected to port {port} in N ms",
    ]
    return [line.replace(str(port), "PORT") for line in lines[2:]] + ["!"] * bool(error)


ACCEPTED = "ok     opening handshake: accepted in N ms, for pages of http://127.0.0.1:PORT"
PINGED = "ok     ping: answered in N ms"


def pongs(far: Far, until: int) -> bytes:
    """Answer pings; the payload of the first frame with the opcode ``until``."""
    while (taken := far.take()).opcode != until:
        if taken.opcode == PING:
            far.send(said(PONG, taken.payload))
    return taken.payload


def close(far: Far) -> None:
    """Answer what the doctor has to say at its end."""
    far.send(said(CLOSE, pongs(far, CLOSE)))


def test_doctor_finds_nothing_wrong_where_all_is_well() -> None:
    def serve(far: Far) -> None:
        assert shake_hands(far)["origin"].startswith("http://127.0.0.1:")
        assert pongs(far, TEXT) == b"x" * 2048
        far.send(said(TEXT, b"thanks") + said(PING))
        close(far)

    assert examine(serve, "--size=2048", "--idle=0.1") == [
        ACCEPTED,
        PINGED,
        "ok     large message: 2 KiB went through",
        "ok     silence: still open after 0.1 seconds, in which no ping of the server came; answered in N ms",
        "Nothing is wrong.",
    ]


def test_doctor_leaves_out_what_it_is_told_to() -> None:
    def serve(far: Far) -> None:
        shake_hands(far)
        close(far)

    assert examine(serve, "--size=0", "--idle=0") == [ACCEPTED, PINGED, "Nothing is wrong."]


def test_doctor_counts_the_pings_in_the_silence() -> None:
    def serve(far: Far) -> None:
        shake_hands(far)
        far.send(said(PONG, far.take().payload))
        far.send(said(PING, b"1") + said(PING, b"2"))
        assert [far.take()[:2], far.take()[:2]] == [(PONG, b"1"), (PONG, b"2")]
        close(far)

    silence = examine(serve, "--size=0", "--idle=0.3")[2]
    assert "in which 2 pings of it came" in silence


def test_doctor_says_the_limit_of_messages_and_goes_on() -> None:
    def serve(far: Far) -> None:
        shake_hands(far)
        pongs(far, TEXT)
        far.send(said(CLOSE, close_payload(1009, "message of more than 5 bytes")))
        assert far.take()[0] in (PING, CLOSE)

    lines = examine(serve, "--size=2048", "--idle=0")
    assert lines[2:] == [
        "WRONG  large message: 2 KiB is more than the server takes: 1009 MESSAGE_TOO_BIG: message of more than 5 bytes",
        "       WEBSOCKET_MAX_MESSAGE_SIZE, or max_message_size of the view, says the limit (--size tries another)",
        "!",
    ]


def test_doctor_takes_a_view_that_does_not_like_the_message_for_healthy() -> None:
    def serve(far: Far) -> None:
        shake_hands(far)
        pongs(far, TEXT)
        far.send(said(CLOSE, close_payload(1007, "no JSON")))
        assert far.take()[0] in (PING, CLOSE)

    assert examine(serve, "--idle=0")[2:] == [
        "ok     large message: 1 MiB went through; the view then closed with 1007 INVALID_FRAME_PAYLOAD_DATA: no JSON",
        "Nothing is wrong.",
    ]


def test_doctor_says_that_a_large_message_cuts_the_connection() -> None:
    def serve(far: Far) -> None:
        shake_hands(far)
        far.send(said(PONG, far.take().payload))
        assert far.sock.recv(1)

    wrong, advice, mark = examine(serve, "--idle=0")[2:]
    assert wrong.startswith("WRONG  large message: the connection was cut by a message of 1 MiB")
    assert "firewall or proxy" in advice
    assert mark == "!"


def test_doctor_says_that_a_large_message_does_not_go_through() -> None:
    examined = threading.Event()

    def serve(far: Far) -> None:
        shake_hands(far)
        far.send(said(PONG, far.take().payload))
        assert examined.wait(PATIENCE_SECONDS)

    with listening(serve) as port:
        lines, error = doctor(f"ws://127.0.0.1:{port}/", "--idle=0", "--timeout=0.3", f"--size={16 << 20}")
        examined.set()
    assert lines[4] == "WRONG  large message: 16 MiB did not go through within 0.3 seconds"
    assert error


def test_doctor_does_not_blame_the_way_for_a_view_that_does_not_read() -> None:
    def serve(far: Far) -> None:
        shake_hands(far)
        assert pongs(far, TEXT)
        assert [far.take().opcode, far.take().opcode] == [PING, CLOSE]

    assert examine(serve, "--idle=0", "--timeout=0.3", "--size=10")[2:] == [
        "?      large message: 10 bytes went out, but nothing was answered: the view does not read what is sent to it,"
        " or something holds it back (a view that echoes tells which)",
        "Nothing is wrong.",
    ]


def test_doctor_says_that_pings_are_held_back() -> None:
    def serve(far: Far) -> None:
        shake_hands(far)
        assert far.take().opcode == PING
        assert far.take().opcode == CLOSE

    lines = examine(serve, "--size=0", "--idle=0", "--timeout=0.1")
    assert lines[1] == "WRONG  ping: no answer within 0.1 seconds"
    assert "a proxy that passed the handshake on, but buffers what follows" in lines[2]


@pytest.mark.parametrize("sent", [said(TEXT, b"x" * 1000), said(PONG)], ids=["messages", "pongs"])
def test_doctor_ends_in_time_where_frames_flow_without_an_end_and_none_is_an_answer(sent) -> None:
    begin = time.monotonic()
    lines = examine(lambda far: (shake_hands(far), flood(far, sent)), "--size=0", "--idle=0.2", "--timeout=0.2")
    assert lines[1] == "WRONG  ping: no answer within 0.2 seconds"
    assert "WRONG  silence: no answer within 0.2 seconds" in lines
    assert time.monotonic() - begin < PATIENCE_SECONDS


def test_doctor_says_that_the_connection_is_cut_at_once() -> None:
    def serve(far: Far) -> None:
        shake_hands(far)

    lines = examine(serve, "--size=0", "--idle=0")
    assert lines[1].startswith("WRONG  ping: the connection was cut (")


def test_doctor_says_that_the_peer_breaks_the_protocol() -> None:
    def serve(far: Far) -> None:
        shake_hands(far, early=said(BINARY, b"x", rsv=4))
        assert far.take().opcode in (PING, CLOSE)

    lines = examine(serve, "--size=0", "--idle=0")
    assert lines[1] == "WRONG  ping: what arrives is not RFC 6455: reserved bit set"
    assert lines[-1] == "!"


def test_doctor_says_when_silence_cuts_the_connection() -> None:
    def serve(far: Far) -> None:
        shake_hands(far)
        far.send(said(PONG, far.take().payload))

    wrong, advice, mark = examine(serve, "--size=0", "--idle=10")[2:]
    assert wrong == "WRONG  silence: the connection was cut after N seconds, in which no ping of the server came"
    assert "proxy_read_timeout" in advice
    assert "WEBSOCKET_PING_INTERVAL" in advice
    assert mark == "!"


def test_doctor_says_that_a_connection_is_dead_after_silence() -> None:
    def serve(far: Far) -> None:
        shake_hands(far)
        far.send(said(PONG, far.take().payload))
        assert [far.take().opcode, far.take().opcode] == [PING, CLOSE]

    lines = examine(serve, "--size=0", "--idle=0.1", "--timeout=0.2")
    assert lines[2] == "WRONG  silence: no answer within 0.2 seconds"
    assert "a NAT" in lines[3]


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (1000, "the view closed the connection after N seconds (1000 NORMAL_CLOSURE)"),
        (1001, "the server ended the connection after N seconds (1001 GOING_AWAY): does it restart?"),
        (1012, "the server ended the connection after N seconds (1012 SERVICE_RESTART): does it restart?"),
    ],
)
def test_doctor_takes_no_offence_at_a_view_that_ends(code, sentence) -> None:
    def serve(far: Far) -> None:
        shake_hands(far)
        far.send(said(PONG, far.take().payload) + said(CLOSE, close_payload(code)))
        assert far.take().opcode == CLOSE

    assert examine(serve, "--size=0", "--idle=10")[2:] == [f"?      silence: {sentence}", "Nothing is wrong."]


REFUSALS = [
    pytest.param(http("200 OK"), "the view there serves ordinary pages", id="200"),
    pytest.param(http("301 Moved", "Location: /chat/"), "its URL ends with a slash (APPEND_SLASH", id="APPEND_SLASH"),
    pytest.param(
        http("302 Found", "Location: /login/?next=/chat"), "that is a login page, the view wants a session", id="login"
    ),
    pytest.param(http("307 Go", "Location: https://127.0.0.1/chat"), "open it with wss://", id="https"),
    pytest.param(http("308 Go", "Location: http://other.example/chat"), "open it at other.example", id="other host"),
    pytest.param(http("302 Found", "Location: http://[::1"), "redirects to http://[::1, which is no URL", id="no URL"),
    pytest.param(http("400 Bad Request"), "a Host that ALLOWED_HOSTS does not", id="400"),
    pytest.param(http("401 Unauthorized"), "--header 'Authorization: …'", id="401"),
    pytest.param(http("403 Forbidden"), "WEBSOCKET_ALLOWED_ORIGINS or CSRF_TRUSTED_ORIGINS", id="403"),
    pytest.param(http("404 Not Found"), "no view has this URL", id="404"),
    pytest.param(http("405 No"), "does not take GET", id="405"),
    pytest.param(http("418 Teapot"), "no WebSocket is served at this URL", id="418"),
    pytest.param(http("426 Upgrade Required"), "proxy_set_header Upgrade $http_upgrade;", id="426"),
    pytest.param(http("429 Slow"), "limits their rate", id="429"),
    pytest.param(http("500 Oh"), "raised an exception before it accepted", id="500"),
    pytest.param(http("501 Not Implemented"), "does not give its sockets away", id="501"),
    pytest.param(http("502 Bad Gateway"), "the proxy cannot reach the server behind it", id="502"),
    pytest.param(http("503 No"), "WEBSOCKET_MAX_CONNECTIONS is reached", id="503"),
    pytest.param(http("504 Gateway Timeout"), "does not answer in time", id="504"),
    pytest.param(http("404 Not Found", version="1.0"), "the answer is HTTP/1.0", id="HTTP/1.0"),
    pytest.param(b"SSH-2.0-OpenSSH_9\r\n", "this is no WebSocket server", id="SSH"),
    pytest.param(b"", "this is no WebSocket server", id="silence"),
    pytest.param(http("101 Switching Protocols", "Upgrade: other"), "this is no WebSocket server", id="other protocol"),
]


@pytest.mark.parametrize(("answer", "advice"), REFUSALS)
def test_doctor_knows_what_to_do_about_a_refusal(answer, advice) -> None:
    first, *more, mark = examine(answering(answer))
    assert first.startswith("WRONG  opening handshake: ")
    assert advice in "\n".join(more)
    assert mark == "!"


def test_doctor_leaves_it_to_the_server_that_explains_itself() -> None:
    answer = http(
        "400 Bad Request", "Server: s", "Content-Type: text/plain", body="this URL does not expect a WebSocket\n"
    )
    assert examine(answering(answer)) == [
        "WRONG  opening handshake: the server answered 400 Bad Request (Server: s)",
        "       | this URL does not expect a WebSocket",
        "!",
    ]


def test_doctor_knows_which_proxy_makes_handshakes_without_a_key() -> None:
    answer = http("400 Bad Request", "Content-Type: text/plain", body="Sec-WebSocket-Key is missing\n")
    said, advice, mark = examine(answering(answer))[1:]
    assert said == "       | Sec-WebSocket-Key is missing"
    assert "Envoy does that" in advice and "allow_connect" in advice
    assert mark == "!"


def test_doctor_says_that_nothing_answers() -> None:
    def serve(far: Far) -> None:
        far.take_head()
        assert far.at_end()

    lines = examine(serve, "--timeout=0.1")
    assert lines[0] == "WRONG  opening handshake: no answer within 0.1 seconds"
    assert "all threads or workers" in lines[1]


def test_doctor_says_that_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    lines, error = doctor(f"ws://127.0.0.1:{port}/")
    assert lines[1] == f"WRONG  connection: no server listens on port {port}"
    assert error


def test_doctor_says_that_a_name_has_no_address() -> None:
    lines, error = doctor("ws://no-such-name.invalid/")
    assert lines[0].startswith("WRONG  name: 'no-such-name.invalid' has no address")
    assert len(lines) == 2
    assert error


@pytest.mark.parametrize(
    ("name", "trusted", "advice"),
    [
        ("127.0.0.1", False, "--insecure tries without looking at it"),
        ("other.example", True, "the certificate is for another name"),
    ],
)
def test_doctor_says_what_is_wrong_with_a_certificate(tmp_path, monkeypatch, name, trusted, advice) -> None:
    certificate = certify(tmp_path, monkeypatch, name, trusted=trusted)
    with pytest.raises((ssl.SSLError, ConnectionError)), listening(lambda far: None, certificate) as port:
        lines, error = doctor(f"wss://127.0.0.1:{port}/")
    assert lines[1].startswith("WRONG  connection: the certificate is refused: ")
    assert advice in lines[2]
    assert error


@pytest.mark.parametrize(("trusted", "options"), [(True, ()), (False, ("--insecure",))])
def test_doctor_tells_which_tls_is_spoken(tmp_path, monkeypatch, trusted, options) -> None:
    def serve(far: Far) -> None:
        shake_hands(far)
        close(far)

    with listening(serve, certify(tmp_path, monkeypatch, "127.0.0.1", trusted=trusted)) as port:
        lines, error = doctor(f"https://127.0.0.1:{port}/", "--size=0", "--idle=0", *options)
    assert error == ""
    assert lines[1] == f"ok     connection: connected to port {port} in N ms, TLSv1.3"


def certify(tmp_path, monkeypatch, name: str, *, trusted: bool) -> ssl.SSLContext:
    """A server's side of TLS; its authority is known to the process where it is ``trusted``."""
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name).configure_cert(context)
    if trusted:
        authority.cert_pem.write_to_path(tmp_path / "authority.pem")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    return context


def test_doctor_says_that_no_tls_is_spoken() -> None:
    with listening(lambda far: far.send(http("400 Bad Request"))) as port:
        lines, error = doctor(f"wss://127.0.0.1:{port}/")
    assert lines[1].startswith("WRONG  connection: no TLS (")
    assert error
