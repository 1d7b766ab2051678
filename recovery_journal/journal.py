"""The composition root: one journal on one schema, and everything a user may ask of it."""

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
from recovery_journal.domain.ports import Reducer
from recovery_journal.domain.ranges import require_kind
from recovery_journal.domain.recovery import Recovery
from recovery_journal.limits import DEFAULTS, Limits
from recovery_journal.log.application import JournalApplication
from recovery_journal.log.reader import SettledReader
from recovery_journal.monitoring.history import History, HistoryEntry
from recovery_journal.monitoring.positions import Positions
from recovery_journal.monitoring.quarantine_notifier import Hook, QuarantineNotifier
from recovery_journal.monitoring.quarantined import QuarantinedAttempt, QuarantineReading
from recovery_journal.monitoring.queries import Reading
from recovery_journal.monitoring.rows import RowReading
from recovery_journal.monitoring.status import Status, StatusReading
from recovery_journal.postgres.database import Database
from recovery_journal.postgres.server_settings import weakened
from recovery_journal.process.gc_paused import gc_paused
from recovery_journal.process.identity import incarnation
from recovery_journal.projections.catalog import BUILT_IN
from recovery_journal.projections.dispatch_ready import DISPATCH_READY, DispatchReadyRow
from recovery_journal.projections.projection import PositionRow, Projection, RowT, StreamRow
from recovery_journal.projections.recovery_context_row import RecoveryContextRow
from recovery_journal.read_models.as_of import ListReading
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
from recovery_journal.store.failure_texts import FailureTexts
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
    """A recovery journal. Safe to share between threads, and it survives a fork: every thread and
    every process has a connection of its own. A lease or a claim is for one thread."""

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
        self.application = JournalApplication(database)
        self._on_close = on_close
        # A reducer or a codec is the user's code: what it leaves is collected as ever.
        self._claiming = nullcontext if reducers or codecs else gc_paused
        self._has_codecs = bool(codecs)
        self._values = Values(codecs)
        ledger = Ledger(self.application, FailureTexts(limits.error_texts))
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
        self._sweep = Sweep(losses, cohorts, self._session_watch, limits, observer)
        self._history = History(database, self.application)
        self._reading = Reading(database, self._values)
        self._lists = ListReading(database)
        self._positions = Positions(database, self.application.reader)
        self._quarantined = QuarantineReading(database, self.application)
        self._telling = QuarantineNotifier(database, self._quarantined, limits)
        self._status = StatusReading(database, self.application.reader, self.projections, limits)
        self._rows = RowReading(database)
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
        self.application.close()
        self.database.close()
        for close in self._on_close:
            close()

    @property
    def reader(self) -> SettledReader:
        """The log in order, skipping nothing."""
        return self.application.reader

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
        from now on, whoever works on it. Pass the same `event_id` again after a lost reply to get
        the lease that was granted. Raises `AttemptExists`, `RunBusy`, `RunMismatch`, `RunPruned`,
        `InvalidInput`.
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
        """A handle for a lease that is held already, as in a child of its worker."""
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

        Each is won by exactly one claimer. One whose checkpoint or tail is not what its recovery
        recorded, or that folds to another state, is quarantined before any user code runs, and not
        returned. One that cannot be loaded or folded here is given back, to be tried again.
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
        """All that the worker of a held lease needs: of a fresh attempt, its run's input and what
        earlier attempts of the run left. Raises `PayloadCorrupt`, `CheckpointTooNew`,
        `CheckpointTooLarge`, `CodecMissing`, `CodecFailed`, `ReducerFailed`."""
        require_kind("lease", lease, Lease, "a Lease")
        # In this order: what the store keeps is then never behind what the stream says of it.
        recovery = self.recovery(lease.attempt_id)
        keep = self._keeping([lease.terms])
        with keep.beside():
            [kept] = self._runs.kept([lease.run_id])
        with self._replayer.folding() as folding:
            claim = ClaimLoading(self._runs, self._replayer, folding, keep).load(
                lease, recovery, kept
            )
        if lease.attempt_id not in keep.held():
            lease.heartbeat()  # which says that it is lost
        return claim

    # Recovery --------------------------------------------------------------------------------

    def sweep(self) -> list[SweepResult]:
        """Take lost leases back and drive each to ready for dispatch; what became of each."""
        return self._sweep.sweep()

    def watch_sessions(self) -> float:
        """Look once at the session locks that workers hold; in how many seconds to look again.

        0 means that some have ended, so that this thread's next `sweep` takes their leases back.
        A sweep looks as well. What is known of a lock is known to one thread of one process, and
        only as long as its own session lasts.
        """
        return self._session_watch.look()

    def report_lost(
        self, *, worker_id: str, incarnation: Incarnation | str | None = None, reason: str
    ) -> list[SweepResult]:
        """Say that a worker is dead; its leases are recovered at once.

        `incarnation` is the life that died (or its token), so that a late report never hits the
        same worker's next life.
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
        """Call the hook for each attempt in quarantine of which nobody was told; for how many it
        ended well.

        A `Sweeper` with `on_quarantine` does this again and again. Each is told at least once: a
        hook that raised is called again after growing waits, five times in all, and `on_problem` is
        given the failure; a process that dies meanwhile is made up for by the next.
        """
        inputs.observer("hook", hook)
        inputs.observer("on_problem", on_problem)
        return self._telling.tell(hook, on_problem)

    # People ----------------------------------------------------------------------------------

    def resume(self, attempt_id: str, *, by: str, reason: str) -> SweepResult:
        """Let a waiting attempt go on; it is reloaded, replayed and made ready at once."""
        recovery = self._interventions.resume(_attempt(attempt_id), **_person(by, reason))
        return self._sweep.go_on(recovery)

    def cancel(self, attempt_id: str, *, by: str, reason: str) -> Recovery:
        """End an attempt wherever it stands. Its worker, if it has one, is refused from now on."""
        return self._interventions.cancel(_attempt(attempt_id), **_person(by, reason))

    def lift_quarantine(
        self, attempt_id: str, option: LiftOption | str, *, by: str, reason: str
    ) -> SweepResult:
        """Let a quarantined attempt go on, by one of the options that its quarantine names."""
        recovery = self._interventions.lift(
            _attempt(attempt_id), inputs.lift_option(option), **_person(by, reason)
        )
        return self._sweep.go_on(recovery)

    # Reading ---------------------------------------------------------------------------------

    def history(self, attempt_id: str, *, version: int | None = None) -> list[HistoryEntry]:
        """Every event of an attempt, in order, with position and time; those up to its `version`-th
        can be read also where a later one is damaged. Raises `UnknownAttempt`, and `InvalidInput`
        for a version that is still to come."""
        attempt_id = _attempt(attempt_id)
        if version is not None:
            version = inputs.whole_number("version", version, inputs.VERSIONS)
        return self._history.of(attempt_id, version=version)

    def history_of_journal(self) -> list[HistoryEntry]:
        """Every event of the journal's own stream, in order: what people did to the journal."""
        return self._history.of_journal()

    def recovery(
        self,
        attempt_id: str,
        *,
        version: int | None = None,
        at: int | datetime | None = None,
    ) -> Recovery:
        """An attempt as it is, as it was after its `version`-th event, or as it was at a position
        or a time. Raises `UnknownAttempt`, and `InvalidInput` where it had no event yet then."""
        attempt_id = _attempt(attempt_id)
        if at is not None:
            if version is not None:
                raise inputs.refused("version and at", "both", "one of them", "leave one out")
            version = self._positions.version_at(attempt_id, self._positions.at(at))
        elif version is not None:
            version = inputs.whole_number("version", version, inputs.VERSIONS)
        return self._history.recovery(attempt_id, version=version)

    def result(self, attempt_id: str) -> Value:
        """What a completed attempt came to. Raises `UnknownAttempt`, `WrongStage`,
        `ResultPruned`, `PayloadCorrupt`, `CodecMissing`, `CodecFailed`."""
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
        """The dispatch-ready list in dispatch order, without those that must not start yet.

        With `at` it is what the list held at that position or time, each entry as it was then;
        also those that had to wait until their `not_before`. Raises as `position_at`.
        """
        limit = inputs.batch_limit(limit)
        kinds, tenants = inputs.names("kinds", kinds), inputs.names("tenants", tenants)
        if at is None:
            return self._reading.dispatch_ready(limit=limit, kinds=kinds, tenants=tenants)
        return self._lists.listed(
            DISPATCH_READY,
            position=self._positions.at(at),
            limit=limit,
            only={"kind": kinds, "tenant": tenants},
        )

    def listed(
        self,
        projection: Projection[RowT],
        *,
        at: int | datetime | None = None,
        limit: int = 100,
    ) -> list[RowT]:
        """What is on the list that a projection keeps, or was on it at a position or time, in its
        order. Raises as `position_at`, `InvalidInput` for what is no list, `PositionNotReached`
        where the follower has not come to that position, `RowsUnreadable`."""
        return self._lists.listed(
            inputs.projection(projection, self.projections),
            position=None if at is None else self._positions.at(at),
            limit=inputs.batch_limit(limit),
        )

    def position_at(self, at: int | datetime) -> int:
        """The position that a time means: the last one before the latest `recorded_at` so far
        passes it; 0 before the first event. A position means itself, once it is settled.

        A time so recent that events recorded before it may not be committed yet means the last
        settled position, and perhaps a later one when it is asked for again. Raises
        `InvalidInput` for a position above the last one, `StoreBusy` where events below it are
        still being appended.
        """
        return self._positions.at(at)

    def time_of(self, position: int) -> datetime | None:
        """When the last event at or below a position was recorded; None before the first."""
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
        """Recoveries, the newest loss first, as the followed projection knows them."""
        return self._reading.contexts(
            run_id=inputs.label_filter("run_id", run_id),
            attempt_id=inputs.label_filter("attempt_id", attempt_id),
            worker_id=inputs.label_filter("worker_id", worker_id),
            tenant=inputs.label_filter("tenant", tenant),
            since=None if since is None else inputs.moment("since", since),
            limit=inputs.batch_limit(limit),
        )

    def quarantined(self, *, limit: int = 100) -> list[QuarantinedAttempt]:
        """The attempts in quarantine, the longest first: why, and what a person may choose."""
        return self._quarantined.quarantined(limit=inputs.batch_limit(limit))

    def status(self) -> Status:
        """How the journal fares: counts, what waits and fails, how far projections are behind."""
        return self._status.status()

    def now(self) -> datetime:
        """The database's clock, by which all ages are measured."""
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
        """The rows of a projection, or of its name, in order of their keys; with a `key` only
        its rows. They are read page by page, each as it is at that moment.

        Raises `InvalidInput` where the journal was opened without the projection, and
        `RowsUnreadable` where another fold made the rows and they are no longer of this type.
        """
        return self._rows.of(
            inputs.projection(projection, self.projections), inputs.label_filter("key", key)
        )

    @property
    def outdated(self) -> tuple[OutdatedProjection, ...]:
        """The projections whose rows another fold made, as of now, and the command that helps."""
        return outdated_of(ProjectionTracking(self.database).all(), self.projections)

    @property
    def weakened(self) -> tuple[str, ...]:
        """The server's settings by which it may lose or damage what it has acknowledged."""
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
        """Make the rows of the named projections, or of all, anew from the log, while everything
        goes on. One that was killed or has failed is gone on with.

        `process_count` forked processes fold, one for each core if nothing is said. Raises
        `InvalidInput` for an unknown name, `RebuildUnderWay` where another process is at a
        rebuild, `StoreBusy` where the switch found no quiet moment, `ProcessLost`,
        `RowUnstorable` for a row that no table can hold, and `UnknownEvent`, `CorruptEvent`,
        `FoldFailed` at an event that cannot be taken in.
        """
        if process_count is not None:
            inputs.whole_number("process_count", process_count, inputs.PROCESSES)
        inputs.observer("on_progress", on_progress)
        return Rebuild(
            self.database,
            self.application.reader,
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
        """Compare the rows of the named projections, or of all, with what the log says; nothing
        is changed. Raises `InvalidInput` for an unknown name, `RowsUnreadable` where another fold
        made the rows and they are no longer of this type, and at events as `rebuild` does."""
        projections = inputs.projections(names, self.projections)
        inputs.observer("on_progress", on_progress)
        return Check(self.database, projections=projections, on_progress=on_progress).run()

    def prune(self, *, older_than: timedelta, keep_checkpoints: int = DEFAULT_KEPT) -> Pruned:
        """Forget input, run steps, checkpoints and results of runs whose every attempt ended longer
        ago than that; never the log. A pruned run cannot be taken up again (`RunPruned`).

        Of open runs it forgets the checkpoints written longer ago than that, but keeps the newest
        `keep_checkpoints`: two or more, for the newest one and its parent always stay."""
        return self._pruning.prune(older_than, keep_checkpoints=keep_checkpoints)

    def after_restore(
        self, *, by: str, reason: str, is_nothing_lost: bool = False, is_restored: bool = False
    ) -> Restored:
        """Accept the server that the journal is found on, after a restore or a failover.

        What workers and sweepers held is taken from them and recovered; epochs and positions that
        the lost future may have used are skipped; where lease rows and log differ, the rows are
        made to say what the log says. On an accepted server there is nothing to do, unless you
        know better: `is_restored`, as for a copied volume, which looks like the server it was
        copied from. With `is_nothing_lost` the server is accepted and all goes on as it was: for
        a switchover or an upgrade that you know to have lost nothing.

        See that the old server is gone first: nothing here can stop what writes there. Raises
        `ReadOnlyServer` on a standby.
        """
        return self._restore.run(
            **_person(by, reason),
            is_nothing_lost=inputs.flag("is_nothing_lost", is_nothing_lost),
            is_restored=inputs.flag("is_restored", is_restored),
        )

    def skip(self, position: int, *, by: str, reason: str) -> Skipped:
        """Have every reader pass over an event that is in the way: it is damaged, impossible, or
        was appended by something else than the journal. The event stays in the log, the act is
        recorded in the journal's own stream, and an attempt that was set aside for it goes on.

        Asked again it is done already. Raises `InvalidInput` where no event is at the position, or
        one that the journal has appended and can read.
        """
        position = inputs.whole_number("position", position, inputs.POSITIONS)
        return self._skipping.skip(position, **_person(by, reason))

    def differences(self) -> Restored:
        """What `after_restore` would find; nothing is changed."""
        return self._restore.look()

    # Details ---------------------------------------------------------------------------------

    def _lease(self, terms: LeaseTerms) -> Lease:
        """The handle of terms that are known to be right."""
        return Lease(terms, self._writes, self._endings, self._runs, self._sweep.go_on)

    def _keeping(self, terms: Sequence[LeaseTerms], since: float | None = None) -> Keeping:
        """Keeps leases of one TTL until the caller has them."""
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
