"""The faults of calls to the server: drawn from a seed, or given by hand.

Whether call number n meets a fault depends on the seed and on n alone, so that a run in which some
faults are left out still meets the others.
"""

from collections.abc import Callable, Mapping
from enum import StrEnum
from itertools import count
from random import Random
from typing import Final, NamedTuple

from recovery_journal.domain.errors import InvalidInput


class FaultKind(StrEnum):
    """A kind of fault. All but the last three concern the one process whose call it is."""

    CRASH_BEFORE = "crash-before"
    """The process dies; the server never hears of the call."""
    CRASH_AFTER = "crash-after"
    """The process dies once the server has done what it was asked to."""
    LOST_CALL = "lost-call"
    """The connection is cut before the server hears of the call."""
    LOST_REPLY = "lost-reply"
    """The connection is cut once the server has done what it was asked to."""
    LATE = "late"
    """The connection seems cut, but the call is under way and arrives some time later."""
    PAUSE = "pause"
    """The process stands still before its call, perhaps in the middle of a transaction."""
    CUT_ALL = "cut-all"
    """The server ends all sessions of the process, that of its session lock too."""
    RESTART = "restart"
    """The server goes away with all its sessions, and comes back."""
    CLOCK = "clock"
    """The server's clock jumps, forwards or backwards."""
    DAMAGE = "damage"
    """The newest checkpoint of a run is damaged, or deleted."""


LIKELIEST: Final = {
    FaultKind.CRASH_BEFORE: 0.006,
    FaultKind.CRASH_AFTER: 0.006,
    FaultKind.LOST_CALL: 0.008,
    FaultKind.LOST_REPLY: 0.015,
    FaultKind.LATE: 0.01,
    FaultKind.PAUSE: 0.01,
    FaultKind.CUT_ALL: 0.004,
    FaultKind.RESTART: 0.001,
    FaultKind.CLOCK: 0.001,
    FaultKind.DAMAGE: 0.002,
}
"""The highest share of calls that meet each kind; a seed has some of the kinds, each up to this."""


class Fault(NamedTuple):
    """A fault at a call, and how severe it is, from 0 to 1: how long, or how far."""

    kind: FaultKind
    severity: float


class SeededFaults:
    """The faults of a seed: some of the kinds, each with a rate of its own."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        mix = Random(f"mix {seed}")
        self._rates = {
            kind: mix.random() * highest
            for kind, highest in LIKELIEST.items()
            if mix.random() < 0.6
        }

    def at(self, call_no: int) -> Fault | None:
        """The fault at this call."""
        draw = Random(f"fault {self._seed} {call_no}")
        left = draw.random()
        for kind, rate in self._rates.items():
            left -= rate
            if left < 0:
                return Fault(kind, draw.random())
        return None


class GivenFaults:
    """Faults at calls that somebody has chosen."""

    def __init__(self, faults: Mapping[int, Fault]) -> None:
        self._faults = faults

    def at(self, call_no: int) -> Fault | None:
        """The fault at this call."""
        return self._faults.get(call_no)


Faults = SeededFaults | GivenFaults


def written(faults: Mapping[int, Fault]) -> str:
    """Faults as `--faults` takes them: call:kind:severity, separated by commas."""
    parts = (f"{no}:{fault.kind}:{fault.severity!r}" for no, fault in sorted(faults.items()))
    return ",".join(parts) or "none"


def read(text: str) -> dict[int, Fault]:
    """The faults that `written` wrote. Raises `InvalidInput`."""
    if text == "none":
        return {}
    try:
        parts = [part.split(":") for part in text.split(",")]
        return {int(no): Fault(FaultKind(kind), float(severity)) for no, kind, severity in parts}
    except ValueError:
        raise InvalidInput(
            "the faults",
            found=repr(text),
            needed="call:kind:severity,… as a failed run prints them, or none",
            do="copy the command that the failed run printed",
        ) from None


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
