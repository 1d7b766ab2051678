"""A user's class that is no projection is refused before it has a table."""

from datetime import datetime
from typing import Any

import pytest

import recovery_journal as rj
from recovery_journal.domain.errors import FoldFailed
from recovery_journal.read_models.schema import catalogue
from tests.bad_input.anything import Nowhere, cyclic
from tests.bad_input.scene import assert_refusal
from tests.rules.scenes import held


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


class WorthlessError(Exception):
    def __init__(self, *, is_mute: bool) -> None:
        self._is_mute = is_mute

    def __str__(self) -> str:
        if self._is_mute:
            raise RuntimeError("no word")
        return "\0\ud800" + "x" * 100_000


@pytest.mark.parametrize("is_mute", [True, False], ids=["mute", "wordy"])
def test_a_fold_that_raises_something_worthless_stops_its_projection_alone(
    server_dsn: str, schema: str, *, is_mute: bool
) -> None:
    def fold(*_given: object) -> None:
        raise WorthlessError(is_mute=is_mute)

    with rj.open(server_dsn, schema=schema, projections=[made(fold=fold)]) as journal:
        held(journal)
        problems: list[Exception] = []
        rj.Follower(journal, on_problem=problems.append).step()

        [failed] = problems
        assert_refusal(failed)
        assert len(str(failed)) < 3_000
        states = {it.name: it.state for it in journal.status().projections}
        assert (states["own_one"], states["workers"]) == ("stopped", "following")
        with pytest.raises(FoldFailed):
            journal.rebuild(["own_one"], process_count=1)


UNFIT: dict[str, Any] = {
    "an object": object(),
    "65 bits": 2**64,
    "a surrogate": "\ud800",
    "text for a number": "one",
    "NaN for a number": float("nan"),
    "a cycle": cyclic(),
    "a class": int,
    "a complex number": 1j,
    "a time zone that raises": datetime(2031, 1, 1, tzinfo=Nowhere()),
}


@pytest.mark.parametrize("value", UNFIT)
def test_a_row_that_no_table_can_hold_stops_its_projection_alone(
    server_dsn: str, schema: str, value: str
) -> None:
    def fold(_self: object, _row: object, record: rj.Record) -> OneRow:
        return OneRow(attempt_id=record.event.originator_id, version=1, count=UNFIT[value])

    with rj.open(server_dsn, schema=schema, projections=[made(fold=fold)]) as journal:
        held(journal)
        problems: list[Exception] = []
        rj.Follower(journal, on_problem=problems.append).step()

        [failed] = problems
        assert_refusal(failed)
        states = {it.name: it.state for it in journal.status().projections}
        assert (states["own_one"], states["workers"]) == ("stopped", "following")
        for read_by in (
            lambda: journal.rebuild(["own_one"], process_count=1),
            lambda: journal.check(["own_one"]),
        ):
            try:
                read_by()
            except rj.RecoveryJournalError as error:
                assert_refusal(error)
