"""A class of the user's that is no projection is told so before it has a table."""

from typing import Any

import pytest

import recovery_journal as rj
from recovery_journal.following.projection_schema import catalogue
from tests.bad_input.scene import assert_refusal


class OneRow(rj.StreamRow, frozen=True, kw_only=True):
    count: int = 0


SOUND: dict[str, Any] = {
    "name": "own_one",
    "row_type": OneRow,
    "key_fields": ("attempt_id",),
    "fold": lambda _self, row, _record: row,
}
WRONG: dict[str, dict[str, Any]] = {
    "a number as name": {"name": 7},
    "no name": {"name": None},
    "a long name": {"name": "x" * 100},
    "no type of row": {"row_type": None},
    "a number as type of row": {"row_type": 7},
    "rows that are numbers": {"row_type": int},
    "rows of no known kind": {"row_type": rj.Record},
    "no key": {"key_fields": None},
    "an empty key": {"key_fields": ()},
    "a key as text": {"key_fields": "attempt_id"},
    "a key that no row has": {"key_fields": ("attempt_id", "day")},
    "a number as key": {"key_fields": (7,)},
    "a number as indexes": {"indexes": 7},
    "numbers as indexes": {"indexes": (7,)},
    "an index of what no row has": {"indexes": (rj.Index("day", ("day",)),)},
    "an index without a name": {"indexes": (rj.Index(7, ("count",)),)},  # type: ignore[arg-type]
    "an index of a number": {"indexes": (rj.Index("count", 7),)},  # type: ignore[arg-type]
    "an index of nothing": {"indexes": (rj.Index("count", ()),)},
    "an index while nothing": {"indexes": (rj.Index("count", ("count",), (), "day"),)},
    "a number as listing": {"listing": 7},
    "a listing without order": {"listing": rj.Listing(())},
    "a listing in the order of a number": {"listing": rj.Listing(7)},  # type: ignore[arg-type]
    "text as version": {"version": "1"},
    "a yes as version": {"version": True},
    "a version of 65 bits": {"version": 2**63},
    "version 0": {"version": 0},
    "a number as events": {"events": 7},
    "numbers as events": {"events": (int,)},
    "perhaps inline": {"is_inline": "perhaps"},
}


def made(**changes: Any) -> Any:
    """An instance of a class that says this; None is left out."""
    said = {name: value for name, value in {**SOUND, **changes}.items() if value is not None}
    return type("Own", (rj.Projection,), said)()


def test_a_sound_class_is_taken() -> None:
    own = made()

    assert catalogue([own])[-1] is own


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_class_is_refused(wrong: str) -> None:
    with pytest.raises(rj.InvalidInput) as refused:
        catalogue([made(**WRONG[wrong])])

    assert_refusal(refused.value)
