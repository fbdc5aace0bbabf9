"""Sentinels: which server is the primary of a service now."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from . import commands, faults

if TYPE_CHECKING:
    from .wire import Address

#: They are asked for so much of TIMEOUT: what is left is for the server that they name.
_SHARE = 1 / 3
#: How a sentence of a sentinel begins or what it has in it, and what to do.
_REFUSALS: Sequence[tuple[str, str]] = (
    (
        r"No such master",
        "it knows no such service: write the name of its 'sentinel monitor' at the end of LOCATION",
    ),
    (
        r"^NOAUTH|Authentication required",
        "it wants a password: give OPTIONS 'sentinel_kwargs' with 'username' and 'password' (those of LOCATION are for "
        "the servers that it names)",
    ),
    (
        r"^WRONGPASS|invalid password|invalid username-password|called without any password configured",
        "it does not accept the 'username' or the 'password' of OPTIONS['sentinel_kwargs']",
    ),
    (r"NOPERM", "its user lacks a command: give it +sentinel|master with ACL SETUSER"),
    (r"unknown command|Protocol error", "it is no sentinel: write the port of one into LOCATION (26379, not 6379)"),
)


class Primary(NamedTuple):
    """What a sentinel says of the primary. `epoch` grows with each failover."""

    epoch: int
    address: Address
    is_down: bool

    @classmethod
    def parse(cls, answer: Sequence[bytes]) -> Primary:
        """From the answer to SENTINEL MASTER: names and values in turn."""
        facts = {name.decode(): value.decode() for name, value in zip(answer[::2], answer[1::2], strict=False)}
        is_down = not {"s_down", "o_down"}.isdisjoint(facts.get("flags", "").split(","))
        return cls(int(facts.get("config-epoch", 0)), (facts["ip"], int(facts["port"])), is_down)


class Sentinels:
    """The sentinels of one service. `primary` is what they said last; None: they were not asked yet."""

    def __init__(
        self, addresses: Sequence[Address], service: str, kind: Any, options: Mapping[str, Any], timeout_seconds: float
    ) -> None:
        self.addresses = addresses
        self.service = service
        self.primary: Primary | None = None
        self._kind = kind  # of redis-py's connections
        self._options = options
        self._seconds = timeout_seconds * _SHARE
        self._asked: set[Address] = set()  # and they have not answered
        self._changed = threading.Condition(threading.Lock())

    def ask(self) -> Primary:
        """What most of them say, all being asked at once. Refused or Broken where none of them says it."""
        answers: dict[Address, Primary] = {}
        errors: dict[Address, Exception] = {}
        deadline = time.monotonic() + self._seconds
        with self._changed:
            due = [address for address in self.addresses if address not in self._asked]
            self._asked.update(due)
        for address in due:
            self._start(address, answers, errors, deadline)
        with self._changed:
            while len(answers) + len(errors) < len(due) and not self._is_enough(answers):
                if (remaining := deadline - time.monotonic()) <= 0:
                    break
                self._changed.wait(remaining)
            if not answers:
                raise self._fault(errors)
            self.primary = choose(list(answers.values()), len(self.addresses), self.primary)
            return self.primary

    def _is_enough(self, answers: Mapping[Address, Primary]) -> bool:
        """Whether most have answered, and one of them is not behind what is known."""
        known = self.primary.epoch if self.primary is not None else 0
        return 2 * len(answers) > len(self.addresses) and any(one.epoch >= known for one in answers.values())

    def _start(
        self, address: Address, answers: dict[Address, Primary], errors: dict[Address, Exception], deadline: float
    ) -> None:
        def run() -> None:
            answer, error = None, None
            try:
                answer = self._ask_one(address, deadline)
            except Exception as found:
                error = found
            with self._changed:
                self._asked.discard(address)
                if answer is not None:
                    answers[address] = answer
                elif error is not None:
                    errors[address] = error
                self._changed.notify_all()

        thread = threading.Thread(target=run, name="dwebsocket-sentinel", daemon=True)
        try:
            thread.start()
        except BaseException:
            with self._changed:
                self._asked.discard(address)
            raise

    def _ask_one(self, address: Address, deadline: float) -> Primary:
        import hiredis

        from .wire import dial

        host, port = address
        options = {**self._options, "socket_timeout": self._seconds, "socket_connect_timeout": self._seconds}
        try:
            wire = dial(self._kind(host=host, port=port, **options))
        except (faults.Broken, faults.Refused) as error:
            raise explain(str(error.__cause__), error) from error
        try:
            question = commands.command(b"SENTINEL", b"MASTER", self.service.encode())
            (answer,) = wire.exchange(question, 1, deadline)
        finally:
            wire.close()
        if isinstance(answer, hiredis.ReplyError):
            raise explain(str(answer), faults.Broken(str(answer)))
        return Primary.parse(answer)

    def _fault(self, errors: Mapping[Address, Exception]) -> Exception:
        refused = [f"{named(at)}: {error}" for at, error in errors.items() if isinstance(error, faults.Refused)]
        if refused:
            return faults.Refused(f"the sentinel {refused[0]}")
        said = [f"{named(at)}: {_words(errors[at])}" for at in self.addresses if at in errors]
        silent = [f"{named(at)}: it did not answer" for at in self.addresses if at not in errors]
        return faults.Broken(f"no sentinel of LOCATION answers ({'; '.join(said + silent)})")


def choose(answers: Sequence[Primary], sentinels: int, known: Primary | None) -> Primary:
    """The primary of the latest failover that one of `answers` knows, or that is `known` already.

    A few sentinels may be behind; where most of them are, they have been set up anew.
    """
    best = max(answers, key=lambda one: (one.epoch, not one.is_down))
    if known is None:
        return best
    if best.epoch < known.epoch and 2 * len(answers) <= sentinels:
        return known
    same = [one for one in answers if one.epoch == best.epoch and one.address == known.address]
    return same[0] if same else best


def explain(said: str, otherwise: Exception) -> Exception:
    """`Refused`, from what a sentinel said; else `otherwise`."""
    for pattern, words in _REFUSALS:
        if re.search(pattern, said):
            return faults.Refused(f"{words} ({said})")
    return otherwise


def named(address: Address) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _words(error: Exception) -> str:
    return "it did not answer" if isinstance(error, TimeoutError) else str(faults.as_fault(error))
