"""What a guard is, and what it answers."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest

from ..conf import AnyGuard
from ..exceptions import Forbidden
from ..protocol.exceptions import HandshakeError

DENIED = "permission denied"

#: What a guard has to say against a request; None: nothing.
Verdict = HandshakeError | None


class Guard:
    """A guard that judges many requests at once."""

    def judge(self, requests: Sequence[HttpRequest]) -> Iterable[Verdict]:
        """What there is to say against each of the `requests`, in their order."""
        raise NotImplementedError

    def __call__(self, request: HttpRequest) -> bool:
        """Raise what there is to say against the request."""
        [verdict] = self.judge([request])
        if verdict is not None:
            raise verdict
        return True


def check(request: HttpRequest, guards: Iterable[AnyGuard]) -> None:
    """Ask `guards` one after the other; raises what the first says against the request."""
    for guard in guards:
        verdict = guard_verdict(guard, request)
        if verdict is not None:
            raise verdict


def guard_verdict(guard: AnyGuard, request: HttpRequest) -> Verdict:
    """What one guard has to say against the request."""
    try:
        answer = guard(request)
    except HandshakeError as error:
        return error
    except PermissionDenied:  # what it says is not for the client, as everywhere in Django
        return Forbidden(DENIED)
    if inspect.isawaitable(answer):
        raise TypeError(f"the guard {guard!r} is asynchronous; here it is an ordinary function")
    if answer is not None and not isinstance(answer, bool):
        raise TypeError(_no_answer(guard, answer))
    return None if answer else Forbidden(DENIED)


def _no_answer(guard: AnyGuard, answer: object) -> str:
    """What is wrong with the answer, and what to write; without the answer itself, which may hold anything."""
    said = f"the guard {guard!r} returned a {type(answer).__name__}, neither True nor False"
    if callable(answer):
        return f"{said}: a decorator is no guard; write it above accept_websocket, or write guard=user_is_active"
    return f"{said}: let it return bool(…)"
