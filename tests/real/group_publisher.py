"""A process that is no web server, and sends to groups: `python -m tests.real.group_publisher ORDERS`.

ORDERS is a JSON object: `publishers` (names, a thread for each), `groups`, `count` (of messages of each publisher to
each group; 0: until the standard input ends), `pause_seconds` after each message, `size` of the text it ends with. It
begins at the first line of the standard input, and writes a line for each message: group, publisher, n, "ok" or the
name of the error, when it began, how many seconds it took, and the position, or "-".
"""

from __future__ import annotations

import json
import sys
import threading
import time

import django


def main() -> None:
    django.setup()
    import tests.project.groups  # noqa: F401  # which declares those that have a history
    from dwebsocket import group

    orders = json.loads(sys.argv[1])
    is_over = threading.Event()
    lock = threading.Lock()
    tail = " " + "x" * orders["size"] if orders["size"] else ""

    def publish(name: str) -> None:
        n = 0
        while not is_over.is_set() and (not orders["count"] or n < orders["count"]):
            for to in orders["groups"]:
                began = time.monotonic()
                position = None
                try:
                    position = group(to).send(f"{to} {name} {n}{tail}")
                except Exception as error:
                    outcome = type(error).__name__
                else:
                    outcome = "ok"
                line = f"{to} {name} {n} {outcome} {began} {time.monotonic() - began} {position or '-'}\n"
                with lock:
                    sys.stdout.write(line)
                    sys.stdout.flush()
                time.sleep(orders["pause_seconds"])
            n += 1

    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    threads = [threading.Thread(target=publish, args=[name]) for name in orders["publishers"]]
    for thread in threads:
        thread.start()
    if not orders["count"]:
        sys.stdin.read()
        is_over.set()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
