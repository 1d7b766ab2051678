"""What is forgotten of ended runs, and what never is."""

import threading
from datetime import timedelta

import psycopg
import pytest
from psycopg.rows import dict_row

from domain.errors import InvalidInput, RunPruned
from recovery_journal import Journal
from recovery_journal.leases.pruning import Pruned, Pruning
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

    # What a failure said may quote a payload, so its age alone counts.
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
