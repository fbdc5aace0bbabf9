"""Guards and their answers."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest

from ..conf import AnyGuard
from ..exceptions import Forbidden
from ..protocol.exceptions import HandshakeError

DENIED = "permission denied"

#: Why a guard refuses a request; None lets it in.
Verdict = HandshakeError | None


class Guard:
    """A guard that judges many requests at once."""

    def judge(self, requests: Sequence[HttpRequest]) -> Iterable[Verdict]:
        """Return a verdict for each of the `requests`, in their order."""
        raise NotImplementedError

    def __call__(self, request: HttpRequest) -> bool:
        """Return True, or raise the reason to refuse the request."""
        [verdict] = self.judge([request])
        if verdict is not None:
            raise verdict
        return True


def check(request: HttpRequest, guards: Iterable[AnyGuard]) -> None:
    """Ask `guards` one after the other; raise the first refusal."""
    for guard in guards:
        verdict = guard_verdict(guard, request)
        if verdict is not None:
            raise verdict


def guard_verdict(guard: AnyGuard, request: HttpRequest) -> Verdict:
    """Return the verdict of one guard on the request."""
    try:
        answer = guard(request)
    except HandshakeError as error:
        return error
    except PermissionDenied:  # its text is not for the client, as everywhere in Django
        return Forbidden(DENIED)
    if inspect.isawaitable(answer):
        raise TypeError(f"the guard {guard!r} is asynchronous; here it is an ordinary function")
    if answer is not None and not isinstance(answer, bool):
        raise TypeError(_no_answer(guard, answer))
    return None if answer else Forbidden(DENIED)


def _no_answer(guard: AnyGuard, answer: object) -> str:
    """Say what is wrong with the answer, and what to write; without the answer itself, which may hold anything."""
    said = f"the guard {guard!r} returned a {type(answer).__name__}, neither True nor False"
    if callable(answer):
        return f"{said}: a decorator is no guard; write it above accept_websocket, or write guard=user_is_active"
    return f"{said}: let it return bool(…)"
