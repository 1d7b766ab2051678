"""A time that cannot be computed with sets its own attempt aside, and blocks no query."""

from collections.abc import Callable
from typing import Any

import pytest

import recovery_journal as rj
from recovery_journal.domain.errors import CorruptEvent, RowsUnreadable
from recovery_journal.monitoring.projection_status import ProjectionState
from tests.rules.forgeries import LEGIBLE, TIMELESS, forge
from tests.rules.scenes import change, held, make_ready, report

LOOKS: dict[str, Callable[[rj.Journal], Any]] = {
    "status": rj.Journal.status,
    "dispatch_ready": rj.Journal.dispatch_ready,
    "contexts": rj.Journal.contexts,
    "check": rj.Journal.check,
}
ROWS = {
    "ready before year 1": "UPDATE projection_dispatch_ready SET ready_at = '0044-03-15 BC'",
    "ready after year 9999": "UPDATE projection_dispatch_ready SET ready_at = '20000-01-01'",
    "ready never": "UPDATE projection_dispatch_ready SET ready_at = 'infinity'",
    "ready ever": "UPDATE projection_dispatch_ready SET ready_at = '-infinity'",
    "deferred for ever": "UPDATE projection_dispatch_ready SET not_before = 'infinity'",
    "expired before year 1": "UPDATE projection_recovery_contexts SET expires_at = '0044-03-15 BC'",
    "lost never": "UPDATE projection_recovery_contexts SET lost_at = 'infinity'",
    "refused never": (
        "UPDATE projection_workers SET last_refused_at = 'infinity', refused_write_count = 1"
    ),
    "seen before year 1": "UPDATE projection_workers SET last_seen_at = '0044-03-15 BC'",
    "a moment before year 1": "UPDATE projection_moments SET latest_at = '0044-03-15 BC'",
}

timeless = pytest.mark.parametrize("kind", TIMELESS)


@timeless
def test_an_event_with_such_a_time_stops_projections_and_no_query_of_them(
    damaged: rj.Journal, kind: str
) -> None:
    held(damaged, "a-1")
    make_ready(damaged, "b-1")
    position = forge(damaged, "a-1", kind)

    rj.Follower(damaged).catch_up(10)

    assert [row.attempt_id for row in damaged.dispatch_ready()] == ["b-1"]
    assert [row.attempt_id for row in damaged.contexts()] == ["b-1"]
    stopped = [one for one in damaged.status().projections if not one.is_inline]
    assert {one.state for one in stopped} == {ProjectionState.STOPPED}
    assert all(f"position {position}" in str(one.error) for one in stopped)
    with pytest.raises(CorruptEvent, match=f"position {position}"):
        damaged.rebuild(process_count=1)


@timeless
def test_a_skip_takes_everybody_past_an_event_with_such_a_time(
    damaged: rj.Journal, kind: str
) -> None:
    held(damaged, "a-1")
    make_ready(damaged, "b-1")
    position = forge(damaged, "a-1", kind)
    rj.Follower(damaged).catch_up(10)

    damaged.skip(position, by="on-call", reason="forged")
    rj.Follower(damaged).catch_up(10)

    assert all(one.is_right for one in damaged.check())
    assert {one.state for one in damaged.status().projections} == {ProjectionState.FOLLOWING}
    assert damaged.status().delays == []


@pytest.mark.parametrize("kind", LEGIBLE)
def test_every_event_that_can_be_read_can_be_shown(damaged: rj.Journal, kind: str) -> None:
    held(damaged, "a-1")
    make_ready(damaged, "b-1")
    forge(damaged, "a-1", kind)
    rj.Follower(damaged).catch_up(10)

    for look in LOOKS.values():
        assert look(damaged) is not None
    assert damaged.rebuild(process_count=1).event_count > 0


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("look", LOOKS)
def test_a_row_with_such_a_time_is_named_with_what_makes_it_again(
    damaged: rj.Journal, row: str, look: str
) -> None:
    make_ready(damaged, "b-1")
    rj.Follower(damaged).catch_up(10)
    assert change(damaged, ROWS[row]) > 0

    try:
        LOOKS[look](damaged)
    except RowsUnreadable as error:
        assert f"recovery-journal rebuild {error.projection}" in str(error)  # noqa: PT017 - some looks need no such row
    damaged.rebuild(process_count=1)

    assert LOOKS[look](damaged)


def test_a_lease_row_with_such_a_time_holds_up_no_other(damaged: rj.Journal) -> None:
    leases = [held(damaged, attempt_id, worker_id="w-1") for attempt_id in ("a-1", "a-2", "a-3")]
    change(damaged, "UPDATE leases SET granted_at = '9999-06-01' WHERE attempt_id = 'a-2'")

    swept = {one.attempt_id: one for one in report(damaged, leases[0])}

    assert [swept[attempt_id].is_ready for attempt_id in ("a-1", "a-2", "a-3")] == [
        True,
        False,
        True,
    ]
    assert "cannot accept the lease of attempt 'a-2': found the time 9999-06-01" in str(
        swept["a-2"].error
    )
