"""One-event durable appends by many processes: ours beside a bare loop, the library and pgbench.

All write the same events into the same table, with its indexes and triggers, on the same server,
in turns; the median of the rounds counts. Streams are five events long.
"""

import multiprocessing
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any, Final, TypeAlias
from uuid import uuid4

import msgspec
import psycopg
from eventsourcing.persistence import StoredEvent
from eventsourcing.postgres import PostgresApplicationRecorder, PostgresDatastore
from msgspec.structs import replace
from psycopg import sql

from recovery_journal.log.application import JournalApplication
from recovery_journal.log.mapper import decode
from recovery_journal.postgres.database import Database
from recovery_journal.postgres.embedded import embedded_cluster
from scripts.benchmark.fresh_schema import fresh_schema

STREAM_LENGTH: Final = 5
WARM_UP_COUNT: Final = 10
PATIENCE_S: Final = 60
PGBENCH_THREADS: Final = 2

INSERT: Final = b"""
INSERT INTO journal_events (originator_id, originator_version, topic, state)
VALUES (%s, %s, %s, %s)
RETURNING notification_id
"""

PGBENCH_SCRIPT: Final = """
\\set number :number + 1
\\set stream :number / :length
\\set version :number % :length + 1
INSERT INTO journal_events (originator_id, originator_version, topic, state)
VALUES (:run || '-' || :client_id || '-' || :stream, :version, :tag, :state::bytea)
RETURNING notification_id;
"""

Append: TypeAlias = Callable[[str, int], object]
Open: TypeAlias = Callable[[str, str], Append]

TAG: Final = "dispatched"
STATE: Final = msgspec.json.encode(
    {
        "type": TAG,
        "originator_id": "attempt",
        "originator_version": 1,
        "event_id": uuid4().hex,
        "run_id": "run-0123456789",
        "recorded_by": {
            "role": "worker",
            "host": "host-1",
            "pid": 12345,
            "program": "recovery-journal 0.1.0",
            "name": None,
        },
        "reason": "",
        "trace_id": None,
        "recovery_no": 1,
        "holder": {
            "worker_id": "worker-1",
            "incarnation": {
                "host": "host-1",
                "boot_id": uuid4().hex,
                "pid": 12345,
                "started": "100.5",
            },
        },
        "fence": {"epoch": 123456, "lease_id": uuid4().hex, "native": None},
        "ttl_s": 30.0,
        "dispatch_id": uuid4().hex,
    }
)
EVENT: Final = decode(attempt_id="attempt", version=1, tag=TAG, state=STATE, position=None)


def ours(dsn: str, schema: str) -> Append:
    """The whole way: the event is encoded, appended, and a lost reply would be looked into."""
    application = JournalApplication(Database(dsn, schema))

    def append(stream: str, version: int) -> object:
        event = replace(EVENT, originator_id=stream, originator_version=version)
        return application.append([event])

    return append


def bare_psycopg(dsn: str, schema: str) -> Append:
    """One prepared INSERT on one autocommit connection; the state is encoded beforehand."""
    connection = psycopg.connect(dsn, autocommit=True)
    connection.execute(sql.SQL("SET search_path TO {}").format(sql.Identifier(schema)))

    def append(stream: str, version: int) -> object:
        return connection.execute(INSERT, (stream, version, TAG, STATE), prepare=True).fetchone()

    return append


def library(dsn: str, schema: str) -> Append:
    """The library's own recorder, with its lock, its notification and its pool."""
    recorder = _library_recorder(dsn, schema)

    def append(stream: str, version: int) -> object:
        return recorder.insert_events([StoredEvent(stream, version, TAG, STATE)])

    return append


def _library_recorder(dsn: str, schema: str) -> PostgresApplicationRecorder:
    with psycopg.connect(dsn) as connection:
        where = connection.info
        datastore = PostgresDatastore(
            dbname=where.dbname,
            host=where.host,
            port=where.port,
            user=where.user,
            password=where.password,
            schema=schema,
            originator_id_type="text",
        )
    return PostgresApplicationRecorder(datastore, events_table_name="journal_events")


PYTHON_WRITERS: Final[dict[str, Open]] = {
    "ours": ours,
    "psycopg": bare_psycopg,
    "library": library,
}


def measure_append(dsn: str, *, seconds: float, rounds: int, process_count: int) -> dict[str, Any]:
    """Events a second of each writer, and how ours compares."""
    rates: dict[str, list[float]] = {name: [] for name in (*PYTHON_WRITERS, "pgbench")}
    with fresh_schema(dsn) as database:
        schema = database.schema
        # The table is there already; this makes the library's composite type.
        _library_recorder(dsn, schema).create_table()
        for number in range(rounds):
            for name in PYTHON_WRITERS:
                rates[name].append(_together(name, dsn, schema, seconds, process_count))
            rates["pgbench"].append(_pgbench(dsn, schema, seconds, process_count))
            newest = ", ".join(f"{name} {found[-1]:,.0f}" for name, found in rates.items())
            sys.stderr.write(f"append, round {number + 1} of {rounds}: {newest} events/s\n")
    median = {name: round(statistics.median(found)) for name, found in rates.items()}
    ratios = {
        f"ratio_{name}": round(median["ours"] / rate, 3)
        for name, rate in median.items()
        if name != "ours"
    }
    return {
        "case": "append",
        "unit": "events/s",
        "processes": process_count,
        "event_bytes": len(STATE),
        **median,
        **ratios,
    }


def _together(name: str, dsn: str, schema: str, seconds: float, process_count: int) -> float:
    spawn = multiprocessing.get_context("spawn")
    start, answers = spawn.Barrier(process_count), spawn.Queue()
    processes = [
        spawn.Process(target=_write, args=(name, dsn, schema, seconds, start, answers))
        for _ in range(process_count)
    ]
    for process in processes:
        process.start()
    rates: list[float] = [answers.get(timeout=PATIENCE_S + seconds) for _ in processes]
    for process in processes:
        process.join()
    return sum(rates)


def _write(
    name: str, dsn: str, schema: str, seconds: float, start: Barrier, answers: "Queue[float]"
) -> None:
    append = PYTHON_WRITERS[name](dsn, schema)
    writer = uuid4().hex[:8]
    for number in range(WARM_UP_COUNT):
        append(f"{writer}-warm-{number}", 1)
    start.wait(timeout=PATIENCE_S)
    count, begun = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - begun) < seconds:
        append(f"{writer}-{count // STREAM_LENGTH}", count % STREAM_LENGTH + 1)
        count += 1
    answers.put(count / elapsed)


def _pgbench(dsn: str, schema: str, seconds: float, process_count: int) -> float:
    """The same statement from C, with as many clients."""
    program = embedded_cluster().bin_path / "pgbench"
    path = f'-c search_path="{schema}"'
    with tempfile.TemporaryDirectory(prefix="rj-") as folder:
        script = Path(folder) / "append.sql"
        script.write_text(PGBENCH_SCRIPT, encoding="utf-8")
        variables = {
            "number": "-1",
            "length": str(STREAM_LENGTH),
            "run": uuid4().hex[:8],
            "tag": TAG,
            "state": f"\\x{STATE.hex()}",
        }
        done = subprocess.run(
            [
                program,
                *("--no-vacuum", "--protocol=prepared"),
                f"--file={script}",
                f"--time={max(1, round(seconds))}",
                f"--client={process_count}",
                f"--jobs={min(PGBENCH_THREADS, process_count)}",
                *(f"--define={name}={value}" for name, value in variables.items()),
                dsn,
            ],
            check=False,
            capture_output=True,
            text=True,
            env={**os.environ, "PGOPTIONS": path},
        )
    found = re.search(r"^tps = ([\d.]+)", done.stdout, re.MULTILINE)
    assert found, done.stderr
    assert done.returncode == 0, done.stderr
    return float(found[1])
