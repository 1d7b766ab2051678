"""What a number or a time in an event must be: one that a column holds and all read alike.

They bind what is decoded. What is made in the program was checked at its door.
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
time added or taken away, it is still a time to Python, to PostgreSQL and in JSON."""

Number: TypeAlias = Annotated[int, Meta(ge=SMALLEST_NUMBER, le=LARGEST_NUMBER)]
"""An integer of 64 bits."""

Moment: TypeAlias = Annotated[datetime, Meta(tz=True)]
"""A time with its offset; without one it would be another time on every machine. No annotation can
hold its bounds: `event_times` finds those of an event, which are checked when it is decoded.
"""

Seconds: TypeAlias = Annotated[float, Meta(ge=0, le=YEAR_S)]
"""A length of time, of at most a year."""


def is_computable(moment: datetime) -> bool:
    """Whether others can be computed from this time, in any zone."""
    return EARLIEST <= moment <= LATEST
