"""permessage-deflate with a real client, which compresses whatever it is allowed to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.sync.client import connect

from tests.real.servers import running

MESSAGES = ["short", "long and repetitive " * 5000, b"\x00" * 900_000, os.urandom(100_000), ""]


@pytest.mark.parametrize("name", ["pywsgi", "gunicorn-gthread"])
@pytest.mark.parametrize(
    "setting",
    [
        True,
        {"server_no_context_takeover": True, "client_no_context_takeover": True},
        {"server_max_window_bits": 9, "client_max_window_bits": 9, "mem_level": 1, "level": 9},
    ],
    ids=str,
)
def test_compressed_messages_come_back_as_they_were_sent(tmp_path: Path, name: str, setting: Any) -> None:
    with running(name, tmp_path, WEBSOCKET_COMPRESSION=setting) as server:
        for offer in (ClientPerMessageDeflateFactory(), ClientPerMessageDeflateFactory(server_max_window_bits=10)):
            with connect(server.url(), extensions=[offer], compression=None, proxy=None) as client:
                assert [extension.name for extension in client.protocol.extensions] == ["permessage-deflate"]
                for message in MESSAGES * 2:
                    client.send(message)
                    assert client.recv(timeout=10) == message


@pytest.mark.parametrize(("setting", "compression"), [(False, "deflate"), (True, None)], ids=["server", "client"])
def test_nothing_is_compressed_where_one_side_does_not_want_it(tmp_path: Path, setting: bool, compression: Any) -> None:
    with (
        running("pywsgi", tmp_path, WEBSOCKET_COMPRESSION=setting) as server,
        connect(server.url(), compression=compression, proxy=None) as client,
    ):
        assert client.protocol.extensions == []
        client.send("plain")
        assert client.recv(timeout=10) == "plain"
