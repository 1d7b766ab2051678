"""The embedded PostgreSQL server: one per data folder, shared by the processes of one user."""

import atexit
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import platformdirs

from recovery_journal.domain.errors import EmbeddedServerUnavailable
from recovery_journal.domain.wording import shown
from recovery_journal.postgres.cluster import Cluster
from recovery_journal.postgres.connection_string import is_like_dsns_path, misplaced
from recovery_journal.postgres.folders import (
    make_folder,
    open_own_file,
    place_of,
    require_no_foreign_link,
)
from recovery_journal.postgres.programs import programs
from recovery_journal.process.forks import leave_in_children

FOLDER_VARIABLE = "RECOVERY_JOURNAL_DATA"
OLDEST_SERVER = 16
GATE_LIMIT_S = 120
POLL_S = 0.02


class EmbeddedServer:
    """One process's use of the server of a data folder.

    The first user of a folder starts the server, the last one to close stops it. A user is a lock
    on the file `users` that the kernel releases when its process ends, however it ends: a process
    killed with SIGKILL leaves nothing behind that would keep the server alive. (If the very last
    user is killed, the server runs on until the next one closes.) A forked child is no user: it may
    connect while its parent lives, and calls `start` to be one itself.

    The server listens on a Unix socket in a folder that only its owner may enter. PostgreSQL
    refuses to run as root, so for root it runs under the system account `pgserver`, made when
    missing; below a folder that is closed to that account the data are in /var/lib/recovery-journal
    instead (`postgres.folders`). Linux and macOS only.
    """

    def __init__(self, cluster: Cluster, use: int) -> None:
        self._cluster = cluster
        self._use: int | None = use
        atexit.register(self.close)
        leave_in_children(self)

    @classmethod
    def start(cls, folder: Path | None = None) -> Self:
        """Use the server of a folder; without one, of `$RECOVERY_JOURNAL_DATA` or the user's own.

        The first start makes the data folder, which takes about a second, with the programs of
        PostgreSQL in the folder `$RECOVERY_JOURNAL_POSTGRES`, or else those of the wheel. Raises
        `EmbeddedServerUnavailable` when there are no programs or the server does not start.
        """
        cluster = embedded_cluster(folder)
        make_folder(cluster.folder, named_folder(folder))
        with _gate(cluster.folder):
            cluster.create()
            cluster.start()
            use = _try_lock(cluster.folder / "users", shared=True)
        assert use is not None, "a process takes this lock alone only inside the gate"
        return cls(cluster, use)

    @property
    def dsn(self) -> str:
        """The DSN of the server."""
        return self._cluster.dsn

    @property
    def bin_path(self) -> Path:
        """The folder of the server's programs: pgbench, psql, pg_basebackup and the rest."""
        return self._cluster.bin_path

    def close(self) -> None:
        """Give up this use; the last one stops the server. Idempotent, and without effect in a
        forked child."""
        if self._use is None:
            return
        with _gate(self._cluster.folder):
            _unlock(self._use)
            self._use = None
            alone = _try_lock(self._cluster.folder / "users", shared=False)
            if alone is not None:
                _unlock(alone)
                self._cluster.stop()
        atexit.unregister(self.close)

    def leave(self) -> None:
        """In a forked child: release the inherited lock file, which would outlive the parent."""
        if self._use is not None:
            os.close(self._use)
            self._use = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def embedded_cluster(folder: Path | None = None) -> Cluster:
    """The cluster of a folder, with the programs of the version that made it."""
    found = programs()
    folder = place_of(named_folder(folder))
    version = _made_by(folder / "data") or max(found, default=0)
    if version < OLDEST_SERVER or version not in found:
        brought = ", ".join(str(number) for number in sorted(found)) or "none"
        raise EmbeddedServerUnavailable(
            f"{folder} needs the programs of PostgreSQL {version or OLDEST_SERVER}, "
            f"found {brought}, needed at least {OLDEST_SERVER}"
        )
    return Cluster(folder, found[version])


def named_folder(folder: Path | None) -> Path:
    """The folder that the caller or the environment names, else the user's own."""
    if folder is None:
        named = os.environ.get(FOLDER_VARIABLE)
        folder = (
            Path(named)
            if named
            else platformdirs.user_data_path("recovery-journal", appauthor=False)
        )
    if is_like_dsns_path(str(folder)):
        raise misplaced("the folder of the embedded server", "the path of a folder")
    try:
        folder = folder.expanduser()
        require_no_foreign_link(folder.absolute())
        folder = folder.resolve()
        folder.exists()  # raises where no such path can exist, as one that is too long
    except (OSError, RuntimeError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise EmbeddedServerUnavailable(
            f"the folder {shown(str(folder))} cannot be inspected: {reason}"
        ) from error
    return folder


def _made_by(data: Path) -> int | None:
    try:
        return int((data / "PG_VERSION").read_text(encoding="ascii"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise EmbeddedServerUnavailable(f"{data} cannot be read: {error}") from error


@contextmanager
def _gate(folder: Path) -> Iterator[None]:
    """Mutual exclusion among all processes and threads that start or stop the server of a
    folder."""
    deadline = time.monotonic() + GATE_LIMIT_S
    while (lock := _try_lock(folder / "gate", shared=False)) is None:
        if time.monotonic() > deadline:
            raise EmbeddedServerUnavailable(
                f"another process has been starting or stopping it for {GATE_LIMIT_S} s in {folder}"
            )
        time.sleep(POLL_S)
    try:
        yield
    finally:
        _unlock(lock)


def _try_lock(path: Path, *, shared: bool) -> int | None:
    """An open file with a lock of its own, or None while another process holds a conflicting
    one."""
    number = open_own_file(path, os.O_RDWR)
    try:
        fcntl.flock(number, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(number)
        return None
    return number


def _unlock(number: int) -> None:
    # Unlocked explicitly: a child forked meanwhile has the same file open, so closing would not
    # unlock it.
    fcntl.flock(number, fcntl.LOCK_UN)
    os.close(number)
