"""The data of ended runs that pruning deletes, and those that it never deletes."""

import threading
from datetime import timedelta

import psycopg
import pytest
from psycopg.rows import dict_row

from recovery_journal import Journal
from recovery_journal.domain.errors import InvalidInput, RunPruned
from recovery_journal.store.lease import Lease
from recovery_journal.store.pruning import Pruned, Pruning
from recovery_journal.store.superseded_checkpoints import DEFAULT_KEPT
from tests.command_line import scenes

NOW = timedelta(0)


def rows(dsn: str, schema: str, table: str) -> list[dict[str, object]]:
    with psycopg.connect(dsn, row_factory=dict_row) as connection:
        connection.execute("SELECT set_config('search_path', %s, false)", [schema])
        return connection.execute(f"SELECT * FROM {table}".encode()).fetchall()  # noqa: S608 - ours


def test_an_ended_run_keeps_its_digests_its_lease_and_its_history(
    journal: Journal, server_dsn: str
) -> None:
    lease = scenes.held(journal)
    lease.begin_step("mail")
    lease.complete("done")
    schema = journal.database.schema
    history = journal.history("a-1")
    (before,) = rows(server_dsn, schema, "leases")

    pruned = journal.prune(older_than=NOW)

    assert pruned == Pruned(runs=1, run_steps=2, checkpoints=1, announcements=1, results=1)
    assert journal.history("a-1") == history
    (run,) = rows(server_dsn, schema, "runs")
    assert run["input"] is None
    assert str(run["input_digest"]).startswith("cs1:")
    (after,) = rows(server_dsn, schema, "leases")
    assert after == {**before, "result": None}
    assert after["result_digest"] is not None
    for table in ("run_steps", "checkpoints", "announcements"):
        assert rows(server_dsn, schema, table) == []


def test_nothing_of_an_open_run_is_forgotten(journal: Journal, server_dsn: str) -> None:
    scenes.held(journal, "a-held", worker_id="w-1")
    scenes.recovered(journal, "a-ready", worker_id="w-2")
    scenes.waiting(journal, "a-waits")
    scenes.quarantined(journal, "a-bad", dsn=server_dsn)
    # An earlier attempt of an open run has ended, and left what the later one needs.
    scenes.held(journal, "a-first", worker_id="w-3").fail(ValueError("no"))
    journal.acquire(attempt_id="a-second", run_id="run of a-first", worker_id="w-4", kind="report")

    pruned = journal.prune(older_than=NOW)

    # The text of a failure may quote a payload, so its age alone counts.
    assert pruned == Pruned(error_texts=1)
    assert len(rows(server_dsn, journal.database.schema, "run_steps")) == 10


def test_a_run_is_kept_until_its_last_attempt_is_old_enough(
    journal: Journal, server_dsn: str
) -> None:
    scenes.held(journal).complete("done")

    young = journal.prune(older_than=timedelta(hours=1))
    scenes.execute(
        server_dsn,
        journal.database.schema,
        "UPDATE leases SET ended_at = ended_at - interval '2 hours'",
    )
    old = journal.prune(older_than=timedelta(hours=1))

    assert (young.runs, old.runs) == (0, 1)


def test_a_pruned_run_is_not_taken_up_again(journal: Journal) -> None:
    scenes.held(journal).complete("done")
    journal.prune(older_than=NOW)

    with pytest.raises(RunPruned, match=r"were pruned at .*; start the work under a new run id"):
        journal.acquire(attempt_id="a-2", run_id="run of a-1", worker_id="w-1", kind="report")

    assert journal.status().leases == {"completed": 1}


def test_an_attempt_that_is_just_being_opened_keeps_its_run(
    journal: Journal, server_dsn: str
) -> None:
    scenes.held(journal).fail(ValueError("no"))
    schema = journal.database.schema
    pruned = []

    with psycopg.connect(server_dsn) as opening:
        opening.execute("SELECT set_config('search_path', %s, false)", [schema])
        opening.execute("SELECT * FROM runs FOR NO KEY UPDATE")
        other = threading.Thread(target=lambda: pruned.append(journal.prune(older_than=NOW)))
        other.start()
        other.join(timeout=30)

    assert pruned == [Pruned(error_texts=1)]
    assert len(rows(server_dsn, schema, "run_steps")) == 2


def test_batches_of_any_size_forget_the_same(journal: Journal) -> None:
    for number in range(7):
        scenes.held(journal, f"a-{number}", worker_id="w-1").complete(number)
    scenes.held(journal, "a-3b", worker_id="w-1")

    pruned = Pruning(journal.database, runs_per_batch=2, rows_per_statement=1).prune(NOW)

    assert pruned == Pruned(runs=7, run_steps=14, checkpoints=7, announcements=0, results=7)


def with_checkpoints(journal: Journal, attempt_id: str, count: int) -> Lease:
    """An open run that saved its state after each of its run steps."""
    lease = journal.acquire(attempt_id=attempt_id, run_id=attempt_id, worker_id="w-1", kind="agent")
    for number in range(1, count + 1):
        lease.record_step(f"turn {number}", number)
        lease.checkpoint({"turn": number})
    return lease


def numbers(journal: Journal, run_id: str) -> list[int]:
    """The numbers of the checkpoints that are stored, in order."""
    query = "SELECT checkpoint_no FROM checkpoints WHERE run_id = %s ORDER BY 1"
    with journal.database.cursor() as cursor:
        return [row["checkpoint_no"] for row in cursor.execute(query, [run_id]).fetchall()]


def test_what_an_open_run_has_superseded_can_be_forgotten(journal: Journal) -> None:
    lease = with_checkpoints(journal, "a-1", 7)

    pruned = journal.prune(older_than=NOW, keep_checkpoints=3)

    assert pruned == Pruned(superseded_checkpoints=4)
    assert numbers(journal, "a-1") == [5, 6, 7]
    lease.checkpoint({"turn": "after"})
    lease.record_step("turn 8", 8)
    lease.hand_back()
    (claim,) = journal.claim(worker_id="w-2")
    assert (claim.state, [step.output for step in claim.tail]) == ({"turn": "after"}, [8])


def test_a_few_checkpoints_are_kept_without_being_asked_for(journal: Journal) -> None:
    with_checkpoints(journal, "a-1", DEFAULT_KEPT + 2)
    with_checkpoints(journal, "a-2", DEFAULT_KEPT)

    pruned = journal.prune(older_than=NOW)

    assert pruned.superseded_checkpoints == 2
    assert len(numbers(journal, "a-2")) == DEFAULT_KEPT


@pytest.mark.parametrize("keep", [1, 0, -3, 2**31, True, "2"])
def test_the_newest_checkpoint_and_its_parent_always_stay(journal: Journal, keep: int) -> None:
    with_checkpoints(journal, "a-1", 4)

    with pytest.raises(InvalidInput, match="keep_checkpoints"):
        journal.prune(older_than=NOW, keep_checkpoints=keep)
    journal.prune(older_than=NOW, keep_checkpoints=2)

    assert numbers(journal, "a-1") == [3, 4]


def test_young_checkpoints_of_an_open_run_stay(journal: Journal, server_dsn: str) -> None:
    with_checkpoints(journal, "a-1", 6)
    scenes.execute(
        server_dsn,
        journal.database.schema,
        "UPDATE checkpoints SET written_at = written_at - interval '2 hours' "
        "WHERE checkpoint_no <= 2",
    )

    pruned = journal.prune(older_than=timedelta(hours=1), keep_checkpoints=2)

    assert pruned.superseded_checkpoints == 2
    assert numbers(journal, "a-1") == [3, 4, 5, 6]


def test_a_checkpoint_that_was_set_aside_is_not_counted_among_those_that_stay(
    journal: Journal, server_dsn: str
) -> None:
    with_checkpoints(journal, "a-1", 6)
    scenes.execute(
        server_dsn,
        journal.database.schema,
        "UPDATE checkpoints SET is_void = true WHERE checkpoint_no IN (4, 6)",
    )

    journal.prune(older_than=NOW, keep_checkpoints=2)

    assert numbers(journal, "a-1") == [3, 4, 5, 6]


def test_an_attempt_whose_owner_is_being_changed_keeps_its_checkpoints(
    journal: Journal, server_dsn: str
) -> None:
    with_checkpoints(journal, "a-1", 4)
    schema = journal.database.schema

    with psycopg.connect(server_dsn) as changing:
        changing.execute("SELECT set_config('search_path', %s, false)", [schema])
        changing.execute("SELECT * FROM leases FOR UPDATE")
        during = journal.prune(older_than=NOW, keep_checkpoints=2)
    after = journal.prune(older_than=NOW, keep_checkpoints=2)

    assert (during.superseded_checkpoints, after.superseded_checkpoints) == (0, 2)


def test_batches_of_any_size_forget_the_same_checkpoints(journal: Journal) -> None:
    for number in range(5):
        with_checkpoints(journal, f"a-{number}", 5)

    pruned = Pruning(journal.database, runs_per_batch=2, rows_per_statement=1).prune(
        NOW, keep_checkpoints=2
    )

    assert pruned == Pruned(superseded_checkpoints=15)


def test_a_worker_of_an_ended_attempt_learns_that_its_run_is_pruned(journal: Journal) -> None:
    lease = scenes.held(journal)
    lease.complete("done")
    journal.prune(older_than=NOW)

    with pytest.raises(RunPruned):
        journal.load(lease)


def test_pruning_leaves_the_projections_as_they_were(journal: Journal) -> None:
    scenes.recovered(journal)
    (claim,) = journal.claim(worker_id="w-2")
    claim.lease.complete("done")
    journal.rebuild()

    journal.prune(older_than=NOW)

    assert all(checked.is_right for checked in journal.check())


@pytest.mark.parametrize("older_than", [timedelta(seconds=-1), timedelta(days=99_999), 30])
def test_an_age_that_is_none_is_refused(journal: Journal, older_than: timedelta) -> None:
    scenes.held(journal).complete("done")

    with pytest.raises(InvalidInput, match="older_than"):
        journal.prune(older_than=older_than)
