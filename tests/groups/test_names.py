"""What a group may be called."""

from __future__ import annotations

import enum
import uuid

import pytest
from django.utils.safestring import SafeString

from dwebsocket.groups import names


@pytest.mark.parametrize("name", ["room:7", "ä", "a b", "x" * 200, "🎉:" + "y" * 190])
def test_name_of_a_group_is_nearly_any_text(name: str) -> None:
    assert names.check(name) == name


@pytest.mark.parametrize("name", ["", "x" * 201, "ä" * 101, "a\nb", "a\x00", "a\x7f", "a\x85", "\ud800"])
def test_too_long_or_unprintable_is_no_name(name: str) -> None:
    with pytest.raises(ValueError, match=r"^the name of a group (has|is)"):
        names.check(name)


@pytest.mark.parametrize("name", [7, None, b"room"])
def test_name_is_text(name: object) -> None:
    with pytest.raises(TypeError, match="the name of a group is a str, not "):
        names.check(name)


@pytest.mark.parametrize("name", ["room", "chat.room", "ro-om_2", "räume"])
def test_groups_are_declared_with_a_word(name: str) -> None:
    assert names.check_prefix(name) == name


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("a:b", "letters, digits"), ("a b", "letters, digits"), ("dwebsocket.x", "dwebsocket's own"), ("", "1 to 200")],
)
def test_other_declarations_say_why_not(name: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        names.check_prefix(name)


@pytest.mark.parametrize(
    ("key", "text"), [(7, "7"), (-1, "-1"), ("a:b", "a:b"), (uuid.UUID(int=1), str(uuid.UUID(int=1)))]
)
def test_key_is_a_number_a_text_or_a_uuid(key: object, text: str) -> None:
    assert names.key_text(key) == text


class Colour(str, enum.Enum):
    RED = "red"


class Floor(enum.IntEnum):
    FIRST = 1


@pytest.mark.parametrize(("key", "text"), [(Colour.RED, "red"), (Floor.FIRST, "1"), (SafeString("a"), "a")])
def test_keys_that_are_equal_are_the_same_key(key: str | int, text: str) -> None:
    """The str() of an enum's member is another one, for some kinds and some versions of Python."""
    assert names.key_text(key) == text


def test_model_instance_is_no_key_but_has_one() -> None:
    class Room:
        pk = 7

    with pytest.raises(TypeError, match=r"not Room: take its \.pk$"):
        names.key_text(Room())


@pytest.mark.parametrize("key", [None, True, 1.5, b"a", ("a",)])
def test_other_keys_are_refused(key: object) -> None:
    with pytest.raises(TypeError, match="the key of a group is an int, a str or a UUID"):
        names.key_text(key)


def test_empty_key_is_refused() -> None:
    with pytest.raises(ValueError, match="the key of a group is not empty"):
        names.key_text("")
