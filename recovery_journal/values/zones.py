"""Time zones of datetimes and times: a fixed offset with an optional name, or a ZoneInfo key."""

from datetime import timedelta, timezone, tzinfo
from pickle import PicklingError
from typing import Any, TypeAlias
from zoneinfo import ZoneInfo

from recovery_journal.values.refusals import CannotRead, CannotWrite, type_name

OffsetForm: TypeAlias = list[int | str]
"""Days, seconds and microseconds of the offset, then the name if there is one."""

ZoneForm: TypeAlias = str | OffsetForm | None


def zone_form(zone: tzinfo | None) -> ZoneForm:
    """Map a time zone to plain data. Raises `CannotWrite` for other classes of time zones."""
    if zone is None:
        return None
    if type(zone) is timezone:
        offset, *name = zone.__getinitargs__()  # type: ignore[attr-defined]  # pickle's protocol
        if type(offset) is not timedelta:
            raise CannotWrite(f"in a time zone whose offset is a {type_name(offset)}")
        return [offset.days, offset.seconds, offset.microseconds, *name]
    if type(zone) is ZoneInfo:
        return _key_of(zone)
    raise CannotWrite(f"in the time zone of a {type_name(zone)}")


def zone_of(form: ZoneForm) -> tzinfo | None:
    """Rebuild the time zone. Raises `CannotRead` for a key that is not known here."""
    if form is None:
        return None
    if isinstance(form, str):
        try:
            return ZoneInfo(form)
        except Exception as error:
            # A fault of this machine's time zone data is no damage of the value.
            raise CannotRead(f"the time zone {form!r}, which is not known here") from error
    days, seconds, microseconds, *name = form
    offset = timedelta(days, seconds, microseconds)  # type: ignore[arg-type]  # a str is refused
    return timezone(offset, *name)  # type: ignore[arg-type]  # likewise


def _key_of(zone: ZoneInfo) -> str:
    """Return the key. A zone from `ZoneInfo.from_file` may have data that its key does not name;
    pickle refuses exactly these zones. One from `ZoneInfo.no_cache` is another object than the one
    that a reader gets for its key, and arithmetic checks whether two datetimes share one object."""
    try:
        arguments: Any = zone.__reduce__()[1]
    except PicklingError:
        raise CannotWrite("in a time zone read from a file") from None
    _key, is_cached = arguments
    if not is_cached:
        raise CannotWrite("in a time zone made by ZoneInfo.no_cache")
    if type(zone.key) is not str:
        raise CannotWrite("in a time zone without a key")
    return zone.key
