"""The loop that finds lost leases and recovers them. Any number of sweepers may run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Final

from recovery_journal import inputs
from recovery_journal.domain.errors import Retry
from recovery_journal.monitoring.quarantine_notifier import Hook
from recovery_journal.process.back_off import (
    LONGEST_OUTAGE_PAUSE_S,
    LONGEST_PAUSE_S,
    BackOff,
    with_jitter,
)
from recovery_journal.process.signals import running_beside, stopping_on_signals
from recovery_journal.recovery.sweep_result import SweepResult

if TYPE_CHECKING:
    from recovery_journal.journal import Journal

REST: Final = 10
"""The pause after a sweep that found nothing is this many times as long as the sweep. So many
sweepers that scan the leases of a large fleet, on a server with much other load, slow themselves
down."""


class Sweeper:
    """Sweeps until it is stopped: by `stop`, by its event, or by SIGTERM or SIGINT.

    Between two sweeps it polls the session locks of workers, and sweeps at once where one has
    ended. `on_swept` is called with the result for each attempt, `on_problem` with the error of
    each failed sweep: an unavailable server is reported and does not end the loop.

    `on_quarantine` is called for each quarantined attempt, at least once, in a thread of its own,
    so that recoveries never wait for it. Exceptions are reported to `on_problem`, and the hook is
    retried with back-off. `QuarantineCommand` makes such a hook of a command.
    """

    def __init__(
        self,
        journal: Journal,
        *,
        on_swept: Callable[[SweepResult], object] = lambda _swept: None,
        on_problem: Callable[[Retry], object] = lambda _problem: None,
        on_quarantine: Hook | None = None,
        longest_pause_s: float = LONGEST_PAUSE_S,
    ) -> None:
        inputs.having("journal", journal, "a Journal", "sweep", "watch_sessions")
        inputs.observer("on_swept", on_swept)
        if on_quarantine is not None:
            inputs.observer("on_quarantine", on_quarantine)
        inputs.observer("on_problem", on_problem)
        inputs.seconds("longest_pause_s", longest_pause_s)
        self._journal = journal
        self._on_swept = on_swept
        self._on_problem = on_problem
        self._on_quarantine = on_quarantine
        self._longest_pause_s = longest_pause_s
        self._stop = threading.Event()

    def stop(self) -> None:
        """End the loop after the current sweep."""
        self._stop.set()

    def run(self) -> None:
        """Sweep repeatedly. Pauses grow while there is nothing to do, up to 1 s, and while the
        server cannot be reached, up to 5 s."""
        back_off = BackOff(longest_s=self._longest_pause_s)
        with stopping_on_signals(self._stop), self._notifying():
            while not self._stop.is_set():
                begun = time.monotonic()
                try:
                    swept = self._journal.sweep()
                except Retry as problem:
                    self._on_problem(problem)
                    self._stop.wait(back_off.pause_s(LONGEST_OUTAGE_PAUSE_S))
                    continue
                for one in swept:
                    self._on_swept(one)
                rest_s = REST * (time.monotonic() - begun)
                if swept:
                    back_off.reset()
                    rest_s = 0.0
                self._watch(max(back_off.pause_s(), rest_s))

    def _notifying(self) -> AbstractContextManager[None]:
        """Within this context, a thread beside the sweeps calls the hook, if there is one."""
        if self._on_quarantine is None:
            return nullcontext()
        return running_beside(partial(self._notify, self._on_quarantine), stop=self._stop)

    def _notify(self, hook: Hook) -> None:
        while True:
            try:
                self._journal.notify_quarantines(hook, on_problem=self._on_problem)
            except Retry as problem:
                self._on_problem(problem)
            if self._stop.wait(with_jitter(LONGEST_PAUSE_S)):
                return

    def _watch(self, limit_s: float) -> None:
        """Poll the session locks until one ends, or until this time is over."""
        deadline = time.monotonic() + limit_s
        pause_s = 0.0
        while (left_s := deadline - time.monotonic()) > 0:
            if self._stop.wait(min(pause_s, left_s)):
                return
            try:
                pause_s = self._journal.watch_sessions()
            except Retry:  # the next sweep meets the same error, and reports it
                return
            if pause_s == 0:
                return
