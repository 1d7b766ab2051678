"""Infers from observations of session locks which of them ended with their worker.

A lock that is gone proves that its session ended, but not yet that its worker is dead. That is
concluded only where one unbroken session saw the lock held and then, over the grace, gone and gone
again: an event that ends all sessions ends the observing one as well.

Any role may request the lock of a living worker, and is granted it when that worker dies. So a lock
counts as held only while the holder is the session that was first seen with it.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from recovery_journal.domain.lease import SessionLoss

REMEMBERED: Final = timedelta(seconds=60)
"""How long an ended lock is remembered: its leases may be locked by others at first."""

TOGETHER: Final = timedelta(seconds=2)
"""Sessions that end within this time may have ended for one reason."""

Life: TypeAlias = tuple[int | str | datetime, ...]
"""Distinguishes one life of the observing session from the next."""


class LockHolder(Struct, frozen=True, kw_only=True):
    """The session that holds a lock: its process at the server and its role there. `started_at` is
    None where the observing role may not see it."""

    pid: int
    role: int
    started_at: datetime | None = None


class SessionObservations(Struct, frozen=True, kw_only=True):
    """The observations of one life of a session: when each lock was held last, and which are gone.

    `holders` are those first seen with the locks that are held, gone or ended. `attempts` are those
    that the worker of a lock had when the lock disappeared, as far as that is known.
    """

    life: Life
    seen_at: datetime
    held: Mapping[int, datetime]
    gone: Mapping[int, SessionLoss]
    ended: Mapping[int, SessionLoss]
    holders: Mapping[int, LockHolder] = {}
    attempts: Mapping[int, frozenset[str]] = {}

    def with_attempts(self, found: Mapping[int, frozenset[str]]) -> "SessionObservations":
        """The same observations, with the attempts of some locks' workers added."""
        return replace(self, attempts={**self.attempts, **found})

    def recently_ended(self) -> list[int]:
        """The locks that ended recently, whether or not their leases were taken back already.

        Of workers that ended one after the other with the same attempt only the last one is named:
        that is no fleet-wide loss, but one run that kills its workers.
        """
        newest_first = sorted(
            [*self.gone.items(), *self.ended.items()], key=lambda it: it[1].gone_at, reverse=True
        )
        fallen, met = [], set[str]()
        for lock, loss in newest_first:
            had = self.attempts.get(lock, frozenset())
            is_successor_known = bool(had) and had <= met
            met |= had
            is_recent = self.seen_at - loss.gone_at < timedelta(seconds=loss.grace_s) + TOGETHER
            if lock in self.ended and is_recent and not is_successor_known:
                fallen.append(lock)
        return fallen


def observe_again(
    before: SessionObservations | None,
    *,
    life: Life,
    holders: Mapping[int, LockHolder],
    now: datetime,
    grace_s: float,
) -> SessionObservations:
    """The observations after one more poll of the lock holders; those of another life are
    discarded."""
    if before is None or before.life != life:
        held_now = dict.fromkeys(holders, now)
        return SessionObservations(
            life=life, seen_at=now, held=held_now, gone={}, ended={}, holders=holders
        )
    held = {lock for lock, holder in holders.items() if before.holders.get(lock, holder) == holder}
    newly_gone = {
        lock: SessionLoss(session_lock=lock, held_at=held_at, gone_at=now, grace_s=grace_s)
        for lock, held_at in before.held.items()
        if lock not in held
    }
    still_gone = {lock: loss for lock, loss in before.gone.items() if lock not in held}
    grace = timedelta(seconds=grace_s)
    newly_ended = {lock: it for lock, it in still_gone.items() if now - it.gone_at >= grace}
    still_ended = {
        lock: loss
        for lock, loss in before.ended.items()
        if lock not in held and now - loss.gone_at < grace + REMEMBERED
    }
    waiting = {lock: loss for lock, loss in still_gone.items() if lock not in newly_ended}
    gone, ended = waiting | newly_gone, still_ended | newly_ended
    return SessionObservations(
        life=life,
        seen_at=now,
        held=dict.fromkeys(held, now),
        gone=gone,
        ended=ended,
        holders={
            lock: before.holders.get(lock) or holders[lock] for lock in {*held, *gone, *ended}
        },
        attempts={
            lock: had for lock, had in before.attempts.items() if lock in gone or lock in ended
        },
    )
