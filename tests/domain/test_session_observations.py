"""The conclusions from polls of session locks, and those that are never drawn."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import pytest

from recovery_journal.domain.lease import SessionLoss
from recovery_journal.domain.session_observations import (
    REMEMBERED,
    TOGETHER,
    LockHolder,
    SessionObservations,
    observe_again,
)

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
GRACE_S = 1.0
LIFE = (1, 4711, NOON)


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def held_by(locks: Iterable[int], *, pid: int = 100, role: int = 10) -> dict[int, LockHolder]:
    """Each lock in a session of its own, all of one role."""
    return {lock: LockHolder(pid=pid + lock, role=role) for lock in locks}


def seen(
    *looks: tuple[float, set[int]],
    grace_s: float = GRACE_S,
    before: SessionObservations | None = None,
) -> SessionObservations:
    """The observations of one life of a session after these polls."""
    sight = before
    for seconds, held in looks:
        sight = observe_again(
            sight, life=LIFE, holders=held_by(held), now=at(seconds), grace_s=grace_s
        )
    assert sight is not None
    return sight


def test_a_lock_seen_held_and_then_gone_for_the_grace_has_ended() -> None:
    sight = seen((0, {7, 8}), (1, {8}), (2, {8}))

    evidence = SessionLoss(session_lock=7, held_at=at(0), gone_at=at(1), grace_s=GRACE_S)
    assert sight.ended == {7: evidence}
    assert set(sight.held) == {8}


def test_a_lock_gone_for_less_than_the_grace_has_not_ended() -> None:
    sight = seen((0, {7}), (1, set()), (1.99, set()))

    assert (set(sight.gone), sight.ended) == ({7}, {})


def test_without_a_grace_it_still_takes_two_looks() -> None:
    once = seen((0, {7}), (1, set()), grace_s=0)
    twice = seen((1, set()), grace_s=0, before=once)

    assert (once.ended, set(twice.ended)) == ({}, {7})


def test_a_lock_that_was_never_seen_held_is_never_believed_gone() -> None:
    sight = seen((0, set()), (1, set()), (100, set()))

    assert (sight.gone, sight.ended) == ({}, {})


def test_another_life_of_the_session_knows_nothing_of_what_was_held_before() -> None:
    before = seen((0, {7, 8}), (1, {8}))

    for life in ((2, 4711, NOON), (1, 4712, NOON), (1, 4711, at(0.5))):
        sight = before
        for seconds in (2, 3, 100):
            sight = observe_again(sight, life=life, holders={}, now=at(seconds), grace_s=GRACE_S)
            assert (sight.gone, sight.ended) == ({}, {})


def test_a_lock_that_is_held_again_is_not_gone() -> None:
    sight = seen((0, {7}), (1, set()), (1.5, {7}), (2.4, set()), (3, set()))

    assert (set(sight.gone), sight.ended) == ({7}, {})
    assert sight.gone[7].gone_at == at(2.4)


def test_many_locks_that_go_at_once_all_end() -> None:
    locks = set(range(200))

    sight = seen((0, locks), (1, set()), (2, set()))

    assert set(sight.ended) == locks


def test_what_ended_just_now_is_known_for_a_moment() -> None:
    long_s = (TOGETHER + timedelta(seconds=GRACE_S)).total_seconds()

    just_now = seen((0, {7}), (1, set()), (2, set()))
    later = seen((1 + long_s, set()), before=just_now)

    assert (just_now.recently_ended(), later.recently_ended()) == ([7], [])
    assert set(later.ended) == {7}


def test_an_ended_lock_is_remembered_for_a_while_and_then_forgotten() -> None:
    long_s = REMEMBERED.total_seconds()

    ended = seen((0, {7}), (1, set()), (2, set()), (long_s, set()))
    forgotten = seen((long_s + 2, set()), before=ended)

    assert (set(ended.ended), forgotten.ended) == ({7}, {})


def test_workers_that_went_with_the_same_attempt_fell_as_one() -> None:
    a, b = frozenset({"a"}), frozenset({"b"})

    first = seen((0, {1, 2}), (1, {2})).with_attempts({1: a})
    second = seen((2, {2}), (2.1, set()), before=first).with_attempts({2: a})
    both_ended = seen((3.2, set()), before=second)
    others = seen((0, {1, 2, 3}), (1, set())).with_attempts({1: a, 2: b})
    others_ended = seen((2, set()), before=others)

    assert second.recently_ended() == []  # the one that may still be held now stands for both
    assert both_ended.recently_ended() == [2]
    assert sorted(others_ended.recently_ended()) == [1, 2, 3]


def test_what_a_worker_had_is_forgotten_with_its_lock() -> None:
    gone = seen((0, {7}), (1, set())).with_attempts({7: frozenset({"a"})})

    kept = seen((2, set()), before=gone)
    forgotten = seen((REMEMBERED.total_seconds() + 3, set()), before=kept)

    assert (set(kept.attempts), forgotten.attempts) == ({7}, {})


@pytest.mark.parametrize(
    "successor",
    [
        LockHolder(pid=900, role=10),
        LockHolder(pid=107, role=11),
        LockHolder(pid=107, role=10, started_at=NOON),
    ],
)
def test_a_lock_that_another_session_holds_now_is_gone(successor: LockHolder) -> None:
    sight = seen((0, {7, 8}))

    for seconds in (1, 2):
        sight = observe_again(
            sight,
            life=LIFE,
            holders={**held_by({8}), 7: successor},
            now=at(seconds),
            grace_s=GRACE_S,
        )

    assert (set(sight.ended), set(sight.held)) == ({7}, {8})


def test_a_successor_that_leaves_again_ends_nothing_twice() -> None:
    sight = seen((0, {7}))
    for seconds, holders in ((1, held_by({7}, pid=500)), (2, {}), (3, held_by({7}, pid=600))):
        sight = observe_again(sight, life=LIFE, holders=holders, now=at(seconds), grace_s=GRACE_S)

    assert sight.ended[7].gone_at == at(1)
    assert (sight.gone, sight.held) == ({}, {})


def test_a_session_found_again_with_its_lock_is_not_gone() -> None:
    sight = seen((0, {7}))
    for seconds, holders in ((1, held_by({7}, pid=500)), (1.5, held_by({7})), (9, held_by({7}))):
        sight = observe_again(sight, life=LIFE, holders=holders, now=at(seconds), grace_s=GRACE_S)

    assert (sight.gone, sight.ended, set(sight.held)) == ({}, {}, {7})


def test_a_number_is_a_new_sessions_once_the_old_one_is_forgotten() -> None:
    late_s = REMEMBERED.total_seconds() + 5
    sight = seen((0, {7}), (1, set()), (2, set()), (late_s, set()))
    for seconds in (late_s + 1, late_s + 2, late_s + 9):
        sight = observe_again(
            sight,
            life=LIFE,
            holders=held_by({7}, pid=500),
            now=at(seconds),
            grace_s=GRACE_S,
        )

    assert (sight.gone, sight.ended, set(sight.held)) == ({}, {}, {7})
