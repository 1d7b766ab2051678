"""Limits how often the same thing is done, such as a report or a record of it."""

import time
from collections.abc import Hashable


class Throttle:
    """Lets each key pass once in an interval, and forgets keys whose interval is over.

    `is_due` has no effect: call `record` once the thing is done, so that a failure is retried at
    once.
    """

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._done_at: dict[Hashable, float] = {}

    def is_due(self, key: Hashable) -> bool:
        """Whether the interval since the last record of this key is over."""
        done_at = self._done_at.get(key)
        return done_at is None or time.monotonic() - done_at >= self._interval_s

    def record(self, key: Hashable) -> None:
        """Begin the key's interval."""
        kept = {key: at for key, at in self._done_at.items() if not self.is_due(key)}
        self._done_at = {**kept, key: time.monotonic()}
