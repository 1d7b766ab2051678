"""Numbers, times and names in a form that a person reads easily at three in the morning."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

import typer

MINUTE_S: Final = 60
HOUR_S: Final = 3_600
DAY_S: Final = 86_400
DIGEST_LETTERS: Final = 8

SECONDS_OF_UNIT: Final = {"s": 1, "m": 60, "min": 60, "h": 3_600, "d": 86_400, "w": 604_800}
AGE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(s|min|m|h|d|w)")


def duration(seconds: float) -> str:
    """A length of time in at most two units: `340 ms`, `4.2 s`, `3 min 20 s`, `2 d 4 h`."""
    if seconds < 0:
        return f"-{duration(-seconds)}"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms" if seconds >= 0.001 or seconds == 0 else "< 1 ms"
    if seconds < MINUTE_S - 0.05:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    whole = round(seconds)
    if whole < HOUR_S:
        return f"{whole // MINUTE_S} min {whole % MINUTE_S:02d} s"
    if whole < DAY_S:
        return f"{whole // HOUR_S} h {whole % HOUR_S // MINUTE_S:02d} min"
    return f"{whole // DAY_S} d {whole % DAY_S // HOUR_S} h"


def between(start: datetime, end: datetime) -> str:
    """The time from `start` to `end`."""
    return duration((end - start).total_seconds())


def moment(at: datetime) -> str:
    """Date and time of day in UTC."""
    return f"{day(at)} {time_of_day(at)}"


def day(at: datetime) -> str:
    """The date in UTC."""
    return f"{_in_utc(at):%Y-%m-%d}"


def time_of_day(at: datetime) -> str:
    """The time of day in UTC, to the millisecond."""
    return f"{_in_utc(at):%H:%M:%S.%f}"[:-3]


def _in_utc(at: datetime) -> datetime:
    """The same time in UTC; at the calendar's ends, where UTC may have none, unchanged."""
    try:
        return at.astimezone(UTC)
    except OverflowError:
        return at


def recovery_name(attempt_id: str, recovery_no: int) -> str:
    """The n-th recovery of an attempt, `a-42#2`; before the first loss, the attempt alone."""
    return plain(f"{attempt_id}#{recovery_no}" if recovery_no else attempt_id)


def digest(value: str | None) -> str:
    """A digest's codec and first letters."""
    if not value:
        return "none"
    codec, colon, letters = value.partition(":")
    return f"{codec}{colon}{letters[:DIGEST_LETTERS]}" if colon else value[:DIGEST_LETTERS]


def plain(text: str) -> str:
    """Text that cannot command a terminal: unprintable characters are escaped."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in text
    )


def spaced(name: str) -> str:
    """A stored name with blanks: `lease-expired` and `crash_loop` for people."""
    return name.replace("-", " ").replace("_", " ")


def plural(count: int, thing: str, things: str = "") -> str:
    """`1 attempt`, `2 attempts`; `things` where the plural is not the noun with an s."""
    return f"{count:,} {thing if count == 1 else things or f'{thing}s'}"


def age(text: str) -> timedelta:
    """An age as a person types it: `30d`, `12h`, `90min`, `45s`, `2w`."""
    found = AGE.fullmatch(text.strip())
    if found is None:
        raise typer.BadParameter(f"{text!r} is no age; write it like 30d, 12h, 90min or 45s")
    try:
        return timedelta(seconds=float(found[1]) * SECONDS_OF_UNIT[found[2]])
    except OverflowError:
        raise typer.BadParameter(f"{text!r} is longer than time itself") from None
