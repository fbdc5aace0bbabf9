"""The arguments and the words that the management commands share."""

from __future__ import annotations

import time
from argparse import ArgumentTypeError

import pytest

from dwebsocket.client.command import close_in_words, header, page_in_words, size_in_words, websocket_url
from tests.links import PATIENCE_SECONDS

# Arguments


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("http://host/a?b", "ws://host/a?b"),
        ("https://host", "wss://host"),
        ("ws://host:1/", "ws://host:1/"),
        ("WSS://host", "wss://host"),
    ],
)
def test_url_of_a_page_is_the_one_of_its_websocket(given, url) -> None:
    assert websocket_url(given) == url


@pytest.mark.parametrize("given", ["host/path", "ftp://host", "http://", "ws://host:port/"])
def test_url_of_something_else_is_refused(given) -> None:
    with pytest.raises(ArgumentTypeError):
        websocket_url(given)


def test_header_has_a_name_and_a_value() -> None:
    assert header("Cookie: a=b: c ") == ("Cookie", "a=b: c")


@pytest.mark.parametrize("given", ["Cookie", ": value", "a b: c"])
def test_header_without_a_name_is_refused(given) -> None:
    with pytest.raises(ArgumentTypeError):
        header(given)


# Words


@pytest.mark.parametrize(
    ("code", "reason", "words"),
    [
        (1000, "", "1000 NORMAL_CLOSURE"),
        (1009, "too big", "1009 MESSAGE_TOO_BIG: too big"),
        (3001, "", "3001 of a library"),
        (4404, "gone", "4404 of the application: gone"),
        (1016, "", "1016 unregistered"),
    ],
)
def test_close_code_is_told_with_its_name(code, reason, words) -> None:
    assert close_in_words(code, reason) == words


@pytest.mark.parametrize(
    ("size", "words"), [(0, "0 bytes"), (1000, "1000 bytes"), (2048, "2 KiB"), (3 << 20, "3 MiB"), (1025, "1025 bytes")]
)
def test_size_is_told_in_round_units(size, words) -> None:
    assert size_in_words(size) == words


def test_page_that_is_made_to_be_hard_to_read_is_read_soon() -> None:
    begin = time.monotonic()
    for part in ("<", "<style", "<!--", "<p", "</title", "<title>", "&#", "<script></"):
        page_in_words(part * (65_536 // len(part)))
    assert time.monotonic() - begin < PATIENCE_SECONDS
