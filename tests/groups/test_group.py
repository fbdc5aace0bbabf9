"""The groups of a project: how they are named, declared and sent to."""

from __future__ import annotations

import datetime
import decimal
import uuid
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
from django.contrib.auth.models import AnonymousUser, Permission, User
from django.core.exceptions import ImproperlyConfigured
from django.db.models import UUIDField
from django.utils.translation import gettext_lazy

from dwebsocket import Group, Groups, disconnect_user, everyone, group, user_group
from dwebsocket.groups import sending
from dwebsocket.groups.messages import BINARY, CLOSE, TEXT, Envelope

KEY = uuid.UUID(int=7)


@pytest.fixture
def sent() -> Iterator[list[sending.Sent]]:
    """Everything that has left."""
    gathered: list[sending.Sent] = []
    sending.observers.append(gathered.append)
    yield gathered
    sending.observers.remove(gathered.append)


# Names


@pytest.mark.parametrize(
    ("key", "name"), [(7, "room:7"), ("lobby", "room:lobby"), ("a:b", "room:a:b"), (KEY, f"room:{KEY}")]
)
def test_group_is_named_by_its_key(key: Any, name: str) -> None:
    room = Groups("room")[key]
    assert (room.name, str(room), repr(room)) == (name, name, f"<Group {name}>")


@pytest.mark.parametrize(
    ("key", "error", "sentence"),
    [
        (None, TypeError, "not NoneType"),
        (True, TypeError, "not bool"),
        (7.0, TypeError, "not float"),
        (b"7", TypeError, "not bytes"),
        ((1, 2), TypeError, "not tuple"),
        (User(pk=7), TypeError, r"not User: take its \.pk"),
        ("x" * 196, ValueError, "not 201"),
        ("a\nb", ValueError, "no control characters"),
        ("\ud800", ValueError, "no text"),
    ],
)  # fmt: skip
def test_key_that_is_none_says_so(key: Any, error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        Groups("room")[key]


def test_number_and_its_text_are_one_key() -> None:
    rooms = Groups("room")
    assert rooms[7] == rooms["7"]
    assert hash(rooms[7]) == hash(rooms["7"])
    assert rooms[7] != rooms[8]
    assert rooms[7] != "room:7"


def test_same_name_of_another_alias_is_another_group() -> None:
    assert Group("room:7") != Group("room:7", alias="other")
    assert Group("room:7") == Group("room:7", overflow="latest")


def test_groups_cannot_be_iterated_over() -> None:
    with pytest.raises(TypeError, match="only the project knows its keys"):
        iter(Groups("room"))
    with pytest.raises(TypeError):
        7 in Groups("room")  # type: ignore[operator]  # noqa: B015


@pytest.mark.parametrize("name", ["a:b", "two words", "", "dwebsocket.user", "x" * 201])
def test_name_of_groups_is_a_word(name: str) -> None:
    with pytest.raises(ValueError, match=r"^(the name of Groups|names that begin)"):
        Groups(name)


def test_name_of_groups_is_text() -> None:
    with pytest.raises(TypeError, match="the name of Groups is a str, not int"):
        Groups(7)  # type: ignore[arg-type]


# Declarations


def test_groups_may_be_declared_twice_alike() -> None:
    assert Groups("room", overflow="latest")[7] == Groups("room", overflow="latest")[7]


@pytest.mark.parametrize("other", [{}, {"overflow": "close"}, {"overflow": "latest", "alias": "other"}])
def test_groups_that_are_declared_otherwise_elsewhere_say_how(other: dict[str, str]) -> None:
    Groups("room", overflow="latest")
    with pytest.raises(ValueError, match=r"declared already.*overflow='latest', alias='default'"):
        Groups("room", **other)
    assert group("room:7").overflow == "latest"


def test_declaration_that_is_wrong_leaves_nothing() -> None:
    with pytest.raises(ValueError, match="overflow is 'newest'; it must be one of 'close', "):
        Groups("room", overflow="newest")
    with pytest.raises(NotImplementedError):
        Groups("room", history=10)
    Groups("room", overflow="latest")


@pytest.mark.parametrize("option", [{"history": 100}, {"ttl": 60}, {"presence": True}])
def test_option_that_is_not_there_yet_is_named(option: dict[str, Any]) -> None:
    with pytest.raises(NotImplementedError, match=f"^{next(iter(option))} is not there yet"):
        Groups("room", **option)


def test_options_that_ask_for_nothing_are_there() -> None:
    Groups("room", history=0, ttl=None, presence=False)


@pytest.mark.parametrize("turn", [1, 2])
def test_declaration_of_one_test_is_none_of_another(turn: int) -> None:
    """It runs twice; each has its own."""
    Groups("room", overflow=("close", "latest")[turn - 1])


# group(), user_group(), everyone


def test_group_by_its_name_is_one_of_the_declared() -> None:
    rooms = Groups("room", overflow="latest", alias="other")
    found = group("room:7")
    assert found == rooms[7]
    assert (found.overflow, found.alias) == ("latest", "other")
    assert group("room:a:b") == rooms["a:b"]


@pytest.mark.parametrize("name", ["room", "rooms:7", "hall:7", "ä b"])
def test_other_groups_need_no_declaration(name: str) -> None:
    Groups("room", overflow="latest", alias="other")
    assert (group(name).name, group(name).overflow, group(name).alias) == (name, None, "default")


@pytest.mark.parametrize("name", ["dwebsocket.control", "dwebsocket.user:7", "dwebsocket.everyone", "dwebsocket."])
def test_groups_of_dwebsocket_have_no_names_for_others(name: str) -> None:
    with pytest.raises(ValueError, match="dwebsocket's own"):
        group(name)


@pytest.mark.parametrize(("name", "error"), [(7, TypeError), (None, TypeError), ("", ValueError), ("a\0b", ValueError)])
def test_group_has_a_name(name: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="the name of a group"):
        group(name)


def test_group_of_a_user_is_found_by_the_user_and_by_the_key() -> None:
    assert user_group(User(pk=7)) == user_group(7) == user_group("7")
    assert user_group(User(pk=7)) != user_group(User(pk=8))
    with mock.patch.object(User._meta, "pk", UUIDField()):
        assert user_group(KEY) == user_group(str(KEY)) == user_group(KEY.hex)
    assert len({user_group(7), everyone, group("room:7")}) == 3


@pytest.mark.parametrize("user", [AnonymousUser(), User(), None])
@pytest.mark.parametrize("use", [user_group, disconnect_user])
def test_user_who_is_not_logged_in_has_none(use: Any, user: Any) -> None:
    with pytest.raises(ValueError, match="not logged in, or not saved yet"):
        use(user)


@pytest.mark.parametrize("user", [object(), 1.5, b"7", True])
def test_other_things_are_no_user(user: Any) -> None:
    with pytest.raises(TypeError, match="an int, a str or a UUID"):
        user_group(user)


# Messages


@pytest.mark.parametrize(
    ("message", "kind", "payload"),
    [
        ("grüße", TEXT, "grüße".encode()),
        ("", TEXT, b""),
        (gettext_lazy("Yes"), None, b""),
        (b"\xff\0", BINARY, b"\xff\0"),
        (bytearray(b"ab"), BINARY, b"ab"),
        (memoryview(b"abcd")[::2], BINARY, b"ac"),
        (b"", BINARY, b""),
    ],
)  # fmt: skip
def test_str_is_sent_as_text_and_bytes_as_binary(
    sent: list[sending.Sent], message: Any, kind: bytes | None, payload: bytes
) -> None:
    if kind is None:
        with pytest.raises(TypeError, match=r"not __proxy__ \(send_json\(\) sends others\)"):
            group("room:7").send(message)
    else:
        group("room:7").send(message)
        assert sent == [("default", "room:7", Envelope(kind, payload), False)]


@pytest.mark.parametrize("message", [None, 7, {"a": 1}, ["a"], object()])
def test_other_things_are_no_message(sent: list[sending.Sent], message: Any) -> None:
    with pytest.raises(TypeError, match=f"a message is str or bytes-like, not {type(message).__name__}"):
        group("room:7").send(message)
    assert sent == []


def test_message_that_changes_later_is_sent_as_it_was(sent: list[sending.Sent]) -> None:
    message = bytearray(b"before")
    group("room:7").send(message)
    message[:] = b"behind"
    assert sent[0].envelope.payload == b"before"


def test_json_is_encoded_as_django_does_it(sent: list[sending.Sent]) -> None:
    day = datetime.date(2026, 1, 2)
    group("room:7").send_json({"day": day, "price": decimal.Decimal("1.50"), "key": KEY, "word": "ä"}, key="k")
    assert sent[0].envelope.data == f'{{"day": "2026-01-02", "price": "1.50", "key": "{KEY}", "word": "\\u00e4"}}'
    assert sent[0].envelope.key == b"k"


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_json_has_no_nan(sent: list[sending.Sent], number: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        group("room:7").send_json([number])
    assert sent == []


def test_message_that_is_too_large_says_where_the_limit_is(sent: list[sending.Sent]) -> None:
    limit = 1024 * 1024
    group("room:7").send("x" * limit)
    with pytest.raises(ValueError, match=r"1048577 bytes.*'room:7'.*MAX_MESSAGE_SIZE of WEBSOCKET_GROUPS\['default'\]"):
        group("room:7").send("x" * (limit - 1) + "ä")
    assert len(sent) == 1


def test_group_of_an_unknown_alias_says_so() -> None:
    with pytest.raises(ImproperlyConfigured, match="no alias 'other'; it has 'default'"):
        Groups("room", alias="other")[7].send("a")


@pytest.mark.parametrize("option", ["once", "key"])
@pytest.mark.parametrize(
    ("value", "error", "sentence"),
    [
        (7, TypeError, "is a str, not int"),
        (b"a", TypeError, "is a str, not bytes"),
        ("ä" * 101, ValueError, "at most 200 bytes"),
    ],
)
def test_once_and_key_are_short_texts(
    sent: list[sending.Sent], option: str, value: Any, error: type[Exception], sentence: str
) -> None:
    for use in (group("room:7").send, group("room:7").send_json):
        with pytest.raises(error, match=f"^{option} .*{sentence}"):
            use("a", **{option: value})
        use("a", **{option: "ä" * 100})
    assert len(sent) == 2


def test_once_is_not_empty() -> None:
    with pytest.raises(ValueError, match="not empty"):
        group("room:7").send("a", once="")


@pytest.mark.parametrize("other", ["room:7", 7, AnonymousUser(), group("room:7")])
def test_websocket_is_all_that_can_be_excluded(sent: list[sending.Sent], other: Any) -> None:
    with pytest.raises(TypeError, match=f"exclude is a WebSocket, as request.websocket, not {type(other).__name__}"):
        group("room:7").send("a", exclude=other)
    assert sent == []


# The end


def test_disconnect_sends_its_code_and_reason(sent: list[sending.Sent]) -> None:
    group("room:7").disconnect()
    group("room:7").disconnect(4000, "geh heim, ä")
    assert [(one.envelope.kind, tuple(one.envelope.close())) for one in sent] == [
        (CLOSE, (4403, "")),
        (CLOSE, (4000, "geh heim, ä")),
    ]


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 2999, 5000])
def test_code_that_may_not_be_sent_is_refused_at_once(sent: list[sending.Sent], code: int) -> None:
    for disconnect in (group("room:7").disconnect, lambda code: disconnect_user(7, code)):
        with pytest.raises(ValueError, match=f"^{code} is "):
            disconnect(code)
    assert sent == []


def test_reason_has_a_limit_and_is_text(sent: list[sending.Sent]) -> None:
    for disconnect in (group("room:7").disconnect, lambda **options: disconnect_user(7, **options)):
        with pytest.raises(ValueError, match="124 bytes"):
            disconnect(reason="x" * 124)
        with pytest.raises(TypeError, match="a close reason is str, not int"):
            disconnect(reason=5)  # type: ignore[arg-type]
        disconnect(reason="x" * 123)
        disconnect(reason=gettext_lazy("Yes"))
    assert len(sent) == 4


def test_instance_of_another_model_is_no_user_though_it_has_a_primary_key() -> None:
    permission = Permission(pk=7)
    for function in (user_group, disconnect_user):
        with pytest.raises(TypeError, match="instance of the user model, or its primary key, not Permission"):
            function(permission)


def test_group_that_is_made_by_hand_has_a_name_like_any_other() -> None:
    for name in ("", "a\nb", "x" * 201, "dwebsocket.user:1"):
        with pytest.raises(ValueError, match=r"."):
            Group(name)
    with pytest.raises(TypeError, match="is a str"):
        Group(7)  # type: ignore[arg-type]


def test_name_of_a_user_is_no_primary_key() -> None:
    assert user_group("7") == user_group(7) == user_group("07")
    for send in (user_group, disconnect_user):
        with pytest.raises(ValueError, match="'anna' is no primary key of a user"):
            send("anna")


def test_groups_say_that_one_of_them_is_meant() -> None:
    rooms = Groups("hinting")
    with pytest.raises(AttributeError, match=r"^Groups has no send: take one of them, as in rooms\[key\]\.send\(\)$"):
        rooms.send("x")  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match=r"^Groups has no elsewhere$"):
        rooms.elsewhere  # type: ignore[attr-defined]  # noqa: B018


def test_second_declaration_says_where_the_first_is() -> None:
    Groups("twice")
    with pytest.raises(ValueError, match=r"in .*, line \d+$"):
        Groups("twice", overflow="latest")
