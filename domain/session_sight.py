"""What may be concluded from looking at session locks: which of them ended with their worker.

A lock that is gone says that its session ended, and not yet that its worker is dead. It is believed
only where one unbroken session saw it held and then, over the grace, gone and gone again: whatever
takes all sessions away takes the one that looks away as well.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final, TypeAlias

from msgspec import Struct

from domain.lease import SessionLoss

REMEMBERED: Final = timedelta(seconds=60)
"""For how long an ended lock is remembered: its leases may be locked by others at first."""

TOGETHER: Final = timedelta(seconds=2)
"""Within how much time sessions end that may have ended for one reason."""

Life: TypeAlias = tuple[int | str | datetime, ...]
"""What tells one life of the looking session from the next."""


class SessionSight(Struct, frozen=True, kw_only=True):
    """What one life of a session has seen: when each lock was held last, and which are gone."""

    life: Life
    seen_at: datetime
    held: Mapping[int, datetime]
    gone: Mapping[int, SessionLoss]
    ended: Mapping[int, SessionLoss]

    def fallen(self) -> list[int]:
        """The locks that ended just now, be their leases taken back already or not."""
        since = [(lock, self.seen_at - loss.gone_at, loss) for lock, loss in self.ended.items()]
        return [lock for lock, ago, it in since if ago < timedelta(seconds=it.grace_s) + TOGETHER]


def look_again(
    before: SessionSight | None,
    *,
    life: Life,
    held: frozenset[int],
    now: datetime,
    grace_s: float,
) -> SessionSight:
    """What is known after one more look at which locks are held; another life knows nothing yet."""
    if before is None or before.life != life:
        held_now = dict.fromkeys(held, now)
        return SessionSight(life=life, seen_at=now, held=held_now, gone={}, ended={})
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
    return SessionSight(
        life=life,
        seen_at=now,
        held=dict.fromkeys(held, now),
        gone=waiting | newly_gone,
        ended=still_ended | newly_ended,
    )
