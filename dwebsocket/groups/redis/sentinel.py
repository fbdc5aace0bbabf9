"""Sentinels: which server is the primary of a service now."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from . import commands, faults

if TYPE_CHECKING:
    from .wire import Address, Wire

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
    """The primary, as a sentinel names it. `epoch` grows with each failover."""

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
        self, addresses: Sequence[Address], service: str, connect: Callable[[Address], Wire], seconds: float
    ) -> None:
        self.addresses = addresses
        self.service = service
        self.primary: Primary | None = None
        self._connect = connect
        self._seconds = seconds  # for an answer
        self._open: dict[Address, _Question] = {}  # without an answer: another one that asks waits for it too
        self._changed = threading.Condition(threading.Lock())

    def ask(self) -> Primary:
        """Return their answer, all being asked at once; the last answer where none of them can be reached.

        Refused, or Broken, where that is nothing.
        """
        deadline = time.monotonic() + self._seconds
        with self._changed:
            questions = [self._open.get(address) or self._start(address, deadline) for address in self.addresses]
            while not self._is_enough(questions) and (remaining := deadline - time.monotonic()) > 0:
                self._changed.wait(remaining)
            answers = [question.answer for question in questions if question.answer is not None]
            if answers:
                self.primary = choose(answers, len(self.addresses), self.primary)
            elif self.primary is None or any(isinstance(question.error, faults.Refused) for question in questions):
                raise _fault(questions)
            return self.primary

    def _is_enough(self, questions: Sequence[_Question]) -> bool:
        """Whether all have answered, or most, of which one is not behind what is known."""
        known = self.primary.epoch if self.primary is not None else 0
        epochs = [question.answer.epoch for question in questions if question.answer is not None]
        is_known = 2 * len(epochs) > len(questions) and max(epochs) >= known
        return is_known or all(question.is_over for question in questions)

    def _start(self, address: Address, deadline: float) -> _Question:
        question = _Question(address)
        thread = threading.Thread(
            target=self._answer, args=(question, deadline), name="dwebsocket-sentinel", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as error:  # no thread can be started now
            question.error = error
        else:
            self._open[address] = question
        return question

    def _answer(self, question: _Question, deadline: float) -> None:
        answer, error = None, None
        try:
            answer = self._ask_one(question.address, deadline)
        except Exception as found:
            error = found
        with self._changed:
            question.answer, question.error = answer, error
            del self._open[question.address]
            self._changed.notify_all()

    def _ask_one(self, address: Address, deadline: float) -> Primary:
        try:
            wire = self._connect(address)
        except (faults.Broken, faults.Refused) as error:
            raise explain(str(error.__cause__), error) from error
        try:
            question = commands.command(b"SENTINEL", b"MASTER", self.service.encode())
            (answer,) = wire.exchange(question, 1, deadline)
        finally:
            wire.close()
        if isinstance(answer, Exception):
            raise explain(str(answer), faults.Broken(str(answer)))
        return Primary.parse(answer)


class _Question:
    """A question to one sentinel."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.answer: Primary | None = None
        self.error: Exception | None = None

    @property
    def is_over(self) -> bool:
        return self.answer is not None or self.error is not None

    def __str__(self) -> str:
        """Why there is no answer."""
        said = "" if self.error is None else str(faults.as_fault(self.error))
        is_silent = not said or isinstance(self.error, TimeoutError) or re.search(r"[Tt]imed? ?out", said)
        return f"{named(self.address)}: {'it did not answer' if is_silent else said}"


def _fault(questions: Sequence[_Question]) -> Exception:
    for question in questions:
        if isinstance(question.error, faults.Refused):
            return faults.Refused(f"the sentinel {question}")
    return faults.Broken(f"no sentinel of LOCATION answers ({'; '.join(map(str, questions))})")


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
