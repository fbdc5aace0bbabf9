"""Messages larger than anybody wants to keep pass through a real process in little memory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.peer import BINARY, CONTINUATION
from tests.real.servers import running

MIB = 1024 * 1024
MESSAGE_MIB = int(os.environ.get("TEST_STREAM_MIB", "128"))
MAY_GROW_MIB = 32

SERVERS = pytest.mark.parametrize("name", ["pywsgi", "gunicorn-gthread"])


@SERVERS
def test_large_message_is_received_in_chunks_without_being_kept(tmp_path: Path, name: str) -> None:
    with running(name, tmp_path) as server, server.connect("/swallow/") as peer:
        peer.send_message(b"warm")
        assert peer.recv_message() == "4"
        before = grown = server.resident_mib()
        for number in range(MESSAGE_MIB):
            peer.send_frame(
                CONTINUATION if number else BINARY, bytes(MIB), fin=number == MESSAGE_MIB - 1, mask=bytes(4)
            )
            grown = max(grown, server.resident_mib())
        assert peer.recv_message(timeout=60) == str(MESSAGE_MIB * MIB)
        assert grown - before < MAY_GROW_MIB
        peer.send_close()
        assert peer.recv_message().code == 1000


@SERVERS
def test_large_message_is_sent_in_chunks_without_being_kept(tmp_path: Path, name: str) -> None:
    with running(name, tmp_path) as server, server.connect(f"/pour/?mib={MESSAGE_MIB}") as peer:
        before = grown = server.resident_mib()
        for number in range(MESSAGE_MIB):
            piece = peer.recv_frame(timeout=60)
            assert (piece.opcode, len(piece.payload)) == (CONTINUATION if number else BINARY, MIB)
            grown = max(grown, server.resident_mib())
        assert peer.recv_frame().fin
        assert grown - before < MAY_GROW_MIB
