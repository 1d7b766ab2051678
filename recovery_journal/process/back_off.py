"""Pauses of loops that poll, and of calls that are retried."""

import random
from typing import Final

SHORTEST_SHARE: Final = 0.75

SHORTEST_PAUSE_S: Final = 0.05
LONGEST_PAUSE_S: Final = 1.0

BRIEF: Final = (0.001, 0.02)
"""Shortest and longest pause of waits that mostly last some milliseconds."""
FOLLOWING: Final = (0.01, 0.25)
"""Those of loops that follow the log."""

LONGEST_OUTAGE_PAUSE_S: Final = 5.0
"""The longest pause of a loop whose server cannot be reached."""


class BackOff:
    """Pauses that double, from the shortest to the longest, each with jitter.

    Call `reset` whenever there was something to do.
    """

    def __init__(
        self, shortest_s: float = SHORTEST_PAUSE_S, longest_s: float = LONGEST_PAUSE_S
    ) -> None:
        self._shortest_s = self._next_s = shortest_s
        self._longest_s = longest_s

    def pause_s(self, longest_s: float | None = None) -> float:
        """The next pause in seconds; `longest_s` replaces the usual limit this time."""
        pause_s = min(self._next_s, self._longest_s if longest_s is None else longest_s)
        self._next_s = pause_s * 2
        return with_jitter(pause_s)

    def is_beyond(self, longest_s: float) -> bool:
        """Whether the next pause has reached this limit, and the limit cuts it."""
        return self._next_s > longest_s

    def reset(self) -> None:
        """Start from the shortest pause again."""
        self._next_s = self._shortest_s


def with_jitter(pause_s: float) -> float:
    """Shorten a pause at random, so that processes that began together, after an outage or at a
    start, do not stay in step."""
    return pause_s * random.uniform(SHORTEST_SHARE, 1)  # noqa: S311 - jitter
