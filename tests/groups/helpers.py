"""What tests of groups have in common: rooms, and peers that come and go."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import Any

from dwebsocket import Groups, group, require_websocket
from dwebsocket.groups import process
from dwebsocket.groups.group import Group
from tests.links import PATIENCE_SECONDS
from tests.peer import Close, Peer
from tests.sites import Site

_numbers = itertools.count(1)


def new_room() -> Group:
    """A group that no other test has used."""
    return group(f"room:{next(_numbers)}")


def kept_room(history: int = 100, **options: Any) -> Group:
    """A group with a history that no other test has used."""
    number = next(_numbers)
    return Groups(f"kept{number}", history=history, **options)[number]


def members_of(room: Group) -> int:
    """How many members it has in this process."""
    watched = process.dispatcher(room.alias)._watched.get(room.name)
    return 0 if watched is None else watched.members


def settle(room: Group) -> None:
    """Return when all that was sent to it has been handed on to its members."""
    for lane, _ in process.dispatcher(room.alias)._watched[room.name].audiences:
        for _ in range(2):  # between two errands it serves what has arrived
            done = threading.Event()
            lane.soon(done.set)
            assert done.wait(PATIENCE_SECONDS)


def joining(*rooms: Group, **options: Any) -> Callable[..., None]:
    """A view that joins the rooms, says so, and sends all that it gets to the first of them."""

    @require_websocket
    def view(request: Any) -> None:
        websocket = request.websocket
        for room in rooms:
            websocket.join(room, **options)
        websocket.send("joined")
        for message in websocket:
            rooms[0].send(message, exclude=websocket)

    return view


def joined(site: Site, count: int = 1, **how: Any) -> list[Peer]:
    """Peers of such a view, all of them members."""
    peers = [site.connect(**how) for _ in range(count)]
    for peer in peers:
        assert peer.recv_message() == "joined"
    return peers


def leave(*peers: Peer, code: int = 1000) -> None:
    """The closing handshake of each, and the end of its stream."""
    for peer in peers:
        peer.send_close(code)
    for peer in peers:
        while not isinstance(peer.recv_message(), Close):
            pass
        peer.read_to_eof()
        peer.abandon()


def quiet(peer: Peer, *messages: str | bytes) -> None:
    """Those messages are all that comes until the connection closes."""
    assert [peer.recv_message() for _ in messages] == [*messages]
    peer.send_close()
    assert peer.recv_message() == Close(1000)
    peer.read_to_eof()
    peer.abandon()
