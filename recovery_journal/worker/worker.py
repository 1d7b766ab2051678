"""The loop of a worker: claim a recovered attempt, run it under supervision, claim the next."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from recovery_journal import inputs
from recovery_journal.domain.errors import Retry
from recovery_journal.process.back_off import LONGEST_OUTAGE_PAUSE_S, BackOff
from recovery_journal.process.signals import stopping_on_signals
from recovery_journal.worker.outcome import Notice, NoticeKind, NoticeObserver, Outcome
from recovery_journal.worker.session_lock import SessionLock
from recovery_journal.worker.supervision import Supervision
from recovery_journal.worker.wake_event import WakeEvent
from recovery_journal.worker.work import Function

if TYPE_CHECKING:
    from recovery_journal.claiming.loading import Claim
    from recovery_journal.journal import Journal
    from recovery_journal.store.lease import Lease

SHORTEST_PAUSE_S: Final = 0.02
LONGEST_PAUSE_S: Final = 0.5
LONGEST_CALLED_PAUSE_S: Final = 2.0  # a notification ends it sooner
SHORTEST_HINT_PAUSE_S: Final = 0.02
LONGEST_HINT_PAUSE_S: Final = 0.25
DRAIN_S: Final = 10.0
FAILURE_LIMIT: Final = 10

_log = logging.getLogger("recovery_journal.worker.worker")


def log_notice(notice: Notice) -> None:
    """The default observer: writes to the program's log."""
    level = logging.WARNING if notice.kind is NoticeKind.PROBLEM else logging.INFO
    _log.log(level, "%s: attempt %s: %s", notice.worker_id, notice.attempt_id, notice.text)


class Worker:
    """Claims attempts and runs a function on each, one at a time, in a child process (rule R10).

    The child is killed as soon as the lease is known to be lost, one TTL after the last
    acknowledged heartbeat was sent, and after `stalled_after_s` seconds without a run step or
    checkpoint. The worker reports a child that dies at once, so that its attempt is recovered
    without waiting for the TTL. The worker holds a session lock while it runs, which shows its own
    death.

    `functions` is one function for every kind, or one for each; then only those kinds are claimed.
    An `async def` function is awaited, each attempt in an event loop of its own; a generator
    function is refused. `on_event` is called with each notice; by default notices go to the
    program's log.

    While there is nothing to claim the worker polls after pauses that double, from
    `shortest_pause_s` to `longest_pause_s`. The default of the latter is 2 s, or 0.5 s where the
    worker cannot receive notifications that attempts have become ready; it receives them on the
    connection of its session lock.

    Do nothing else in the process of a worker: it forks, and a fork of a process with other threads
    inherits the locks that they held. A worker that was stopped stays stopped.
    """

    def __init__(
        self,
        journal: Journal,
        worker_id: str,
        functions: Mapping[str, Function] | Function,
        *,
        kinds: Sequence[str] | None = None,
        tenants: Sequence[str] | None = None,
        code_versions: Sequence[str] | None = None,
        ttl: timedelta | None = None,
        stalled_after_s: float | None = None,
        drain_s: float = DRAIN_S,
        shortest_pause_s: float = SHORTEST_PAUSE_S,
        longest_pause_s: float | None = None,
        on_event: NoticeObserver = log_notice,
    ) -> None:
        inputs.having("journal", journal, "a Journal", "claim", "database")
        inputs.observer("on_event", on_event)
        if callable(functions):
            inputs.function("functions", functions)
        else:
            inputs.functions("functions", functions)
        for name, value in (
            ("stalled_after_s", stalled_after_s),
            ("longest_pause_s", longest_pause_s),
        ):
            if value is not None:
                inputs.seconds(name, value)
        inputs.seconds("drain_s", drain_s)
        inputs.seconds("shortest_pause_s", shortest_pause_s)
        self._journal = journal
        self._worker_id = inputs.identifier("worker_id", worker_id)
        self._functions = functions
        self._kinds = _kinds(functions, inputs.names("kinds", kinds))
        self._tenants = inputs.names("tenants", tenants)
        self._code_versions = inputs.names("code_versions", code_versions)
        inputs.demand(self._kinds, self._code_versions)
        if ttl is not None:
            inputs.duration("ttl", ttl, shortest=inputs.SHORTEST_TTL)
        self._ttl = ttl
        self._shortest_pause_s = shortest_pause_s
        self._longest_pause_s = longest_pause_s
        self._on_event = on_event
        self._stop = WakeEvent()
        self._session_lock = SessionLock(journal.database)
        self._dispatch_id = uuid4().hex
        self._failure_count = 0
        self._supervision = Supervision(
            journal,
            worker_id=worker_id,
            session_lock=self._session_lock,
            stalled_after_s=stalled_after_s,
            drain_s=drain_s,
            stop=self._stop,
            on_event=on_event,
        )

    def stop(self) -> None:
        """Drain: claim no more, give the child `drain_s` to end, and hand its lease back after
        that.

        Callable from any thread.
        """
        self._stop.set()

    def run(self, *, max_attempts: int | None = None, until_idle: bool = False) -> Counter[Outcome]:
        """Claim and run until stopped; return how many attempts ended with each outcome.

        SIGTERM, SIGINT and SIGHUP drain, sent to this process or to all of its group; a second
        signal does what it did before. The loop also ends after `max_attempts`, and with
        `until_idle` as soon as there is nothing to claim. The worker waits for a server that is
        away; a claim that fails otherwise is retried, and its error raised after ten such failures
        in a row.
        """
        if max_attempts is not None:
            inputs.whole_number("max_attempts", max_attempts, inputs.ATTEMPTS)
        inputs.flag("until_idle", until_idle)
        ended: Counter[Outcome] = Counter()
        pause = _Pause(self._stop, self._session_lock, self._shortest_pause_s)
        with self._running():
            while not self._stop.is_set() and ended.total() != max_attempts:
                self._session_lock.take()
                self._session_lock.settle()
                self._session_lock.listen_again()
                self._report_session_lock()
                claim, has_answer = self._try_to_claim()
                if claim is not None:
                    self._session_lock.sleep(is_asleep=False)
                    outcome = self._run(claim)
                    ended[outcome] += 1
                    if outcome is not Outcome.UNSTARTED:
                        pause.reset()
                        continue
                elif until_idle and has_answer:
                    break
                pause.wait(self._pause_limit_s() if has_answer else LONGEST_OUTAGE_PAUSE_S)
        return ended

    def run_lease(self, lease: Lease) -> Outcome:
        """Run an attempt that was just acquired under the same supervision; the function is called
        with a claim that holds the run's input and what earlier attempts of the run left.

        Raises what `Journal.load` raises.
        """
        with self._running():
            claim = self._journal.load(lease)
            self._session_lock.take()
            return self._run(claim)

    def _pause_limit_s(self) -> float:
        if self._longest_pause_s is not None:
            return self._longest_pause_s
        return LONGEST_CALLED_PAUSE_S if self._session_lock.is_listening else LONGEST_PAUSE_S

    def _try_to_claim(self) -> tuple[Claim | None, bool]:
        """Return a claim, if there is one, and whether the server answered at all.

        Retries use one dispatch id until there is an answer, so that attempts that were granted in
        a lost reply are found again.
        """
        try:
            claims = self._journal.claim(
                worker_id=self._worker_id,
                kinds=self._kinds,
                tenants=self._tenants,
                code_versions=self._code_versions,
                limit=1,
                ttl=self._ttl,
                event_id=self._dispatch_id,
                session_lock=self._session_lock.number,
            )
        except Retry as problem:
            self._report_claiming(problem)
            return None, False
        except Exception as problem:  # one unreadable attempt must not end its claimer
            self._report_claiming(problem)
            self._failure_count += 1
            if self._failure_count >= FAILURE_LIMIT:
                raise
            self._dispatch_id = uuid4().hex
            return None, False
        self._failure_count = 0
        self._dispatch_id = uuid4().hex
        return (claims[0] if claims else None), True

    @contextmanager
    def _running(self) -> Iterator[None]:
        """Within this context, signals drain and the session lock may be held."""
        with stopping_on_signals(self._stop):
            try:
                yield
            finally:
                self._session_lock.close()

    def _run(self, claim: Claim) -> Outcome:
        return self._supervision.run(claim, self._function(claim.lease.terms.kind))

    def _function(self, kind: str) -> Function:
        if not isinstance(self._functions, Mapping):
            return self._functions
        if kind not in self._functions:
            raise _unknown_kinds([kind], self._functions)
        return self._functions[kind]

    def _report_session_lock(self) -> None:
        for problem in self._session_lock.problems():
            self._on_event(Notice(kind=NoticeKind.PROBLEM, worker_id=self._worker_id, text=problem))

    def _report_claiming(self, problem: Exception) -> None:
        text = f"cannot claim now: {type(problem).__name__}: {problem}"
        self._on_event(Notice(kind=NoticeKind.PROBLEM, worker_id=self._worker_id, text=text))


class _Pause:
    """Waits that double while there is nothing to do, and that a notification or a lost lock ends
    early.

    Each has jitter, so that a fleet that was started at once does not poll at once for ever. A
    worker that waits its longest pause is asleep, and not every notification has to wake it.

    A notification is a hint that any role may have sent: it ends a pause, and never makes it
    longer. The first one ends it at once; later ones that bring no work end it after pauses that
    double up to `LONGEST_HINT_PAUSE_S`, so that a thousand notifications cost about as many claims
    as none.
    """

    def __init__(self, stop: WakeEvent, session_lock: SessionLock, shortest_s: float) -> None:
        self._stop = stop
        self._session_lock = session_lock
        self._back_off = BackOff(shortest_s, LONGEST_CALLED_PAUSE_S)
        self._hint_s = 0.0

    def wait(self, longest_s: float) -> None:
        if self._session_lock.sleep(is_asleep=self._back_off.is_beyond(longest_s)):
            return  # nothing would wake it: it has to take another lock first
        begun = time.monotonic()
        until, has_notice = begun + self._back_off.pause_s(longest_s), False
        while (left_s := until - time.monotonic()) > 0:
            if (heard := self._session_lock.take_notice()) is not None:
                has_notice = True
                wake_in_s = heard.wake_delay_s(is_asleep=self._session_lock.is_asleep)
                wake_at = max(begun + self._hint_s, time.monotonic() + (wake_in_s or 0))
                if wake_in_s is not None and wake_at < until:
                    self._stop.wait(wake_at - time.monotonic())
                    self._wake()
                    return
                self._stop.wait(min(SHORTEST_HINT_PAUSE_S, left_s))  # a flood is read in parts
            elif self._stop.wait_with(self._session_lock.file, left_s):
                return
            if self._session_lock.is_lost():
                return
        if not has_notice:
            self._hint_s = 0.0

    def _wake(self) -> None:
        if self._hint_s == 0:
            self._back_off.reset()
        self._hint_s = min(max(self._hint_s * 2, SHORTEST_HINT_PAUSE_S), LONGEST_HINT_PAUSE_S)

    def reset(self) -> None:
        self._back_off.reset()
        self._hint_s = 0.0


def _kinds(
    functions: Mapping[str, Function] | Function, kinds: list[str] | None
) -> list[str] | None:
    if not isinstance(functions, Mapping):
        return kinds
    if kinds is None:
        return inputs.names("functions", list(functions))
    missing = [kind for kind in kinds if kind not in functions]
    if missing:
        raise _unknown_kinds(missing, functions)
    return kinds


def _unknown_kinds(kinds: Sequence[str], functions: Mapping[str, Function]) -> Exception:
    return inputs.refused(
        "kinds",
        f"{', '.join(map(repr, kinds))} without a function",
        f"some of {', '.join(map(repr, functions))}",
        "pass a function for each kind",
    )
