"""Transactions that have appended to the log and have not ended, with the statements that end them.

Their events are invisible to other sessions, and the places of these events in their streams are
taken until they end: an append to the same place waits, so it waits briefly, and then reports which
transactions block it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final

from msgspec import Struct
from psycopg import Cursor
from psycopg.errors import LockNotAvailable
from psycopg.rows import DictRow

from recovery_journal.domain.errors import AppendBlocked

LOCK_WAIT_S: Final = 0.5
"""How long an append waits for a place in a stream: our own transactions hold none that long, and a
foreign transaction that is left open must block only that one stream."""
BRIEF: Final = f"{LOCK_WAIT_S * 1000:.0f}ms"

SHOWN_LIMIT: Final = 3

# The settled reader's query, with the identity of each writer. The times of another role's session
# are hidden.
OPEN_WRITERS: Final = """
SELECT DISTINCT ON (locks.virtualtransaction)
    locks.pid,
    prepared.gid,
    coalesce(activity.xact_start, prepared.prepared) AS since,
    coalesce(activity.usename, prepared.owner) AS role,
    activity.application_name AS application,
    activity.state
FROM pg_locks AS locks
LEFT JOIN pg_stat_activity AS activity ON activity.pid = locks.pid
LEFT JOIN pg_prepared_xacts AS prepared
    ON locks.pid IS NULL AND locks.virtualtransaction = '-1/' || prepared.transaction
WHERE locks.locktype = 'relation'
    AND locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND locks.relation = to_regclass('journal_events')
    AND locks.mode = 'RowExclusiveLock'
    AND locks.granted
    AND locks.pid IS DISTINCT FROM pg_backend_pid()
    AND coalesce(activity.xact_start, prepared.prepared, '-infinity')
        < clock_timestamp() - make_interval(secs => %(open_s)s)
ORDER BY locks.virtualtransaction
"""

BE_BRIEF: Final = """
SELECT current_setting('lock_timeout') AS before, set_config('lock_timeout', %(wait)s, true)
"""
BE_PATIENT: Final = "SELECT set_config('lock_timeout', %(before)s, true)"


class OpenWriter(Struct, frozen=True, kw_only=True):
    """The author of an open append: a process, or a prepared transaction."""

    pid: int | None
    gid: str | None
    since: datetime | None
    role: str | None
    application: str | None
    state: str | None

    def __str__(self) -> str:
        parts = [f"role {self.role}"] if self.role else []
        parts += [f"application {self.application!r}"] if self.application else []
        parts += [f"since {self.since.astimezone(UTC):%F %T} UTC"] if self.since else []
        return f"{self.name} ({', '.join(parts)})" if parts else self.name

    @property
    def name(self) -> str:
        """The process, or the prepared transaction."""
        return f"process {self.pid}" if self.pid else f"prepared transaction {self.gid or '?'}"

    @property
    def end(self) -> str:
        """The statement by which a person ends it."""
        if self.pid is None:
            return f"ROLLBACK PREPARED '{self.gid or '?'}'"
        return f"SELECT pg_terminate_backend({self.pid})"


def open_writers(cursor: Cursor[DictRow], *, open_s: float) -> list[OpenWriter]:
    """The writers that have been open for this long, in all sessions but this one."""
    rows = cursor.execute(OPEN_WRITERS, {"open_s": open_s}).fetchall()
    return [OpenWriter(**row) for row in rows]


def is_lock_timeout(error: BaseException | None) -> bool:
    """Whether the error is a lock timeout."""
    while error is not None and not isinstance(error, LockNotAvailable):
        error = error.__cause__
    return error is not None


def blocked(cursor: Cursor[DictRow], stream: str) -> AppendBlocked:
    """The error of an append whose wait for its place in this stream timed out. One of the named
    writers blocks it, because these have been open for as long."""
    found = open_writers(cursor, open_s=LOCK_WAIT_S)
    names = [str(writer) for writer in found[:SHOWN_LIMIT]] + ["others"][: len(found) > SHOWN_LIMIT]
    return AppendBlocked(
        stream=stream,
        limit=f"{LOCK_WAIT_S:g} s",
        found=" or ".join(names) or "a transaction that has ended meanwhile",
        do="; or ".join(writer.end for writer in found[:SHOWN_LIMIT]),
    )


@contextmanager
def naming_writers(cursor: Cursor[DictRow], stream: str) -> Iterator[None]:
    """Within this context, an append to this stream whose wait for its place times out raises
    `AppendBlocked`. Any error leaves the caller's transaction as it was."""
    try:
        with cursor.connection.transaction():
            yield
    except LockNotAvailable as error:
        raise blocked(cursor, stream) from error


@contextmanager
def appending_briefly(cursor: Cursor[DictRow], stream: str) -> Iterator[None]:
    """As `naming_writers`, and the wait is brief."""
    settings: Any = cursor.execute(BE_BRIEF, {"wait": BRIEF}).fetchone()
    with naming_writers(cursor, stream):
        yield
    cursor.execute(BE_PATIENT, {"before": settings["before"]})
