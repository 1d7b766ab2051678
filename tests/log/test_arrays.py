"""A column's literal is read by the database as the values that it was made of."""

from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recovery_journal.postgres.arrays import array
from recovery_journal.postgres.database import Database

TEXT = st.text(st.characters(exclude_characters="\0", codec="utf-8"))
COLUMNS = st.one_of(
    st.tuples(st.just("text"), st.lists(TEXT)),
    st.tuples(st.just("text"), st.lists(st.none() | TEXT)),
    st.tuples(st.just("text"), st.lists(st.sampled_from(["NULL", "", '"', "\\", "{}", ","]))),
    st.tuples(st.just("bigint"), st.lists(st.integers(-(2**63), 2**63 - 1))),
    st.tuples(st.just("boolean"), st.lists(st.none() | st.booleans())),
    st.tuples(
        st.just("double precision"), st.lists(st.floats(allow_nan=False, allow_infinity=False))
    ),
)


def test_any_column_comes_back_as_it_was(database: Database) -> None:
    @settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None)
    @given(COLUMNS)
    def comes_back(column: tuple[str, list[object]]) -> None:
        kind, values = column
        assert read(database, kind, values) == values

    comes_back()


@pytest.mark.parametrize("count", [1, 2])
def test_a_time_comes_back_as_it_was(database: Database, count: int) -> None:
    values: list[object] = [datetime(2026, 2, 3, 4, 5, 6, 789, tzinfo=UTC)] * count

    assert read(database, "timestamptz", values) == values


def read(database: Database, kind: str, values: list[object]) -> object:
    with database.cursor() as cursor:
        query = f"SELECT %(values)s::{kind}[] AS found"
        row = cursor.execute(query.encode(), {"values": array(values)}).fetchone()
    assert row is not None
    return row["found"]
