"""The account an embedded server runs under."""

import os
import pwd
import shutil
import subprocess
import time

from recovery_journal.domain.errors import EmbeddedServerUnavailable

NAME = "pgserver"
"""For root; the wheel's own helpers use the same name, so a machine gets only one."""
MAKE_LIMIT_S = 10
POLL_S = 0.05


def server_account() -> pwd.struct_passwd | None:
    """The system account to change to, made when missing: PostgreSQL refuses to run as root. None
    where the server may run under this process's user."""
    if os.geteuid() != 0:
        return None
    found = _find()
    return found if found is not None else _make()


def server_uid() -> int | None:
    """The user id of this process's server; None where its account does not exist yet."""
    if os.geteuid() != 0:
        return os.geteuid()
    found = _find()
    return None if found is None else found.pw_uid


def server_user() -> str | None:
    """The name of that user, where it has one."""
    uid = server_uid()
    try:
        return None if uid is None else pwd.getpwuid(uid).pw_name
    except KeyError:  # a container's number without a name
        return None


def _find() -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(NAME)
    except KeyError:
        return None


def _make() -> pwd.struct_passwd:
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
