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
from django.db import transaction
from django.db.models import UUIDField
from django.template import Context, Engine
from django.utils.translation import gettext_lazy

from dwebsocket import Group, Groups, disconnect_user, everyone, group, user_group
from dwebsocket.exceptions import GroupsUnavailable, HistoryDisabled, PositionGone, PresenceDisabled
from dwebsocket.groups import group as group_module
from dwebsocket.groups import sending
from dwebsocket.groups.group import Policy
from dwebsocket.groups.messages import BINARY, CLOSE, TEXT, Envelope
from dwebsocket.groups.position import START, Position
from dwebsocket.groups.testing import groups_down
from dwebsocket.websocket import GroupMessage
from tests.groups.helpers import new_room

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
    assert Group("room:7") == Group("room:7", Policy(overflow="latest"))


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


@pytest.mark.parametrize(
    "other",
    [
        {},
        {"overflow": "close"},
        {"alias": "other"},
        {"history": 0, "ttl": None},
        {"history": 99},
        {"ttl": 61},
        {"presence": False},
    ],
)
def test_groups_that_are_declared_otherwise_elsewhere_say_how(other: dict[str, Any]) -> None:
    options: dict[str, Any] = {"overflow": "latest", "history": 100, "ttl": 60, "presence": True}
    Groups("room", **options)
    declared = r"Groups\('room', history=100, ttl=60.0, presence=True, overflow='latest', alias='default'\)"
    with pytest.raises(ValueError, match=f"declared already, with other options: {declared} in "):
        Groups("room", **{**options, **other} if other else {})
    assert group("room:7").policy == Policy("latest", 100, 60.0, presence=True)


def test_declaration_that_is_wrong_leaves_nothing() -> None:
    with pytest.raises(ValueError, match="overflow is 'newest'; it must be one of 'close', "):
        Groups("room", overflow="newest")
    Groups("room", overflow="latest")


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"history": -1}, ValueError, "history is a number of messages, 10000 at most, not -1"),
        ({"history": 10_001}, ValueError, "10000 at most, not 10001"),
        ({"history": True}, ValueError, "not True"),
        ({"history": 1.5}, ValueError, r"not 1\.5"),
        ({"history": "100"}, ValueError, "not '100'"),
        ({"history": None}, ValueError, "not None"),
        ({"history": 9, "ttl": 0}, ValueError, "ttl is a number of seconds above 0, not 0"),
        ({"history": 9, "ttl": -1.5}, ValueError, r"not -1\.5"),
        ({"history": 9, "ttl": True}, ValueError, "not True"),
        ({"history": 9, "ttl": "60"}, ValueError, "not '60'"),
        ({"history": 9, "ttl": float("nan")}, ValueError, "not nan"),
        ({"history": 9, "ttl": float("inf")}, ValueError, "not inf"),
        ({"ttl": 60}, ValueError, "ttl is the time for which messages are kept: it needs history="),
        ({"history": 0, "ttl": 60}, ValueError, "it needs history="),
        ({"presence": 1}, TypeError, r"presence is True or False, not 1: .* said in join\(\)"),
        ({"presence": {"name": "Anna"}}, TypeError, r"said in join\(\)"),
    ],
)
def test_option_that_is_wrong_has_its_sentence(options: Any, error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        Groups("room", **options)
    assert group_module.declared() == []


@pytest.mark.parametrize(
    ("options", "policy"),
    [
        ({}, Policy(None, 0, 0.0, presence=False, is_attended=False)),
        ({"history": 0, "ttl": None, "presence": False}, Policy()),
        ({"history": 10}, Policy(history=10, ttl=3600.0)),
        ({"history": 10_000, "ttl": 1}, Policy(history=10_000, ttl=1.0)),
        ({"history": 1, "ttl": 0.5, "overflow": "latest"}, Policy("latest", 1, 0.5)),
        ({"presence": True}, Policy(presence=True)),
    ],
)
def test_options_are_the_policy_of_each_group(options: Any, policy: Policy) -> None:
    rooms = Groups("room", **options)
    assert rooms.policy == rooms[7].policy == group("room:8").policy == policy
    assert repr(rooms).startswith(f"Groups('room', history={policy.history}, ttl={policy.ttl}, presence=")


def test_groups_without_a_declaration_have_no_policy_and_those_of_a_user_are_attended() -> None:
    assert group("room:7").policy == group("room").policy == everyone.policy == Policy()
    assert user_group(7).policy == Policy(is_attended=True)


@pytest.mark.parametrize("turn", [1, 2])
def test_declaration_of_one_test_is_none_of_another(turn: int) -> None:
    """It runs twice; each has its own."""
    Groups("room", overflow=("close", "latest")[turn - 1])


# group(), user_group(), everyone


def test_group_by_its_name_is_one_of_the_declared() -> None:
    rooms = Groups("room", overflow="latest", alias="other")
    found = group("room:7")
    assert found == rooms[7]
    assert (found.policy.overflow, found.alias) == ("latest", "other")
    assert group("room:a:b") == rooms["a:b"]


@pytest.mark.parametrize("name", ["room", "rooms:7", "hall:7", "ä b"])
def test_other_groups_need_no_declaration(name: str) -> None:
    Groups("room", overflow="latest", alias="other")
    assert (group(name).name, group(name).policy, group(name).alias) == (name, Policy(), "default")


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


# History


@pytest.fixture
def room() -> Group:
    """A group that keeps five messages."""
    return Groups("keeping", history=5, ttl=60)[new_room().name.partition(":")[2]]


def fill(room: Group, count: int) -> list[str]:
    """Send that many messages, "1" the first: their positions."""
    positions = [room.send(str(number)) for number in range(1, count + 1)]
    assert all(isinstance(position, str) for position in positions)
    return [position for position in positions if position]


def data(messages: list[GroupMessage]) -> list[str | bytes]:
    return [message.data for message in messages]


def test_send_returns_the_position_where_there_is_a_history(room: Group) -> None:
    positions = [room.send("a"), room.send(b"b"), room.send_json(7), room.send("d", once="k"), room.send("e", once="k")]
    parsed = [Position.parse(position or "") for position in positions]
    assert [position and position.offset for position in parsed] == [1, 2, 3, 4, 4]
    assert room.position() == positions[-1]
    assert new_room().send("a") is None


def test_send_that_waits_for_the_commit_has_no_position_to_return(room: Group) -> None:
    with transaction.atomic():
        assert room.send("a") is None
        assert room.history() == []
        assert room.send("now", now=True) == room.position()
    assert data(room.history()) == ["now", "a"]


def test_history_has_the_messages_as_they_were_sent_with_their_positions(room: Group) -> None:
    positions = [room.send("grüße"), room.send(b"\xff\0"), room.send_json({"a": 1})]
    assert room.history() == [
        GroupMessage(room.name, "grüße", positions[0]),
        GroupMessage(room.name, b"\xff\0", positions[1]),
        GroupMessage(room.name, '{"a": 1}', positions[2]),
    ]
    assert room.history()[-1].json() == {"a": 1}


def test_history_of_a_group_that_nothing_was_sent_to_is_empty(room: Group) -> None:
    assert room.history() == room.history(limit=3) == room.history(since=room.position()) == []
    start = room.position()
    room.send("a")
    assert data(room.history(since=start)) == ["a"]


@pytest.mark.parametrize(
    ("limit", "since", "expected"),
    [
        (None, None, "45678"),
        (1, None, "8"),
        (5, None, "45678"),
        (100, None, "45678"),
        (None, 8, ""),
        (None, 7, "8"),
        (None, 3, "45678"),
        (2, 3, "78"),
        (100, 6, "78"),
        (1, 8, ""),
    ],
)
def test_history_is_what_came_since_and_the_last_of_it(
    room: Group, limit: int | None, since: int | None, expected: str
) -> None:
    positions = fill(room, 8)
    assert data(room.history(limit, None if since is None else positions[since - 1])) == list(expected)


def test_position_that_the_history_does_not_reach_is_gone(room: Group) -> None:
    start = room.position()
    positions = fill(room, 8)
    ahead = str(Position(start.partition("-")[0], 9))
    for since in (start, positions[1], ahead, "another-8", "another-0"):
        with pytest.raises(PositionGone, match=f"history of the group '{room.name}' does not reach back to {since}$"):
            room.history(since=since)
    assert not issubclass(PositionGone, GroupsUnavailable)


@pytest.mark.parametrize("since", ["", "7", "a-", START, 8, b"e-1", ("a", 1)])
def test_since_that_is_no_position_says_so(room: Group, since: Any) -> None:
    with pytest.raises(ValueError, match="since is a position, as a message or join\\(\\) has it, not "):
        room.history(since=since)


@pytest.mark.parametrize("limit", [0, -1, 1.5, "3", True])
def test_limit_is_a_number_of_messages(room: Group, limit: Any) -> None:
    with pytest.raises(ValueError, match="limit is a number of messages above 0, not "):
        room.history(limit)


def test_cleared_history_is_empty_and_no_position_of_before_is_known(room: Group) -> None:
    positions = fill(room, 3)
    room.clear()
    assert room.history() == []
    for since in positions:
        with pytest.raises(PositionGone):
            room.history(since=since)
    assert room.position() not in positions
    room.send("a")
    assert data(room.history()) == ["a"]


def test_group_that_is_declared_later_is_the_same() -> None:
    early = group("afterwards:7")
    assert early.policy == Policy()
    declared = Groups("afterwards", history=10, presence=True)[7]
    assert early.policy == declared.policy
    assert early.send("a") == declared.position()
    assert (data(early.history()), early.members()) == (["a"], [])


def test_group_that_is_declared_later_for_another_backend_stays_what_it_is() -> None:
    early = group("elsewhere:7")
    Groups("elsewhere", history=10, alias="other")
    assert (early.alias, early.policy) == ("default", Policy())


def test_group_without_history_says_how_to_declare_one() -> None:
    for room in (new_room(), Groups("keepless", presence=True)[7]):
        for call in (room.history, room.position, room.clear):
            with pytest.raises(HistoryDisabled, match=r"has no history: declare it with Groups\(…, history=100\)$"):
                call()


def test_group_that_no_declaration_makes_says_to_take_another() -> None:
    for room in (everyone, user_group(7), group("lobby")):
        with pytest.raises(HistoryDisabled, match=r": take one of Groups\(…, history=100\) instead, as in rooms\[7\]$"):
            room.history()
    for room in (everyone, group("lobby")):
        with pytest.raises(PresenceDisabled, match=r": take one of Groups\(…, presence=True\) instead"):
            room.count()


def test_template_asks_a_group_and_changes_nothing(room: Group, sent: list[sending.Sent]) -> None:
    room.send("a")
    sent.clear()
    text = "{{ room }} {{ room.history|length }} [{{ room.clear }}{{ room.disconnect }}{{ room.send }}]"
    assert Engine().from_string(text).render(Context({"room": room})) == f"{room} 1 []"
    assert sent == []
    assert data(room.history()) == ["a"]


def test_history_of_a_backend_that_is_down_is_unavailable(room: Group) -> None:
    room.send("a")
    with groups_down():
        for call in (room.history, room.position, room.clear):
            with pytest.raises(GroupsUnavailable, match="the test says so"):
                call()
    assert data(room.history()) == ["a"]


def test_end_of_the_connections_is_no_message_of_the_history(room: Group) -> None:
    position = room.send("a")
    room.disconnect()
    assert room.position() == position
    assert data(room.history()) == ["a"]


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
