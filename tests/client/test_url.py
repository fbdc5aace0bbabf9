"""Where the URL of a WebSocket leads."""

from __future__ import annotations

import pytest

from dwebsocket.client import Target


@pytest.mark.parametrize(
    ("url", "expected", "origin"),
    [
        ("ws://host", (False, "host", 80, "host", "/"), "http://host"),
        ("ws://host:80/a/?b=c#d", (False, "host", 80, "host", "/a/?b=c"), "http://host"),
        ("wss://Host:8443/ä b%20c?q=ü", (True, "host", 8443, "host:8443", "/%C3%A4%20b%20c?q=%C3%BC"), None),
        ("wss://[::1]:444/", (True, "::1", 444, "[::1]:444", "/"), "https://[::1]:444"),
        ("wss://[::1]/?x", (True, "::1", 443, "[::1]", "/?x"), "https://[::1]"),
    ],
)
def test_url_says_where_to_connect_and_what_to_ask_for(url, expected, origin) -> None:
    target = Target.parse(url)
    assert target == expected
    assert origin is None or target.origin == origin


@pytest.mark.parametrize("url", ["http://host/", "host", "ws://", "ws:///path", ""])
def test_url_of_no_websocket_is_a_value_error(url) -> None:
    with pytest.raises(ValueError, match="is not the URL of a WebSocket"):
        Target.parse(url)
