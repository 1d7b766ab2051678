"""The clock by which a worker measures its own leases; the database's decides about others'."""

import time
from typing import Final

# A host that sleeps stops its monotonic clock, and the database's goes on.
_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def elapsed_s() -> float:
    """Seconds since some moment in the past: the same for all processes of a host, never set
    back, and not standing still while the host sleeps."""
    return time.clock_gettime(_CLOCK)
