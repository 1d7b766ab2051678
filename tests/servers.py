"""PostgreSQL servers that a test may do anything to."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Self

import psutil

from recovery_journal.postgres.cluster import Cluster, StopMode
from recovery_journal.postgres.database import Database, one
from recovery_journal.postgres.embedded import embedded_cluster

GONE_LIMIT_S = 30


def server_started_at(database: Database) -> datetime:
    """When the server was started, by its own clock."""
    with database.cursor() as cursor:
        row = one(cursor.execute("SELECT pg_postmaster_start_time() AS started"))
    started: datetime = row["started"]
    return started


@dataclass(frozen=True)
class PrivateServer:
    """A server of its own folder, to stop, restart and kill.

    It holds nothing but paths, so a child process may be given it, or make an equal one.
    """

    cluster: Cluster

    @classmethod
    def at(cls, folder: Path) -> Self:
        """The server of this folder, made when missing, not started."""
        cluster = embedded_cluster(folder)
        cluster.create()
        return cls(cluster)

    @property
    def dsn(self) -> str:
        """Where to connect; the same after every restart."""
        return self.cluster.dsn

    @property
    def bin_path(self) -> Path:
        """The folder of pgbench, pg_basebackup, pg_ctl and the other programs."""
        return self.cluster.bin_path

    def start(self) -> None:
        """Return once it accepts connections."""
        self.cluster.start()

    def stop(self, mode: StopMode = "fast") -> None:
        """Return once it is gone: `fast` cuts sessions, `immediate` also skips the tidying up."""
        self.cluster.stop(mode)

    def restart(self, mode: StopMode = "fast") -> None:
        """Stop and start; sessions do not survive it."""
        self.stop(mode)
        self.start()

    def kill(self) -> None:
        """SIGKILL all its processes at once, as a power cut would; return once they are gone."""
        # The others notice that the first is gone and end by themselves, some before our signal.
        processes = self.cluster.processes()
        for process in processes:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        _, alive = psutil.wait_procs(processes, timeout=GONE_LIMIT_S)
        left = [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]
        assert not left, f"{left} outlived SIGKILL"
