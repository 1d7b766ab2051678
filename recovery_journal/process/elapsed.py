"""The clock by which a worker measures its own leases; the database's clock decides about those of
others."""

import time
from typing import Final

# The monotonic clock stops while a host sleeps, and the database's does not.
_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def elapsed_s() -> float:
    """Seconds since some moment in the past: the same for all processes of a host, never set back,
    and running while the host sleeps."""
    return time.clock_gettime(_CLOCK)
