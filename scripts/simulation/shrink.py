"""From all faults of a failed run to the few that it needs."""

from collections.abc import Callable, Mapping
from itertools import count
from typing import Final

from scripts.simulation.faults import Fault

MOST_TRIES: Final = 80

Fails = Callable[[Mapping[int, Fault]], bool]


def shrink(
    faults: Mapping[int, Fault], fails: Fails, *, most_tries: int = MOST_TRIES
) -> dict[int, Fault]:
    """Faults with which the run still fails, none of whose parts that were tried can be missed:
    halves first, then ever smaller pieces. `fails` runs the seed with faults of our choice."""
    left = dict(sorted(faults.items()))
    piece_size = max(1, len(left) // 2)
    tries = count(1)
    while left:
        is_smaller = False
        calls = list(left)
        for start in range(0, len(calls), piece_size):
            piece = set(calls[start : start + piece_size])
            fewer = {no: fault for no, fault in left.items() if no not in piece}
            if len(fewer) == len(left):
                continue
            if next(tries) > most_tries:
                return left
            if fails(fewer):
                left, is_smaller = fewer, True
        if piece_size == 1 and not is_smaller:
            return left
        piece_size = max(1, piece_size // 2)
    return left
