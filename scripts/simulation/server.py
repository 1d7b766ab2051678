"""A real PostgreSQL whose clock is the simulation's: one database of it for each run.

The journal's own schema holds functions by the names of the server's clock, and comes before the
server's catalogue in the search path, so the product's SQL runs unchanged and reads our time. It is
in a file beside the server's own, and when the server was started in a sequence: what is set there
is seen at once by everybody, whatever they have open.
"""

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import psycopg
from psycopg import Connection, IsolationLevel, sql
from psycopg.rows import TupleRow, namedtuple_row

from recovery_journal.postgres import schema as schemas
from recovery_journal.postgres.database import Database, one
from recovery_journal.read_models.schema import create_projections
from scripts.harness.server import Server

SCHEMA: Final = "journal"
TEMPLATE: Final = "simulated"
MEMORY: Final = Path("/dev/shm")  # noqa: S108 - what is put there has a private name
POLL_S: Final = 0.0005
CLOCKS: Final = "clocks"
"""Where in the server's folder the time of each database is, in microseconds since 1970."""
EPOCH_S: Final = 1_800_000_000
"""When a run begins, by the server's clock."""

# Nothing here has to survive a power cut. A server in memory answers in 50 microseconds.
SETTINGS: Final = """
fsync = off
synchronous_commit = off
full_page_writes = off
autovacuum = off
max_connections = 400
deadlock_timeout = 1h
shared_buffers = 64MB
"""

CLOCK: Final = f"""
CREATE SCHEMA {SCHEMA};
SET search_path = {SCHEMA}, pg_catalog;
CREATE SEQUENCE simulated_start;
CREATE FUNCTION clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS
    $$SELECT to_timestamp(pg_read_file('{CLOCKS}/' || current_database())::bigint / 1e6)$$;
CREATE FUNCTION now() RETURNS timestamptz LANGUAGE sql STABLE AS
    $$SELECT to_timestamp(pg_read_file('{CLOCKS}/' || current_database())::bigint / 1e6)$$;
-- The log refuses times before its statement began; ours moves while a statement waits for a lock.
CREATE FUNCTION statement_timestamp() RETURNS timestamptz LANGUAGE sql STABLE AS
    $$SELECT '-infinity'::timestamptz$$;
-- Limits in real time would strike sooner or later from run to run; the simulation has its own.
CREATE FUNCTION set_config(name text, value text, is_local boolean) RETURNS text LANGUAGE sql AS
    $$SELECT CASE WHEN name LIKE '%timeout' THEN value
        ELSE pg_catalog.set_config(name, value, is_local) END$$;
CREATE FUNCTION pg_postmaster_start_time() RETURNS timestamptz LANGUAGE sql STABLE AS
    'SELECT to_timestamp(last_value / 1e6) FROM journal.simulated_start';
SELECT setval('simulated_start', {EPOCH_S * 1_000_000});
"""


# The log's triggers have no search path, and name the server's clock in full.
RESET_TRIGGERS: Final = f"""
DO $$
DECLARE
    said text;
BEGIN
    FOR said IN
        SELECT pg_get_functiondef(oid)
        FROM pg_proc
        WHERE pronamespace = '{SCHEMA}'::regnamespace AND prosrc ~ 'pg_catalog.[a-z]*_timestamp'
    LOOP
        EXECUTE regexp_replace(
            said, 'pg_catalog\\.(clock_timestamp|statement_timestamp)', '{SCHEMA}.\\1', 'g'
        );
    END LOOP;
END
$$
"""


WAITED_FOR: Final = """
SELECT coalesce(array_agg(blocking), '{}')
FROM unnest(%s) AS id CROSS JOIN unnest(pg_blocking_pids(id)) AS blocking
"""


IS_DEADLOCKED: Final = """
WITH RECURSIVE others (id) AS (
    SELECT unnest(pg_blocking_pids(%s))
    UNION
    SELECT unnest(pg_blocking_pids(id)) FROM others
)
SELECT %s IN (SELECT id FROM others)
"""


class ClockedDatabase(Database):
    """The product's database, in whose sessions the simulated clock comes first."""

    def __init__(self, dsn: str) -> None:
        super().__init__(dsn, SCHEMA)
        self._settings.pinned["search_path"] = f"{SCHEMA}, pg_catalog, pg_temp"


@contextmanager
def simulation_server() -> Iterator[str]:
    """A throw-away cluster with the template of every run; where to connect."""
    home = MEMORY if MEMORY.is_dir() else None
    folder = Path(tempfile.mkdtemp(prefix="simulation-", dir=home))
    try:
        server = Server(folder, SETTINGS)
        clocks = server.cluster.data / CLOCKS
        clocks.mkdir()
        clocks.chmod(0o755)
        _begin(clocks / TEMPLATE)
        with server:
            _make_template(server.dsn)
            yield server.dsn
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _make_template(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(TEMPLATE)))
    dsn = database_dsn(dsn, TEMPLATE)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(CLOCK.encode())
    database = ClockedDatabase(dsn)
    try:
        schemas.create(database, partial(create_projections, database))
        with database.cursor() as cursor:
            cursor.execute(RESET_TRIGGERS.encode())
    finally:
        database.close()


def database_dsn(dsn: str, name: str) -> str:
    """Where to connect to another database of the same server."""
    return psycopg.conninfo.make_conninfo(dsn, dbname=name)


@contextmanager
def fresh_database(dsn: str) -> Iterator[str]:
    """A database of its own for one run, dropped afterwards; where to connect."""
    name = f"run_{uuid4().hex[:12]}"
    made, dropped = (
        sql.SQL(text).format(name=sql.Identifier(name), template=sql.Identifier(TEMPLATE))
        for text in (
            "CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy",
            "DROP DATABASE {name} WITH (FORCE)",
        )
    )
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(made)
        try:
            yield database_dsn(dsn, name)
        finally:
            connection.execute(dropped)


class Monitor:
    """The simulation's own session: it sets the clock, checks locks and ends sessions."""

    def __init__(self, dsn: str) -> None:
        self.connection: Connection[TupleRow] = psycopg.connect(dsn, autocommit=True)
        self.connection.isolation_level = IsolationLevel.REPEATABLE_READ
        self.connection.execute(f"SET search_path = {SCHEMA}, pg_catalog".encode())
        folder, name = Path(self.one("SHOW data_directory")), self.one("SELECT current_database()")
        self._clock = folder / CLOCKS / name
        _begin(self._clock)
        self._clock_file = os.open(self._clock, os.O_WRONLY)
        self._held: set[int] = set()

    def set_clock(self, server_s: float) -> None:
        """Let the server's clock show so many seconds since the run began."""
        os.pwrite(self._clock_file, _written(server_s), 0)

    def set_start(self, server_s: float) -> None:
        """Let the server have been started at that time."""
        self.connection.execute(
            "SELECT setval('simulated_start', %s)", [_written(server_s).decode()]
        )

    def is_blocked(self, backend_id: int) -> bool:
        """Whether a backend waits for a lock."""
        return bool(self.one("SELECT cardinality(pg_blocking_pids(%s)) > 0", backend_id))

    def is_deadlocked(self, backend_id: int) -> bool:
        """Whether it waits for somebody who, in the end, waits for it.

        The server would find that out too, and end the call of the first that does, which is a
        matter of real time: its own search is put off for ever.
        """
        return bool(self.one(IS_DEADLOCKED, backend_id, backend_id))

    def hold(self, backend_id: int) -> None:
        """Let a backend that waits for a lock stand still, so that of many who get what they wait
        for at the same moment one at a time continues."""
        os.kill(backend_id, signal.SIGSTOP)
        self._held.add(backend_id)

    def let_go(self, backend_id: int) -> None:
        """Let it continue, if it was held."""
        if backend_id in self._held:
            self._held.remove(backend_id)
            os.kill(backend_id, signal.SIGCONT)

    def cancel(self, backend_id: int) -> None:
        """End the statement of a backend, as a limit of its session would."""
        self.connection.execute("SELECT pg_cancel_backend(%s)", [backend_id])
        self.let_go(backend_id)

    def terminate(self, backend_ids: list[int]) -> None:
        """End sessions; returns once they are gone.

        A session that waits for another of them ends before it: else it depended on the speed of
        the server whether a waiting call is still finished.
        """
        while backend_ids:
            waited_for = self.one(WAITED_FOR, backend_ids)
            first = [one for one in backend_ids if one not in waited_for] or backend_ids
            self.connection.execute(
                "SELECT pg_terminate_backend(id) FROM unnest(%s) AS id", [first]
            )
            self.await_gone(first)
            backend_ids = [one for one in backend_ids if one not in first]

    def await_gone(self, backend_ids: list[int]) -> None:
        """Return once these backends have let go of everything."""
        for backend_id in backend_ids:
            self.let_go(backend_id)
        alive = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = ANY(%s))"
        while self.one(alive, backend_ids):
            time.sleep(POLL_S)

    def one(self, statement: str, *values: object) -> Any:  # noqa: ANN401 - as the server answers
        """The only value of the only row."""
        return one(self.connection.execute(statement.encode(), values))[0]

    def seen(self, *statements: str) -> list[list[Any]]:
        """The rows of these statements, with their columns as attributes: in one snapshot, and in
        one round trip."""
        cursors = [self.connection.cursor(row_factory=namedtuple_row) for _ in statements]
        with self.connection.pipeline(), self.connection.transaction():
            for cursor, statement in zip(cursors, statements, strict=True):
                cursor.execute(statement.encode())
        return [cursor.fetchall() for cursor in cursors]

    def close(self) -> None:
        """Let all backends continue, and end the session."""
        for backend_id in list(self._held):
            self.let_go(backend_id)
        self.connection.close()
        os.close(self._clock_file)
        self._clock.unlink()


def _begin(clock: Path) -> None:
    clock.write_bytes(_written(0.0))
    clock.chmod(0o644)  # the server may be another account's


def _written(server_s: float) -> bytes:
    """A time as the server's clock shows it: microseconds, always as many digits."""
    return b"%016d" % round((EPOCH_S + server_s) * 1e6)
