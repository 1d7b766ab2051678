"""A worker's hold on one attempt: the handle through which its writes go."""

from collections.abc import Callable
from datetime import datetime

import msgspec
from msgspec import UNSET, Struct, UnsetType

from recovery_journal import inputs
from recovery_journal.domain.checkpoint import CheckpointRef
from recovery_journal.domain.digest import chain_next
from recovery_journal.domain.events import Ending
from recovery_journal.domain.lease import Fence, LossReason, Progress
from recovery_journal.domain.ranges import require_kind
from recovery_journal.domain.recovery import Recovery
from recovery_journal.domain.wording import class_of, message_of
from recovery_journal.store.endings import LeaseEndings
from recovery_journal.store.runs import RunStore
from recovery_journal.store.tips import step_key
from recovery_journal.store.writes import Held, LeaseWrites, Renewal
from recovery_journal.values.payload import Payload, Value


class LeaseTerms(Struct, frozen=True, kw_only=True):
    """All that another process needs to write under the same lease, as plain data."""

    attempt_id: str
    run_id: str
    worker_id: str
    kind: str
    code_version: str
    fence: Fence
    ttl_s: float
    expires_at: datetime
    progress: Progress
    is_confirmed: bool = False


def require_terms(terms: LeaseTerms) -> None:
    """Validate the terms of a lease. Raises `InvalidInput`."""
    require_kind("terms", terms, LeaseTerms, "LeaseTerms")
    try:
        msgspec.convert(msgspec.to_builtins(terms), LeaseTerms)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        found = message_of(error)
        raise inputs.refused("terms", found, "LeaseTerms", "pass a lease's `terms`") from error
    for name in ("attempt_id", "run_id", "worker_id", "kind"):
        inputs.identifier(name, getattr(terms, name))
    inputs.identifier("lease_id", terms.fence.lease_id)
    inputs.text("digest", terms.progress.digest)


class Lease:
    """A held lease. Each method raises `LeaseLost` once the fence is void: then stop working.

    One handle is for one thread: run steps extend one chain, and the handle knows its end.
    """

    def __init__(
        self,
        terms: LeaseTerms,
        writes: LeaseWrites,
        endings: LeaseEndings,
        runs: RunStore,
        drive: Callable[[Recovery], object],
    ) -> None:
        require_kind("terms", terms, LeaseTerms, "LeaseTerms")
        self.attempt_id = terms.attempt_id
        self.run_id = terms.run_id
        self.worker_id = terms.worker_id
        self.fence = terms.fence
        self.ttl_s = terms.ttl_s
        self._terms = terms
        self._progress = terms.progress
        self._is_confirmed = terms.is_confirmed
        self._announced: str | None = None
        self._patience_s = 0.0
        self._writes = writes
        self._endings = endings
        self._runs = runs
        self._drive = drive

    def __repr__(self) -> str:
        return (
            f"Lease(attempt_id={self.attempt_id!r}, worker_id={self.worker_id!r}, "
            f"epoch={self.fence.epoch}, ordinal={self._progress.ordinal})"
        )

    @property
    def progress(self) -> Progress:
        """How far this handle has taken the run."""
        return self._progress

    @property
    def terms(self) -> LeaseTerms:
        """The lease as plain data, for `Journal.adopt` in a child process."""
        return LeaseTerms(
            attempt_id=self.attempt_id,
            run_id=self.run_id,
            worker_id=self.worker_id,
            kind=self._terms.kind,
            code_version=self._terms.code_version,
            fence=self.fence,
            ttl_s=self.ttl_s,
            expires_at=self._terms.expires_at,
            progress=self._progress,
            is_confirmed=self._is_confirmed,
        )

    @property
    def input(self) -> Value:
        """The run's input, decoded from the stored bytes: the same value that a recovery reads.

        Every access reads and decodes it again. Raises `PayloadCorrupt`, `CodecMissing`,
        `CodecFailed`.
        """
        return self._runs.input(self.run_id)

    @property
    def step_key(self) -> str | None:
        """The key of the run's last recorded run step; None before the first."""
        ordinal = self._progress.ordinal
        return step_key(self.run_id, ordinal) if ordinal else None

    @property
    def checkpoint_ref(self) -> CheckpointRef | None:
        """The run's newest checkpoint; None before the first."""
        number = self._progress.checkpoint_count
        return CheckpointRef(run_id=self.run_id, checkpoint_no=number) if number else None

    def own_ending(self) -> Ending | LossReason | None:
        """How this lease's worker ended it: the end, or the loss that the worker declared; None
        while the lease is held, or where it was taken away."""
        return self._endings.own(self._held())

    def heartbeat(self, *, session_lock: int | UnsetType | None = UNSET) -> Renewal:
        """Renew the lease for another TTL; every other write renews it too.

        A worker that holds a session lock declares its number here, or None once it has lost the
        lock: from then on only the TTL decides.
        """
        if not isinstance(session_lock, UnsetType):
            inputs.session_lock(session_lock)
        return self._writes.heartbeat(self._held(), session_lock)

    def keep_trying(self) -> None:
        """From now on, try run steps and checkpoints for one TTL, with pauses, while the server is
        away or refuses them for now, as in a restart. Each is written once all the same. A worker
        does this in the child that runs the function."""
        self._patience_s = self.ttl_s

    def begin_step(self, name: str) -> str:
        """Announce the next run step before its effect; returns the effect's stable key.

        The recovery reports a step in doubt if it was announced and never recorded.
        """
        inputs.identifier("name", name)
        ordinal = self._progress.ordinal + 1
        self._writes.announce(self._held(), ordinal=ordinal, name=name)
        self._announced = name
        return step_key(self.run_id, ordinal)

    def record_step(self, name: str, output: Value = None) -> Value:
        """Record the output of the next run step, durably; return it decoded from the stored bytes.

        Continue with the returned value instead of the given object: then an undisturbed run
        computes with the same values as a recovered one. `step_key` is the step's key.
        """
        inputs.identifier("name", name)
        if self._announced not in (None, name):
            raise inputs.refused(
                "name", repr(name), f"{self._announced!r}, as announced", "record that step first"
            )
        payload, recorded = self._encode(output, name="output")
        before = self._progress
        ordinal = before.ordinal + 1
        chain = chain_next(before.digest, ordinal=ordinal, name=name, output_digest=payload.digest)
        self._writes.record(
            self._held(),
            ordinal=ordinal,
            name=name,
            output=payload,
            before=before.digest,
            chain=chain,
        )
        self._advance(ordinal=ordinal, digest=chain)
        self._announced = None
        return recorded

    def checkpoint(self, state: Value) -> Value:
        """Save the run's state after the last recorded run step; return it decoded from the stored
        bytes, to continue with. `checkpoint_ref` names the checkpoint."""
        payload, saved = self._encode(state, name="state")
        number = self._progress.checkpoint_count + 1
        self._writes.save(
            self._held(), checkpoint_no=number, ordinal=self._progress.ordinal, state=payload
        )
        self._advance(checkpoint_count=number)
        return saved

    def complete(self, result: Value = None) -> str:
        """End the attempt with its result; returns the result's digest."""
        payload = self._runs.values.encode(result, name="result")
        self._endings.end(
            self._held(), Ending.COMPLETED, result=payload, ordinal=self._progress.ordinal
        )
        return payload.digest

    def fail(self, error: BaseException | str) -> None:
        """End the attempt as failed: the run's own code cannot continue. The text is kept beside
        the log, which keeps its digest and the error's class."""
        error_class = class_of(error) if isinstance(error, BaseException) else "failed"
        message = message_of(error) if isinstance(error, BaseException) else error
        self._endings.end(
            self._held(),
            Ending.FAILED,
            error_class=error_class,
            message=inputs.text("error", message),
        )

    def wait(self, reason: str) -> None:
        """Let the attempt wait for a person, to `resume` or `cancel` it."""
        self._endings.end(
            self._held(), Ending.WAITING, reason=inputs.text("reason", reason, is_needed=True)
        )

    def hand_back(self, reason: str = "") -> None:
        """Hand the lease back, as a draining worker does; the pipeline takes the attempt at
        once."""
        self.give_up(LossReason.HANDED_BACK, reason)

    def give_up(self, loss: LossReason, reason: str = "") -> None:
        """Declare the worker's own lease lost on this evidence; the pipeline takes the attempt at
        once."""
        loss, reason = inputs.loss_reason(loss), inputs.text("reason", reason)
        self._drive(self._endings.give_up(self._held(), loss, reason))

    def _encode(self, value: Value, *, name: str) -> tuple[Payload, Value]:
        """Encode a value and decode the bytes again, before anything is written."""
        payload = self._runs.values.encode(value, name=name)
        return payload, self._runs.values.decode_digested(payload.encoded, what=f"the {name}")

    def _held(self) -> Held:
        return Held(
            attempt_id=self.attempt_id,
            run_id=self.run_id,
            worker_id=self.worker_id,
            fence=self.fence,
            is_confirmed=self._is_confirmed,
            patience_s=self._patience_s,
        )

    def _advance(
        self,
        *,
        ordinal: int | None = None,
        digest: str | None = None,
        checkpoint_count: int | None = None,
    ) -> None:
        before = self._progress
        self._is_confirmed = True
        self._progress = Progress(
            ordinal=before.ordinal if ordinal is None else ordinal,
            digest=digest or before.digest,
            checkpoint_count=(
                before.checkpoint_count if checkpoint_count is None else checkpoint_count
            ),
        )
