"""The bounds of numbers and times in events: a column can hold them and every reader reads them
alike.

They apply to decoded events. Values that the program makes itself were validated as arguments.
"""

from datetime import UTC, datetime
from typing import Annotated, Final, TypeAlias

from msgspec import Meta

from recovery_journal.domain.ranges import YEAR_S

SMALLEST_NUMBER: Final = -(2**63)
LARGEST_NUMBER: Final = 2**63 - 1

EARLIEST: Final = datetime(3, 1, 1, tzinfo=UTC)
LATEST: Final = datetime(9998, 1, 1, tzinfo=UTC)
"""More than a year from the ends of the calendar, 1 and 9999: in any zone, and with any length of
time added or subtracted, it is still a valid time in Python, PostgreSQL and JSON."""

Number: TypeAlias = Annotated[int, Meta(ge=SMALLEST_NUMBER, le=LARGEST_NUMBER)]
"""An integer of 64 bits."""

Moment: TypeAlias = Annotated[datetime, Meta(tz=True)]
"""A time with its offset; without one it would mean another time on every machine. No annotation
can hold its bounds: `event_times` finds the times of an event, which are validated when it is
decoded."""

Seconds: TypeAlias = Annotated[float, Meta(ge=0, le=YEAR_S)]
"""A length of time, of at most a year."""


def is_computable(moment: datetime) -> bool:
    """Whether other times can be computed from this one, in any zone."""
    return EARLIEST <= moment <= LATEST
