"""The changes that one event made to an attempt, field by field."""

from typing import Any, Final

import msgspec
from msgspec import Struct

from recovery_journal.cli.words import spaced
from recovery_journal.domain.events import RecoveryEvent, tag_of
from recovery_journal.domain.recovery import Recovery

# Fields that change with every event or never, and so carry no information.
UNSHOWN: Final = frozenset({"version", "attempt_id"})


class Change(Struct, frozen=True, kw_only=True):
    """One field before and after. An event that the attempt remembers is named, not repeated."""

    field: str
    before: Any
    after: Any


def changes(before: Recovery | None, after: Recovery) -> list[Change]:
    """The fields that differ; without a `before`, all that are set."""
    old = {} if before is None else fields(before)
    new = fields(after)
    return [
        Change(field=name, before=old.get(name), after=new.get(name))
        for name in {**old, **new}
        if old.get(name) != new.get(name) and name not in UNSHOWN
    ]


def fields(recovery: Recovery) -> dict[str, Any]:
    """The attempt as one flat list of fields; `holder.worker_id` is a field of a field."""
    flat: dict[str, Any] = {}
    for name in recovery.__struct_fields__:
        _put(flat, name, getattr(recovery, name))
    return flat


def _put(flat: dict[str, Any], name: str, value: object) -> None:
    if isinstance(value, RecoveryEvent):
        flat[name] = f"{spaced(tag_of(value))} (version {value.originator_version})"
    elif isinstance(value, Struct):
        for part in value.__struct_fields__:
            _put(flat, f"{name}.{part}", getattr(value, part))
    elif isinstance(value, frozenset):
        flat[name] = sorted(msgspec.to_builtins(value))
    else:
        flat[name] = msgspec.to_builtins(value)


def shown(value: object) -> str:
    """A field's value for a person."""
    match value:
        case None:
            return "none"
        case bool():
            return "yes" if value else "no"
        case list() | tuple():
            return ", ".join(shown(one) for one in value) or "none"
        case _:
            return str(value)
