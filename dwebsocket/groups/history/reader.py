"""The reading of histories, in a separate thread: many groups in one question, each once, however many ask."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from ...exceptions import GroupsUnavailable
from ..backend import Read, Want
from ..chance import chance
from ..loop import Loop
from .history import Admission
from .stream import Asked

logger = logging.getLogger("dwebsocket")

_BATCH = 100  # groups in one question
_CHECKED = 500  # groups whose last positions are asked for together
_PAUSE_SECONDS = 0.02  # between two of them, so that a fleet does not fell a broker that has just come back
_FIRST_SECONDS, _LONGEST_SECONDS = 0.1, 2.0  # before a question that was not answered is asked again


class Reader(Loop):
    """Asks for the groups that are wanted, for ever, and every `check_seconds` for all: was the last message missed?

    `ask` gives the question for a group, or None where no member is left; `answer` takes what comes, and says
    whether messages are missing that the history does not have any more. `groups` are those to look at.
    `is_at_once`: the backend answers without waiting, so each question is asked where it arises.
    """

    def __init__(
        self,
        read: Callable[[Mapping[str, Want]], Mapping[str, Read]],
        ask: Callable[[str, Sequence[Admission]], Asked | None],
        answer: Callable[[str, Read, Asked, Sequence[Admission]], bool],
        groups: Callable[[], Iterable[str]],
        *,
        check_seconds: float,
        is_at_once: bool,
    ) -> None:
        super().__init__("dwebsocket groups read", without="histories are not read")
        self._read = read
        self._ask = ask
        self._answer = answer
        self._groups = groups
        self._check_seconds = check_seconds
        self._is_at_once = is_at_once
        self._wanted: dict[str, list[Admission]] = {}
        self._delay = _FIRST_SECONDS

    def want(self, group: str, admissions: Iterable[Admission] = ()) -> None:
        """Ask for `group` soon, on behalf of `admissions`."""
        if self._is_at_once:
            self._turn({group: list(admissions)})
            return
        with self._changed:
            self._wanted.setdefault(group, []).extend(admissions)
            self._wake()

    def _run(self) -> None:
        check_at = time.monotonic() + self._check_seconds
        while not self._is_over():
            if self._wait_until(check_at):
                check_at = time.monotonic() + self._check_seconds * chance.uniform(0.8, 1.2)
                self._check(list(self._groups()))
            batch = self._take()
            if batch and not self._is_over():
                self._turn(batch)
                if len(batch) == _BATCH:
                    time.sleep(_PAUSE_SECONDS)

    def _check(self, groups: Sequence[str]) -> None:
        """Ask for the last positions: mostly that is all, and takes little."""
        for start in range(0, len(groups), _CHECKED):
            if not self._is_over():
                self._turn({group: [] for group in groups[start : start + _CHECKED]})

    def _wait_until(self, check_at: float) -> bool:
        """Wait until something is wanted; True where the time for a look at all groups has come."""
        with self._changed:
            while not self._wanted and not self._is_over():
                remaining = check_at - time.monotonic()
                if remaining <= 0:
                    return True
                self._changed.wait(remaining)
        return False

    def _take(self) -> dict[str, list[Admission]]:
        """The groups of the next question: those first for which a view waits."""
        with self._changed:
            names = sorted(self._wanted, key=lambda name: not self._wanted[name])[:_BATCH]
            return {name: self._wanted.pop(name) for name in names}

    def _turn(self, batch: dict[str, list[Admission]]) -> None:
        asked = {}
        try:
            for group, admissions in batch.items():
                question = self._ask(group, admissions)
                if question is not None:
                    asked[group] = question
            reads = self._read({group: question.want for group, question in asked.items()}) if asked else {}
        except GroupsUnavailable:  # its own log tells of the outage
            self._try_again(batch)
            return
        except Exception:
            logger.exception("internal error; histories are read again")
            self._try_again(batch)
            return
        self._delay = _FIRST_SECONDS
        with_gap = []
        for group, read in reads.items():
            try:
                if self._answer(group, read, asked[group], batch[group]):
                    with_gap.append(group)
            except Exception:  # the others must be served
                logger.exception("internal error; messages to groups may be lost")
        if with_gap:
            names = ", ".join(map(repr, with_gap[:3])) + (f" and {len(with_gap) - 3} more" if len(with_gap) > 3 else "")
            logger.warning("messages are lost that no history has any more, of the groups: %s", names)

    def _try_again(self, batch: dict[str, list[Admission]]) -> None:
        if self._is_at_once:
            return
        with self._changed:
            for group, admissions in batch.items():
                waiting = [admission for admission in admissions if not admission.is_over]
                self._wanted.setdefault(group, []).extend(waiting)
        seconds, self._delay = self._delay, min(self._delay * 2, _LONGEST_SECONDS)
        time.sleep(seconds * chance.uniform(0.5, 1.0))
