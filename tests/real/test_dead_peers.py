"""Peers whose network is cut: no FIN, no RST, no answer ever again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.real.network import Network, own_network
from tests.real.servers import running

SETTINGS = {"WEBSOCKET_PING_INTERVAL": 0.5, "WEBSOCKET_PING_TIMEOUT": 1, "WEBSOCKET_CLOSE_TIMEOUT": 1}

#: Each sends something; then the first sleeps, the others wait, send now and then, and send as much as they can.
PATHS = ["/sleepy/", "/greet/", "/push-for-ever/", "/flood/"]


@pytest.fixture
def network() -> Iterator[Network]:
    with ExitStack() as stack:
        try:
            network = stack.enter_context(own_network())
        except (PermissionError, FileNotFoundError) as error:  # it takes root, and the command ip
            pytest.skip(f"no network namespace can be made: {error}")
        yield network


@pytest.mark.parametrize("mode", ["detached", "attached"])
@pytest.mark.parametrize("name", ["pywsgi", "gunicorn-gthread", "gunicorn-gevent"])
def test_peers_whose_network_is_cut_are_noticed_whatever_their_views_do(
    network: Network, tmp_path: Path, note: str, name: str, mode: str
) -> None:
    with running(name, tmp_path, WEBSOCKET_DETACH=mode == "detached", **SETTINGS) as server, ExitStack() as stack:
        descriptors = server.file_descriptors()
        paths = PATHS[: server.at_once]
        for path in paths:
            peer = stack.enter_context(server.connect(f"{path}?note={note}"))
            assert peer.recv_message()
        network.cut()

        def ended(count: int) -> bool:
            return server.note(note).split("\n") == ["finally"] * count

        server.until(lambda: ended(len(paths) - 1), "the end of all views but the one that sleeps")
        if mode == "detached":  # then the descriptor is ours, and waits for no view
            server.until(lambda: server.file_descriptors() <= descriptors, "the descriptors of all")
        server.wake(note)
        server.until(lambda: ended(len(paths)), "the end of the view that sleeps")
        server.until(lambda: server.file_descriptors() <= descriptors, "the descriptors of all")
        network.up()
