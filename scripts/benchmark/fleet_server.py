"""A server of a fleet's own: it takes many connections, may be stopped, and is looked at."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Self

import psutil
import psycopg

from recovery_journal.postgres.cluster import Cluster
from recovery_journal.postgres.embedded import embedded_cluster

BYTES_PER_MB: Final = 1_000_000
SAMPLE_S: Final = 0.05
SPARE_CONNECTIONS: Final = 50
"""For sweepers, the bench itself, and what the server keeps for its owner."""

ACTIVITY: Final = """
SELECT count(*) AS clients,
    count(*) FILTER (WHERE wait_event_type = 'Lock') AS lock_waits,
    count(*) FILTER (WHERE wait_event_type = 'LWLock') AS latch_waits,
    count(*) FILTER (WHERE state = 'active') AS active
FROM pg_stat_activity
WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
"""

DEADLOCKS: Final = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"


class FleetServer:
    """An embedded server with its defaults, but for the number of connections."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.dsn = cluster.dsn

    @classmethod
    @contextmanager
    def running(cls, folder: Path, *, connections: int) -> Iterator[Self]:
        """One that is started, with so many connections for the fleet, and stopped afterwards."""
        cluster = embedded_cluster(folder)
        cluster.create()
        with (cluster.data / "postgresql.conf").open("a", encoding="utf-8") as settings:
            settings.write(f"max_connections = {connections + SPARE_CONNECTIONS}\n")
        server = cls(cluster)
        server.start()
        try:
            yield server
        finally:
            server.stop()

    def start(self) -> None:
        """Return once it accepts connections."""
        self._cluster.start()

    def stop(self) -> None:
        """Return once it is gone; sessions are cut."""
        self._cluster.stop()

    def processor_s(self) -> float:
        """Processor time of all its living processes."""
        total = 0.0
        for process in self._cluster.processes():
            with suppress(psutil.NoSuchProcess):  # a vacuum's, which has ended
                total += sum(process.cpu_times()[:2])
        return total

    def memory_mb(self) -> float:
        """Memory of all its processes, pages that they share counted once."""
        total = 0
        for process in self._cluster.processes():
            try:
                memory = process.memory_full_info()
            except psutil.NoSuchProcess:  # a vacuum's, which has ended
                continue
            total += getattr(memory, "pss", memory.rss)
        return total / BYTES_PER_MB

    def deadlocks(self) -> int:
        """How many there have been."""
        with psycopg.connect(self.dsn) as connection:
            row = connection.execute(DEADLOCKS).fetchone()
        assert row is not None
        return int(row[0])

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
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            while not is_over.wait(SAMPLE_S):
                cursor = connection.execute(ACTIVITY)
                row: Any = cursor.fetchone()
                names = [column.name for column in cursor.description or ()]
                for name, count in zip(names, row, strict=True):
                    most[name] = max(most[name], count)
                most["looks"] += 1
                most["lock_wait_looks"] += bool(row[names.index("lock_waits")])


def server_share(server: FleetServer, seconds: float) -> float:
    """How much of one core the server uses, over so many seconds."""
    begun, before = time.monotonic(), server.processor_s()
    time.sleep(seconds)
    return (server.processor_s() - before) / (time.monotonic() - begun)
