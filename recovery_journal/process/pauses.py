"""Pauses of loops that look again and again, in many processes."""

import random
from typing import Final

SHORTEST_SHARE: Final = 0.75


def spread(pause_s: float) -> float:
    """Not quite as long, by chance: those that began together, after an outage or at a start, do
    not stay in step."""
    return pause_s * random.uniform(SHORTEST_SHARE, 1)  # noqa: S311 - a lot
