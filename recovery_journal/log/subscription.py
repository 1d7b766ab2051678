"""The library's subscription, by polling: a transaction that appends sends nothing."""

import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from eventsourcing.persistence import Notification, Subscription

from recovery_journal.process.back_off import BackOff

if TYPE_CHECKING:
    from recovery_journal.log.recorder import JournalRecorder

PAGE_LIMIT: Final = 500
SHORTEST_PAUSE_S: Final = 0.002
LONGEST_PAUSE_S: Final = 0.25


class PollingSubscription(Subscription["JournalRecorder"]):
    """Settled events after a position, as they are appended, until `stop` - or, with `timeout_s`,
    until none came for that long.

    The pause between two polls doubles while no event comes. `stop` is callable from any thread.
    """

    def __init__(
        self,
        recorder: "JournalRecorder",
        gt: int | None = None,
        topics: Sequence[str] = (),
        *,
        timeout_s: float | None = None,
    ) -> None:
        super().__init__(recorder=recorder, gt=gt, topics=topics)
        self._stopped = threading.Event()
        self._waiting: deque[Notification] = deque()
        self._position = gt or 0
        self._timeout_s = timeout_s

    def stop(self) -> None:
        """End the iteration, also during a wait."""
        super().stop()
        self._stopped.set()

    def __next__(self) -> Notification:
        give_up_at = None if self._timeout_s is None else time.monotonic() + self._timeout_s
        back_off = BackOff(SHORTEST_PAUSE_S, LONGEST_PAUSE_S)
        while not self._stopped.is_set():
            if self._waiting:
                return self._waiting.popleft()
            if self._pull():
                continue
            if give_up_at is not None and time.monotonic() >= give_up_at:
                break
            self._stopped.wait(back_off.pause_s())
        raise StopIteration

    def _pull(self) -> bool:
        """Fetch a page; return whether there was one. The position is the end of the examined
        range, not the last event that matches: otherwise every poll would read the same events
        again."""
        page = self._recorder.select_notifications(
            self._position, PAGE_LIMIT, inclusive_of_start=False
        )
        if page:
            self._position = page[-1].id
        self._waiting.extend(
            event for event in page if not self._topics or event.topic in self._topics
        )
        return bool(page)
