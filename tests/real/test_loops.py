"""Views that ask on and on after their peer has left: the worker serves everybody else meanwhile."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.helpers import exchange
from tests.project.views import INSISTED_ON
from tests.real.servers import Server, assert_quiet, running


@pytest.fixture(scope="module")
def gunicorn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running("gunicorn-gevent", tmp_path_factory.mktemp("loops")) as server:
        yield server
        assert_quiet(server.take_news())


@pytest.mark.parametrize("kind", ["new", "old"])
@pytest.mark.parametrize("by", INSISTED_ON)
def test_worker_serves_others_while_a_view_asks_on_after_the_end(
    gunicorn: Server, by: str, kind: str, note: str
) -> None:
    try:
        with gunicorn.connect(f"/insist/{kind}/?by={by}&note={note}") as leaver:
            leaver.abandon()
        with gunicorn.connect("/echo/") as peer:
            for number in range(20):
                assert exchange(peer, str(number)) == str(number)
        assert gunicorn.get("/plain/").body == b"plain"
    finally:
        gunicorn.wake(note)
