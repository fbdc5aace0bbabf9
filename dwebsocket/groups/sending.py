"""A message leaves: after the commit, or now."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NamedTuple

from ..exceptions import GroupsUnavailable
from . import process, siblings
from .backend import Publication
from .commit import after_commit
from .messages import Envelope
from .position import Position

logger = logging.getLogger("dwebsocket")


class Sent(NamedTuple):
    """A message that has left: the alias and name of its group, the envelope, and whether it waited for a commit."""

    alias: str
    group: str
    envelope: Envelope
    at_commit: bool


#: Told of each message that has left, or would have: for tests.
observers: list[Callable[[Sent], None]] = []


def send(
    alias: str,
    group: str,
    envelope: Envelope,
    *,
    once: str | None = None,
    using: str | None = None,
    now: bool = False,
    kept: tuple[int, float] = (0, 0.0),
) -> str | None:
    """Send `envelope` after the commit, or now: then the position is returned, where there is a history.

    `kept`: as many messages the group keeps, for so many seconds. Errors as for `Group.send()`.
    """
    dispatcher = process.dispatcher(alias)
    limit = dispatcher.backend.settings["MAX_MESSAGE_SIZE"]
    if len(envelope.payload) > limit:
        raise ValueError(
            f"a message of {len(envelope.payload)} bytes to the group {group!r}: at most {limit} may be sent"
            f" (MAX_MESSAGE_SIZE of WEBSOCKET_GROUPS[{alias!r}])"
        )
    if not dispatcher.backend.reaches_all_processes:
        siblings.warn(alias)
    publication = Publication(group, envelope.serialize(), once, *kept)
    positions: list[Position | None] = []

    def publish(at_commit: bool) -> None:
        try:
            positions[:] = process.dispatcher(alias).publish([publication])
        except GroupsUnavailable:
            if not at_commit:
                raise
            # The transaction is committed: nothing can be taken back, and the caller has gone on.
            logger.exception("a message to the group %r is lost: it was to be sent after the commit", group)
            return
        for observer in list(observers):
            observer(Sent(alias, group, envelope, at_commit))

    if now:
        publish(False)
    else:
        after_commit(publish, using)
    return None if not positions or positions[0] is None else str(positions[0])
