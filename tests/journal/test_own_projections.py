"""A user's own projections are followed, rebuilt, checked and read like the built-in ones."""

import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import recovery_journal as rj
from recovery_journal.domain.errors import RowsUnreadable
from recovery_journal.monitoring.projection_status import ProjectionState
from tests.journal.projections_of_ones_own import (
    StepCounts,
    TenantRow,
    Tenants,
    TenantsOfOld,
    WideTenants,
)

OWN = (StepCounts(), Tenants())
STEP_COUNTS, TENANTS = OWN

Opening = Callable[..., rj.Journal]


@pytest.fixture
def opened(server_dsn: str, schema: str) -> Iterator[Opening]:
    """Opens the test's journal, as any number of programs."""
    journals: list[rj.Journal] = []

    def open_it(*projections: rj.Projection[Any], **options: Any) -> rj.Journal:
        journal = rj.open(server_dsn, schema=schema, projections=projections, **options)
        journals.append(journal)
        return journal

    yield open_it
    for journal in journals:
        journal.close()


def lose(journal: rj.Journal, *attempt_ids: str, tenant: str = "acme") -> None:
    for attempt_id in attempt_ids:
        journal.acquire(
            attempt_id=attempt_id, run_id=attempt_id, worker_id=f"w of {attempt_id}", tenant=tenant
        )
        journal.report_lost(worker_id=f"w of {attempt_id}", reason="gone")


def states(journal: rj.Journal) -> dict[str, ProjectionState]:
    return {one.name: one.state for one in journal.status().projections}


def position_of_last_loss(journal: rj.Journal, attempt_id: str) -> int:
    (entry,) = [
        it for it in journal.history(attempt_id) if isinstance(it.event, rj.events.LeaseExpired)
    ]
    return entry.position


# -- following, rebuilding, checking, reading ----------------------------------------------------


def test_own_projections_are_followed_with_the_built_in_ones(opened: Opening) -> None:
    journal = opened(*OWN)
    lose(journal, "a-1", "a-2")
    lose(journal, "b-1", tenant="corner")

    rj.Follower(journal).catch_up(30)

    assert [(row.tenant, row.lost_count) for row in journal.rows(TENANTS)] == [
        ("acme", 2),
        ("corner", 1),
    ]
    assert [row.event_count for row in journal.rows(STEP_COUNTS)] == [5, 5, 5]
    assert [one.is_right for one in journal.check()] == [True] * len(journal.projections)


def test_own_projections_are_rebuilt_and_checked_with_the_built_in_ones(opened: Opening) -> None:
    journal = opened(*OWN)
    lose(journal, "a-1", "a-2")
    with journal.database.cursor() as cursor:
        cursor.execute("INSERT INTO projection_tenants VALUES (9, 'nobody', 9)")
        cursor.execute("INSERT INTO projection_step_counts VALUES ('a-9', 9, 9)")
    wrong = {one.projection for one in journal.check() if not one.is_right}

    report = journal.rebuild()

    assert {"tenants", "step_counts"} <= wrong
    assert {one.projection for one in report.projections} == {it.name for it in journal.projections}
    assert all(one.is_right for one in journal.check())
    assert [row.tenant for row in journal.rows(TENANTS)] == ["acme"]


def test_rows_are_read_in_order_by_key_and_by_name(
    opened: Opening, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recovery_journal.monitoring.queries.PAGE_ROWS", 2)
    journal = opened(*OWN)
    lose(journal, "a-1", "a-2", "a-3", "a-4", "a-5")
    rj.Follower(journal).catch_up(30)

    everything = [row.attempt_id for row in journal.rows(STEP_COUNTS)]
    one_key = list(journal.rows(TENANTS, key="acme"))
    by_name = list(journal.rows("tenants"))

    assert everything == ["a-1", "a-2", "a-3", "a-4", "a-5"]
    assert by_name == one_key
    assert one_key == [
        TenantRow(position=position_of_last_loss(journal, "a-5"), tenant="acme", lost_count=5)
    ]
    assert list(journal.rows(TENANTS, key="acme' OR true")) == []


def test_rows_of_a_projection_that_the_journal_was_not_opened_with_are_refused(
    opened: Opening,
) -> None:
    journal = opened(STEP_COUNTS)

    for unknown in (TENANTS, "tenants"):
        with pytest.raises(rj.InvalidInput, match=r"found 'tenants'.*open the journal with"):
            journal.rows(unknown)


def test_a_projection_is_known_by_its_name_whatever_object_it_is(opened: Opening) -> None:
    journal = opened(Tenants())
    lose(journal, "a-1")
    journal.rebuild()

    assert [row.lost_count for row in journal.rows(Tenants())] == [1]


# -- opening -------------------------------------------------------------------------------------


def test_a_journal_that_is_there_takes_a_new_projection_in_from_the_beginning(
    opened: Opening,
) -> None:
    lose(opened(), "a-1")

    journal = opened(*OWN, must_exist=True)

    assert states(journal)["tenants"] is ProjectionState.FOLLOWING
    assert list(journal.rows(TENANTS)) == []
    rj.Follower(journal).catch_up(30)
    assert [row.lost_count for row in journal.rows(TENANTS)] == [1]


def test_many_programs_that_open_at_once_make_one_table(opened: Opening) -> None:
    opened()
    count = 6
    gate = threading.Barrier(count)
    errors: list[BaseException] = []

    def open_it() -> None:
        gate.wait()
        try:
            opened(*OWN)
        except BaseException as error:  # noqa: BLE001 - told by the assertion
            errors.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []
    assert states(opened(*OWN))["tenants"] is ProjectionState.FOLLOWING


class Doubled(StepCounts):
    name = "workers"


class TakenName(StepCounts):
    name = "tracking"


@pytest.mark.parametrize(
    ("projections", "found"),
    [
        ((STEP_COUNTS, StepCounts()), "several named 'step_counts'"),
        ((Doubled(),), "several named 'workers'"),
        ((TakenName(),), "'tracking'"),
        ((StepCounts,), "class"),
    ],
)
def test_projections_that_cannot_stand_beside_the_others_are_refused(
    opened: Opening, projections: tuple[Any, ...], found: str
) -> None:
    with pytest.raises(rj.InvalidInput, match=found):
        opened(*projections)


def test_rows_of_a_projection_that_nobody_brings_stay_and_show_in_the_status(
    opened: Opening,
) -> None:
    journal = opened(*OWN)
    lose(journal, "a-1")
    journal.rebuild()

    other = opened()
    lose(other, "a-2")
    rj.Follower(other).catch_up(30)

    assert states(other)["tenants"] is ProjectionState.NOT_OF_THIS_PROGRAM
    assert states(other)["workers"] is ProjectionState.FOLLOWING
    assert [row.lost_count for row in journal.rows(TENANTS)] == [1]
    assert {one.lag_events for one in other.status().projections if one.name == "tenants"} == {5}


# -- other folds of the same name ----------------------------------------------------------------


def test_a_changed_fold_is_told_of_at_the_next_opening_with_what_to_do(opened: Opening) -> None:
    opened(TenantsOfOld())

    with pytest.warns(rj.ProjectionOutdated) as warned:
        journal = opened(Tenants())

    (warning,) = warned
    (outdated,) = journal.outdated
    assert str(warning.message) == str(outdated)
    assert warning.filename == __file__
    assert "projection 'tenants' were made by version 1 (fold1:" in str(outdated)
    assert "run `recovery-journal rebuild tenants`" in str(outdated)
    assert states(journal)["tenants"] is ProjectionState.OUTDATED

    journal.rebuild()

    assert journal.outdated == ()
    assert states(journal)["tenants"] is ProjectionState.FOLLOWING


def test_rows_of_this_program_are_opened_without_a_word(opened: Opening) -> None:
    opened(*OWN)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        journal = opened(*OWN)

    assert journal.outdated == ()


def test_a_program_that_is_behind_is_told_to_be_upgraded(opened: Opening) -> None:
    opened(WideTenants())

    with pytest.warns(rj.ProjectionOutdated, match="upgrade this program"):
        opened(Tenants())


def test_rows_of_another_fold_are_read_where_their_columns_allow_it(opened: Opening) -> None:
    older = opened(Tenants())
    lose(older, "a-1")
    rj.Follower(older).catch_up(30)
    with pytest.warns(rj.ProjectionOutdated):
        newer = opened(WideTenants())

    with pytest.raises(RowsUnreadable, match=r"last_attempt_id.*recovery-journal rebuild tenants"):
        list(newer.rows("tenants"))
    newer.rebuild()

    assert [row.lost_count for row in older.rows(Tenants())] == [1]
    assert [row.last_attempt_id for row in newer.rows(WideTenants())] == ["a-1"]


@pytest.mark.parametrize(
    ("projection", "column"),
    [
        ("dispatch_ready", "not_before"),
        ("recovery_contexts", "stage"),
        ("workers", "last_refused_at"),
    ],
)
def test_the_status_says_which_rows_it_cannot_read(
    opened: Opening, projection: str, column: str
) -> None:
    journal = opened()
    with journal.database.cursor() as cursor:
        cursor.execute(f"ALTER TABLE projection_{projection} DROP COLUMN {column}".encode())

    with pytest.raises(RowsUnreadable, match=f"recovery-journal rebuild {projection}"):
        journal.status()


def test_lists_and_claims_say_which_rows_they_cannot_read(opened: Opening) -> None:
    journal = opened()
    lose(journal, "a-1")
    with journal.database.cursor() as cursor:
        cursor.execute("ALTER TABLE projection_dispatch_ready DROP COLUMN kind")
        cursor.execute("ALTER TABLE projection_recovery_contexts DROP COLUMN lost_at")

    for read in (
        journal.dispatch_ready,
        journal.contexts,
        lambda: journal.claim(worker_id="w-2"),
    ):
        with pytest.raises(RowsUnreadable, match="recovery-journal rebuild"):
            read()


def test_a_follower_that_runs_goes_on_by_itself_after_a_rebuild(opened: Opening) -> None:
    older = opened(TenantsOfOld())
    lose(older, "a-1")
    with pytest.warns(rj.ProjectionOutdated):
        newer = opened(Tenants())
    following_older, following_newer = rj.Follower(older), rj.Follower(newer)
    following_older.catch_up(30)

    newer.rebuild()
    lose(older, "a-2")
    following_older.catch_up(30)
    assert [row.lost_count for row in newer.rows(Tenants())] == [1]
    following_newer.catch_up(30)

    assert [row.lost_count for row in newer.rows(Tenants())] == [2]
