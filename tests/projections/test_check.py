"""Proving that live rows are what the log says."""

from recovery_journal.projections.catalog import BUILT_IN
from recovery_journal.projections.dispatch_ready import DISPATCH_READY
from recovery_journal.projections.workers import WORKERS
from recovery_journal.read_models.rebuild.check import Check
from tests.projections.rebuilding import described, follow, is_right
from tests.projections.writing import Writer


def test_a_check_names_the_keys_that_differ_with_both_rows(writer: Writer) -> None:
    writer.write_random()
    follow(writer)
    with writer.database.cursor() as cursor:
        cursor.execute("UPDATE projection_workers SET lost_count = 99 WHERE worker_id = 'w-1'")
        cursor.execute("DELETE FROM projection_workers WHERE worker_id = 'w-2'")
        cursor.execute(
            "INSERT INTO projection_workers SELECT (w).* FROM (SELECT "
            'jsonb_populate_record(w, \'{"worker_id": "w-9"}\') AS w FROM projection_workers AS w '
            "LIMIT 1) AS copied"
        )

    (checked,) = Check(writer.database, projections=[WORKERS]).run()

    assert not checked.is_right
    assert checked.difference_count == 3
    changed, missing, surplus = checked.differences
    assert changed.key == ("w-1",)
    assert changed.stored is not None
    assert changed.expected is not None
    assert changed.stored == {**changed.expected, "lost_count": 99}
    assert (missing.key, missing.stored is None) == (("w-2",), True)
    assert (surplus.key, surplus.expected) == (("w-9",), None)


def test_a_check_of_stream_keyed_rows_finds_what_differs(writer: Writer) -> None:
    writer.write_random()
    follow(writer)
    with writer.database.cursor() as cursor:
        cursor.execute("DELETE FROM projection_recovery_contexts WHERE recovery_no = 2")
        cursor.execute("UPDATE projection_dispatch_ready SET left_at = NULL")

    _, contexts, *_ = (checks := Check(writer.database, block_events=9).run())

    assert [it.is_right for it in checks] == [False, False, True, True]
    assert {difference.key[1] for difference in contexts.differences} == {2}
    assert len(checks[0].differences) <= 10 < checks[0].difference_count


def test_events_ahead_of_the_follower_are_pending_and_no_difference(
    writer: Writer,
) -> None:
    writer.write_random()
    follow(writer)
    writer.write_random(seed=2, is_inline=False)

    listed, *others = Check(writer.database).run()

    assert [it.is_right for it in (listed, *others)] == [True] * len(BUILT_IN)
    missing = len(writer.expected(DISPATCH_READY)) - len(writer.stored(DISPATCH_READY))
    assert listed.pending_count == missing > 0
    follow(writer)
    assert is_right(writer)


def test_a_check_changes_nothing(writer: Writer) -> None:
    writer.write_random()
    follow(writer)
    before = described(writer)

    Check(writer.database).run()

    assert described(writer) == before
