"""One stream of the corpus, built event by event.

Every field of an event varies from one event to the next: optional fields are there in every second
one; numbers, digests and times are derived from the event's place. So a fold that leaves a field
out, or takes another one, makes other rows.
"""

from datetime import UTC, datetime, timedelta
from typing import Any, Self

from recovery_journal.domain.checkpoint import CheckpointRef, InDoubt
from recovery_journal.domain.events import (
    Abandoned,
    AbandonReason,
    AnyEvent,
    CheckpointReloaded,
    Confirmed,
    Dispatched,
    Ending,
    LeaseEnded,
    LeaseExpired,
    LeaseGranted,
    LiftOption,
    QuarantineCause,
    Quarantined,
    QuarantineLifted,
    ReadyForDispatch,
    RecoveryEvent,
    Replayed,
    Resumed,
    Seized,
    SeizeReason,
    StaleWriteRefused,
    StartPoint,
    StepFailed,
    TipStanding,
    WriteKind,
)
from recovery_journal.domain.lease import (
    Actor,
    Fence,
    Holder,
    Incarnation,
    LeaseView,
    LossReason,
    Progress,
    SessionLoss,
)
from recovery_journal.domain.pipeline import RecoveryStep
from recovery_journal.domain.replay import ReplayMode

BEGINNING = datetime(2031, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)
ROLES = {"worker": "h-worker", "sweeper": "h-sweeper", "person": "h-desk"}


class CorpusStream:
    """Adds events to the stream of one attempt; every method returns the stream, so that a history
    reads as one sentence. Times are the attempt's own, from `begins` on."""

    def __init__(self, number: int, *, kind: str, tenant: str = "", priority: int = 0) -> None:
        self.events: list[AnyEvent] = []
        self._number = number
        self._kind = kind
        self._tenant = tenant
        self._priority = priority
        self._epoch = number * 100
        self._recovery_no = 0
        self._worker = "w-1"

    def granted(self, worker: str) -> Self:
        """A worker opened the attempt."""
        self._worker = worker
        return self._add(
            LeaseGranted,
            "worker",
            holder=self._holder(),
            fence=self._next_fence(),
            ttl_s=30.0 + self._number,
            kind=self._kind,
            code_version=f"1.{self._number}",
            attempt_no=1 + self._number % 3,
            input_digest=self._digest("in"),
            tenant=self._tenant,
            priority=self._priority,
            timeout_s=self._maybe(7200.0),
        )

    def lost(
        self, loss: LossReason, *, is_fenced: bool = True, is_fleet_wide: bool = False
    ) -> Self:
        """The lease was lost; the attempt has a new fence, or still the old one."""
        self._recovery_no += 1
        lease = self._lease()
        return self._add(
            LeaseExpired,
            lease=lease,
            loss=loss,
            recovery_no=self._recovery_no,
            fence=self._next_fence() if is_fenced else None,
            is_fleet_wide=is_fleet_wide,
            tenant=self._tenant,
            session=self._session() if loss is LossReason.SESSION_LOST else None,
        )

    def seized(self, why: SeizeReason) -> Self:
        """The fence was replaced in the middle of a recovery."""
        before = self._fence()
        return self._of_recovery(Seized, why=why, fence=self._next_fence(), from_fence=before)

    def reloaded(self, standing: TipStanding, checkpoint_no: int = 0) -> Self:
        """The tip was adopted: a saved state, or the run's input."""
        run_id = f"run-{self._number}"
        return self._of_recovery(
            CheckpointReloaded,
            ref=CheckpointRef(run_id=run_id, checkpoint_no=checkpoint_no)
            if checkpoint_no
            else None,
            ordinal=3 * checkpoint_no,
            digest=self._digest("at"),
            input_digest=self._digest("in"),
            standing=standing,
            to_ordinal=3 * checkpoint_no + self._version % 4,
            state_digest=self._digest("state") if checkpoint_no else None,
            written_by_epoch=self._epoch - 1 if checkpoint_no else None,
            code_version=f"1.{checkpoint_no}",
            in_doubt=self._in_doubt("reloaded"),
            newest_epoch=self._epoch - 1 if checkpoint_no else None,
        )

    def replayed(self, mode: ReplayMode, *, expected: str | None = "to") -> Self:
        """The tail was replayed: to the expected digest, to another one, or with none expected."""
        digest = self._digest("to")
        return self._of_recovery(
            Replayed,
            mode=mode,
            from_ordinal=4 + self._number,
            to_ordinal=6 + self._version,
            digest=digest,
            expected_digest=None if expected is None else self._digest(expected),
            expected_from="none" if expected is None else "run step",
            state_digest=self._maybe(self._digest("folded")),
        )

    def ready(self, start: StartPoint = StartPoint.TIP) -> Self:
        """The attempt was put up for dispatch."""
        return self._of_recovery(
            ReadyForDispatch,
            start=start,
            attempt_no=1 + self._number % 3,
            kind=self._kind,
            priority=self._priority,
            ready_at=self._at(11),
            not_before=self._maybe(self._at(71)),
            tenant=self._tenant,
            code_version=f"1.{self._number}",
            in_doubt=self._in_doubt("ready"),
        )

    def dispatched(self, worker: str) -> Self:
        """A worker's claim won."""
        self._worker = worker
        return self._of_recovery(
            Dispatched,
            "worker",
            holder=self._holder(),
            fence=self._next_fence(),
            ttl_s=20.0 + self._number,
            dispatch_id=f"claim-{self._epoch}",
        )

    def confirmed(self, write: WriteKind, *, role: str = "worker") -> Self:
        """The holder's first write was accepted."""
        return self._add(Confirmed, role, fence=self._fence(), write=write, ordinal=self._version)

    def step_failed(self, step: RecoveryStep, try_count: int, *, has_to_wait: bool = False) -> Self:
        """A step could not be taken."""
        message_digest = self._maybe(self._digest("said"))
        return self._of_recovery(
            StepFailed,
            failed_step=step,
            error_class=f"Error{try_count}",
            message="" if message_digest else f"no luck at {step}",
            message_digest=message_digest,
            try_count=try_count,
            retry_at=self._at(31),
            waits_since=self._at(30) if has_to_wait else None,
        )

    def abandoned(self, why: AbandonReason, *, has_evidence: bool = False) -> Self:
        """The recovery was stopped."""
        lease = self._lease() if has_evidence else None
        fence = self._next_fence() if has_evidence else None
        return self._of_recovery(Abandoned, why=why, fence=fence, lease=lease)

    def quarantined(self, cause: QuarantineCause) -> Self:
        """The attempt was quarantined."""
        return self._of_recovery(
            Quarantined,
            cause=cause,
            explanation=f"found {cause}",
            message_digest=self._maybe(self._digest("said")),
            options=(LiftOption.RETRY, LiftOption.RESTART),
            ordinal=self._maybe(self._version),
            found_digest=self._maybe(self._digest("found")),
            expected_digest=self._maybe(self._digest("expected")),
            kind=self._kind,
            tenant=self._tenant,
        )

    def lifted(self, option: LiftOption) -> Self:
        """A person chose how to proceed."""
        return self._of_recovery(
            QuarantineLifted, "person", option=option, fence=self._next_fence()
        )

    def resumed(self) -> Self:
        """A person let a waiting attempt proceed."""
        fence = self._next_fence()
        return self._of_recovery(
            Resumed, "person", fence=fence, kind=self._kind, tenant=self._tenant
        )

    def refused(self, write: WriteKind, *, worker: str, role: str = "worker") -> Self:
        """A fenced-out worker tried to write."""
        void = Fence(epoch=self._epoch - 1, lease_id=f"lease-{self._epoch - 1}")
        return self._add(StaleWriteRefused, role, by=worker, write=write, fence=void)

    def ended(self, ending: Ending, *, role: str = "worker") -> Self:
        """The attempt ended, or waits for a person."""
        is_failed = ending is Ending.FAILED
        return self._add(
            LeaseEnded,
            role,
            ending=ending,
            fence=self._fence(),
            result_digest=self._digest("out") if ending is Ending.COMPLETED else None,
            error_class="ValueError" if is_failed else "",
            message_digest=self._digest("said") if is_failed else None,
        )

    @property
    def _version(self) -> int:
        return len(self.events) + 1

    def _of_recovery(self, of: type[RecoveryEvent], role: str = "sweeper", **fields: Any) -> Self:
        return self._add(of, role, recovery_no=self._recovery_no, **fields)

    def _add(
        self,
        of: type[RecoveryEvent],
        role: str = "sweeper",
        *,
        by: str | None = None,
        **fields: Any,
    ) -> Self:
        name = {"worker": by or self._worker, "person": "on-call"}.get(role)
        event: Any = of(
            originator_id=f"attempt-{self._number}",
            originator_version=self._version,
            event_id=f"decision-{self._number}-{self._version}",
            run_id=f"run-{self._number}",
            recorded_by=Actor(
                role=role, host=ROLES[role], pid=self._number, program="corpus 1", name=name
            ),
            reason=f"reason {self._version}" if role == "person" else "",
            trace_id=self._maybe(f"trace-{self._number}"),
            **fields,
        )
        self.events.append(event)
        return self

    def _maybe(self, value: Any) -> Any:  # noqa: ANN401 - returned as it came, or None
        return value if (self._number + self._version) % 2 else None

    def _digest(self, what: str) -> str:
        return f"ch1:{what}-{self._number}-{self._version}"

    def _at(self, seconds: int) -> datetime:
        return BEGINNING + timedelta(minutes=self._number, seconds=seconds + self._version)

    def _in_doubt(self, name: str) -> tuple[InDoubt, ...]:
        key = f"run-{self._number}/{self._version}"
        return (InDoubt(key=key, name=name),) if self._number % 2 else ()

    def _fence(self) -> Fence:
        return Fence(epoch=self._epoch, lease_id=f"lease-{self._epoch}")

    def _next_fence(self) -> Fence:
        self._epoch += 1
        return self._fence()

    def _holder(self) -> Holder:
        life = Incarnation(
            host=f"host of {self._worker}", boot_id="boot", pid=self._number, started="1000"
        )
        return Holder(worker_id=self._worker, incarnation=life)

    def _session(self) -> SessionLoss:
        """A sweeper's observations of the session lock of the last holder."""
        return SessionLoss(
            session_lock=self._number, held_at=self._at(1), gone_at=self._at(2), grace_s=0.75
        )

    def _lease(self) -> LeaseView:
        """The lease of the last holder as it was seen when it was lost."""
        progress = Progress(
            ordinal=self._version, digest=self._digest("seen"), checkpoint_count=self._number
        )
        return LeaseView(
            attempt_id=f"attempt-{self._number}",
            run_id=f"run-{self._number}",
            kind=self._kind,
            holder=self._holder(),
            fence=self._fence(),
            granted_at=self._at(0),
            renewed_at=self._at(1),
            expires_at=self._at(2),
            seen_at=self._at(3),
            ttl_s=30.0 + self._number,
            grace_s=5.0,
            progress=self._maybe(progress),
            is_confirmed=self._number % 2 == 0,
            code_version=f"1.{self._number}",
            dispatch_id=self._maybe(f"claim-{self._epoch}"),
        )
