"""One PostgreSQL cluster: a data folder and the programs that serve it."""

import hashlib
import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from recovery_journal.domain.errors import EmbeddedServerUnavailable
from recovery_journal.postgres.account import server_account, server_uid, server_user
from recovery_journal.postgres.folders import make_folder, require_ours, runnable
from recovery_journal.postgres.local_dsn import local_dsn

StopMode = Literal["smart", "fast", "immediate"]

START_LIMIT_S = 60
STOP_LIMIT_S = 60
POLL_S = 0.02
SOCKET_PATH_LIMIT = 100
"""A socket's path may have 107 bytes on Linux and 103 on macOS."""
SHORT_FOLDER = Path("/tmp")  # noqa: S108 - not TMPDIR: every process must find the same place
LOG_TAIL_LINES = 8

SETTINGS = """
# Written once, when the recovery journal made this cluster.
listen_addresses = ''          # a Unix socket only: nothing listens on the network
unix_socket_permissions = 0700
max_connections = 200
fsync = on
synchronous_commit = on
"""


@dataclass(frozen=True)
class Cluster:
    """A PostgreSQL cluster below a folder, reached only through a Unix socket.

    All state is on disk, so equal values in several processes mean one and the same cluster. Its
    methods do not guard against each other: `EmbeddedServer` adds a lock for that.
    """

    folder: Path
    bin_path: Path

    @property
    def data(self) -> Path:
        """The data folder proper; it exists only once it is complete."""
        return self.folder / "data"

    @property
    def log(self) -> Path:
        """The file of the server's messages."""
        return self.data / "server.log"

    @property
    def dsn(self) -> str:
        """The DSN, the same in every life of the server. Read this once the data folder exists."""
        version = int((self.data / "PG_VERSION").read_text(encoding="ascii"))
        return local_dsn(self._socket_folder, account=server_user() or "", version=version)

    @property
    def _socket_folder(self) -> Path:
        # Only its owner may enter the data folder, so no other user can connect.
        if len(os.fsencode(self.data / ".s.PGSQL.5432")) <= SOCKET_PATH_LIMIT:
            return self.data
        name = hashlib.sha256(os.fsencode(self.data)).hexdigest()[:16]
        return SHORT_FOLDER / f"recovery-journal-{name}"

    def create(self) -> None:
        """Make the data folder; a complete one is kept, and an incomplete one is made again from
        scratch."""
        make_folder(self.folder, self.folder)
        if self.data.exists() or self.data.is_symlink():
            require_ours(self.data, server_uid())
            return
        unfinished = self.folder / "data.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        _make_private(unfinished)
        # C collation: text sorts by its bytes on every machine, whatever its language.
        self._run("initdb", "--auth=trust", "--username=postgres", "--encoding=UTF8",
                  "--no-locale", "-D", str(unfinished), limit_s=START_LIMIT_S)  # fmt: skip
        flags = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW
        with os.fdopen(os.open(unfinished / "postgresql.conf", flags), "a") as settings:
            settings.write(SETTINGS)
        unfinished.rename(self.data)

    def start(self) -> None:
        """Return once the server accepts connections; a running one is kept."""
        _wait_until(
            lambda: self.is_ready() or not self.processes(),
            START_LIMIT_S,
            f"a server is neither ready nor gone; its log ends: {self._log_tail()}",
        )
        if self.is_ready():
            return
        # No process uses the data folder, so these are leftovers - and their process number belongs
        # to another process by now, or to one that its parent has not reaped yet: the server would
        # take it for a rival and refuse.
        for leftover in ("postmaster.pid", ".s.PGSQL.5432.lock"):
            (self.data / leftover).unlink(missing_ok=True)
        if self._socket_folder != self.data:
            shutil.rmtree(
                self._socket_folder, ignore_errors=True
            )  # another user's stays, and refuses
            _make_private(self._socket_folder)
        options = f"-p 5432 -k {shlex.quote(str(self._socket_folder))}"
        self._run("pg_ctl", "start", "-w", "-t", str(START_LIMIT_S), "-l", str(self.log),
                  "-o", options, "-D", str(self.data), limit_s=START_LIMIT_S + 5)  # fmt: skip

    def stop(self, mode: StopMode = "fast") -> None:
        """Return once the server is gone; `immediate` makes the next start recover from its log."""
        if self.processes():
            self._run("pg_ctl", "stop", "-w", "-t", str(STOP_LIMIT_S), "-m", mode,
                      "-D", str(self.data), limit_s=STOP_LIMIT_S + 5)  # fmt: skip
        if self._socket_folder != self.data:
            shutil.rmtree(self._socket_folder, ignore_errors=True)

    def is_ready(self) -> bool:
        """Whether a living server of this folder has reported that it accepts connections."""
        try:
            lines = (self.data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return False
        if len(lines) < 8 or lines[7].strip() != "ready":
            return False
        return int(lines[0]) in {process.pid for process in self.processes()}

    def processes(self) -> tuple[psutil.Process, ...]:
        """The server's living processes: those whose working directory is the data folder."""
        return tuple(
            process
            for process in psutil.process_iter(["name"])
            if process.info["name"] == "postgres" and _works_in(process, self.data)
        )

    def _log_tail(self) -> str:
        try:
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return "(no log)"
        return " | ".join(lines[-LOG_TAIL_LINES:])

    def _run(self, program: str, *arguments: str, limit_s: float) -> None:
        account = server_account()
        try:
            done = subprocess.run(
                [str(runnable(self.bin_path) / program), *arguments],
                cwd="/",  # this process's directory may be closed to the server's account
                env={name: text for name, text in os.environ.items() if name[:2] != "PG"},
                user=None if account is None else account.pw_uid,
                group=None if account is None else account.pw_gid,
                extra_groups=None if account is None else [],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=limit_s,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise EmbeddedServerUnavailable(f"{program} did not do its work: {error}") from error
        if done.returncode != 0:
            said = (done.stderr.strip() or done.stdout.strip()).replace("\n", " | ")
            raise EmbeddedServerUnavailable(
                f"{program} failed: {said}; the server's log ends: {self._log_tail()}"
            )


def _make_private(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700)
    except OSError as error:
        raise EmbeddedServerUnavailable(f"{folder} cannot be made: {error.strerror}") from error
    account = server_account()
    if account is not None:
        os.chown(folder, account.pw_uid, account.pw_gid, follow_symlinks=False)


def _works_in(process: psutil.Process, folder: Path) -> bool:
    try:
        return bool(process.cwd() == str(folder))
    except psutil.Error:  # it ended meanwhile, is a zombie, or is another user's
        return False


def _wait_until(condition: Callable[[], bool], limit_s: float, otherwise: str) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            raise EmbeddedServerUnavailable(otherwise)
        time.sleep(POLL_S)
