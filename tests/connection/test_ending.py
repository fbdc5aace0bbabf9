"""The end of a connection as a table: facts and times go in, steps come out. No socket, no sleep."""

from __future__ import annotations

import math
from typing import Any

import pytest

from dwebsocket.connection.ending import LINGER_SECONDS, RULES, SILENCE_SECONDS, Ending, Facts, Phase, Step
from dwebsocket.protocol.endpoint import State

CLOSE_TIMEOUT = 10.0
MOMENT = 0.001
BEGAN = 100.0

FACTS_OF_A_CONNECTION = [name for name in dir(Facts) if not name.startswith("_")]
#: The facts in which each phase stands still.
FACTS = {
    Phase.HUNG_UP: Facts(State.OPEN, is_owed=True, is_paused=True),
    Phase.DRAINING: Facts(State.ENDING, is_owed=True),
    Phase.CLOSING: Facts(State.CLOSING),
    Phase.GOING_AWAY: Facts(State.CLOSING),
    Phase.SILENCE: Facts(State.CLOSED),
    Phase.LINGERING: Facts(State.CLOSED, write_ended=True),
}


def reached(phase: Phase) -> Ending:
    """An ending that came to `phase` at BEGAN."""
    ending = Ending(BEGAN, CLOSE_TIMEOUT, Phase.HUNG_UP if phase is Phase.HUNG_UP else Phase.CLOSING)
    if phase is not Phase.HUNG_UP:
        assert ending.move(BEGAN, FACTS[phase]) is None
    if phase is Phase.GOING_AWAY:
        ending.hurry()
    assert ending.phase is phase
    return ending


def but(facts: Facts, **changes: Any) -> Facts:
    return Facts(**{name: getattr(facts, name) for name in FACTS_OF_A_CONNECTION} | changes)


def test_every_phase_but_the_last_has_a_rule_and_says_what_it_is() -> None:
    assert set(RULES) == set(Phase) - {Phase.OVER}
    assert all(phase.value for phase in Phase)


# The way to the end: what follows at once from what has happened


@pytest.mark.parametrize("begin", [phase for phase in Phase if phase is not Phase.OVER])
@pytest.mark.parametrize(
    ("facts", "phase", "step"),
    [
        (Facts(State.ENDING, is_owed=True), Phase.DRAINING, None),
        (Facts(State.ENDING, is_owed=True, is_paused=True), Phase.DRAINING, None),
        (Facts(State.ENDING), Phase.DRAINING, Step.ANSWER),
        (Facts(State.ENDING, is_owed=True, read_ended=True), Phase.DRAINING, None),  # the peer half-closed
        (Facts(State.ENDING, is_owed=True, write_ended=True), Phase.DRAINING, None),  # the peer is gone, not its words
        (Facts(State.ENDING, is_owed=True, read_ended=True, write_ended=True), Phase.OVER, Step.DISPOSE),
        (Facts(State.CLOSED), Phase.SILENCE, None),
        (Facts(State.CLOSED, close_received=True), Phase.SILENCE, Step.END_WRITING),
        (Facts(State.CLOSED, read_ended=True), Phase.SILENCE, Step.END_WRITING),
        (Facts(State.CLOSED, write_ended=True), Phase.LINGERING, None),
        (Facts(State.CLOSED, write_ended=True, close_received=True), Phase.LINGERING, None),
        (Facts(State.CLOSED, write_ended=True, read_ended=True), Phase.OVER, Step.DISPOSE),
        (Facts(State.CLOSING, write_ended=True), Phase.LINGERING, None),  # lost before it answered
    ],
)
def test_phase_is_that_of_the_facts_wherever_it_was(
    begin: Phase, facts: Facts, phase: Phase, step: Step | None
) -> None:
    ending = reached(begin)

    assert ending.move(BEGAN + 1, facts) is step
    assert ending.phase is phase


@pytest.mark.parametrize(
    "facts",
    [
        Facts(State.CLOSING),
        Facts(State.CLOSING, is_writing=True),
        Facts(State.CLOSED, is_writing=True),
        Facts(State.CLOSED, is_writing=True, close_received=True),  # the end of our stream comes behind the bytes
        Facts(State.CLOSED, is_writing=True, read_ended=True),
    ],
)
def test_our_close_frame_is_on_its_way_or_the_answer_awaited(facts: Facts) -> None:
    ending = Ending(BEGAN, CLOSE_TIMEOUT)

    assert ending.move(BEGAN + 1, facts) is None
    assert ending.phase is Phase.CLOSING


def test_socket_is_given_back_once() -> None:
    facts = Facts(State.CLOSED, read_ended=True, write_ended=True)
    ending = Ending(BEGAN, CLOSE_TIMEOUT)

    assert [ending.move(BEGAN, facts) for _ in range(3)] == [Step.DISPOSE, None, None]
    assert ending.is_over


def test_connection_that_was_given_up_has_no_step_left() -> None:
    ending = reached(Phase.CLOSING)
    ending.give_up()

    assert ending.is_over
    assert ending.move(BEGAN, Facts(State.CLOSED, read_ended=True, write_ended=True)) is None
    assert ending.expire(BEGAN + 1000, Facts(State.CLOSED)) is None
    assert ending.due(Facts(State.CLOSED)) == math.inf


def test_whole_way_of_a_peer_that_closes_while_messages_wait() -> None:
    ending = Ending(BEGAN, CLOSE_TIMEOUT)
    way = [
        (Facts(State.ENDING, is_owed=True, close_received=True), None),
        (Facts(State.ENDING, is_owed=True, close_received=True), None),  # taken, and may be answered
        (Facts(State.ENDING, close_received=True), Step.ANSWER),
        (Facts(State.CLOSED, close_received=True, is_writing=True), None),
        (Facts(State.CLOSED, close_received=True), Step.END_WRITING),
        (Facts(State.CLOSED, close_received=True, write_ended=True), None),
        (Facts(State.CLOSED, close_received=True, write_ended=True, read_ended=True), Step.DISPOSE),
    ]

    assert [ending.move(BEGAN, facts) for facts, _ in way] == [step for _, step in way]


# What time alone brings


@pytest.mark.parametrize(
    ("phase", "facts", "seconds", "step"),
    [
        (Phase.HUNG_UP, {}, CLOSE_TIMEOUT, Step.ABORT),
        (Phase.HUNG_UP, {"is_paused": False}, CLOSE_TIMEOUT, Step.GO_ON),
        (Phase.DRAINING, {}, CLOSE_TIMEOUT, Step.DROP_INBOX),
        (Phase.DRAINING, {"read_ended": True}, CLOSE_TIMEOUT, Step.DROP_INBOX),
        (Phase.DRAINING, {"write_ended": True}, CLOSE_TIMEOUT, Step.DROP_INBOX),
        (Phase.CLOSING, {}, CLOSE_TIMEOUT, Step.ABORT),
        (Phase.CLOSING, {"state": State.CLOSED, "is_writing": True}, CLOSE_TIMEOUT, Step.ABORT),
        (Phase.GOING_AWAY, {}, LINGER_SECONDS, Step.ABORT),
        (Phase.GOING_AWAY, {"is_writing": True}, CLOSE_TIMEOUT, Step.ABORT),
        (Phase.SILENCE, {}, SILENCE_SECONDS, Step.END_WRITING),
        (Phase.LINGERING, {}, LINGER_SECONDS, Step.ABORT),
        (Phase.LINGERING, {"state": State.CLOSING}, LINGER_SECONDS, Step.ABORT),
    ],
)
def test_phase_lasts_that_long_and_then_comes_the_step(
    phase: Phase, facts: dict[str, Any], seconds: float, step: Step
) -> None:
    ending, now = reached(phase), but(FACTS[phase], **facts)

    assert ending.due(now) == pytest.approx(BEGAN + seconds)
    assert ending.expire(BEGAN + seconds - MOMENT, now) is None
    assert ending.expire(BEGAN + seconds, now) is step


@pytest.mark.parametrize(
    ("phase", "silent_seconds", "step"),
    [
        (Phase.GOING_AWAY, LINGER_SECONDS, Step.ABORT),
        (Phase.SILENCE, SILENCE_SECONDS, Step.END_WRITING),
        (Phase.LINGERING, LINGER_SECONDS, Step.ABORT),
    ],
)
def test_silence_is_counted_from_the_last_byte_of_the_peer(phase: Phase, silent_seconds: float, step: Step) -> None:
    ending = reached(phase)
    read = but(FACTS[phase], last_read_at=BEGAN + 1)

    assert ending.due(read) == BEGAN + 1 + silent_seconds
    assert ending.expire(BEGAN + 1 + silent_seconds - MOMENT, read) is None
    assert ending.expire(BEGAN + 1 + silent_seconds, read) is step


@pytest.mark.parametrize("phase", [Phase.CLOSING, Phase.GOING_AWAY, Phase.SILENCE, Phase.LINGERING])
def test_peer_that_sends_for_ever_is_given_up_after_close_timeout(phase: Phase) -> None:
    ending = reached(phase)

    def sending(now: float) -> Facts:
        return but(FACTS[phase], last_read_at=now)

    assert ending.expire(BEGAN + CLOSE_TIMEOUT - MOMENT, sending(BEGAN + CLOSE_TIMEOUT - MOMENT)) is None
    assert ending.expire(BEGAN + CLOSE_TIMEOUT, sending(BEGAN + CLOSE_TIMEOUT)) is Step.ABORT


@pytest.mark.parametrize("read_before", [0.0, BEGAN - 1, BEGAN])
@pytest.mark.parametrize("phase", [Phase.SILENCE, Phase.LINGERING, Phase.GOING_AWAY])
def test_silence_before_the_phase_does_not_count(phase: Phase, read_before: float) -> None:
    ending = reached(phase)

    assert ending.due(but(FACTS[phase], last_read_at=read_before)) == BEGAN + RULES[phase].silent_seconds


@pytest.mark.parametrize("phase", [Phase.CLOSING, Phase.GOING_AWAY])
def test_close_frame_behind_a_big_message_waits_as_long_as_the_peer_reads_it(phase: Phase) -> None:
    ending = reached(phase)
    for seconds in range(1, 100, 9):  # ten times as long as a peer is given that does not read
        leaving = but(FACTS[phase], is_writing=True, last_progress_at=BEGAN + seconds)
        assert ending.expire(BEGAN + seconds + 9, leaving) is None
        assert ending.move(BEGAN + seconds, leaving) is None
    assert ending.expire(BEGAN + 100 + CLOSE_TIMEOUT, leaving) is Step.ABORT


def test_peer_that_has_read_a_big_message_gets_close_timeout_to_answer_the_close_behind_it() -> None:
    ending = reached(Phase.CLOSING)
    ending.move(BEGAN + 95, but(FACTS[Phase.CLOSING], is_writing=True, last_progress_at=BEGAN + 95))

    assert ending.due(FACTS[Phase.CLOSING]) == BEGAN + 95 + CLOSE_TIMEOUT


@pytest.mark.parametrize(
    ("first", "facts"),
    [
        (Phase.HUNG_UP, Facts(State.ENDING, is_owed=True)),  # its end was read
        (Phase.HUNG_UP, Facts(State.CLOSING)),  # the view closed
        (Phase.DRAINING, Facts(State.CLOSED)),  # answered late
        (Phase.CLOSING, Facts(State.CLOSED, write_ended=True)),  # the peer was slow to answer
        (Phase.SILENCE, Facts(State.CLOSED, write_ended=True)),
    ],
)
def test_each_phase_gets_its_own_time(first: Phase, facts: Facts) -> None:
    ending = reached(first)
    late = BEGAN + CLOSE_TIMEOUT - 1
    ending.move(late, facts)

    assert ending.phase is not first
    assert ending.since == late
    assert ending.expire(late, facts) is None
    assert ending.due(but(facts, last_read_at=late + 100)) == late + CLOSE_TIMEOUT


def test_phase_that_goes_on_keeps_its_time() -> None:
    ending = reached(Phase.DRAINING)
    for seconds in (1, 5, 9):
        assert ending.move(BEGAN + seconds, FACTS[Phase.DRAINING]) is None

    assert ending.due(FACTS[Phase.DRAINING]) == BEGAN + CLOSE_TIMEOUT


@pytest.mark.parametrize("phase", list(FACTS))
def test_view_that_takes_what_came_before_the_end_has_its_time_anew(phase: Phase) -> None:
    ending = reached(phase)
    ending.taken(BEGAN + 9)

    takes = phase in (Phase.HUNG_UP, Phase.DRAINING)  # in the others nothing is left to be taken
    assert ending.phase is phase
    assert ending.since == (BEGAN + 9 if takes else BEGAN)


def test_inbox_that_was_dropped_is_answered_and_not_dropped_again() -> None:
    ending = reached(Phase.DRAINING)
    assert ending.expire(BEGAN + CLOSE_TIMEOUT, FACTS[Phase.DRAINING]) is Step.DROP_INBOX

    assert ending.move(BEGAN + CLOSE_TIMEOUT, Facts(State.ENDING)) is Step.ANSWER
    assert ending.move(BEGAN + CLOSE_TIMEOUT, Facts(State.CLOSED)) is None
    assert ending.due(Facts(State.CLOSED, last_read_at=1e9)) == BEGAN + 2 * CLOSE_TIMEOUT


@pytest.mark.parametrize("phase", [phase for phase in FACTS if phase is not Phase.CLOSING])
def test_hurry_is_for_the_wait_for_the_peers_close_frame_only(phase: Phase) -> None:
    ending = reached(phase)
    ending.hurry()

    assert ending.phase is phase


def test_hurry_lasts_until_the_peer_answers() -> None:
    ending = reached(Phase.GOING_AWAY)

    assert ending.move(BEGAN + 1, Facts(State.CLOSING, is_writing=True)) is None
    assert ending.phase is Phase.GOING_AWAY
    assert ending.move(BEGAN + 1, Facts(State.CLOSED)) is None
    assert ending.phase is Phase.SILENCE


@pytest.mark.parametrize("phase", list(FACTS))
def test_reason_says_who_was_late(phase: Phase) -> None:
    expected = {Phase.HUNG_UP: "the peer has left, and the view did not take what it had sent"}

    assert reached(phase).reason == expected.get(phase, "the peer did not finish the closing handshake")
