"""The groups of a project: declared once, sent to from anywhere."""

from __future__ import annotations

import json
import sys
import uuid
from typing import TYPE_CHECKING, Any, NamedTuple

from django.contrib.auth import get_user_model
from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.core.serializers.json import DjangoJSONEncoder

from ..connection.outbox import OVERFLOWS
from ..exceptions import HistoryDisabled, PositionGone, PresenceDisabled
from ..protocol.frames import Close
from ..protocol.messages import as_message
from ..websocket import GroupMessage, Overflow, WebSocket
from . import config, names, process, sending, siblings
from .backend import Want
from .dispatcher import Dispatcher
from .messages import BINARY, CLOSE, TEXT, Envelope
from .position import Position
from .presence.members import Member, member_of, order_of

FORBIDDEN = 4403
MAX_HISTORY = 10_000
DEFAULT_TTL_SECONDS = 3600.0
_MAX_KEY_BYTES = 200


class Policy(NamedTuple):
    """The options that the groups of one declaration share.

    `presence`: `join(presence=…)` lets a member be present. `is_attended`: every member is, whether it says so or not.
    """

    overflow: Overflow | None = None
    history: int = 0
    ttl: float = 0.0
    presence: bool = False
    is_attended: bool = False


NO_POLICY = Policy()


class Groups:
    """Groups of one kind, declared once: `rooms = Groups("room")`, then `rooms[7]` is the group "room:7".

    `history` is the number of messages that a group keeps (10,000 at most; 0: none), until `ttl` seconds have passed
    since the last one (without `ttl`: an hour). `presence`: groups know who of their members is here.

    `overflow` says what happens to a member that is too slow, where `join()` does not: "close" (with 1013), "drop_new",
    "drop_oldest" or "latest"; None: OVERFLOW of the backend. `alias` is that of WEBSOCKET_GROUPS.

    TypeError and ValueError for wrong options; ValueError, too, where the name is declared already with other options.
    """

    def __init__(
        self,
        name: str,
        *,
        history: int = 0,
        ttl: float | None = None,
        presence: bool = False,
        overflow: Overflow | None = None,
        alias: str = config.DEFAULT_ALIAS,
    ) -> None:
        self.name = names.check_prefix(name)
        self.policy = Policy(check_overflow(overflow), *_check_history(history, ttl), _check_presence(presence))
        self.alias = alias
        caller = sys._getframe(1)
        self._where = f"{caller.f_code.co_filename}, line {caller.f_lineno}"
        declared = _declared.setdefault(name, self)
        if (declared.policy, declared.alias) != (self.policy, alias):
            raise ValueError(
                f"Groups({name!r}) is declared already, with other options: {declared!r} in {declared._where}"
            )

    def __getitem__(self, key: int | str | uuid.UUID) -> Group:
        return Group(f"{self.name}:{names.key_text(key)}", self.policy, self.alias)

    if TYPE_CHECKING:
        __iter__: None
    else:

        def __iter__(self):  # else Python would take rooms[0], rooms[1] … for its items
            raise TypeError("Groups cannot be iterated over: only the project knows its keys")

        def __getattr__(self, name):
            hint = f": take one of them, as in rooms[key].{name}()" if hasattr(Group, name) else ""
            raise AttributeError(f"Groups has no {name}{hint}", name=name, obj=self)

    def __repr__(self) -> str:
        overflow, history, ttl, presence, _ = self.policy
        options = {"history": history, "ttl": ttl, "presence": presence, "overflow": overflow, "alias": self.alias}
        return f"Groups({self.name!r}, {', '.join(f'{name}={value!r}' for name, value in options.items())})"


_declared: dict[str, Groups] = {}


def declared() -> list[Groups]:
    """All Groups that the modules which are loaded declare."""
    return list(_declared.values())


class Group:
    """One group: what is sent to it reaches every WebSocket that has joined it, in every process.

    Made by `Groups[key]`, `group()` or `user_group()`. Two with the same name and alias are equal.
    """

    __slots__ = ("_policy", "alias", "name")

    def __init__(self, name: str, policy: Policy = NO_POLICY, alias: str = config.DEFAULT_ALIAS) -> None:
        self.name = names.refuse_reserved(names.check(name))
        self._policy = policy
        self.alias = alias

    @property
    def policy(self) -> Policy:
        """The options of its declaration, which may have come after `group()` was called."""
        if self._policy is NO_POLICY and (declared := _declared_of(self.name)) and declared.alias == self.alias:
            return declared.policy
        return self._policy

    def send(
        self,
        message: str | bytes | bytearray | memoryview,
        *,
        exclude: WebSocket | None = None,
        once: str | None = None,
        key: str = "",
        using: str | None = None,
        now: bool = False,
    ) -> str | None:
        """Send `message` to all members: str as text, bytes-like as binary.

        Inside a transaction it leaves after the commit, or never where it is rolled back; an error is logged then.
        Outside it returns when the backend has it: the position of the message, or None without a history. `now=True`
        does not wait for the commit. `using`: only the transaction of this database counts; without it, those of all.

        `exclude`: this WebSocket does not get it. `once`: a second message to the group with the same text here does
        nothing, for five minutes. `key`: with overflow "latest" it replaces older ones of the same key that wait.

        GroupsUnavailable when the backend does not answer within TIMEOUT (2 seconds): it may have been sent or not.
        TypeError for another kind of message, ValueError for one of more than MAX_MESSAGE_SIZE bytes (1 MiB).
        """
        data = as_message(message)
        kind, payload = (TEXT, data.encode()) if isinstance(data, str) else (BINARY, data)
        excluded = b"" if exclude is None else _member_id(exclude)
        envelope = Envelope(kind, payload, excluded, _short("key", key).encode())
        if once is not None and not _short("once", once):
            raise ValueError("once is the name of a message, and not empty")
        kept = self.policy.history, self.policy.ttl
        return sending.send(self.alias, self.name, envelope, once=once, using=using, now=now, kept=kept)

    def send_json(
        self,
        obj: Any,
        *,
        exclude: WebSocket | None = None,
        once: str | None = None,
        key: str = "",
        using: str | None = None,
        now: bool = False,
    ) -> str | None:
        """Send `obj` as JSON text, encoded now, as Django does it (dates, decimals, UUIDs). All else as for `send()`.

        ValueError for NaN and Infinity, which JSON has not (RFC 8259, 6).
        """
        text = json.dumps(obj, cls=DjangoJSONEncoder, allow_nan=False)
        return self.send(text, exclude=exclude, once=once, key=key, using=using, now=now)

    def disconnect(
        self, code: int = FORBIDDEN, reason: str = "", *, using: str | None = None, now: bool = False
    ) -> None:
        """Close the WebSocket of every member, in every process, behind what was sent before. Errors as for `send()`.

        ValueError for a code that may not be sent, or a reason of more than 123 bytes.
        TypeError for a reason that is no str.
        """
        sending.send(self.alias, self.name, closing(code, reason), using=using, now=now)

    def history(self, limit: int | None = None, since: str | None = None) -> list[GroupMessage]:
        """The messages that the group keeps, the oldest first: those after the position `since`, the last `limit`.

        HistoryDisabled where the Groups are declared without one. PositionGone where messages after `since` are not
        kept any more. GroupsUnavailable when the backend does not answer within TIMEOUT (2 seconds). ValueError for
        a `since` that is no position, and a `limit` below 1.
        """
        self.check_history()
        if limit is not None and not (isinstance(limit, int) and limit > 0 and limit is not True):
            raise ValueError(f"limit is a number of messages above 0, not {limit!r}")
        position = None
        if since is not None:
            position = Position.parse(since) if isinstance(since, str) else None
            if position is None:
                raise ValueError(f"since is a position, as a message or join() has it, not {since!r}")
        latest = 0 if position else limit or self.policy.history
        read = self._dispatcher().backend.read({self.name: Want(position, latest)})[self.name]
        if position is not None and not read.reaches_back_to(position):
            raise PositionGone(f"the history of the group {self.name!r} does not reach back to {since}")
        entries = [kept for kept in read.entries if position is None or kept.offset > position.offset]
        return [
            GroupMessage(self.name, Envelope.parse(payload).data, str(Position(read.top.epoch, offset)))
            for offset, payload in entries[-limit if limit else 0 :]
        ]

    def position(self) -> str:
        """The position of the last message: `join(since=…)` and `history(since=…)` begin behind it.

        Errors as for `history()`.
        """
        self.check_history()
        return str(self._dispatcher().backend.read({self.name: Want()})[self.name].top)

    def clear(self) -> None:
        """Drop the history. No position of before can be recovered any more. Errors as for `history()`."""
        self.check_history()
        self._dispatcher().backend.clear(self.name)

    def members(self) -> list[Member]:
        """The members that are present, the users first, in the order of their keys. All tabs of a user are one.

        A member is present that has joined with `presence=…`; in a `user_group()`, every one is.

        PresenceDisabled where the Groups are declared without it. GroupsUnavailable when the backend does not answer
        within TIMEOUT (2 seconds).
        """
        self.check_presence()
        return list(map(member_of, sorted(self._dispatcher().roster(self.name).members, key=order_of)))

    def count(self, users: bool = False) -> int:
        """Return how many WebSockets are present, or `users`; no list is fetched. A guest counts as a user.

        Errors as for `members()`.
        """
        self.check_presence()
        count = self._dispatcher().count(self.name)
        return count.users if users else count.sockets

    def check_history(self) -> None:
        if not self.policy.history:
            raise HistoryDisabled(f"the group {self.name!r} has no history: {self._advice('history=100')}")

    def check_presence(self) -> None:
        if not (self.policy.presence or self.policy.is_attended):
            raise PresenceDisabled(
                f"the group {self.name!r} does not know who is here: {self._advice('presence=True')}"
            )

    def _advice(self, option: str) -> str:
        declared = f"Groups(…, {option})"
        if self.name.startswith(names.RESERVED) or ":" not in self.name:  # no declaration makes such a name
            return f"take one of {declared} instead, as in rooms[7]"
        return f"declare it with {declared}"

    def _dispatcher(self) -> Dispatcher:
        """The dispatcher, to ask it. Another process may be the one that knows."""
        dispatcher = process.dispatcher(self.alias)
        if not dispatcher.backend.reaches_all_processes:
            siblings.warn(self.alias)
        return dispatcher

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Group) and (self.alias, self.name) == (other.alias, other.name)

    def __hash__(self) -> int:
        return hash((self.alias, self.name))

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"<Group {self.name}>"


for _name in ("send", "send_json", "disconnect", "clear"):
    getattr(Group, _name).alters_data = True  # a template calls every method that it names, but for these


def group(name: str) -> Group:
    """The group of that name, which needs no declaration.

    Where Groups of the part before ":" are declared, it is one of them: `group("room:7")` is `rooms[7]`. TypeError and
    ValueError for what is no name.
    """
    declared = _declared_of(names.check(name))
    return Group(name) if declared is None else Group(name, declared.policy, declared.alias)


def _declared_of(name: str) -> Groups | None:
    """The Groups that have a group of this name."""
    prefix, colon, _ = name.partition(":")
    return _declared.get(prefix) if colon else None


def user_group(user: Any) -> Group:
    """The group of all WebSockets of a user that have joined it: `user` is one, or its primary key.

    ValueError for a user that is not logged in, or not saved. TypeError for anything else, as an order of the user.
    """
    return _own(f"user:{user_key(user)}", Policy(is_attended=True))


def is_online(user: Any) -> bool:
    """Whether a WebSocket of `user` has joined its `user_group()`, in any process. Errors as there, GroupsUnavailable.

    For some seconds a user that has left is still online (GRACE of WEBSOCKET_GROUPS, 5).
    """
    return user_group(user).count() > 0


def _own(name: str, policy: Policy = NO_POLICY) -> Group:
    """A group of this package: no project can make one with its name."""
    group = Group(name, policy)
    group.name = names.check(f"{names.RESERVED}{name}")
    return group


def user_key(user: Any) -> str:
    """The primary key of a user, or that key itself, as text. TypeError, ValueError for what is none."""
    pk = getattr(user, "pk", user)
    if pk is not user and not hasattr(user, "is_authenticated"):  # another model: its key is that of some other user
        raise TypeError(f"a user is an instance of the user model, or its primary key, not {type(user).__name__}")
    if pk is None:
        raise ValueError("this user is not logged in, or not saved yet, and has no primary key")
    names.key_text(pk)
    return str(_as_the_user_model_has_it(pk))


def _as_the_user_model_has_it(pk: Any) -> Any:
    """The primary key as the model's field understands it. ValueError for what is none: a user name, perhaps."""
    try:
        field: Any = get_user_model()._meta.pk
    except ImproperlyConfigured:  # there is no such model: the project has users of another kind
        return pk
    try:
        return field.to_python(pk)
    except ValidationError:
        raise ValueError(f"{pk!r} is no primary key of a user: that is a {type(field).__name__}") from None


#: All WebSockets that have joined it.
everyone = _own("everyone")


def closing(code: int, reason: str) -> Envelope:
    """The envelope that closes with `code` and `reason`. TypeError, ValueError for what a Close frame cannot carry."""
    Close.checked(code, reason)
    return Envelope(CLOSE, b"%d %s" % (code, reason.encode()))


def _check_history(history: object, ttl: object) -> tuple[int, float]:
    if not isinstance(history, int) or isinstance(history, bool) or not 0 <= history <= MAX_HISTORY:
        raise ValueError(f"history is a number of messages, {MAX_HISTORY} at most, not {history!r}")
    if ttl is None:
        return history, DEFAULT_TTL_SECONDS if history else 0.0
    if not isinstance(ttl, (int, float)) or isinstance(ttl, bool) or not 0 < ttl < float("inf"):
        raise ValueError(f"ttl is a number of seconds above 0, not {ttl!r}")
    if not history:
        raise ValueError("ttl is the time for which messages are kept: it needs history=, how many are kept")
    return history, float(ttl)


def _check_presence(presence: object) -> bool:
    if not isinstance(presence, bool):
        raise TypeError(f"presence is True or False, not {presence!r}: what the others see is said in join()")
    return presence


def check_overflow(overflow: Overflow | None) -> Overflow | None:
    """Return `overflow` where it is one, or None. ValueError."""
    if overflow is not None and overflow not in OVERFLOWS:
        raise ValueError(f"overflow is {overflow!r}; it must be one of {', '.join(map(repr, OVERFLOWS))}")
    return overflow


def _short(option: str, value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{option} is a str, not {type(value).__name__}")
    if len(value.encode()) > _MAX_KEY_BYTES:
        raise ValueError(f"{option} has at most {_MAX_KEY_BYTES} bytes")
    return value


def _member_id(websocket: object) -> bytes:
    if not isinstance(websocket, WebSocket):
        raise TypeError(f"exclude is a WebSocket, as request.websocket, not {type(websocket).__name__}")
    return websocket.member_id()
