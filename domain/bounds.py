"""What a number or a time in an event must be: one that a column holds and all read alike.

They bind what is decoded. What is made in the program was checked at its door.
"""

from datetime import datetime
from typing import Annotated, Final, TypeAlias

from msgspec import Meta

SMALLEST_NUMBER: Final = -(2**63)
LARGEST_NUMBER: Final = 2**63 - 1

Number: TypeAlias = Annotated[int, Meta(ge=SMALLEST_NUMBER, le=LARGEST_NUMBER)]
"""An integer of 64 bits."""

Moment: TypeAlias = Annotated[datetime, Meta(tz=True)]
"""A time with its offset; without one it would be another time on every machine."""
