from __future__ import annotations

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dwebsocket.protocol.exceptions import HandshakeError, UpgradeRequired
from dwebsocket.protocol.handshake import (
    Handshake,
    Headers,
    Request,
    accept_token,
    choose_subprotocol,
    is_token,
    is_websocket,
    read,
)

#: The opening handshake of section 1.3.
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
HEADERS = {
    "host": "server.example.com",
    "upgrade": "websocket",
    "connection": "Upgrade",
    "sec-websocket-key": KEY,
    "origin": "http://example.com",
    "sec-websocket-protocol": "chat, superchat",
    "sec-websocket-version": "13",
}


def request(*, method: str = "GET", http_version: str = "HTTP/1.1", **changes: str | None) -> Request:
    """The request of section 1.3 with some headers changed, or left out where they are None."""
    changed = HEADERS | {name.replace("_", "-"): value for name, value in changes.items()}
    return Request(method, http_version, {name: value for name, value in changed.items() if value is not None})


# --- what the client asks for ----------------------------------------------------------------------------------------


def test_opening_handshake_of_the_rfc_is_read() -> None:
    """RFC 6455, 1.3."""
    assert read(request()) == Handshake("dGhlIHNhbXBsZSBub25jZQ==", ("chat", "superchat"))


def test_opening_handshake_of_the_rfc_is_answered() -> None:
    """RFC 6455, 1.3."""
    response = read(request()).response(subprotocol="chat")

    assert response == (
        b"HTTP/1.1 101 Switching Protocols\r\n"
        b"Upgrade: websocket\r\n"
        b"Connection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
        b"Sec-WebSocket-Protocol: chat\r\n"
        b"\r\n"
    )


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"upgrade": "WebSocket"}, id="4.2.1-3-case"),
        pytest.param({"upgrade": "h2c, websocket"}, id="4.2.1-3-list"),
        pytest.param({"connection": "keep-alive, Upgrade"}, id="4.2.1-4-list"),
        pytest.param({"connection": "upgrade,keep-alive"}, id="4.2.1-4-list-without-space"),
        pytest.param({"connection": "UPGRADE"}, id="4.2.1-4-case"),
        pytest.param({"sec_websocket_key": f" {KEY} "}, id="4.2.1-5-space-around"),
        pytest.param({"sec_websocket_version": " 13 "}, id="4.2.1-6-space-around"),
        pytest.param({"origin": None}, id="4.2.1-7-no-origin"),
        pytest.param({"content_length": "0"}, id="rfc9110-8.6-length-0"),
        pytest.param({"cookie": "sessionid=1", "user_agent": "Mozilla/5.0"}, id="4.2.1-10-other-headers"),
    ],
)
def test_valid_opening_handshake_is_read(changes: dict[str, str | None]) -> None:
    assert read(request(**changes)) == Handshake(KEY, ("chat", "superchat"))


BAD_KEY = "Sec-WebSocket-Key is not 16 bytes in base64"
NO_KEY = "Sec-WebSocket-Key is missing"
BAD_SUBPROTOCOLS = "Sec-WebSocket-Protocol is not a list of different tokens"
NO_UPGRADE = "the Upgrade header does not say websocket"
NO_CONNECTION = 'the Connection header does not say Upgrade (behind nginx: Connection "upgrade")'


def get_not(method: str) -> str:
    return f"a WebSocket is opened with GET, not {method}"


def version_not(version: str) -> str:
    return f"a WebSocket is opened with HTTP/1.1, not {version} (behind nginx: proxy_http_version 1.1)"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        pytest.param(request(method="POST"), get_not("POST"), id="4.2.1-1-post"),
        pytest.param(request(method="HEAD"), get_not("HEAD"), id="4.2.1-1-head"),
        pytest.param(request(method="CONNECT"), get_not("CONNECT"), id="4.2.1-1-connect"),
        pytest.param(request(method="get"), get_not("get"), id="4.2.1-1-case"),
        pytest.param(request(http_version="HTTP/1.0"), version_not("HTTP/1.0"), id="4.2.1-1-http-1.0"),
        pytest.param(request(http_version="HTTP/2.0"), version_not("HTTP/2.0"), id="4.2.1-1-http-2"),
        pytest.param(request(content_length="1"), "an opening handshake has no body", id="4.2.1-length"),
        pytest.param(request(transfer_encoding="chunked"), "an opening handshake has no body", id="4.2.1-chunked"),
        pytest.param(request(host=None), "the Host header is missing", id="4.2.1-2-no-host"),
        pytest.param(request(host=""), "the Host header is missing", id="4.2.1-2-empty-host"),
        pytest.param(request(connection=None), NO_CONNECTION, id="4.2.1-4-no-connection"),
        pytest.param(request(connection="keep-alive"), NO_CONNECTION, id="4.2.1-4-keep-alive"),
        pytest.param(request(connection="not-upgrade"), NO_CONNECTION, id="4.2.1-4-whole-token"),
        pytest.param(request(sec_websocket_key=None), NO_KEY, id="4.2.1-5-no-key"),
        pytest.param(request(sec_websocket_key=""), NO_KEY, id="4.2.1-5-empty"),
        pytest.param(request(sec_websocket_key="dGhlIHNhbXBsZSBub25j"), BAD_KEY, id="4.2.1-5-15-bytes"),
        pytest.param(request(sec_websocket_key="dGhlIHNhbXBsZSBub25jZSE="), BAD_KEY, id="4.2.1-5-17-bytes"),
        pytest.param(request(sec_websocket_key="dGhlIHNhbXBsZSBub25jZQ"), BAD_KEY, id="4.2.1-5-no-padding"),
        pytest.param(request(sec_websocket_key="dGhlIHNhbXBs!SBub25jZQ=="), BAD_KEY, id="4.2.1-5-not-base64"),
        pytest.param(request(sec_websocket_key="!dGhlIHNhbXBsZSBub25jZQ=="), BAD_KEY, id="4.2.1-5-one-letter-too-many"),
        pytest.param(request(sec_websocket_key="dGhlIHNhbXBsZSBub25jZé=="), BAD_KEY, id="4.2.1-5-not-ascii"),
        pytest.param(request(sec_websocket_key=f"{KEY},{KEY}"), BAD_KEY, id="11.3.1-key-twice"),
        pytest.param(request(sec_websocket_protocol=""), BAD_SUBPROTOCOLS, id="4.2.1-8-empty"),
        pytest.param(request(sec_websocket_protocol="chat,,superchat"), BAD_SUBPROTOCOLS, id="4.2.1-8-empty-element"),
        pytest.param(request(sec_websocket_protocol="chat, chat"), BAD_SUBPROTOCOLS, id="4.1-10-not-different"),
        pytest.param(request(sec_websocket_protocol="chat room"), BAD_SUBPROTOCOLS, id="4.1-10-space"),
        pytest.param(request(sec_websocket_protocol="chat;v=1"), BAD_SUBPROTOCOLS, id="4.1-10-separator"),
        pytest.param(request(sec_websocket_protocol="chät"), BAD_SUBPROTOCOLS, id="4.1-10-not-ascii"),
    ],
)
def test_invalid_opening_handshake_is_refused_with_400(changed: Request, message: str) -> None:
    with pytest.raises(HandshakeError) as caught:
        read(changed)

    assert (caught.value.status_code, caught.value.headers, str(caught.value)) == (400, {}, message)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        pytest.param(request(upgrade=None), NO_UPGRADE, id="4.2.1-3-no-upgrade"),
        pytest.param(request(upgrade="h2c"), NO_UPGRADE, id="4.2.1-3-h2c"),
        pytest.param(request(upgrade="websocket2"), NO_UPGRADE, id="4.2.1-3-whole-token"),
        *(
            pytest.param(
                request(sec_websocket_version=version),
                "only version 13 of the WebSocket protocol (RFC 6455) is spoken here",
                id=f"4.4-version-{version}",
            )
            for version in [None, "", "0", "8", "12", "14", "013", "13.0", "13, 8", "thirteen"]
        ),
    ],
)
def test_other_version_is_refused_with_426_and_the_one_spoken_here(changed: Request, message: str) -> None:
    """4.4."""
    with pytest.raises(UpgradeRequired) as caught:
        read(changed)

    assert (caught.value.status_code, str(caught.value)) == (426, message)
    assert caught.value.headers == {"Sec-WebSocket-Version": "13"}


@pytest.mark.parametrize(
    ("upgrade", "asks"),
    [("websocket", True), ("h2c, WebSocket", True), (None, False), ("", False), ("h2c", False), ("websockets", False)],
)
def test_request_asks_for_a_websocket_when_its_upgrade_header_says_so(upgrade: str | None, asks: bool) -> None:
    assert is_websocket(request(upgrade=upgrade)) is asks


def test_request_that_will_be_refused_still_asks_for_a_websocket() -> None:
    assert is_websocket(request(method="POST", connection=None, sec_websocket_key=None))


def test_opening_handshake_without_subprotocols_offers_none() -> None:
    assert read(request(sec_websocket_protocol=None)).subprotocols == ()


def test_subprotocols_keep_the_order_of_the_client() -> None:
    """4.2.1, 8."""
    offered = read(request(sec_websocket_protocol="v2.chat ,v1.chat,\tjson")).subprotocols

    assert offered == ("v2.chat", "v1.chat", "json")


_header_values = st.one_of(
    st.text(max_size=30), st.sampled_from(["", "websocket", "Upgrade", "13", KEY, "chat", "a,b", "=" * 24, "A" * 24])
)


@given(
    st.sampled_from(["GET", "POST", ""]),
    st.sampled_from(["HTTP/1.1", "HTTP/1.0", ""]),
    st.dictionaries(st.sampled_from([*HEADERS, "content-length", "transfer-encoding"]), _header_values),
)
def test_any_request_is_read_or_refused_with_its_http_answer(
    method: str, http_version: str, headers: dict[str, str]
) -> None:
    try:
        handshake = read(Request(method, http_version, HEADERS | headers))
    except HandshakeError as refusal:
        status_code = refusal.status_code
    else:
        status_code = 101
        assert len(base64.b64decode(handshake.key)) == 16

    assert status_code in (101, 400, 426)


# --- the answer ------------------------------------------------------------------------------------------------------


def lines(response: bytes) -> list[str]:
    """The header lines of a 101, after those that every one has."""
    assert response.endswith(b"\r\n\r\n")
    status, upgrade, connection, accept, *rest = response[:-4].decode("latin-1").split("\r\n")
    assert (status, upgrade, connection) == (
        "HTTP/1.1 101 Switching Protocols",
        "Upgrade: websocket",
        "Connection: Upgrade",
    )
    assert accept == "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    return rest


HANDSHAKE = Handshake(KEY, ("chat", "superchat"))


def test_accept_token_of_the_rfc() -> None:
    """RFC 6455, 1.3."""
    assert accept_token("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


@given(st.binary(min_size=16, max_size=16))
def test_accept_token_is_the_hash_of_the_key_and_the_guid(nonce: bytes) -> None:
    """4.2.2, 5.4."""
    key = base64.b64encode(nonce)
    digest = hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()

    assert base64.b64decode(accept_token(key.decode())) == digest


def test_answer_without_anything_names_no_subprotocol() -> None:
    assert lines(HANDSHAKE.response()) == []


@pytest.mark.parametrize("subprotocol", ["chat", "superchat"])
def test_answer_names_the_subprotocol(subprotocol: str) -> None:
    assert lines(HANDSHAKE.response(subprotocol)) == [f"Sec-WebSocket-Protocol: {subprotocol}"]


@pytest.mark.parametrize(
    ("handshake", "subprotocol", "message"),
    [
        (
            HANDSHAKE,
            "json",
            r"^the client did not offer the subprotocol 'json' \(it offered: chat, superchat\)$",
        ),
        (HANDSHAKE, "Chat", r"^the client did not offer the subprotocol 'Chat'"),
        (HANDSHAKE, "", r"^the client did not offer the subprotocol ''"),
        (Handshake(KEY), "json", r"^the client did not offer the subprotocol 'json' \(it offered: none\)$"),
    ],
)
def test_subprotocol_that_was_not_offered_is_refused(handshake: Handshake, subprotocol: str, message: str) -> None:
    """4.2.2, 5.5."""
    with pytest.raises(ValueError, match=message):
        handshake.response(subprotocol)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param({"X-Room": "1", "Date": "now"}, ["X-Room: 1", "Date: now"], id="mapping"),
        pytest.param(
            [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")], ["Set-Cookie: a=1", "Set-Cookie: b=2"], id="name-twice"
        ),
        pytest.param(iter([("X-Room", "1")]), ["X-Room: 1"], id="iterator"),
        pytest.param({"X-Room": ""}, ["X-Room: "], id="empty-value"),
        pytest.param({"X-Room": "a\tb ~ é ÿ"}, ["X-Room: a\tb ~ é ÿ"], id="rfc9110-5.5-value"),
        pytest.param({"!#$%&'*+-.^_`|~09azAZ": "1"}, ["!#$%&'*+-.^_`|~09azAZ: 1"], id="rfc9110-5.6.2-name"),
        pytest.param({}, [], id="no-headers"),
    ],
)
def test_headers_stand_in_the_answer(headers: Headers, expected: list[str]) -> None:
    assert lines(HANDSHAKE.response(headers=headers)) == expected


def test_headers_stand_after_the_subprotocol() -> None:
    assert lines(HANDSHAKE.response("chat", {"X-Room": "1"})) == ["Sec-WebSocket-Protocol: chat", "X-Room: 1"]


@pytest.mark.parametrize(
    "value",
    [
        "a\r\nX-Evil: 1",
        "a\nX-Evil: 1",
        "a\rX-Evil: 1",
        "a\n",
        "a\r\n\r\nHTTP/1.1 200 OK",
        "a\0b",
        "a\x7f",
        "a\x1f",
        "€",
    ],
)
def test_header_value_that_a_header_cannot_carry_is_refused(value: str) -> None:
    with pytest.raises(
        ValueError, match=r"^the value of the header X-Room has a character that a header cannot carry$"
    ):
        HANDSHAKE.response(headers={"X-Room": value})


@pytest.mark.parametrize(
    "name", ["", " ", "X Room", "X-Room:", "X-Room\r\nX-Evil", "X-Room\n", "X-Räum", "X/Room", "\0"]
)
def test_header_name_that_is_no_token_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"is not the name of a header$"):
        HANDSHAKE.response(headers=[(name, "1")])


@pytest.mark.parametrize(
    "name",
    [
        "Upgrade",
        "connection",
        "CONTENT-LENGTH",
        "Transfer-Encoding",
        "Sec-WebSocket-Accept",
        "sec-websocket-protocol",
        "Sec-WebSocket-Extensions",
    ],
)
def test_header_that_is_ours_to_set_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"^the header {name} is set by the handshake itself$"):
        HANDSHAKE.response(headers={"X-Room": "1", name: "1"})


@given(st.lists(st.tuples(st.text(max_size=12), st.text(max_size=12)), max_size=3))
def test_any_headers_stand_in_the_answer_as_they_are_or_are_refused(headers: list[tuple[str, str]]) -> None:
    try:
        response = HANDSHAKE.response(headers=headers)
    except ValueError:
        return

    assert lines(response) == [f"{name}: {value}" for name, value in headers]


# --- subprotocols ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offered", "supported", "chosen"),
    [
        pytest.param(["chat", "superchat"], ["superchat", "chat"], "superchat", id="4.2.2-the-server-prefers"),
        pytest.param(["a", "b"], ["c", "b"], "b", id="4.2.2-only-one-in-common"),
        pytest.param(["chat"], ["Chat"], None, id="4.2.2-case-counts"),
        pytest.param(["chat"], ["json"], None, id="4.2.2-none-in-common"),
        pytest.param([], ["json"], None, id="4.2.2-none-offered"),
        pytest.param(["chat"], [], None, id="4.2.2-none-supported"),
    ],
)
def test_subprotocol_is_the_first_supported_one_that_is_offered(
    offered: list[str], supported: list[str], chosen: str | None
) -> None:
    assert choose_subprotocol(offered, supported) == chosen


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("chat", True),
        ("v2.chat+json", True),
        ("!#$%&'*+-.^_`|~", True),
        ("", False),
        ("two words", False),
        ("a,b", False),
        ("a;b", False),
        ('"a"', False),
        ("a/b", False),
        ("chat\n", False),
        ("\nchat", False),
        ("chät", False),
    ],
)
def test_token_has_only_the_characters_of_rfc_9110(text: str, is_one: bool) -> None:
    """RFC 9110, 5.6.2."""
    assert is_token(text) is is_one
