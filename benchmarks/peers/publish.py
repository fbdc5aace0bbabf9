"""``publish.py KIND MESSAGE``: publishes it to the room that each line of standard input names, from outside of the
server, and repeats the line. ``publish.py KIND MESSAGE SECONDS THREADS`` publishes to one room for so long, in so many
threads, and says how often.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

URL = os.environ["BENCHMARKS_REDIS"]
WARMUP = 0.3

Publish = Callable[[int], object]


def redis_py(message: str) -> Publish:
    import redis

    client = redis.Redis.from_url(URL)
    return lambda room: client.publish(f"room:{room}", message)


def dwebsocket(message: str) -> Publish:
    _setup_django()
    from dwebsocket import group

    return lambda room: group(f"room:{room}").send(message)


def dwebsocket_history(message: str) -> Publish:
    _setup_django()
    from dwebsocket import Groups

    rooms = Groups("room", history=100, ttl=3600)
    return lambda room: rooms[room].send(message)


def channels(layer: str) -> Callable[[str], Publish]:
    """As Channels documents it for synchronous code."""

    def made(message: str) -> Publish:
        _setup_django()
        from asgiref.sync import async_to_sync
        from channels.layers import get_channel_layer

        group_send = async_to_sync(get_channel_layer(layer).group_send)
        return lambda room: group_send(f"room.{room}", {"type": "room.message", "text": message})

    return made


def python_socketio(message: str) -> Publish:
    import socketio

    manager = socketio.RedisManager(URL, write_only=True)
    return lambda room: manager.emit("message", message, room=f"room:{room}")


KINDS: dict[str, Callable[[str], Publish]] = {
    "redis": redis_py,
    "dwebsocket": dwebsocket,
    "dwebsocket-history": dwebsocket_history,
    "channels-core": channels("core"),
    "channels-pubsub": channels("pubsub"),
    "python-socketio": python_socketio,
}


def _setup_django() -> None:
    import django

    os.environ["DJANGO_SETTINGS_MODULE"] = "mysite.settings"
    django.setup()


def publish_at_each_line(publish: Publish) -> None:
    for line in sys.stdin:
        publish(int(line))
        print(line, end="", flush=True)


def publish_for(publish: Publish, seconds: float, threads: int) -> tuple[int, float]:
    begin = time.perf_counter()

    def publish_until() -> int:
        done = 0
        while time.perf_counter() < begin + seconds:
            publish(0)
            done += 1
        return done

    if threads == 1:
        done = publish_until()
    else:
        with ThreadPoolExecutor(threads) as pool:
            done = sum(pool.map(lambda _: publish_until(), range(threads)))
    return done, time.perf_counter() - begin


def redis_cpu_seconds() -> float:
    import redis

    found = redis.Redis.from_url(URL).info("cpu")
    return found["used_cpu_user"] + found["used_cpu_sys"]


def main(kind: str, message: str, seconds: str = "", threads: str = "1") -> None:
    publish = KINDS[kind](message)
    if not seconds:
        return publish_at_each_line(publish)
    publish_for(publish, WARMUP, int(threads))
    redis_cpu, cpu = redis_cpu_seconds(), time.process_time()
    done, taken = publish_for(publish, float(seconds), int(threads))
    cpu = time.process_time() - cpu
    redis_cpu = redis_cpu_seconds() - redis_cpu
    print(json.dumps({"done": done, "seconds": taken, "server_cpu_seconds": cpu, "redis_cpu_seconds": redis_cpu}))


main(*sys.argv[1:])
