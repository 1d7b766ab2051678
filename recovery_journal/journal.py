"""The composition root: one journal on one schema, and every operation that it offers."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self, overload

from recovery_journal import inputs
from recovery_journal.claiming.claims import ClaimRequest, Claims
from recovery_journal.claiming.loading import Claim, ClaimLoading
from recovery_journal.domain.errors import (
    CheckpointTooLarge,
    CheckpointTooNew,
    CodecFailed,
    CodecMissing,
    HookFailed,
    PayloadCorrupt,
    ReducerFailed,
)
from recovery_journal.domain.events import LiftOption
from recovery_journal.domain.lease import Holder, Incarnation, LeaseStatus
from recovery_journal.domain.ranges import require_kind
from recovery_journal.domain.recovery import Recovery
from recovery_journal.domain.replay import Reducer
from recovery_journal.limits import DEFAULTS, Limits
from recovery_journal.log.reader import SettledReader
from recovery_journal.monitoring.history import History, HistoryEntry
from recovery_journal.monitoring.positions import Positions
from recovery_journal.monitoring.quarantine_notifier import Hook, QuarantineNotifier
from recovery_journal.monitoring.quarantined import QuarantinedAttempt, QuarantineReading
from recovery_journal.monitoring.queries import Reading
from recovery_journal.monitoring.status import Status, StatusReading
from recovery_journal.postgres.database import Database
from recovery_journal.postgres.server_settings import weakened
from recovery_journal.process.gc_paused import gc_paused
from recovery_journal.process.identity import incarnation
from recovery_journal.projections.catalog import BUILT_IN
from recovery_journal.projections.dispatch_ready import DispatchReadyRow
from recovery_journal.projections.projection import PositionRow, Projection, RowT, StreamRow
from recovery_journal.projections.recovery_context_row import RecoveryContextRow
from recovery_journal.read_models.following.outdated import OutdatedProjection, outdated_of
from recovery_journal.read_models.following.tracking import ProjectionTracking
from recovery_journal.read_models.rebuild.check import Check, CheckedProjection
from recovery_journal.read_models.rebuild.progress import RebuildProgress, RebuildReport
from recovery_journal.read_models.rebuild.rebuild import Rebuild
from recovery_journal.recovery.cohort import Cohorts
from recovery_journal.recovery.loss import Losses
from recovery_journal.recovery.replayer import TailReplayer
from recovery_journal.recovery.session_watch import SessionWatch
from recovery_journal.recovery.sweep import Sweep
from recovery_journal.recovery.sweep_result import StepObserver, SweepResult
from recovery_journal.restore.restore import Restore, Restored
from recovery_journal.restore.skipping import Skipped, Skipping
from recovery_journal.store.acquisition import Acquisition, Request
from recovery_journal.store.endings import LeaseEndings
from recovery_journal.store.interventions import Interventions
from recovery_journal.store.keeping import Keeping
from recovery_journal.store.lease import Lease, LeaseTerms, require_terms
from recovery_journal.store.ledger import Ledger
from recovery_journal.store.pruning import Pruned, Pruning
from recovery_journal.store.runs import RunStore
from recovery_journal.store.superseded_checkpoints import DEFAULT_KEPT
from recovery_journal.store.writes import LeaseWrites
from recovery_journal.values.codec import Codec, Codecs
from recovery_journal.values.payload import Value, Values


class Journal:
    """A recovery journal. Thread-safe and fork-safe: every thread and every process has a
    connection of its own. A lease or a claim must be used by one thread only."""

    def __init__(
        self,
        database: Database,
        *,
        reducers: Mapping[str, Reducer] | None = None,
        codecs: Sequence[Codec] = (),
        projections: Sequence[Projection[Any]] = BUILT_IN,
        limits: Limits = DEFAULTS,
        observer: StepObserver = lambda _step: None,
        on_close: Sequence[Any] = (),
    ) -> None:
        validate_settings(
            reducers=reducers,
            codecs=codecs,
            projections=projections,
            limits=limits,
            observer=observer,
        )
        require_kind("database", database, Database, "a Database")
        self.database = database
        self.limits = limits
        self.projections = tuple(projections)
        self.reader = SettledReader(database)
        self._on_close = on_close
        # A reducer or a codec is the user's code: its garbage is collected as usual.
        self._claiming = nullcontext if reducers or codecs else gc_paused
        self._has_codecs = bool(codecs)
        self._values = Values(codecs)
        ledger = Ledger(limits)
        self._ledger = ledger
        self._runs = RunStore(database, state_bytes=limits.state_bytes, values=self._values)
        self._replayer = TailReplayer(self._runs, dict(reducers or {}), reducer_s=limits.reducer_s)
        self._writes = LeaseWrites(database, ledger)
        self._endings = LeaseEndings(database, ledger, limits)
        self._acquisition = Acquisition(database, ledger, self._runs)
        self._claims = Claims(database, ledger, limits)
        self._interventions = Interventions(database, ledger, self._runs, limits)
        cohorts = Cohorts(database, ledger, self._runs, self._replayer, limits, observer)
        self._session_watch = SessionWatch(database, limits)
        losses = Losses(database, ledger, limits, self._session_watch)
        self._sweep = Sweep(losses, cohorts, self._session_watch, observer)
        self._history = History(database, self.reader)
        self._reading = Reading(database, self._values)
        self._positions = Positions(database, self.reader)
        self._quarantined = QuarantineReading(database)
        self._notifier = QuarantineNotifier(database, self._quarantined, limits)
        self._status = StatusReading(database, self.reader, self.projections, limits)
        self._pruning = Pruning(database)
        self._restore = Restore(database, ledger, cohorts, limits)
        self._skipping = Skipping(database, ledger, cohorts, self.projections, limits)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections of this process, and the embedded server if it is the last user."""
        self.database.close()
        for close in self._on_close:
            close()

    # Workers ---------------------------------------------------------------------------------

    def acquire(
        self,
        *,
        attempt_id: str,
        run_id: str,
        worker_id: str,
        kind: str = "run",
        input: Value = None,  # noqa: A002 - the word of the field; nothing here reads from a terminal
        code_version: str = "",
        tenant: str = "",
        priority: int = 0,
        ttl: timedelta | None = None,
        timeout: timedelta | None = None,
        event_id: str | None = None,
        trace_id: str | None = None,
    ) -> Lease:
        """Open an attempt of a run and hold its first lease.

        `ttl` is how long the lease holds without renewal, `timeout` how long the attempt may take
        from now, over all its workers. To retry after a lost reply, pass the same `event_id`: the
        call returns the lease that was granted. Raises `AttemptExists`, `RunBusy`, `RunMismatch`,
        `RunPruned`, `InvalidInput`.
        """
        request = Request(
            attempt_id=inputs.identifier("attempt_id", attempt_id),
            run_id=inputs.identifier("run_id", run_id),
            holder=self._holder(worker_id),
            kind=inputs.identifier("kind", kind),
            input=self._values.encode(input, name="input"),
            code_version=inputs.label("code_version", code_version),
            tenant=inputs.label("tenant", tenant),
            priority=inputs.whole_number("priority", priority, inputs.PRIORITIES),
            ttl_s=self._ttl_s(ttl),
            timeout_s=_timeout_s(timeout),
            event_id=inputs.event_id(event_id),
            trace_id=None if trace_id is None else inputs.identifier("trace_id", trace_id),
        )
        return self._lease(self._acquisition.acquire(request))

    def adopt(self, terms: LeaseTerms) -> Lease:
        """Make a handle for a lease that is held already, for example in a child process of its
        worker."""
        require_terms(terms)
        return self._lease(terms)

    def claim(
        self,
        *,
        worker_id: str,
        kinds: Sequence[str] | None = None,
        tenants: Sequence[str] | None = None,
        code_versions: Sequence[str] | None = None,
        limit: int = 1,
        ttl: timedelta | None = None,
        event_id: str | None = None,
        session_lock: int | None = None,
    ) -> list[Claim]:
        """Take up to `limit` attempts from the dispatch-ready list, in its order.

        `session_lock` is the number of the session lock that a `Worker` holds.

        Exactly one claimer wins each attempt. An attempt is quarantined, and not returned, if its
        checkpoint or tail differs from what its recovery recorded, or folds to another state; no
        user code runs before that check. An attempt that this process cannot load or fold is
        requeued and retried later.
        """
        wanted = ClaimRequest(
            holder=self._holder(worker_id),
            kinds=inputs.names("kinds", kinds),
            tenants=inputs.names("tenants", tenants),
            code_versions=inputs.names("code_versions", code_versions),
            limit=inputs.batch_limit(limit),
            ttl_s=self._ttl_s(ttl),
            dispatch_id=inputs.event_id(event_id),
            is_again=event_id is not None,
            session_lock=inputs.session_lock(session_lock),
        )
        inputs.demand(wanted.kinds, wanted.code_versions)
        claims: list[Claim] = []
        with self._claiming(), self._replayer.folding() as folding:
            since = time.monotonic()
            won = self._claims.take(wanted)
            if not won:
                return claims
            keep = self._keeping([terms for terms, _ in won], since=since)
            loading = ClaimLoading(self._runs, self._replayer, folding, keep)
            with keep.beside():
                kept = self._runs.kept([terms.run_id for terms, _ in won])
            for (terms, recovery), kept_of_run in zip(won, kept, strict=True):
                lease = self._lease(terms)
                try:
                    claims.append(loading.load(lease, recovery, kept_of_run))
                except PayloadCorrupt as problem:
                    self._claims.quarantine_diverged(lease, problem)
                except (
                    CheckpointTooNew,
                    CheckpointTooLarge,
                    CodecMissing,
                    CodecFailed,
                    ReducerFailed,
                ) as problem:
                    self._claims.requeue(lease, problem)
            held = keep.held()
        return [claim for claim in claims if claim.lease.attempt_id in held]

    def load(self, lease: Lease) -> Claim:
        """Load all that the worker of a held lease needs. For a fresh attempt that is its run's
        input and what earlier attempts of the run left. Raises `PayloadCorrupt`,
        `CheckpointTooNew`, `CheckpointTooLarge`, `CodecMissing`, `CodecFailed`, `ReducerFailed`."""
        require_kind("lease", lease, Lease, "a Lease")
        # In this order, so that what the store returns is never older than what the stream says of
        # it.
        recovery = self.recovery(lease.attempt_id)
        keep = self._keeping([lease.terms])
        with keep.beside():
            [kept] = self._runs.kept([lease.run_id])
        with self._replayer.folding() as folding:
            claim = ClaimLoading(self._runs, self._replayer, folding, keep).load(
                lease, recovery, kept
            )
        if lease.attempt_id not in keep.held():
            lease.heartbeat()  # raises `LeaseLost`
        return claim

    # Recovery --------------------------------------------------------------------------------

    def sweep(self) -> list[SweepResult]:
        """Take lost leases back and drive each attempt to ready for dispatch; return one result per
        attempt."""
        return self._sweep.sweep()

    def watch_sessions(self) -> float:
        """Poll the session locks that workers hold, once; return in how many seconds to poll again.

        0 means that some locks have ended, so that this thread's next `sweep` takes their leases
        back. A sweep polls as well. Observations of a lock belong to one thread of one process, and
        are kept only as long as its own session lasts.
        """
        return self._session_watch.poll()

    def report_lost(
        self, *, worker_id: str, incarnation: Incarnation | str | None = None, reason: str
    ) -> list[SweepResult]:
        """Report that a worker is dead; its leases are recovered at once.

        `incarnation` is the life that died (or its token), so that a late report never affects the
        next life of the same worker.
        """
        token = incarnation.token if isinstance(incarnation, Incarnation) else incarnation
        if token is not None:
            token = inputs.identifier("incarnation", token)
        attempts = self._interventions.report_lost(
            inputs.identifier("worker_id", worker_id),
            token,
            inputs.text("reason", reason, is_needed=True),
        )
        return self._sweep.sweep(attempt_ids=attempts) if attempts else []

    def notify_quarantines(
        self, hook: Hook, *, on_problem: Callable[[HookFailed], object] = lambda _problem: None
    ) -> int:
        """Call the hook for each quarantined attempt whose notice is pending; return how many calls
        succeeded.

        A `Sweeper` with `on_quarantine` repeats this. Delivery is at least once: a hook that raises
        is retried with back-off, five calls in all, and `on_problem` is called with the failure. If
        the process dies meanwhile, the next one delivers the notice.
        """
        inputs.observer("hook", hook)
        inputs.observer("on_problem", on_problem)
        return self._notifier.notify(hook, on_problem)

    # People ----------------------------------------------------------------------------------

    def resume(self, attempt_id: str, *, by: str, reason: str) -> SweepResult:
        """Let a waiting attempt proceed; it is reloaded, replayed and made ready at once."""
        recovery = self._interventions.resume(_attempt(attempt_id), **_person(by, reason))
        return self._sweep.advance(recovery)

    def cancel(self, attempt_id: str, *, by: str, reason: str) -> Recovery:
        """End an attempt in whatever stage it is. Its worker, if it has one, is refused from now
        on."""
        return self._interventions.cancel(_attempt(attempt_id), **_person(by, reason))

    def lift_quarantine(
        self, attempt_id: str, option: LiftOption | str, *, by: str, reason: str
    ) -> SweepResult:
        """Let a quarantined attempt proceed, by one of the options that its quarantine names."""
        recovery = self._interventions.lift(
            _attempt(attempt_id), inputs.lift_option(option), **_person(by, reason)
        )
        return self._sweep.advance(recovery)

    # Reading ---------------------------------------------------------------------------------

    def history(self, attempt_id: str, *, version: int | None = None) -> list[HistoryEntry]:
        """Every event of an attempt, in order, with position and time. Events up to the
        `version`-th can be read also if a later one is damaged. Raises `UnknownAttempt`, and
        `InvalidInput` for a version that does not exist yet."""
        attempt_id = _attempt(attempt_id)
        if version is not None:
            version = inputs.whole_number("version", version, inputs.VERSIONS)
        return self._history.of(attempt_id, version=version)

    def history_of_journal(self) -> list[HistoryEntry]:
        """Every event of the journal's own stream, in order: the acts of people on the journal
        itself."""
        return self._history.of_journal()

    def recovery(
        self,
        attempt_id: str,
        *,
        version: int | None = None,
        at: int | datetime | None = None,
    ) -> Recovery:
        """An attempt as it is now, after its `version`-th event, or at a position or a time. Raises
        `UnknownAttempt`, and `InvalidInput` where it had no event yet at that point."""
        attempt_id = _attempt(attempt_id)
        if at is not None:
            if version is not None:
                raise inputs.refused("version and at", "both", "one of them", "leave one out")
            version = self._positions.version_at(attempt_id, self._positions.at(at))
        elif version is not None:
            version = inputs.whole_number("version", version, inputs.VERSIONS)
        return self._history.recovery(attempt_id, version=version)

    def result(self, attempt_id: str) -> Value:
        """The result of a completed attempt. Raises `UnknownAttempt`, `WrongStage`, `ResultPruned`,
        `PayloadCorrupt`, `CodecMissing`, `CodecFailed`."""
        return self._reading.result(_attempt(attempt_id))

    def log(self, *, after: int = 0, limit: int = 1_000) -> list[HistoryEntry]:
        """Settled events of all attempts after a position, in the log's order."""
        after = inputs.whole_number("after", after, inputs.POSITIONS)
        return self._history.log(after=after, limit=inputs.batch_limit(limit))

    def dispatch_ready(
        self,
        *,
        limit: int = 20,
        kinds: Sequence[str] | None = None,
        tenants: Sequence[str] | None = None,
        at: int | datetime | None = None,
    ) -> list[DispatchReadyRow]:
        """The dispatch-ready list in dispatch order, without attempts that must not start yet.

        With `at` it is the list as it was at that position or time, each entry as it was then,
        including those that had to wait until their `not_before`. Raises as `position_at`.
        """
        return self._reading.dispatch_ready(
            limit=inputs.batch_limit(limit),
            kinds=inputs.names("kinds", kinds),
            tenants=inputs.names("tenants", tenants),
            position=None if at is None else self._positions.at(at),
        )

    def listed(
        self,
        projection: Projection[RowT],
        *,
        at: int | datetime | None = None,
        limit: int = 100,
    ) -> list[RowT]:
        """The list that a projection keeps, now or as it was at a position or time, in its order.
        Raises as `position_at`, `InvalidInput` for a projection that keeps no list,
        `PositionNotReached` where the follower has not reached that position, `RowsUnreadable`."""
        return self._reading.listed(
            inputs.projection(projection, self.projections),
            position=None if at is None else self._positions.at(at),
            limit=inputs.batch_limit(limit),
        )

    def position_at(self, at: int | datetime) -> int:
        """The position that a time means: the last one before the latest `recorded_at` so far
        passes it; 0 before the first event. A position means itself, once it is settled.

        A time is recent if events recorded before it may not be committed yet. It means the last
        settled position now, and possibly a later one in a later call. Raises `InvalidInput` for a
        position above the last one, `StoreBusy` where events below it are still being appended.
        """
        return self._positions.at(at)

    def time_of(self, position: int) -> datetime | None:
        """The time at which the last event at or below a position was recorded; None before the
        first."""
        position = inputs.whole_number("position", position, inputs.POSITIONS)
        return self._positions.time_of(position)

    def contexts(
        self,
        *,
        run_id: str | None = None,
        attempt_id: str | None = None,
        worker_id: str | None = None,
        tenant: str | None = None,
        since: datetime | None = None,
        limit: int = 100,
    ) -> list[RecoveryContextRow]:
        """Recoveries, the newest loss first, as the read model has them."""
        return self._reading.contexts(
            {
                "run_id": inputs.label_filter("run_id", run_id),
                "attempt_id": inputs.label_filter("attempt_id", attempt_id),
                "worker_id": inputs.label_filter("worker_id", worker_id),
                "tenant": inputs.label_filter("tenant", tenant),
                "since": None if since is None else inputs.moment("since", since),
                "limit": inputs.batch_limit(limit),
            }
        )

    def quarantined(self, *, limit: int = 100) -> list[QuarantinedAttempt]:
        """The attempts in quarantine, the longest first: the cause of each, and the options of a
        person."""
        return self._quarantined.quarantined(limit=inputs.batch_limit(limit))

    def status(self) -> Status:
        """Journal health: counts, the queue, failing recoveries, projection lag."""
        return self._status.status()

    def now(self) -> datetime:
        """The database's clock, from which all ages are measured."""
        return self._status.now()

    @overload
    def rows(self, projection: Projection[RowT], key: str | None = None) -> Iterator[RowT]: ...

    @overload
    def rows(
        self, projection: str, key: str | None = None
    ) -> Iterator[StreamRow | PositionRow]: ...

    def rows(
        self, projection: Projection[Any] | str, key: str | None = None
    ) -> Iterator[StreamRow | PositionRow]:
        """The rows of a projection, given itself or by its name, in order of their keys; with a
        `key` only its rows. They are read page by page, and each page as it is at that moment.

        Raises `InvalidInput` where the journal was opened without the projection, and
        `RowsUnreadable` where another fold made the rows and they are no longer of this type.
        """
        return self._reading.rows(
            inputs.projection(projection, self.projections), inputs.label_filter("key", key)
        )

    @property
    def outdated(self) -> tuple[OutdatedProjection, ...]:
        """The projections whose rows another fold made, as of now, each with the command that fixes
        it."""
        return outdated_of(ProjectionTracking(self.database).all(), self.projections)

    @property
    def weakened(self) -> tuple[str, ...]:
        """The server's settings that may make it lose or damage what it has acknowledged."""
        with self.database.cursor() as cursor:
            return tuple(weakened(cursor))

    # Upkeep ----------------------------------------------------------------------------------

    def rebuild(
        self,
        names: Sequence[str] | None = None,
        *,
        process_count: int | None = None,
        on_progress: Callable[[RebuildProgress], object] = lambda _progress: None,
    ) -> RebuildReport:
        """Rebuild the rows of the named projections, or of all, from the log, while all other work
        continues. A rebuild that was killed or has failed is resumed.

        `process_count` forked processes fold; the default is one for each core. Raises
        `InvalidInput` for an unknown name, `RebuildUnderWay` where another process runs a rebuild,
        `StoreBusy` where every try of the switch would have made other sessions wait too long,
        `ProcessLost`, `RowUnstorable` for a row that no table can hold, and `UnknownEvent`,
        `CorruptEvent`, `FoldFailed` at an event that cannot be folded.
        """
        if process_count is not None:
            inputs.whole_number("process_count", process_count, inputs.PROCESSES)
        inputs.observer("on_progress", on_progress)
        return Rebuild(
            self.database,
            self.reader,
            projections=inputs.projections(names, self.projections),
            process_count=process_count,
            on_progress=on_progress,
        ).run()

    def check(
        self,
        names: Sequence[str] | None = None,
        *,
        on_progress: Callable[[RebuildProgress], object] = lambda _progress: None,
    ) -> tuple[CheckedProjection, ...]:
        """Compare the rows of the named projections, or of all, with the log, and change nothing.
        Raises `InvalidInput` for an unknown name, `RowsUnreadable` where another fold made the rows
        and they are no longer of this type, and at events as `rebuild` does."""
        projections = inputs.projections(names, self.projections)
        inputs.observer("on_progress", on_progress)
        return Check(self.database, projections=projections, on_progress=on_progress).run()

    def prune(self, *, older_than: timedelta, keep_checkpoints: int = DEFAULT_KEPT) -> Pruned:
        """Delete input, run steps, checkpoints and results of runs whose attempts all ended longer
        ago than this; never the log. A pruned run cannot be attempted again (`RunPruned`).

        Of open runs, delete the checkpoints written longer ago than this, but keep the newest
        `keep_checkpoints`: two or more, because the newest one and its parent always stay.
        """
        return self._pruning.prune(older_than, keep_checkpoints=keep_checkpoints)

    def after_restore(
        self, *, by: str, reason: str, is_nothing_lost: bool = False, is_restored: bool = False
    ) -> Restored:
        """Accept the current server after a restore or a failover.

        Every lease that a worker or a sweeper held is fenced and recovered. Epochs and positions
        that the discarded timeline may have used are skipped. Where lease rows and log differ, the
        rows are set to what the log says. On an accepted server the call has no effect, unless you
        pass `is_restored`, for example for a copied volume, which cannot be distinguished from the
        server it was copied from. With `is_nothing_lost` the server is accepted and nothing else
        changes: for a switchover or an upgrade that you know to have lost nothing.

        Make sure first that the old server is gone: the journal cannot stop writes there. Raises
        `ReadOnlyServer` on a standby.
        """
        return self._restore.run(
            **_person(by, reason),
            is_nothing_lost=inputs.flag("is_nothing_lost", is_nothing_lost),
            is_restored=inputs.flag("is_restored", is_restored),
        )

    def skip(self, position: int, *, by: str, reason: str) -> Skipped:
        """Make every reader pass over an event that blocks it: a damaged or impossible event, or
        one that something else than the journal appended. The event stays in the log, the act is
        recorded in the journal's own stream, and an attempt that was set aside because of the event
        proceeds.

        Idempotent. Raises `InvalidInput` where no event is at the position, or where the journal
        itself has appended the event and can read it.
        """
        position = inputs.whole_number("position", position, inputs.POSITIONS)
        return self._skipping.skip(position, **_person(by, reason))

    def differences(self) -> Restored:
        """The differences that `after_restore` would find; nothing is changed."""
        return self._restore.inspect()

    # Details ---------------------------------------------------------------------------------

    def _lease(self, terms: LeaseTerms) -> Lease:
        """The handle for terms that are known to be valid."""
        return Lease(terms, self._writes, self._endings, self._runs, self._sweep.advance)

    def _keeping(self, terms: Sequence[LeaseTerms], since: float | None = None) -> Keeping:
        """Renewal of leases of one TTL until the caller has them."""
        return Keeping(
            self.database,
            [(one.attempt_id, one.fence) for one in terms],
            status=LeaseStatus.HELD,
            ttl_s=terms[0].ttl_s,
            has_codecs=self._has_codecs,
            since=since,
        )

    def _holder(self, worker_id: str) -> Holder:
        return Holder(
            worker_id=inputs.identifier("worker_id", worker_id), incarnation=incarnation()
        )

    def _ttl_s(self, ttl: timedelta | None) -> float:
        if ttl is None:
            return self.limits.ttl_s
        return inputs.duration("ttl", ttl, shortest=inputs.SHORTEST_TTL)


def _timeout_s(timeout: timedelta | None) -> float | None:
    if timeout is None:
        return None
    return inputs.duration("timeout", timeout, shortest=inputs.SHORTEST_TTL)


def validate_settings(
    *,
    reducers: object,
    codecs: Sequence[Codec],
    projections: object,
    limits: object,
    observer: object,
) -> None:
    """Refuse settings that no journal can work with. Raises `InvalidInput`."""
    if reducers is not None:
        inputs.functions("reducers", reducers, inputs.plain_function)
    Codecs(codecs)
    require_kind("projections", projections, Sequence, "a list of projections")
    require_kind("limits", limits, Limits, "Limits")
    inputs.observer("observer", observer)


def _attempt(attempt_id: str) -> str:
    return inputs.identifier("attempt_id", attempt_id)


def _person(by: str, reason: str) -> dict[str, str]:
    return {
        "by": inputs.identifier("by", by),
        "reason": inputs.text("reason", reason, is_needed=True),
    }
