"""A server that takes the connections of a whole fleet, and whose load is sampled."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Final

import psycopg
from psycopg.rows import dict_row

from scripts.harness.server import Server

SAMPLE_S: Final = 0.05
SPARE_CONNECTIONS: Final = 50
"""For sweepers, the bench itself, and what the server keeps for its owner."""

ACTIVITY: Final = """
SELECT count(*) AS clients,
    count(*) FILTER (WHERE wait_event_type = 'Lock') AS lock_waits,
    count(*) FILTER (WHERE wait_event_type = 'LWLock') AS latch_waits
FROM pg_stat_activity
WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
"""

DEADLOCKS: Final = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"


class WatchedServer(Server):
    """With its defaults, but for the number of connections."""

    stop_mode: ClassVar = "fast"

    def __init__(self, folder: Path, *, connections: int) -> None:
        super().__init__(folder, f"max_connections = {connections + SPARE_CONNECTIONS}\n")

    def deadlocks(self) -> int:
        """How many there have been."""
        [row] = self.rows(DEADLOCKS)
        return int(row["deadlocks"])

    @contextmanager
    def watched(self) -> Iterator[Counter[str]]:
        """Meanwhile, the most clients, and the most that waited at one moment, and for what."""
        most: Counter[str] = Counter()
        is_over = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(most, is_over))
        watcher.start()
        try:
            yield most
        finally:
            is_over.set()
            watcher.join()

    def _watch(self, most: Counter[str], is_over: threading.Event) -> None:
        with psycopg.connect(self.dsn, autocommit=True, row_factory=dict_row) as connection:
            while not is_over.wait(SAMPLE_S):
                row = connection.execute(ACTIVITY).fetchone() or {}
                for name, count in row.items():
                    most[name] = max(most[name], count)
                most["samples"] += 1
                most["samples_with_lock_waits"] += bool(row["lock_waits"])
