"""The parts of a chaos test; workers and the starter record every call that they make."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Final
from uuid import uuid4

from msgspec import UNSET, UnsetType

import recovery_journal as rj
from recovery_journal.postgres.database import Database
from recovery_journal.store.writes import Renewal
from recovery_journal.values.payload import Value, encode
from scripts.harness.job import FOLDED, KINDS, folded, work
from scripts.harness.life import Part, Role, Setting, report
from scripts.harness.parts import LIMITS, follow, open_attempts, rebuild, sweep
from scripts.storming.history import Action, History


class WatchedLease(rj.Lease):
    """A lease whose every write is in the history."""

    calls: History

    def heartbeat(self, *, session_lock: int | UnsetType | None = UNSET) -> Renewal:
        """As any lease's."""
        with self._calling(Action.HEARTBEAT) as found:
            renewal = super().heartbeat(session_lock=session_lock)
            found.update(ordinal=renewal.ordinal, checkpoint_count=renewal.checkpoint_count)
        return renewal

    def begin_step(self, name: str) -> str:
        """As any lease's."""
        with self._calling(Action.ANNOUNCE, ordinal=self.progress.ordinal + 1):
            return super().begin_step(name)

    def record_step(self, name: str, output: Value = None) -> Value:
        """As any lease's."""
        with self._calling(Action.RECORD, ordinal=self.progress.ordinal + 1):
            return super().record_step(name, output)

    def checkpoint(self, state: Value) -> Value:
        """As any lease's."""
        progress = self.progress
        saved = {"ordinal": progress.ordinal, "checkpoint_count": progress.checkpoint_count + 1}
        with self._calling(Action.CHECKPOINT, **saved):
            return super().checkpoint(state)

    def complete(self, result: Value = None) -> str:
        """As any lease's."""
        with self._calling(Action.COMPLETE, digest=encode(result, name="result").digest):
            return super().complete(result)

    def give_up(self, loss: rj.LossReason, reason: str = "") -> None:
        """As any lease's."""
        with self._calling(Action.GIVE_UP):
            super().give_up(loss, reason)

    def _calling(self, action: Action, **given: Any) -> AbstractContextManager[dict[str, Any]]:
        return self.calls.calling(
            action, attempt_id=self.attempt_id, epoch=self.fence.epoch, **given
        )


class WatchedJournal(rj.Journal):
    """A journal whose claims and grants are in the history, and whose leases are watched."""

    def __init__(self, dsn: str, schema: str, calls: History, **settings: Any) -> None:
        super().__init__(Database(dsn, schema), **settings)
        self.calls = calls

    def _lease(self, terms: rj.LeaseTerms) -> WatchedLease:
        """A watched handle, whether adopted, acquired or claimed."""
        lease = WatchedLease(terms, self._writes, self._endings, self._runs, self._sweep.advance)
        lease.calls = self.calls
        return lease

    def acquire(self, *, attempt_id: str, **request: Any) -> rj.Lease:
        """As any journal's; an `event_id` is drawn here, so that it may be asked for again."""
        event_id = request.pop("event_id", None) or uuid4().hex
        with self.calls.calling(
            Action.ACQUIRE, attempt_id=attempt_id, dispatch_id=event_id
        ) as found:
            lease = super().acquire(attempt_id=attempt_id, event_id=event_id, **request)
            found.update(epoch=lease.fence.epoch)
        return lease

    def claim(self, **request: Any) -> list[rj.Claim]:
        """As any journal's, one at a time."""
        assert request.get("limit", 1) == 1
        with self.calls.calling(Action.CLAIM, dispatch_id=request.get("event_id") or "") as found:
            claims = super().claim(**request)
            for claim in claims:
                progress = claim.lease.progress
                found.update(
                    attempt_id=claim.lease.attempt_id,
                    epoch=claim.lease.fence.epoch,
                    ordinal=progress.ordinal,
                    checkpoint_count=progress.checkpoint_count,
                )
        return claims

    def look(self, attempt_id: str) -> str:
        """The digest of an attempt's result; empty where it has not ended."""
        with self.calls.calling(Action.LOOK, attempt_id=attempt_id) as found:
            ended = self.recovery(attempt_id).ended
            found["digest"] = getattr(ended, "result_digest", None) or ""
        return str(found["digest"])


def _work(name: str, setting: Setting) -> None:
    with _watched(name, setting) as journal:
        rj.Worker(journal, name, dict.fromkeys(KINDS, work), on_event=report).run()


def _start(name: str, setting: Setting) -> None:
    with _watched(name, setting) as journal:
        open_attempts(journal, name, KINDS, query=journal.look)


def _watched(name: str, setting: Setting) -> WatchedJournal:
    return WatchedJournal(
        setting.dsn_of(name),
        setting.schema,
        History(setting.histories, name),
        limits=LIMITS,
        reducers={FOLDED: folded},
    )


PARTS: Final[Mapping[Role, tuple[int, Part]]] = {
    Role.WORKER: (6, _work),
    Role.SWEEPER: (2, sweep),
    Role.FOLLOWER: (2, follow),
    Role.STARTER: (1, _start),
    Role.REBUILDER: (1, rebuild),
}
"""How many processes play each part."""
