"""Heartbeats for one lease, from a thread of their own: a server that does not answer must not
keep the worker from killing its child in time.

The same thread watches over the worker's session lock meanwhile, and declares it with each
heartbeat. A lost one is taken anew in a third thread: connecting may take longer than a TTL.
"""

import threading
from collections.abc import Callable
from enum import StrEnum
from queue import Empty, SimpleQueue
from typing import Final

from recovery_journal.domain.errors import LeaseLost
from recovery_journal.store.lease import Lease
from recovery_journal.store.writes import Renewal
from recovery_journal.worker.elapsed import elapsed_s
from recovery_journal.worker.session_lock import SessionLock
from recovery_journal.worker.wake_event import WakeEvent

HEARTBEATS_A_TTL: Final = 3
AGAIN_S: Final = 0.25  # after a heartbeat that nobody answered
LOCK_S: Final = 0.05  # between looks whether there is a session lock again
HINT_REST_S: Final = 0.05  # a worker at work needs no calls: they only have to be read
FIRST_S: Final = 0.5  # by then it has a connection, should it have to show a sign of life at once
STOP_LIMIT_S: Final = 5.0


class Verdict(StrEnum):
    """Why a child must not go on, as heartbeats tell it."""

    LOST = "lost"
    STALLED = "stalled"


class Keeper:
    """Renews a lease until stopped. Between the threads pass plain values only."""

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
        self._problems: SimpleQueue[str] = SimpleQueue()
        self._deadline = self._next_at = self._changed_at = elapsed_s()
        self._seen: tuple[int, int] | None = None
        self.verdict: Verdict | None = None

    @property
    def deadline(self) -> float:
        """One TTL after the last acknowledged heartbeat was sent, on `elapsed_s`'s clock."""
        return self._deadline

    @property
    def has_run_out(self) -> bool:
        """Whether nobody can say any more that the lease still holds."""
        return elapsed_s() >= self._deadline

    def renew(self) -> None:
        """One heartbeat, here and now. Raises what `Lease.heartbeat` raises."""
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
        """Renew from now on, in a thread, which passes each new deadline on."""
        self._next_at = min(self._next_at, elapsed_s() + FIRST_S)
        self._thread = threading.Thread(target=self._go_on, args=(on_renewed,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Renew no more; a heartbeat under way is waited for, up to a limit."""
        if self._is_stopped.is_set():
            return
        self._is_stopped.set()
        if self._thread is not None:
            self._thread.join(STOP_LIMIT_S)
            if self._thread.is_alive():
                self._problems.put(f"a heartbeat has had no answer for {STOP_LIMIT_S:g} s")
        if self._taking is not None:
            self._taking.join(STOP_LIMIT_S)

    def problems(self) -> list[str]:
        """What went wrong since the last time this was asked."""
        found = []
        while True:
            try:
                found.append(self._problems.get_nowait())
            except Empty:
                return found

    def _go_on(self, on_renewed: Callable[[float], object]) -> None:
        while self.verdict is None and self._is_due():
            if self.has_run_out:  # this process was suspended: whoever watches kills first of all
                return
            asked_at = elapsed_s()
            try:
                self.renew()
                on_renewed(self._deadline)
            except LeaseLost:
                self.verdict = Verdict.LOST
            except Exception as error:  # noqa: BLE001 - said to whoever watches; the deadline decides
                self._problems.put(f"{type(error).__name__}: {error}")
                self._next_at = self._no_sooner_than = asked_at + min(self._interval_s, AGAIN_S)

    def _is_due(self) -> bool:
        """Wait for the next heartbeat, which is due at once where the session lock is another than
        was declared: it was lost, and this is a sign of life. False once this is stopped."""
        while (left_s := self._next_at - elapsed_s()) > 0:
            if self._session_lock.number is None:
                left_s = min(left_s, LOCK_S if self._takes_lock() else AGAIN_S)
            if self._is_stopped.wait_with(self._session_lock.file, left_s):
                return False
            self._session_lock.is_lost()
            if self._session_lock.heard() is not None and self._is_stopped.wait(HINT_REST_S):
                return False
            is_other = self._session_lock.number != self._declared
            if is_other and elapsed_s() >= self._no_sooner_than:
                return True
        return not self._is_stopped.is_set()

    def _takes_lock(self) -> bool:
        """Take another session lock beside the heartbeats, if that is due; whether it goes on."""
        if self._taking is not None and self._taking.is_alive():
            return True
        if not self._session_lock.is_due:
            return False
        self._taking = threading.Thread(target=self._session_lock.take, daemon=True)
        self._taking.start()
        return True

    def _judge(self, renewal: Renewal, sent_at: float) -> None:
        """Progress is what the server has seen, so a suspended worker blames nobody."""
        found = (renewal.ordinal, renewal.checkpoint_count)
        if found != self._seen:
            self._seen, self._changed_at = found, sent_at
        elif self._stalled_after_s and sent_at - self._changed_at >= self._stalled_after_s:
            self.verdict = Verdict.STALLED
