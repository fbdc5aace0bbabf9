"""Faults of histories and presence, one at random: of the broker's data, of the broker itself, and of a worker."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress

from tests.real.group_outages import chance_outage
from tests.real.group_site import AWAY, LOST, REFUSED, REPLACED, Site
from tests.real.servers import Server

EXPECTED = (LOST, AWAY, REFUSED, REPLACED)


def chance_disaster(site: Site, victim: Server, chance: random.Random) -> str:
    """Let one fault of a random kind come and go; what it was. `victim` is the server whose worker may suffer."""

    def delete(*patterns: str) -> None:
        with site.redis.client() as client:
            for pattern in patterns:
                if names := client.keys(pattern):
                    client.delete(*names)

    def save() -> None:
        """What comes after it is lost if the server dies before it saves again."""
        with site.redis.client() as client:
            client.save()

    def fail_over() -> None:
        replica, replication = site.add_replica()
        if chance.random() < 0.6:
            replication.hold()  # it lags
        time.sleep(chance.random())
        site.fail_over(replica)

    def worker(number: signal.Signals) -> None:
        with suppress(AssertionError, OSError):  # there is no worker just now
            pid = int(victim.get("/pid/").body)
            os.kill(pid, number)
            if number == signal.SIGSTOP:
                time.sleep(chance.random() * 8)
                os.kill(pid, signal.SIGCONT)

    def flush() -> None:
        with site.redis.client() as client:
            client.flushall()

    kinds: dict[str, Callable[[], None]] = {
        "FLUSHALL": flush,
        "no meta": lambda: delete("dws:m:*"),
        "no stream": lambda: delete("dws:s:*"),
        "no run": lambda: delete("dws:run"),
        "no keys of presence": lambda: delete("dws:p:*"),
        "no leases": lambda: delete("dws:p:nodes"),
        "no versions of rosters": lambda: delete("dws:p:v:*"),
        "SAVE": save,
        "failover": fail_over,
        "worker killed": lambda: worker(signal.SIGKILL),
        "worker ends": lambda: worker(signal.SIGTERM),
        "worker stands still": lambda: worker(signal.SIGSTOP),
    }
    if chance.random() < 0.5:
        return chance_outage(site, chance)
    kind = chance.choice(sorted(kinds))
    kinds[kind]()
    return kind
