"""Attempts as a person finds them at three in the morning."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TypeVar

import psycopg
from psycopg import sql

import recovery_journal
from recovery_journal import Journal, Lease, LeaseLost
from recovery_journal.monitoring.status import Status

T = TypeVar("T")

LONG = timedelta(minutes=10)


def held(journal: Journal, attempt_id: str = "a-1", *, worker_id: str = "w-1") -> Lease:
    """A worker has an attempt and has recorded two run steps around a checkpoint."""
    lease = journal.acquire(
        attempt_id=attempt_id,
        run_id=f"run of {attempt_id}",
        worker_id=worker_id,
        kind="report",
        tenant="acme",
        priority=5,
        ttl=LONG,
    )
    lease.record_step("fetch", {"rows": 3})
    lease.checkpoint({"rows": 3})
    lease.record_step("charge", {"paid": True})
    lease.heartbeat()
    return lease


def recovered(journal: Journal, attempt_id: str = "a-1", *, worker_id: str = "w-1") -> Lease:
    """The worker died with an effect announced; its attempt is ready. The void lease."""
    lease = held(journal, attempt_id, worker_id=worker_id)
    lease.begin_step("mail")
    journal.report_lost(worker_id=worker_id, reason="the pod is gone")
    return lease


def refused(lease: Lease) -> None:
    """The dead worker was only slow, and tries to write."""
    try:
        lease.heartbeat()
    except LeaseLost:
        return
    raise AssertionError("a void lease was renewed")


def quarantined(journal: Journal, attempt_id: str = "a-bad", *, dsn: str) -> None:
    """The newest checkpoint was damaged before the worker died."""
    held(journal, attempt_id, worker_id=f"worker of {attempt_id}")
    execute(
        dsn,
        journal.database.schema,
        "UPDATE checkpoints SET state = '\\x00' WHERE run_id = %s",
        f"run of {attempt_id}",
    )
    journal.report_lost(worker_id=f"worker of {attempt_id}", reason="gone")


def waiting(journal: Journal, attempt_id: str = "a-wait") -> None:
    """The worker has asked for a person."""
    held(journal, attempt_id, worker_id="w-asks").wait("may it be sent?")


def execute(dsn: str, schema: str, statement: str, *parameters: object) -> None:
    """Somebody meddles with the tables."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("SET search_path TO {}").format(sql.Identifier(schema)))
        connection.execute(statement.encode(), parameters)


def fail_the_replay(journal: Journal, dsn: str, attempt_id: str) -> None:
    """The reducer of the sweeper raises, so the recovery is tried again later."""
    held(journal, attempt_id)
    reducers = {"report": _no_luck}
    schema = journal.database.schema
    with recovery_journal.open(dsn, schema=schema, reducers=reducers) as sweeping:
        sweeping.report_lost(worker_id="w-1", reason="gone")
    journal.rebuild()


def status_after(dsn: str, journal: Journal, attempt_id: str) -> Status:
    """The status that a newcomer sees once another attempt was opened."""
    held(journal, attempt_id, worker_id="another")
    with recovery_journal.open(dsn, schema=journal.database.schema) as newcomer:
        return newcomer.status()


def in_another_thread(work: Callable[[], T]) -> T:
    """The result of the work, done with a connection of its own."""
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(work).result()


def _no_luck(_state: object, _name: str, _output: object) -> object:
    raise RuntimeError("no luck today")
