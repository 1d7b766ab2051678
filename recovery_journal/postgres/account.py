"""The account an embedded server runs under."""

import os
import pwd
import shutil
import stat
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from domain.errors import EmbeddedServerUnavailable

NAME = "pgserver"
"""Where we are root; the wheel's own helpers use the same name, so a machine gets only one."""
MAKE_LIMIT_S = 10
POLL_S = 0.05
PASS_THROUGH = stat.S_IXOTH
READ_AND_RUN = stat.S_IROTH | stat.S_IXOTH


@dataclass(frozen=True)
class ServerAccount:
    """A system account for the server: PostgreSQL refuses to run as root."""

    uid: int
    gid: int

    def own(self, folder: Path) -> None:
        """Make the account the owner of a folder, and its way there passable."""
        os.chown(folder, self.uid, self.gid)
        self.admit(folder)

    def admit(self, folder: Path) -> None:
        """Let the account pass through the folders above; passing is all that is granted."""
        for parent in folder.parents:
            mode = parent.stat().st_mode
            if not mode & PASS_THROUGH:
                parent.chmod(mode | PASS_THROUGH)

    def admit_programs(self, bin_path: Path) -> None:
        """Let the account run the programs, also where root installed them for root alone."""
        self.admit(bin_path)
        if (bin_path / "postgres").stat().st_mode & READ_AND_RUN == READ_AND_RUN:
            return
        package = bin_path.parents[1]
        for folder in package.parent.glob(f"{package.name}*"):  # its libraries lie beside it
            for path in (folder, *folder.rglob("*")):
                mode = path.stat().st_mode
                path.chmod(mode | (READ_AND_RUN if mode & stat.S_IXUSR else stat.S_IROTH))


def server_account() -> ServerAccount | None:
    """The account to change to, made when missing; None where the server may run as we do."""
    if os.geteuid() != 0:
        return None
    found = _find()
    return found if found is not None else _make()


def _find() -> ServerAccount | None:
    try:
        entry = pwd.getpwnam(NAME)
    except KeyError:
        return None
    return ServerAccount(entry.pw_uid, entry.pw_gid)


def _make() -> ServerAccount:
    if shutil.which("useradd") is None:
        raise EmbeddedServerUnavailable(
            f"root may not run it, and there is no useradd to make the account {NAME!r}"
        )
    deadline = time.monotonic() + MAKE_LIMIT_S
    while True:
        made = subprocess.run(
            ["useradd", "--system", "--no-create-home", NAME],
            capture_output=True,
            text=True,
            check=False,
        )
        # Another process may have made it first, or hold the lock of the account file right now.
        found = _find()
        if found is not None:
            return found
        if time.monotonic() > deadline:
            raise EmbeddedServerUnavailable(
                f"the account {NAME!r} could not be made: {made.stderr.strip()}"
            )
        time.sleep(POLL_S)
