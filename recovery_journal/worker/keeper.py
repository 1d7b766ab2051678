"""Heartbeats for one lease, in a thread of their own, so that a server that does not answer never
keeps the worker from killing its child in time.

The same thread checks the worker's session lock meanwhile, and declares it with each heartbeat. A
third thread replaces a lost lock, because connecting may take longer than a TTL.
"""

import threading
from collections import deque
from collections.abc import Callable
from enum import StrEnum
from typing import Final

from recovery_journal.domain.errors import LeaseLost
from recovery_journal.process.elapsed import elapsed_s
from recovery_journal.store.lease import Lease
from recovery_journal.store.writes import Renewal
from recovery_journal.worker.session_lock import SessionLock
from recovery_journal.worker.wake_event import WakeEvent

HEARTBEATS_A_TTL: Final = 3
RETRY_S: Final = 0.25  # after a heartbeat without an answer
LOCK_S: Final = 0.05  # between checks for a new session lock
HINT_REST_S: Final = 0.05  # a worker at work needs no notifications: they only have to be read
FIRST_S: Final = 0.5  # by then it has a connection, in case it must show a sign of life at once
STOP_LIMIT_S: Final = 5.0


class Cause(StrEnum):
    """Why a child's turn at an attempt is over."""

    GONE = "gone"
    LOST = "lost"
    STALLED = "stalled"
    RUN_OUT = "run_out"
    DRAINED = "drained"
    INTERRUPTED = "interrupted"
    UNSTARTED = "unstarted"


class Keeper:
    """Renews a lease until stopped. Threads exchange plain values only."""

    def __init__(
        self, lease: Lease, session_lock: SessionLock, *, stalled_after_s: float | None
    ) -> None:
        self._lease = lease
        self._session_lock = session_lock
        self._stalled_after_s = stalled_after_s
        self._interval_s = min(lease.ttl_s, stalled_after_s or lease.ttl_s) / HEARTBEATS_A_TTL
        self._is_stopped = WakeEvent()
        self._thread: threading.Thread | None = None
        self._taking: threading.Thread | None = None
        self._declared: int | None = None
        self._no_sooner_than = elapsed_s()
        self._problems: deque[str] = deque()
        self._deadline = self._next_at = self._changed_at = elapsed_s()
        self._seen: tuple[int, int] | None = None
        self.verdict: Cause | None = None  # lost or stalled, as heartbeats show

    @property
    def deadline(self) -> float:
        """One TTL after the last acknowledged heartbeat was sent, on `elapsed_s`'s clock."""
        return self._deadline

    @property
    def has_run_out(self) -> bool:
        """Whether the lease may have ended: no heartbeat was acknowledged within a TTL."""
        return elapsed_s() >= self._deadline

    def renew(self) -> None:
        """Send one heartbeat in this thread. Raises what `Lease.heartbeat` raises."""
        sent_at = elapsed_s()
        number = self._session_lock.number
        renewal = self._lease.heartbeat(session_lock=number)
        self._declared = number
        if number == self._session_lock.number:
            self._session_lock.settle()
        self._deadline = sent_at + self._lease.ttl_s
        self._next_at = sent_at + self._interval_s
        self._judge(renewal, sent_at)

    def start(self, on_renewed: Callable[[float], object]) -> None:
        """Renew from now on, in a thread, which reports each new deadline to `on_renewed`."""
        self._next_at = min(self._next_at, elapsed_s() + FIRST_S)
        self._thread = threading.Thread(target=self._loop, args=(on_renewed,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop renewing; wait for a heartbeat under way, up to a limit."""
        if self._is_stopped.is_set():
            return
        self._is_stopped.set()
        if self._thread is not None:
            self._thread.join(STOP_LIMIT_S)
            if self._thread.is_alive():
                self._problems.append(f"a heartbeat has had no answer for {STOP_LIMIT_S:g} s")
        if self._taking is not None:
            self._taking.join(STOP_LIMIT_S)

    def problems(self) -> list[str]:
        """The problems since the last call."""
        return [self._problems.popleft() for _ in range(len(self._problems))]

    def _loop(self, on_renewed: Callable[[float], object]) -> None:
        while self.verdict is None and self._is_due():
            if self.has_run_out:  # this process was suspended: the supervision kills first of all
                return
            tried_at = elapsed_s()
            try:
                self.renew()
                on_renewed(self._deadline)
            except LeaseLost:
                self.verdict = Cause.LOST
            except Exception as error:  # noqa: BLE001 - reported; the deadline decides
                self._problems.append(f"{type(error).__name__}: {error}")
                self._next_at = self._no_sooner_than = tried_at + min(self._interval_s, RETRY_S)

    def _is_due(self) -> bool:
        """Wait for the next heartbeat, which is due at once where the session lock differs from the
        declared one: that lock was lost, and this is a sign of life. False once this is stopped."""
        while (left_s := self._next_at - elapsed_s()) > 0:
            if self._session_lock.number is None:
                left_s = min(left_s, LOCK_S if self._takes_lock() else RETRY_S)
            if self._is_stopped.wait_with(self._session_lock.file, left_s):
                return False
            self._session_lock.is_lost()
            if self._session_lock.take_notice() is not None and self._is_stopped.wait(HINT_REST_S):
                return False
            is_other = self._session_lock.number != self._declared
            if is_other and elapsed_s() >= self._no_sooner_than:
                return True
        return not self._is_stopped.is_set()

    def _takes_lock(self) -> bool:
        """Take another session lock beside the heartbeats, if that is due; return whether that is
        still under way."""
        if self._taking is not None and self._taking.is_alive():
            return True
        if not self._session_lock.is_due:
            return False
        self._taking = threading.Thread(target=self._session_lock.take, daemon=True)
        self._taking.start()
        return True

    def _judge(self, renewal: Renewal, sent_at: float) -> None:
        """Judge progress by what the server has seen, so that a suspended worker blames no run."""
        found = (renewal.ordinal, renewal.checkpoint_count)
        if found != self._seen:
            self._seen, self._changed_at = found, sent_at
        elif self._stalled_after_s and sent_at - self._changed_at >= self._stalled_after_s:
            self.verdict = Cause.STALLED
