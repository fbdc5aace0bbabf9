from __future__ import annotations

import pytest

from dwebsocket.groups.backend import Publication
from dwebsocket.groups.redis import commands


def test_command_is_an_array_of_strings() -> None:
    assert commands.command(b"SET", b"", b"\r\n") == b"*3\r\n$3\r\nSET\r\n$0\r\n\r\n$2\r\n\r\n\r\n"


def test_publish_is_the_command_with_its_payload_as_given() -> None:
    assert commands.publish(b"c", b"\x00\xff") == commands.command(b"PUBLISH", b"c", b"\x00\xff")


def test_channels_of_many_groups_share_one_command() -> None:
    assert commands.subscribe([b"a", b"b"]) == commands.command(b"SUBSCRIBE", b"a", b"b")
    assert commands.unsubscribe([b"a"]) == commands.command(b"UNSUBSCRIBE", b"a")


@pytest.mark.parametrize(
    ("publication", "parts"),
    [
        (Publication("room:7", b"x"), [b"PUBLISH", b"p:g:room:7", b"x"]),
        (
            Publication("ä", b"x", "k"),
            [b"EVAL", commands._ONCE, b"1", "p:o:1:ä:k".encode(), "p:g:ä".encode(), b"x", b"300"],
        ),
    ],
)
def test_publication_names_its_channel_below_the_prefix(publication: Publication, parts: list[bytes]) -> None:
    assert commands.Names("p").publication(publication) == commands.command(*parts)


def test_key_of_once_is_of_one_group_and_one_word() -> None:
    names = commands.Names("p")

    assert names.once("a:b", "c") != names.once("a", "b:c")


def test_channel_of_a_process_is_no_channel_of_a_group() -> None:
    names = commands.Names("p")

    assert names.node("x") == b"p:n:x"
    assert names.channel("x") == b"p:g:x"


def test_keys_of_presence_are_below_the_prefix_and_no_others() -> None:
    names = commands.Names("p")

    assert names.nodes() == b"p:p:nodes"
    assert names.nodes().startswith(names.presence())
    assert not names.channel("x").startswith(names.presence())
