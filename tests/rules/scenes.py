"""The scenes of the tests of the rules: attempts held, lost, ready; and their results."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import psycopg

from recovery_journal.claiming.loading import Claim
from recovery_journal.domain.events import RecoveryEvent
from recovery_journal.domain.replay import Reducer
from recovery_journal.journal import Journal
from recovery_journal.limits import Limits
from recovery_journal.recovery.sweep_result import SweepResult
from recovery_journal.store.lease import Lease

LIMIT_S = 30
PAUSE_S = 0.005
SHORT = timedelta(milliseconds=100)
LIMITS = Limits(ttl_s=60.0, grace_s=0.0)

OpenJournal = Callable[..., Journal]
EventT = TypeVar("EventT", bound=RecoveryEvent)
Answer = TypeVar("Answer")


def held(journal: Journal, attempt_id: str = "a-1", **request: Any) -> Lease:
    """A fresh attempt of a run of its own, held by a worker."""
    given = {"run_id": f"run of {attempt_id}", "worker_id": f"worker of {attempt_id}", **request}
    return journal.acquire(attempt_id=attempt_id, **given)


def worked(lease: Lease, *, step_count: int = 2, checkpoint_at: int | None = 1) -> Lease:
    """Some run steps, and a checkpoint after one of them."""
    for _ in range(step_count):
        ordinal = lease.progress.ordinal + 1
        lease.record_step(f"step-{ordinal}", {"n": ordinal})
        if ordinal == checkpoint_at:
            lease.checkpoint({"sum": ordinal})
    return lease


def report(journal: Journal, *leases: Lease) -> list[SweepResult]:
    """The workers of these leases die, and their host says so: recovered at once."""
    swept: list[SweepResult] = []
    for lease in leases:
        swept += journal.report_lost(worker_id=lease.worker_id, reason="pod deleted")
    return swept


def make_ready(journal: Journal, attempt_id: str, **request: Any) -> Lease:
    """An attempt on the dispatch-ready list; the lease that was lost on the way."""
    lease = held(journal, attempt_id, **request)
    report(journal, lease)
    return lease


def claim_one(journal: Journal, worker_id: str = "w-2", **filters: Any) -> Claim:
    """The one attempt that is ready."""
    (claim,) = journal.claim(worker_id=worker_id, **filters)
    return claim


def sum_up(state: Any, _name: str, output: Any) -> Any:
    """A reducer over outputs like {"n": 3}."""
    return {"sum": (state or {}).get("sum", 0) + output["n"]}


def types_of(journal: Journal, attempt_id: str = "a-1") -> list[str]:
    """The names of an attempt's events, in order."""
    return [type(entry.event).__name__ for entry in journal.history(attempt_id)]


def events_of(journal: Journal, of: type[EventT], attempt_id: str = "a-1") -> list[EventT]:
    """The events of one type in an attempt's stream."""
    events = [entry.event for entry in journal.history(attempt_id)]
    return [event for event in events if isinstance(event, of)]


def last_of(journal: Journal, of: type[EventT], attempt_id: str = "a-1") -> EventT:
    """The last event of an attempt, which must be of this type."""
    event = journal.history(attempt_id)[-1].event
    assert isinstance(event, of), types_of(journal, attempt_id)
    return event


def sweep_until(journal: Journal, attempt_id: str = "a-1") -> SweepResult:
    """Sweep until the attempt has been swept, as its lease runs out."""
    found: list[SweepResult] = []

    def is_swept() -> bool:
        found.extend(swept for swept in journal.sweep() if swept.attempt_id == attempt_id)
        return bool(found)

    until(is_swept, f"the loss of {attempt_id}")
    return found[-1]


def until(is_so: Callable[[], object], what: str) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + LIMIT_S
    while not is_so():
        assert time.monotonic() < deadline, f"waited {LIMIT_S} s for {what}"
        time.sleep(PAUSE_S)


def rows(journal: Journal, query: str, values: Mapping[str, Any] | None = None) -> list[Any]:
    """The rows of a query."""
    with journal.database.cursor() as cursor:
        return cursor.execute(query.encode(), values).fetchall()


def change(journal: Journal, statement: str, values: Mapping[str, Any] | None = None) -> int:
    """Damage or repair the store from outside; return the number of rows."""
    with journal.database.cursor() as cursor:
        return cursor.execute(statement.encode(), values).rowcount


def until_passed(journal: Journal, attempt_id: str = "a-1", column: str = "expires_at") -> None:
    """Wait until a time in the attempt's lease row has passed, by the database's clock."""
    query = (
        f"SELECT {column} < clock_timestamp() AS has_passed FROM leases WHERE attempt_id = %(id)s"  # noqa: S608 - a column's name, from the test
    )
    until(lambda: rows(journal, query, {"id": attempt_id})[0]["has_passed"], f"{column} to pass")


def blocked_count(journal: Journal) -> int:
    """How many sessions wait for a lock of another one."""
    query = """
        SELECT count(*) AS count
        FROM pg_stat_activity
        WHERE datname = current_database() AND cardinality(pg_blocking_pids(pid)) > 0
    """
    return int(rows(journal, query)[0]["count"])


@contextmanager
def session(journal: Journal, dsn: str) -> Iterator[psycopg.Connection[Any]]:
    """A session of its own in the journal's schema, whose transaction the test ends."""
    options = f"-c search_path={journal.database.schema}"
    with psycopg.connect(dsn, options=options) as connection:
        yield connection
        connection.rollback()


@contextmanager
def aside(call: Callable[[], Answer]) -> Iterator[Callable[[], Answer]]:
    """A call that runs in a thread beside the test, with its answer or its error."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(call)
        yield lambda: future.result(LIMIT_S)


def at_once(calls: Sequence[Callable[[], Answer]]) -> list[Answer]:
    """Answers of calls that all start together, each in a thread of its own."""
    start = threading.Barrier(len(calls))

    def started(call: Callable[[], Answer]) -> Answer:
        start.wait(LIMIT_S)
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(started, calls))


REDUCERS: Mapping[str, Reducer] = {"sum": sum_up}


def text_of(journal: Journal, event: RecoveryEvent) -> str:
    """The text of the failure that this event records, as it is kept beside the log."""
    entry = journal.history(event.originator_id)[event.originator_version - 1]
    return str(getattr(entry.event, "message", ""))


def said_last(journal: Journal, attempt_id: str = "a-1") -> str:
    """The text of the failure in an attempt's last event."""
    return str(getattr(journal.history(attempt_id)[-1].event, "message", ""))
