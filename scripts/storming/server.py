"""The server of a chaos test, which is killed, cut off, misconfigured and starved of disk."""

import ctypes
import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import ClassVar, Final

import psycopg

from scripts.harness.server import Server

CONNECT_S: Final = 2

CLIENTS: Final = """
SELECT pid
FROM pg_stat_activity
WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
ORDER BY pid
"""

# Settings of every new session: each broke a promise before sessions were pinned.
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


class StormServer(Server):
    """On a small disk of its own where it can be had."""

    # The log of transactions has to fit on the small disk beside the rest.
    settings: ClassVar = "max_wal_size = 128MB\nmin_wal_size = 64MB\n"

    def __init__(self, folder: Path) -> None:
        self.disk = SmallDisk.on(folder)
        super().__init__(folder)

    def __exit__(self, *exception: object) -> None:
        if self.disk:
            self.disk.free()
        super().__exit__(*exception)
        if self.disk:
            self.disk.close()

    def kill(self) -> bool:
        """SIGKILL for the postmaster; the others notice, and end by themselves."""
        first = self.postmaster()
        if first is None:
            return False
        first.kill()
        return True

    def kill_backend(self, aim: float) -> bool:
        """SIGKILL for one of the others, whatever it does. The server cuts all connections then,
        and recovers from its log."""
        first = self.postmaster()
        others = sorted(first.children(), key=lambda it: it.pid) if first else []
        if not others:
            return False
        try:
            os.kill(others[int(aim * len(others))].pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True

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
        whether the server accepted it."""
        random = Random(aim)  # noqa: S311 - a plan, no secret
        owner, setting = random.choice(SETTING_OWNERS), random.choice(CHANGED_SETTINGS)
        return self._alter(f"ALTER {owner} SET {setting}")

    def reset_settings(self) -> bool:
        """Reset all changed settings before the evidence is read; whether the server accepted that,
        which may be away or recovering just now."""
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


SIZE_MB: Final = 1024
PIECE_BYTES: Final = 1024 * 1024
CLONE_NEWNS: Final = 0x00020000  # of linux/sched.h

LIBC: Final = ctypes.CDLL(None, use_errno=True)


class SmallDisk:
    """Mounted on a folder. Only for root on Linux; elsewhere there is none."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._filler = folder / "filler"

    @classmethod
    def on(cls, folder: Path) -> "SmallDisk | None":
        """Mount one, or say that it cannot be had. This process must not have any threads."""
        if not sys.platform.startswith("linux") or os.geteuid() != 0:
            return None
        if LIBC.unshare(CLONE_NEWNS) != 0:
            return None
        commands = (
            ("mount", "--make-rprivate", "/"),
            ("mount", "-t", "tmpfs", "-o", f"size={SIZE_MB}m,mode=755", "tmpfs", str(folder)),
        )
        for command in commands:
            if subprocess.run(command, capture_output=True, check=False).returncode != 0:
                return None
        return cls(folder)

    def fill(self) -> None:
        """Leave no room for anything."""
        with self._filler.open("wb", buffering=0) as file:
            for size in (PIECE_BYTES, 512):
                _write_until_full(file.fileno(), b"\0" * size)

    def free(self) -> None:
        """Remove what it was filled with. Idempotent."""
        self._filler.unlink(missing_ok=True)

    def close(self) -> None:
        """Unmount it, once no process works on it. Its contents are gone."""
        subprocess.run(("umount", str(self._folder)), capture_output=True, check=True)


def _write_until_full(file: int, piece: bytes) -> None:
    while True:
        try:
            os.write(file, piece)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                return
            raise
