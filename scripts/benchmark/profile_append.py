"""Where the time of one durable append goes, in microseconds: one process, one event at a time."""

import statistics
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple
from uuid import uuid4

import psutil
from msgspec.structs import replace
from psycopg.sql import SQL, Literal

from recovery_journal.log.application import JournalApplication
from recovery_journal.log.single_insert import INSERT
from recovery_journal.postgres.database import Database
from scripts.benchmark.append import STREAM_LENGTH
from scripts.benchmark.append_writers import EVENT, STATE, TAG
from scripts.benchmark.fresh_schema import fresh_schema

APPENDS: Final = 2_000
EXPLAINED: Final = 300
MICROSECONDS: Final = 1_000_000

EXPLAIN: Final = SQL("EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE explained ({}, {}, {}, {})")


class Cost(NamedTuple):
    """Of one call, in microseconds; what the server's process used is not known from afar."""

    whole: float
    client: float
    server: float | None


def profile_append(dsn: str) -> dict[str, Any]:
    """What an append takes and what of it is whose.

    `whole` passes from call to answer; `client` and `server` are what the two processes use of a
    core. `flush` is what `whole` loses without waiting for the disk. `insert` and the triggers are
    the server's own measurement, part of `server`. `empty_round_trip` asks nothing.
    """
    with fresh_schema(dsn) as database:
        application = JournalApplication(database)
        events = _events()
        durable = _cost(database, lambda: application.append([next(events)]))
        encode = _cost(database, lambda: application.mapper.to_stored_event(EVENT))
        pgconn = database.connection().pgconn
        empty = _cost(database, lambda: pgconn.exec_(b""))
        parts = _explained(database)
        database.connection().execute("SET synchronous_commit = off")
        written = _cost(database, lambda: application.append([next(events)]))
    return {
        "case": "profile-append",
        "unit": "us",
        "whole": durable.whole,
        "client": durable.client,
        "encode": encode.whole,
        "server": durable.server,
        **parts,
        "flush": round(durable.whole - written.whole, 1),
        "empty_round_trip": empty.whole,
    }


def _events() -> Any:  # noqa: ANN401 - an endless iterator of one type of event
    stream = uuid4().hex
    number = 0
    while True:
        yield replace(
            EVENT,
            originator_id=f"{stream}-{number // STREAM_LENGTH}",
            originator_version=number % STREAM_LENGTH + 1,
        )
        number += 1


def _cost(database: Database, call: Callable[[], object]) -> Cost:
    info = database.connection().info
    server = psutil.Process(info.backend_pid) if info.host.startswith("/") else None
    for _ in range(100):
        call()
    used = sum(server.cpu_times()[:2]) if server else 0.0
    begun, busy = time.perf_counter(), time.process_time()
    for _ in range(APPENDS):
        call()
    whole, client = time.perf_counter() - begun, time.process_time() - busy
    by_server = sum(server.cpu_times()[:2]) - used if server else None
    return Cost(_each(whole), _each(client), None if by_server is None else _each(by_server))


def _each(seconds: float) -> float:
    return round(seconds / APPENDS * MICROSECONDS, 1)


def _explained(database: Database) -> dict[str, float]:
    """The server's part: the insert alone and each trigger. The first of a transaction, because
    that is what an append is."""
    connection = database.connection()
    connection.execute(b"PREPARE explained (text, int8, text, bytea) AS" + INSERT)
    stream = uuid4().hex
    found: dict[str, list[float]] = {}
    for number in range(EXPLAINED):
        values = (f"{stream}-{number // STREAM_LENGTH}", number % STREAM_LENGTH + 1, TAG, STATE)
        statement = EXPLAIN.format(*map(Literal, values))
        row = connection.execute(statement).fetchone()
        assert row is not None
        (plan,) = row["QUERY PLAN"]
        triggers = {it["Trigger Name"]: it["Time"] * 1000 for it in plan["Triggers"]}
        alone = plan["Execution Time"] * 1000 - sum(triggers.values())
        for part, us in {"insert": alone, **triggers}.items():
            found.setdefault(part, []).append(us)
    return {part: round(statistics.median(times), 1) for part, times in found.items()}
