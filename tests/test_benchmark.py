"""The benchmarks run, say what they promise, and compare with what does the same job."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import Any, Final

import psycopg
import pytest
from msgspec import Struct
from psycopg import sql

from recovery_journal.log.block import LogBlocks
from recovery_journal.postgres import schema as schemas
from recovery_journal.postgres.database import Database
from recovery_journal.projections.projection import Projection
from recovery_journal.projections.stream_fold import folded
from recovery_journal.read_models.schema import create_projections
from recovery_journal.read_models.tables.projection_table import ProjectionTable
from scripts.benchmark.growth import FLAT
from scripts.benchmark.library import PROJECTIONS, RECORDED_AT, follow, make_tables, settings
from scripts.benchmark.measuring import fresh_schema
from scripts.benchmark.processes import SAMPLE_S, run_apart, run_watched
from scripts.benchmark.rebuild import read_positions, read_streams
from scripts.histories.log import fill

EVENT_COUNT: Final = 3_000
LIMIT_S: Final = 100

GAP_CHECK_SAYS: Final = {"case", "unit", "checks", "p50", "p99"}

REBUILD_SAYS: Final = {
    "case",
    "unit",
    "events",
    "streams",
    "event_bytes",
    "log_mb",
    "cores",
    "processes",
    "rounds",
    "ours",
    "ours_s",
    "us_per_event",
    "as_of_index_s",
    "stock",
    "stock_sample",
    "read_decode",
    "read_decode_s",
    "read_in_order_s",
    "ratio_stock",
    "ratio_read_decode",
    "ratio_read_in_order",
    "peak_mb",
}

MASS_CRASH_SAYS: Final = {
    "case",
    "unit",
    "leases",
    "sweepers",
    "claimers",
    "rounds",
    "ours",
    "ours_reducer",
    "us_per_lease",
    "followed_s",
    "ratio_absurd",
    "ratio_absurd_claim",
    "ratio_pgqueuer",
}

CLAIM_SAYS: Final = {
    "case",
    "unit",
    "batch",
    "leases",
    "claimers",
    "rounds",
    "ours",
    "pgbench",
    "ratio_pgbench",
}

AS_OF_SAYS: Final = {
    "case",
    "unit",
    "events",
    "rounds",
    "index_build_s",
    "rows",
    "index_mb",
    "held",
    "page_p50",
    "page_p99",
    "all_p50",
    "all_p99",
    "time_p50",
    "time_p99",
    "position_at_p50",
    "position_at_p99",
    "naive_p50",
    "ratio_naive",
}


DETECT_SAYS: Final = {
    "case",
    "unit",
    "kills",
    "p50_default_s",
    "p95_default_s",
    "max_default_s",
    "p50_fast_s",
    "p95_fast_s",
    "max_fast_s",
}

WAKE_SAYS: Final = {
    "case",
    "unit",
    "wakes",
    "p50_ms",
    "p99_ms",
    "max_ms",
    "idle_workers",
    "idle_s",
    "idle_core_share",
}


def bench(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "scripts.benchmark", *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )


def has_schema(dsn: str, name: str) -> bool:
    with psycopg.connect(dsn) as connection:
        found = connection.execute("SELECT FROM pg_namespace WHERE nspname = %s", (name,))
        return found.fetchone() is not None


@pytest.fixture
def filled(server_dsn: str, schema: str) -> Iterator[Database]:
    """A journal whose log is filled and whose rows no follower has made."""
    database = Database(server_dsn, schema)
    schemas.create(database, partial(create_projections, database))
    fill(server_dsn, schema, event_count=EVENT_COUNT, process_count=1)
    yield database
    database.close()


@pytest.fixture
def library_rows(server_dsn: str, filled: Database) -> Iterator[Database]:
    """Tables for the rows that the library makes of it."""
    database = Database(server_dsn, f"{filled.schema}_rows")
    make_tables(database)
    yield database
    with database.cursor() as cursor:
        cursor.execute("SET client_min_messages = warning")
        cursor.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(database.schema)))
    database.close()


def test_a_gap_check_says_what_it_promises(server_dsn: str) -> None:
    done = bench("gap-check", "--dsn", server_dsn)

    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert set(json.loads(line)) == GAP_CHECK_SAYS


def test_rebuild_says_what_it_promises_a_line_for_each_log(server_dsn: str) -> None:
    done = bench("rebuild", "--dsn", server_dsn, "--rounds=2", "--events", "500", "1000")

    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["events"] for line in lines] == [500, 1000]
    assert [line["stock_sample"] for line in lines] == [500, 1000]
    for line in lines:
        assert set(line) == REBUILD_SAYS
        assert line["peak_mb"] > 0
        assert line["ratio_stock"] > 0


def test_rebuild_of_one_stream_says_so(server_dsn: str) -> None:
    done = bench("rebuild", "--dsn", server_dsn, "--rounds=1", "--events", "500", "--one-stream")

    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert set(json.loads(line)) == REBUILD_SAYS
    assert json.loads(line)["streams"] == "one"


def test_growth_compares_each_length_with_the_shortest(server_dsn: str) -> None:
    done = bench("growth", "--dsn", server_dsn, "--rounds=1", "--events", "12000", "10000")

    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["events"] for line in lines] == [10_000, 12_000]
    for name in FLAT:
        assert lines[0][f"ratio_{name}"] == 1.0
        assert lines[1][f"ratio_{name}"] > 0


def test_as_of_says_what_it_promises(server_dsn: str) -> None:
    done = bench("as-of", "--dsn", server_dsn, "--rounds=1", "--events", "2000")

    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert set(json.loads(line)) == AS_OF_SAYS


def test_mass_crash_says_what_it_promises_without_its_rivals(server_dsn: str) -> None:
    done = bench("mass-crash", "--dsn", server_dsn, "--rounds=1", "--leases=150", "--no-rivals")

    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert set(json.loads(line)) == MASS_CRASH_SAYS


def test_claim_says_what_it_promises_for_each_size_of_a_claim(server_dsn: str) -> None:
    done = bench("claim", "--dsn", server_dsn, "--rounds=1", "--leases=200")

    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["batch"] for line in lines] == [1, 100]
    for line in lines:
        assert set(line) == CLAIM_SAYS


def test_detect_says_what_it_promises(server_dsn: str) -> None:
    done = bench("detect", "--dsn", server_dsn, "--kills=2")

    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert set(json.loads(line)) == DETECT_SAYS


def test_wake_says_what_it_promises(server_dsn: str) -> None:
    few = ("--wakes=3", "--workers=2", "--idle-seconds=0.5")
    done = bench("wake", "--dsn", server_dsn, *few)

    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert set(json.loads(line)) == WAKE_SAYS


def test_a_case_that_does_not_exist_is_refused() -> None:
    done = bench("fly")

    assert done.returncode == 2
    assert "unknown case fly" in done.stderr


def test_a_fresh_schema_is_gone_afterwards_whatever_happened(server_dsn: str) -> None:
    names: list[str] = []

    def fail() -> None:
        with fresh_schema(server_dsn) as database:
            names.append(database.schema)
            assert has_schema(server_dsn, database.schema)
            divide(1, 0)

    with pytest.raises(ZeroDivisionError):
        fail()
    assert [has_schema(server_dsn, name) for name in names] == [False]


def test_the_library_makes_the_same_rows(
    server_dsn: str, filled: Database, library_rows: Database
) -> None:
    environment = settings(server_dsn, filled.schema, library_rows.schema)

    follow(environment, EVENT_COUNT)

    for projection in PROJECTIONS:
        found = rows_in(library_rows, projection)
        assert found == rows_of(filled, projection)
        assert len(found) > 50


def rows_in(database: Database, projection: Projection[Any]) -> list[Struct]:
    with database.transaction() as cursor:
        return list(ProjectionTable(projection).rows(cursor))


def rows_of(database: Database, projection: Projection[Any]) -> list[Struct]:
    """The rows from scratch, with the library's time of recording."""
    with database.transaction():
        blocks = [
            [record._replace(recorded_at=RECORDED_AT) for record in block]
            for block in LogBlocks(database).by_stream()
        ]
    return list(folded(projection, iter(blocks)))


@pytest.mark.parametrize("process_count", [1, 2])
@pytest.mark.parametrize("read", [read_streams, read_positions])
def test_merely_reading_reads_every_event_once(
    server_dsn: str, filled: Database, read: Callable[..., float], process_count: int
) -> None:
    read(server_dsn, filled.schema, EVENT_COUNT, process_count)

    with pytest.raises(AssertionError, match="read 3000 of 3001 events"):
        read(server_dsn, filled.schema, EVENT_COUNT + 1, process_count)


def test_what_runs_apart_answers_and_its_memory_is_seen() -> None:
    watched = run_watched(memory_of, 50)

    assert watched.answer == 50_000_000
    assert watched.peak_mb > 50


def memory_of(megabytes: int) -> int:
    held = bytes(1) * (megabytes * 1_000_000)
    time.sleep(10 * SAMPLE_S)  # nothing shows that the watcher has sampled
    return len(held)


def test_what_fails_apart_raises_its_error() -> None:
    with pytest.raises(ZeroDivisionError):
        run_apart(divide, 1, 0)


def test_what_dies_apart_is_noticed() -> None:
    with pytest.raises(BrokenProcessPool):
        run_apart(os.abort)


def divide(left: int, right: int) -> float:
    return left / right
