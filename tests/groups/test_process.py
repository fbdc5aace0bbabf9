"""What one process has of groups: a dispatcher for each alias, and a name of its own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from dwebsocket import group, group_overflow, group_presence_changed, require_websocket
from dwebsocket.groups import process
from dwebsocket.groups.dispatcher import Dispatcher
from tests.groups.backends import PATH, ObedientGroups
from tests.groups.helpers import leave
from tests.links import run_program, until
from tests.sites import Site

TWO = {"default": {}, "other": {"BACKEND": PATH}}


@pytest.fixture
def _two_aliases() -> Iterator[None]:
    ObedientGroups.made.clear()
    with override_settings(WEBSOCKET_GROUPS=TWO):
        yield


@pytest.mark.usefixtures("_two_aliases")
def test_dispatcher_is_made_at_the_first_use_one_for_each_alias() -> None:
    assert process.dispatchers() == []
    other = process.dispatcher("other")
    assert process.dispatchers() == [other]
    assert process.dispatcher("other") is other
    assert process.dispatcher("default") is not other
    assert [backend.alias for backend in ObedientGroups.made] == ["other"]
    assert ObedientGroups.made[0].opened == 0, "nothing is connected before a group is joined, or sent to"


@pytest.mark.usefixtures("_two_aliases")
def test_many_threads_that_need_the_first_get_the_same() -> None:
    barrier, found = threading.Barrier(8), list[Dispatcher]()

    def look() -> None:
        barrier.wait()
        found.append(process.dispatcher("other"))

    threads = [threading.Thread(target=look) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == len(ObedientGroups.made) == 1


def test_settings_that_are_overridden_close_the_backends_and_make_new_ones() -> None:
    ObedientGroups.made.clear()
    with override_settings(WEBSOCKET_GROUPS=TWO):
        before = process.dispatcher("other")
        with override_settings(WEBSOCKET_GROUPS={"default": {}, "other": {"BACKEND": PATH, "TIMEOUT": 1}}):
            assert ObedientGroups.made[0].is_closed
            assert process.dispatcher("other").backend.settings["TIMEOUT"] == 1
        assert ObedientGroups.made[1].is_closed
        assert process.dispatcher("other") is not before
        with override_settings(WEBSOCKET_MAX_GROUPS=3):
            assert not ObedientGroups.made[2].is_closed, "another setting closes nothing"
    assert process.dispatchers() == []


def test_wrong_settings_are_told_at_each_use() -> None:
    with override_settings(WEBSOCKET_GROUPS={"default": {"BACKEND": "nowhere.Groups"}}):
        for _ in range(2):
            with pytest.raises(ImproperlyConfigured, match="nowhere"):
                group("room:7").send("a")
    assert process.dispatchers() == []


FORK = """
import os, sys, threading
import django
from django.conf import settings
settings.configure(
    WEBSOCKET_GROUPS={"default": {"BACKEND": "tests.groups.backends.ObedientGroups"}}, LOGGING_CONFIG=None
)
django.setup()
from dwebsocket import group
from dwebsocket.groups import membership, node, process
from tests.groups.backends import ObedientGroups

group("room:7").send("a")
name, dispatcher = node.websocket_id(1), process.dispatcher("default")
process._lock.acquire()  # by a thread that the child does not have
membership._lock.acquire()
read, write = os.pipe()
pid = os.fork()
if not pid:
    def use():
        os.write(write, b"%d" % (node.websocket_id(1) != name))
        os.write(write, b"%d" % (process.dispatchers() == []))
        group("room:7").send("b")
        os.write(write, b"%d" % (process.dispatcher("default") is not dispatcher))
        os.write(write, b"%d" % (not ObedientGroups.made[0].is_closed))  # its socket would be the parent's, too
        with membership._lock:
            os._exit(0)
    thread = threading.Thread(target=use)
    thread.start()
    thread.join(10)
    os._exit(1)
assert os.waitpid(pid, 0)[1] == 0
assert os.read(read, 10) == b"1111"
assert process.dispatcher("default") is dispatcher
assert len(ObedientGroups.made[0].published) == 1
print("done")
"""


def test_child_of_a_fork_has_another_name_and_makes_its_own_backends() -> None:
    assert run_program(FORK).strip() == "done"


SITE = """
import django.test.utils
from django.conf import settings
settings.configure(LOGGING_CONFIG=None, SECRET_KEY="x", ALLOWED_HOSTS=["*"], ROOT_URLCONF="__main__")
django.setup()
django.test.utils.setup_test_environment()
from django.urls import path
"""

FORK_WITH_MEMBERS = f"""{SITE}
import os
from dwebsocket import everyone, group, require_websocket
from dwebsocket.groups import process
from dwebsocket.process.registry import registry
from dwebsocket.test import WebSocketClient

@require_websocket
def view(request):
    request.websocket.join(group("room:7"))
    request.websocket.send("joined")
    request.websocket.wait()

urlpatterns = [path("", view)]
with WebSocketClient().websocket("/") as websocket:
    assert websocket.receive() == "joined"
    pid = os.fork()
    if not pid:
        try:
            assert len(registry) == 0
            assert process.dispatchers() == []
            group("room:7").send("of the child")
            os._exit(0)
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
    group("room:7").send("of the parent")
    assert websocket.receive() == "of the parent"
print("done")
"""


def test_child_of_a_fork_has_no_members_and_disturbs_none() -> None:
    assert run_program(FORK_WITH_MEMBERS).strip() == "done"


NO_GROUPS = f"""{SITE}
import threading
from dwebsocket import group, group_overflow, group_presence_changed, require_websocket
from dwebsocket.test import WebSocketClient

@require_websocket
def view(request):
    request.websocket.send("hello")
    request.websocket.wait()

urlpatterns = [path("", view)]
with WebSocketClient().websocket("/") as websocket:
    assert websocket.receive() == "hello"
    group("room:7").send("to no member")
    print(sorted(thread.name for thread in threading.enumerate()))
"""


def test_process_whose_websockets_join_no_group_has_no_thread_for_them() -> None:
    assert "dwebsocket groups" not in run_program(NO_GROUPS)


def test_members_of_a_backend_that_was_closed_get_nothing_and_can_leave(site: Site) -> None:
    left = threading.Event()

    @require_websocket
    def view(request: Any) -> None:
        websocket = request.websocket
        websocket.join(group("room:7"))
        websocket.send("joined")
        websocket.wait()
        websocket.leave(group("room:7"))
        websocket.join(group("room:7"))
        websocket.send("joined again")
        site.wait_for(left)

    peer = site(view).connect()
    assert peer.recv_message() == "joined"
    with override_settings(WEBSOCKET_GROUPS={"default": {"TIMEOUT": 1}}):
        group("room:7").send("into the void")
        peer.send_message("go on")
        assert peer.recv_message() == "joined again"
        group("room:7").send("hello")
        assert peer.recv_message() == "hello"
        left.set()
        leave(peer)
        site.until_idle()


def test_signal_of_slow_members_is_sent_by_one_thread_however_slow_its_receivers_are() -> None:
    """A thread for each burst would be thousands."""
    go, threads, told = threading.Event(), [], []

    class Reactor:
        def spawn(self, function: Any, name: str) -> None:
            threads.append(threading.Thread(target=function, name=name))
            threads[-1].start()

    def receive(websocket: Any, group: str, **about: Any) -> None:
        go.wait(10)
        told.append((websocket, group))

    def member(websocket: str, group: str) -> Any:
        connection = SimpleNamespace(reactor=Reactor())
        return SimpleNamespace(
            owner=SimpleNamespace(websocket=websocket), audience=SimpleNamespace(group=group), connection=connection
        )

    group_overflow.connect(receive)
    try:
        for _ in range(100):
            process._tell_overflow([member("one", "a"), member("two", "a")])
        go.set()
        for thread in threads:
            thread.join(10)
        assert len(threads) == 1
        assert set(told) == {("one", "a"), ("two", "a")}
        assert len(told) <= 4, "each at most once more than when it was told before"
        process._tell_overflow([member("three", "b")])
        threads[-1].join(10)
        assert told[-1] == ("three", "b")
    finally:
        group_overflow.disconnect(receive)


def test_changes_that_a_receiver_does_not_take_are_bounded(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Guests may come and go faster than a receiver writes to its database: or for ever, while it hangs."""
    go, told = threading.Event(), []

    def receive(group: str, **about: Any) -> None:
        go.wait(10)
        told.append(group)

    monkeypatch.setattr(process._changes, "max_waiting", 10)
    group_presence_changed.connect(receive)
    try:
        for number in range(100):
            process._tell_presence("default", str(number), [], [])
        assert len(process._changes) <= 10
        go.set()
        until(lambda: not process._changes.is_telling)
    finally:
        group_presence_changed.disconnect(receive)
    assert told[-10:] == [str(number) for number in range(90, 100)], "the latest are told"
    assert len([one for one in caplog.records if "group_presence_changed" in one.message]) == 1


def test_signal_of_changes_is_sent_later_where_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    def receive(group: str, **about: Any) -> None:
        told.append(group)

    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    group_presence_changed.connect(receive)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", start)
            process._tell_presence("default", "a", [], [])
        process._tell_presence("default", "b", [], [])
        until(lambda: told == ["a", "b"])
    finally:
        group_presence_changed.disconnect(receive)
