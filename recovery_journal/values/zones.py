"""Time zones of datetimes and times: by a fixed offset, with or without a name, or by a key."""

from datetime import timedelta, timezone, tzinfo
from pickle import PicklingError
from typing import TypeAlias
from zoneinfo import ZoneInfo

from recovery_journal.values.refusals import CannotRead, CannotWrite, type_name

OffsetForm: TypeAlias = list[int | str]
"""Days, seconds and microseconds of the offset, and the name if it has one."""

ZoneForm: TypeAlias = str | OffsetForm | None


def zone_form(zone: tzinfo | None) -> ZoneForm:
    """A time zone as plain data. Raises `CannotWrite` for one that cannot be had again from it."""
    if zone is None:
        return None
    if type(zone) is timezone:
        offset, *name = zone.__getinitargs__()  # type: ignore[attr-defined]  # pickle's protocol
        return [offset.days, offset.seconds, offset.microseconds, *name]
    if type(zone) is ZoneInfo:
        return _key_of(zone)
    raise CannotWrite(f"in the time zone of a {type_name(zone)}")


def zone_of(form: ZoneForm) -> tzinfo | None:
    """The time zone again. Raises `CannotRead` for a key that is not known here."""
    if form is None:
        return None
    if isinstance(form, str):
        try:
            return ZoneInfo(form)
        except Exception as error:
            # Whatever is wrong with this machine's time zone data says nothing of the value.
            raise CannotRead(f"the time zone {form!r}, which is not known here") from error
    days, seconds, microseconds, *name = form
    offset = timedelta(days, seconds, microseconds)  # type: ignore[arg-type]  # a str is refused
    return timezone(offset, *name)  # type: ignore[arg-type]  # likewise


def _key_of(zone: ZoneInfo) -> str:
    """The key. A zone that was read from a file of the user's has data of its own, so that its
    key, if it has one, does not name it; as pickle knows."""
    try:
        zone.__reduce__()
    except PicklingError:
        raise CannotWrite("in a time zone read from a file") from None
    if type(zone.key) is not str:
        raise CannotWrite("in a time zone without a key")
    return zone.key
