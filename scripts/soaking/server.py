"""A server of the soak test's own, and its statistics: connections, locks, the length of
transactions, and the size of the tables that change the most."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Final

import psycopg
from psycopg.rows import DictRow, dict_row

from scripts.harness.server import Server
from scripts.soaking.figure import SERVER_FILES_KEPT, Figure, Observation, Processes

APPLICATION: Final = "soak"
CLIENT: Final = "client backend"
FEWEST_ROWS: Final = 500
"""Of a table with fewer, bytes per row say more about its last page than about its rows."""

HOT_TABLES: Final = (
    "leases",
    "projection_dispatch_ready",
    "projection_recovery_contexts",
    "projection_workers",
    "projection_tracking",
)
"""Those whose rows are updated."""

ACTIVITY: Final = """
SELECT pid, backend_type, application_name,
    coalesce(extract(epoch FROM clock_timestamp() - xact_start), 0)::float AS transaction_s
FROM pg_stat_activity
WHERE pid <> pg_backend_pid()
"""

STATE: Final = """
SELECT (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory') AS advisory_locks,
    (SELECT count(*) FROM pg_ls_tmpdir()) AS temporary_files
"""

# Sizes are null where a rebuild has just put another table in place.
TABLES: Final = """
SELECT relname, n_live_tup, n_dead_tup,
    pg_relation_size(relid) AS bytes, pg_indexes_size(relid) AS index_bytes
FROM pg_stat_user_tables
WHERE schemaname = %(schema)s AND relname = ANY(%(names)s)
"""


class SoakServer(Server):
    """Nearly with its defaults, and sampled through one connection."""

    # By default each process keeps up to a thousand, over hours, which would look like a leak.
    settings: ClassVar = f"max_files_per_process = {SERVER_FILES_KEPT}\n"

    _connection: psycopg.Connection[DictRow] | None = None

    def __exit__(self, *exception: object) -> None:
        if self._connection is not None:
            self._connection.close()
        super().__exit__(*exception)

    def observations(
        self, schema: str, applications: Sequence[str], processes: Processes
    ) -> Iterator[Observation | None]:
        """Its processes (None for one that has just ended), connections, tables, and itself."""
        activity = self._sampled(ACTIVITY)
        yield from _of_processes(activity, processes)
        clients = Counter(it["application_name"] for it in activity if it["backend_type"] == CLIENT)
        counted = {name: clients[name] for name in applications} | {"all": clients.total()}
        for name, count in counted.items():
            yield Observation.of(f"connections of {name}", {Figure.CONNECTIONS: count})
        [state] = self._sampled(STATE)
        lasted_s = [it["transaction_s"] for it in activity if it["backend_type"] == CLIENT]
        figures = {
            Figure.ADVISORY_LOCKS: state["advisory_locks"],
            Figure.TEMPORARY_FILES: state["temporary_files"],
            Figure.OLDEST_TRANSACTION: max(lasted_s, default=0.0),
        }
        yield Observation.of("server", figures)
        for table in self._sampled(TABLES, schema=schema, names=list(HOT_TABLES)):
            yield _of_table(table)

    def _sampled(self, statement: str, **values: object) -> list[dict[str, Any]]:
        if self._connection is None:
            self._connection = psycopg.connect(
                self.dsn, autocommit=True, row_factory=dict_row, application_name=APPLICATION
            )
        return self._connection.execute(statement.encode(), values).fetchall()


def _of_processes(
    activity: Sequence[DictRow], processes: Processes
) -> Iterator[Observation | None]:
    """Backends under the name of their client, the others under their type."""
    postmaster = None
    for row in activity:
        process = processes.one(row["pid"])
        if process is None:
            continue
        postmaster = postmaster or processes.parent(process)
        role = name = row["backend_type"]
        if role == CLIENT:
            served = row["application_name"]
            role, name = f"backends of {served.rpartition('-')[0]}s", f"backend of {served}"
        yield _of_process(processes, process.pid, role, name)
    if postmaster is not None:
        yield _of_process(processes, postmaster.pid, "postmaster", "postmaster")


def _of_process(processes: Processes, pid: int, role: str, name: str) -> Observation | None:
    return processes.observation(pid, role, f"{name} ({pid})", is_of_server=True)


def _of_table(table: DictRow) -> Observation:
    figures = {Figure.DEAD_ROWS: float(table["n_dead_tup"])}
    row_count = table["n_live_tup"]
    if row_count >= FEWEST_ROWS and table["bytes"] is not None:
        figures[Figure.BYTES_PER_ROW] = table["bytes"] / row_count
        figures[Figure.INDEX_BYTES_PER_ROW] = table["index_bytes"] / row_count
    return Observation.of(f"table {table['relname']}", figures)
