"""The names that a project may import or write into its settings: each is a promise, and is looked up by its string."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path

import pytest
from django.core.checks.registry import registry

import dwebsocket

PACKAGE = Path(dwebsocket.__file__).parent

#: What `from dwebsocket import …` gives.
ROOT = (
    "COMPILED", "CloseCode", "ConnectionInfo", "Forbidden", "Gap", "Group", "GroupMessage", "Groups",
    "GroupsUnavailable", "Guard", "HandshakeError", "HistoryDisabled", "Joined", "Member", "PositionGone",
    "PresenceDisabled", "START", "SendTimeout", "State", "Tick", "TooManyGroups", "Unauthorized", "WebSocket",
    "WebSocketClosed", "WebSocketError", "WebSocketRequest", "WebSocketView", "accept_websocket", "connections",
    "disconnect_user", "envelope", "everyone", "group", "group_overflow", "group_presence_changed",
    "groups_interrupted", "has_perm", "is_online", "require_websocket", "session_alive", "shutdown",
    "shutdown_on_signal", "user_group", "user_is_active", "websocket_closed", "websocket_opened",
)  # fmt: skip

#: What stands in settings, in documentation, or in programs by its dotted path.
PATHS = (
    "dwebsocket.apps.DwebsocketConfig",
    "dwebsocket.decorators.accept_websocket",
    "dwebsocket.decorators.require_websocket",
    "dwebsocket.exceptions.Forbidden",
    "dwebsocket.exceptions.GroupsUnavailable",
    "dwebsocket.exceptions.HandshakeError",
    "dwebsocket.exceptions.HistoryDisabled",
    "dwebsocket.exceptions.InvalidPayload",
    "dwebsocket.exceptions.MessageTooBig",
    "dwebsocket.exceptions.OriginForbidden",
    "dwebsocket.exceptions.PositionGone",
    "dwebsocket.exceptions.PresenceDisabled",
    "dwebsocket.exceptions.ProtocolError",
    "dwebsocket.exceptions.SendTimeout",
    "dwebsocket.exceptions.ServerNotSupported",
    "dwebsocket.exceptions.ShuttingDown",
    "dwebsocket.exceptions.TooManyConnections",
    "dwebsocket.exceptions.TooManyGroups",
    "dwebsocket.exceptions.Unauthorized",
    "dwebsocket.exceptions.UpgradeRequired",
    "dwebsocket.exceptions.WebSocketClosed",
    "dwebsocket.exceptions.WebSocketError",
    "dwebsocket.groups.local.LocalGroups",
    "dwebsocket.groups.redis.RedisGroups",
    "dwebsocket.guards.Guard",
    "dwebsocket.guards.has_perm",
    "dwebsocket.guards.session_alive",
    "dwebsocket.guards.user_is_active",
    "dwebsocket.legacy.WebSocket",
    "dwebsocket.middleware.WebSocketMiddleware",
    "dwebsocket.protocol.COMPILED",
    "dwebsocket.servers.Server",
    "dwebsocket.servers.Server.buffered",
    "dwebsocket.servers.Server.find_socket",
    "dwebsocket.servers.Server.lets_go",
    "dwebsocket.signals.group_overflow",
    "dwebsocket.signals.group_presence_changed",
    "dwebsocket.signals.groups_interrupted",
    "dwebsocket.signals.websocket_closed",
    "dwebsocket.signals.websocket_opened",
    "dwebsocket.test.SentMessage",
    "dwebsocket.test.TestWebSocket",
    "dwebsocket.test.WebSocketClient",
    "dwebsocket.test.WebSocketClientMixin",
    "dwebsocket.test.WebSocketRefused",
    "dwebsocket.test.groups_down",
    "dwebsocket.test.sent_to",
    "dwebsocket.views.WebSocketRequest",
    "dwebsocket.views.WebSocketView",
    "dwebsocket.websocket.WebSocket",
    "pytest_dwebsocket.websocket_client",
)

#: The loggers, by which a project filters.
LOGGERS = ("django.security.WebSocketOrigin", "dwebsocket", "dwebsocket.access")

#: The system checks, by which a project silences one.
CHECKS = (*(f"E{number:03}" for number in range(1, 5)), *(f"W{number:03}" for number in range(1, 21)))


def look_up(path: str) -> object:
    """What the dotted path names."""
    module, names = path, []
    while True:
        try:
            found: object = importlib.import_module(module)
            break
        except ModuleNotFoundError as error:
            if not f"{module}.".startswith(f"{error.name}."):
                raise
            module, _, name = module.rpartition(".")
            names.insert(0, name)
    for name in names:
        found = getattr(found, name)
    return found


#: What the glossary names. No promise to projects, but each must be there.
GLOSSARY = sorted(set(re.findall(r"`(dwebsocket\.[\w.]+)`", (PACKAGE.parent / "CONTRIBUTING.md").read_text())))


@pytest.mark.parametrize("path", [*(f"dwebsocket.{name}" for name in ROOT), *PATHS])
def test_public_path_leads_somewhere(path: str) -> None:
    assert look_up(path) is not None


def test_root_promises_what_is_listed_here_and_nothing_else() -> None:
    assert sorted(dwebsocket.__all__) == sorted(ROOT)


@pytest.mark.parametrize("path", GLOSSARY)
def test_name_in_the_glossary_leads_somewhere(path: str) -> None:
    assert look_up(path) is not None


def test_glossary_has_each_word_once_and_in_order() -> None:
    _, _, glossary = (PACKAGE.parent / "CONTRIBUTING.md").read_text().partition("## Glossary\n")
    words = re.findall(r"^\| (\w[\w ]*) \| ", glossary, re.MULTILINE)[1:]

    assert words == sorted(set(words))


def test_path_that_leads_nowhere_is_noticed() -> None:
    with pytest.raises(AttributeError):
        look_up("dwebsocket.servers.Server.no_such_name")


def test_loggers_keep_their_names() -> None:
    sources = "\n".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    named = set(re.findall(r'getLogger\("([^"]+)"\)', sources)) - {"django.request"}

    assert named == set(LOGGERS)


def test_system_checks_keep_their_ids() -> None:
    checks = [
        check for check in registry.get_checks(include_deployment_checks=True) if "dwebsocket" in check.__module__
    ]
    sources = "\n".join(inspect.getsource(inspect.getmodule(check)) for check in checks)  # type: ignore[arg-type]

    assert set(re.findall(r'id="dwebsocket\.(\w+)"', sources)) == set(CHECKS)
