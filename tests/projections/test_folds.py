"""The folds of the built-in projections, over any log that real commands can make."""

from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from recovery_journal.domain.errors import FoldFailed
from recovery_journal.domain.events import (
    AnyEvent,
    Dispatched,
    LeaseExpired,
    ReadyForDispatch,
)
from recovery_journal.domain.recovery import Recovery, Stage, evolve
from recovery_journal.projections.catalog import BUILT_IN
from recovery_journal.projections.dispatch_ready import (
    DISPATCH_READY,
    LIST_EVENTS,
    DispatchReady,
    DispatchReadyRow,
    LeftBecause,
)
from recovery_journal.projections.projection import Fold, Projection, Record
from recovery_journal.projections.recovery_contexts import RECOVERY_CONTEXTS
from recovery_journal.projections.workers import WORKERS
from tests.domain.histories import (
    ended,
    granted,
    history,
    quarantined,
    recovered,
    resumed,
)
from tests.projections.logs import BEGINNING, logs, random_log, rows_of

every_projection = pytest.mark.parametrize("projection", BUILT_IN, ids=lambda it: it.name)


class Table:
    """A table's part in folding: newest rows by key, and all rows by primary key."""

    def __init__(self, projection: Projection[Any]) -> None:
        self.projection = projection
        self.rows: dict[tuple[Any, ...], Any] = {}

    def apply(self, records: list[Record]) -> None:
        newest = {row_key[0]: row for row_key, row in sorted(self.rows.items())}
        fold = Fold(self.projection, newest)
        fold.add(records)
        for row in fold.changed():
            self.rows[self.projection.primary_key(row)] = row

    def sorted_rows(self) -> list[Any]:
        return [self.rows[key] for key in sorted(self.rows)]


@every_projection
@given(logs, st.data())
def test_batches_cut_anywhere_result_in_the_same_rows(
    projection: Projection[Any], log: list[Record], data: st.DataObject
) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(log)), max_size=5)))
    table = Table(projection)

    for start, end in zip([0, *cuts], [*cuts, len(log)], strict=True):
        table.apply(log[start:end])

    assert table.sorted_rows() == rows_of(projection, log)


@every_projection
@given(logs, st.data())
def test_records_that_come_again_change_nothing(
    projection: Projection[Any], log: list[Record], data: st.DataObject
) -> None:
    table = Table(projection)
    cut = data.draw(st.integers(0, len(log)))
    again = data.draw(st.integers(0, cut))

    table.apply(log[:cut])
    table.apply(log[again:cut])
    table.apply(log[again:])
    table.apply(log)

    assert table.sorted_rows() == rows_of(projection, log)


@given(logs)
def test_a_stream_keyed_row_does_not_depend_on_other_streams(log: list[Record]) -> None:
    projections: tuple[Projection[Any], ...] = (DISPATCH_READY, RECOVERY_CONTEXTS)
    for projection in projections:
        by_stream: list[Any] = []
        for attempt_id in sorted({record.event.originator_id for record in log}):
            stream = [record for record in log if record.event.originator_id == attempt_id]
            by_stream += rows_of(projection, stream)

        assert by_stream == rows_of(projection, log)


@given(logs)
def test_the_newest_context_is_the_one_that_the_attempt_gives(log: list[Record]) -> None:
    rows = {row.attempt_id: row for row in rows_of(RECOVERY_CONTEXTS, log)}

    for recovery in recoveries(log):
        if recovery.attempt_id not in rows:
            assert recovery.lost is None
            continue
        row = rows[recovery.attempt_id]
        assert row.stage == recovery.stage
        assert (row.run_id, row.kind) == (recovery.run_id, recovery.granted.kind)
        assert row.tenant == recovery.granted.tenant
        was_quarantined_unlost = row.lost_at is None and row.quarantined_at is not None
        assert row.fence == recovery.fence or (row.fence is None and was_quarantined_unlost)
        if recovery.reloaded is None:
            assert row.context() is None
        else:
            assert row.context() == recovery.context()


@given(logs)
def test_exactly_the_ready_attempts_are_on_the_list(log: list[Record]) -> None:
    active = [row.attempt_id for row in rows_of(DISPATCH_READY, log) if row.is_active]

    assert active == [it.attempt_id for it in recoveries(log) if it.stage is Stage.READY]


@given(logs)
def test_events_that_are_not_of_the_list_never_change_it(log: list[Record]) -> None:
    listed = [record for record in log if isinstance(record.event, LIST_EVENTS)]

    assert rows_of(DISPATCH_READY, listed) == rows_of(DISPATCH_READY, log)


@given(logs)
def test_an_entry_says_from_where_to_where_it_was_on_the_list(log: list[Record]) -> None:
    positions = {record.position: record.event for record in log}

    for row in rows_of(DISPATCH_READY, log):
        assert isinstance(positions[row.entered_position], ReadyForDispatch)
        if row.left_position is not None:
            assert row.left_position > row.entered_position
            assert row.left_at is not None
            was_dispatched = isinstance(positions[row.left_position], Dispatched)
            assert was_dispatched == (row.left_because is LeftBecause.DISPATCHED)


@given(logs)
def test_losses_are_counted_once_per_worker_and_reason(log: list[Record]) -> None:
    losses: dict[tuple[str, str], int] = {}
    for record in log:
        if isinstance(record.event, LeaseExpired):
            key = (record.event.lease.holder.worker_id, record.event.loss.value)
            losses[key] = losses.get(key, 0) + 1

    rows = rows_of(WORKERS, log)

    counted = {(row.worker_id, loss): n for row in rows for loss, n in row.losses.items()}
    assert counted == losses
    assert [row.lost_count for row in rows] == [sum(row.losses.values()) for row in rows]


def test_random_logs_reach_every_stage_and_every_event() -> None:
    chance = Random(7)

    log = [record for _ in range(200) for record in random_log(chance)]

    stages = {recovery.stage for _ in range(200) for recovery in recoveries(random_log(chance))}
    assert stages == set(Stage)
    missing = {of.__name__ for of in AnyEvent.__args__} - {type(r.event).__name__ for r in log}
    assert missing == set()


def test_an_attempt_that_was_never_lost_has_no_context() -> None:
    log = placed(*history(granted(), ended()))

    assert rows_of(RECOVERY_CONTEXTS, log) == []


def test_a_resumed_or_quarantined_attempt_that_was_never_lost_is_recovery_number_0() -> None:
    for happening in (resumed(kind="report", tenant="acme"), quarantined(recovery_no=0)):
        log = placed(*history(granted(), happening))

        (row,) = rows_of(RECOVERY_CONTEXTS, log)

        assert (row.attempt_id, row.recovery_no, row.worker_id) == ("a-1", 0, None)


def test_every_recovery_has_a_row_of_its_own_and_an_entry_of_its_own() -> None:
    log = placed(
        *history(
            granted(),
            *recovered(lost_epoch=1, recovery_no=1),
            *recovered(lost_epoch=3, recovery_no=2),
        )
    )

    contexts, entries = rows_of(RECOVERY_CONTEXTS, log), rows_of(DISPATCH_READY, log)

    assert [(row.recovery_no, row.lost_epoch) for row in contexts] == [(1, 1), (2, 3)]
    assert [(row.recovery_no, row.entered_version, row.is_active) for row in entries] == [
        (1, 5, False),
        (2, 10, False),
    ]


def test_the_phases_of_a_recovery_are_times_of_the_database() -> None:
    log = placed(*history(granted(), *recovered(lost_epoch=1, recovery_no=1)))

    (row,) = rows_of(RECOVERY_CONTEXTS, log)

    at = [record.recorded_at for record in log[1:]]
    phases = [row.lost_at, row.reloaded_at, row.replayed_at, row.made_ready_at, row.dispatched_at]
    assert phases == at


class TakesAway(DispatchReady):
    def fold(self, row: DispatchReadyRow | None, record: Record) -> DispatchReadyRow | None:
        return None if row else super().fold(row, record)


class ForgetsTheVersion(DispatchReady):
    def fold(self, row: DispatchReadyRow | None, record: Record) -> DispatchReadyRow | None:
        return replace(row, priority=1) if row else super().fold(row, record)


class MixesKeysUp(DispatchReady):
    def fold(self, row: DispatchReadyRow | None, record: Record) -> DispatchReadyRow | None:
        after = super().fold(row, record)
        return replace(after, attempt_id="a-2") if row and after else after


class Raises(DispatchReady):
    def fold(self, row: DispatchReadyRow | None, record: Record) -> DispatchReadyRow | None:
        return super().fold(row, record) if row is None else row.no_such_field  # type: ignore[attr-defined]  # it raises


class GoesBack(DispatchReady):
    def fold(self, row: DispatchReadyRow | None, record: Record) -> DispatchReadyRow | None:
        after = super().fold(row, record)
        return replace(after, entered_version=1) if row and after else after


@pytest.mark.parametrize(
    "wrong", [TakesAway(), ForgetsTheVersion(), MixesKeysUp(), GoesBack(), Raises()]
)
def test_a_wrong_fold_is_reported_and_the_rows_before_it_are_kept(
    wrong: DispatchReady,
) -> None:
    log = placed(*history(granted(), *recovered(lost_epoch=1, recovery_no=1)))
    fold = Fold(wrong, {})

    with pytest.raises(FoldFailed, match=r"position 6 .*'dispatched' \(attempt 'a-1'\)") as raised:
        fold.add(log)

    assert (raised.value.position, raised.value.tag) == (6, "dispatched")
    assert [row.is_active for row in fold.changed()] == [True]


def recoveries(log: list[Record]) -> list[Recovery]:
    """The attempts, as the aggregate shows them, in order of id."""
    found: dict[str, Recovery] = {}
    for record in log:
        attempt_id = record.event.originator_id
        found[attempt_id] = evolve(found.get(attempt_id), record.event)
    return [found[attempt_id] for attempt_id in sorted(found)]


def placed(*events: AnyEvent) -> list[Record]:
    """The events, at positions from 1 up."""
    return [
        Record(event, position, BEGINNING.replace(microsecond=position))
        for position, event in enumerate(events, start=1)
    ]
