"""``python patched.py URL``: RedisGroups where gevent has patched the standard library. It prints how far it came."""

from gevent import monkey

monkey.patch_all()

import os
import sys
import time

import gevent
import redis

from dwebsocket.groups.backend import Publication
from dwebsocket.groups.config import DEFAULTS
from dwebsocket.groups.redis import RedisGroups


class Sink:
    def __init__(self):
        self.messages, self.watched, self.told = [], set(), []

    def message(self, group, payload, position=None):
        self.messages.append(payload)

    def flush(self):
        pass

    def watching(self, groups):
        self.watched.update(groups)

    def lost(self, why, source):
        self.told.append("lost")

    def restored(self, source):
        self.told.append("restored")


def until(condition):
    with gevent.Timeout(20):
        while not condition():
            gevent.sleep(0.005)


def main(url):
    settings = {**DEFAULTS, "LOCATION": url, "KEY_PREFIX": "patched", "OPTIONS": {"max_connections": 4}}
    groups, sink = RedisGroups("default", settings), Sink()
    groups.open(sink)
    assert monkey.is_module_patched("threading")
    print("patched")

    groups.watch(["a"], [])
    until(lambda: "a" in sink.watched)
    jobs = [gevent.spawn(groups.publish, [Publication("a", b"t%d" % number)]) for number in range(200)]
    gevent.joinall(jobs, raise_error=True)
    until(lambda: len(sink.messages) == 200)
    assert {int(payload[1:]) for payload in sink.messages} == set(range(200))
    print("received")

    # A server that does not answer holds up no other greenlet.
    client = redis.Redis.from_url(url)
    client.execute_command("CLIENT", "PAUSE", "500", "ALL")
    waiting = gevent.spawn(groups.publish, [Publication("a", b"late")])
    began, turns = time.monotonic(), 0
    while not waiting.ready():
        gevent.sleep(0.005)
        turns += 1
    waiting.get()
    assert time.monotonic() - began > 0.3
    assert turns > 20
    print("lively")

    client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    until(lambda: sink.told == ["lost", "restored"])
    print("restored")
    groups.publish([Publication("a", b"again")])
    until(lambda: sink.messages[-1] == b"again")
    print("again")

    # The greenlet that receives goes on in a child, and must leave the socket to its parent.
    child = os.fork()
    if not child:
        gevent.sleep(0.2)
        groups.publish([Publication("a", b"of the child")])
        os._exit(0 if len(sink.messages) == 202 else 1)
    assert os.waitpid(child, 0)[1] == 0
    until(lambda: sink.messages[-1] == b"of the child")
    groups.publish([Publication("a", b"of the parent")])
    until(lambda: sink.messages[-1] == b"of the parent")
    assert sink.told == ["lost", "restored"]
    print("forked")
    groups.close()
    client.close()
    print("closed")


if __name__ == "__main__":
    main(sys.argv[1])
