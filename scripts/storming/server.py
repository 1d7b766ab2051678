"""The server of a storm: a cluster of its own, which may be killed, cut off and starved of disk."""

import os
import signal
from pathlib import Path
from random import Random
from typing import Final, Self

import psutil
import psycopg

from recovery_journal.postgres.cluster import Cluster
from recovery_journal.postgres.embedded import embedded_cluster
from scripts.storming.small_disk import SmallDisk

CONNECT_S: Final = 2

# The log of transactions has to fit on the small disk beside the rest.
SETTINGS: Final = """
max_wal_size = 128MB
min_wal_size = 64MB
"""

CLIENTS: Final = """
SELECT pid
FROM pg_stat_activity
WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
ORDER BY pid
"""

# What every new session finds: each broke a promise before sessions were pinned.
CHANGED_SETTINGS: Final = (
    "synchronous_commit = off",
    "standard_conforming_strings = off",
    "array_nulls = off",
    "DateStyle = 'German'",
    "TimeZone = 'Asia/Kathmandu'",
    "default_transaction_read_only = on",
    "default_transaction_isolation = 'serializable'",
    "session_replication_role = 'replica'",
    "statement_timeout = '200ms'",
    "idle_session_timeout = '500ms'",
    "search_path = 'nowhere'",
)
SETTING_OWNERS: Final = ("ROLE postgres", "DATABASE postgres")

CUT: Final = "SELECT pg_terminate_backend(%(pid)s)"


class StormServer:
    """Started on entering; on leaving, whatever is left of it is killed."""

    def __init__(self, folder: Path) -> None:
        self.disk = SmallDisk.on(folder)
        self.cluster: Cluster = embedded_cluster(folder)
        self.cluster.create()
        with (self.cluster.data / "postgresql.conf").open("a", encoding="utf-8") as settings:
            settings.write(SETTINGS)

    def __enter__(self) -> Self:
        self.cluster.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        if self.disk:
            self.disk.free()
        self.cluster.stop("immediate")
        if self.disk:
            self.disk.close()

    @property
    def dsn(self) -> str:
        """Where to connect, in every life of it."""
        return self.cluster.dsn

    def is_ready(self) -> bool:
        """Whether it accepts connections."""
        return self.cluster.is_ready()

    def start(self) -> None:
        """Return once it accepts connections; whatever is in the way of that is left to end."""
        self.cluster.start()

    def kill(self) -> bool:
        """SIGKILL for the first of its processes; the others notice, and end by themselves."""
        first = self._first()
        if first is None:
            return False
        first.kill()
        return True

    def kill_backend(self, aim: float) -> bool:
        """SIGKILL for one of the others, whatever it does. The server cuts all connections then,
        and recovers from its log."""
        first = self._first()
        if first is None:
            return False
        others = sorted(first.children(), key=lambda it: it.pid)
        return bool(others) and _kill(others[int(aim * len(others))])

    def cut(self, aim: float) -> int:
        """Cut a share of all connections; how many were."""
        try:
            with psycopg.connect(self.dsn, connect_timeout=CONNECT_S, autocommit=True) as own:
                clients = [pid for (pid,) in own.execute(CLIENTS)]
                chosen = Random(aim).sample(clients, round(aim * len(clients)))  # noqa: S311
                for pid in chosen:
                    own.execute(CUT, {"pid": pid})
        except psycopg.OperationalError:  # it is away, or was struck meanwhile
            return 0
        return len(chosen)

    def change_setting(self, aim: float) -> bool:
        """Change a setting of the role or the database, for every session that begins from now on;
        whether the server took it."""
        random = Random(aim)  # noqa: S311 - a plan, no secret
        owner, setting = random.choice(SETTING_OWNERS), random.choice(CHANGED_SETTINGS)
        return self._alter(f"ALTER {owner} SET {setting}")

    def reset_settings(self) -> bool:
        """Take all changed settings back, so that what looks at the outcome sees it as it is;
        whether the server took that, which may be away or recovering just now."""
        return all(self._alter(f"ALTER {owner} RESET ALL") for owner in SETTING_OWNERS)

    def _alter(self, statement: str) -> bool:
        options = "-c default_transaction_read_only=off -c statement_timeout=0"
        try:
            with psycopg.connect(
                self.dsn, connect_timeout=CONNECT_S, autocommit=True, options=options
            ) as own:
                own.execute(statement.encode())
        except psycopg.OperationalError:  # it is away, or was struck meanwhile
            return False
        return True

    def _first(self) -> psutil.Process | None:
        """The first of its processes, by its own number."""
        try:
            text = (self.cluster.data / "postmaster.pid").read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        number = int(text.split("\n", 1)[0])
        return next((it for it in self.cluster.processes() if it.pid == number), None)


def _kill(process: psutil.Process) -> bool:
    try:
        os.kill(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True
