"""Notifies a hook of quarantined attempts.

The transaction that appends a quarantine also writes its notice, whichever process that is: a
sweeper, a claimer, or a person's restart that failed again. A sweeper with a hook takes the notices
one by one and calls the hook: at least once for each, because the sweeper may die between the call
and the deletion of the notice. Nothing waits for a hook but its other calls.
"""

import os
import shlex
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import msgspec
from psycopg.rows import DictRow

from recovery_journal import inputs
from recovery_journal.domain.errors import HookFailed, InvalidInput
from recovery_journal.domain.wording import message_of
from recovery_journal.limits import Limits
from recovery_journal.monitoring.quarantined import QuarantinedAttempt, QuarantineReading
from recovery_journal.postgres.connection_string import DSN_VARIABLE
from recovery_journal.postgres.database import Database
from recovery_journal.process.callables import finished

Hook = Callable[[QuarantinedAttempt], object]
"""Called with the attempt, its cause, explanation and options. Exceptions are reported, and the
call is retried with back-off."""

STANDARD_ERROR: Final = 2
TRY_LIMIT: Final = 5
MARGIN_S: Final = 5.0

TAKE_DUE_NOTICE: Final = """
UPDATE pending_quarantine_notices
SET try_count = try_count + 1,
    next_try_at = clock_timestamp() + make_interval(secs => %(busy_s)s)
WHERE (attempt_id, version) = (
    SELECT attempt_id, version
    FROM pending_quarantine_notices
    WHERE next_try_at <= clock_timestamp()
    ORDER BY next_try_at, attempt_id
    LIMIT 1
    FOR UPDATE SKIP LOCKED
)
RETURNING attempt_id, version, try_count
"""

DELETE_NOTICE: Final = """
DELETE FROM pending_quarantine_notices
WHERE attempt_id = %(attempt_id)s AND version = %(version)s
"""

RESCHEDULE_NOTICE: Final = """
UPDATE pending_quarantine_notices
SET next_try_at = clock_timestamp() + make_interval(secs => %(wait_s)s)
WHERE attempt_id = %(attempt_id)s AND version = %(version)s
"""


class QuarantineNotifier:
    """Takes pending notices and calls the hook for each. Any number of processes share the work."""

    def __init__(self, database: Database, reading: QuarantineReading, limits: Limits) -> None:
        self._database = database
        self._reading = reading
        self._limits = limits

    def notify(self, hook: Hook, on_problem: Callable[[HookFailed], object]) -> int:
        """Call the hook for all due notices; return how many calls succeeded."""
        delivered_count = 0
        while (row := self._take()) is not None:
            attempt = self._reading.of(row["attempt_id"], version=row["version"])
            if attempt is None:  # no longer quarantined, in a store that was repaired by hand
                self._execute(DELETE_NOTICE, row)
                continue
            try:
                finished("the hook", hook(attempt))
            except Exception as error:  # noqa: BLE001 - the user's hook may raise anything; it is reported
                on_problem(self._fail(row, error))
                continue
            self._execute(DELETE_NOTICE, row)
            delivered_count += 1
        return delivered_count

    def _take(self) -> DictRow | None:
        busy = {"busy_s": self._limits.hook_s + MARGIN_S}
        with self._database.cursor() as cursor:
            return cursor.execute(TAKE_DUE_NOTICE, busy).fetchone()

    def _fail(self, row: DictRow, error: Exception) -> HookFailed:
        """Schedule the retry with back-off, up to the limit of calls."""
        found = f"{type(error).__name__}: {message_of(error)}"
        if isinstance(error, CommandFailed):
            found = str(error)
        if row["try_count"] >= TRY_LIMIT:
            self._execute(DELETE_NOTICE, row)
            do = f"it was called {TRY_LIMIT} times and is not called again: see `quarantine list`"
        else:
            wait_s = self._limits.policy.retry_wait_s(row["try_count"])
            self._execute(RESCHEDULE_NOTICE, row, wait_s=wait_s)
            do = f"it is called again in {wait_s:g} s"
        return HookFailed(row["attempt_id"], found=found, do=do)

    def _execute(self, statement: str, row: DictRow, **values: float) -> None:
        with self._database.cursor() as cursor:
            cursor.execute(statement, {**row, **values})


class CommandFailed(Exception):
    """The failure of a command, in words."""


class QuarantineCommand:
    """Calls a program for each quarantine, with the attempt as JSON on its standard input.

    The program is killed, with all that it has started, after `limit_s`. Its output goes to this
    process's standard error. Its environment is that of this process without the variables that
    give access to the database; with `dsn`, the DSN is in $RECOVERY_JOURNAL_DSN.
    """

    def __init__(self, command: str, *, limit_s: float, dsn: str | None = None) -> None:
        self._dsn = dsn
        self._limit_s = inputs.seconds("limit_s", limit_s)
        try:
            self._arguments = shlex.split(inputs.text("the hook", command))
        except ValueError as error:
            raise _no_command(f"{command!r} ({error})") from error
        if not self._arguments:
            raise _no_command("nothing")

    def __call__(self, attempt: QuarantinedAttempt) -> None:
        """Run it once. Raises `CommandFailed`."""
        encoded = msgspec.json.encode(attempt) + b"\n"
        try:
            process = subprocess.Popen(
                self._arguments,
                stdin=subprocess.PIPE,
                stdout=STANDARD_ERROR,
                env=self._environment(),
                start_new_session=True,
            )
        except OSError as error:
            raise CommandFailed(f"a program that does not start ({error})") from error
        try:
            process.communicate(encoded, timeout=self._limit_s)
        except subprocess.TimeoutExpired:
            raise CommandFailed(f"no end within {self._limit_s:g} s") from None
        finally:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if process.returncode != 0:
            raise CommandFailed(f"exit code {process.returncode}")

    def _environment(self) -> dict[str, str]:
        kept = {name: text for name, text in os.environ.items() if not _gives_access(name)}
        return kept if self._dsn is None else {**kept, DSN_VARIABLE: self._dsn}


def _gives_access(variable: str) -> bool:
    """Whether this environment variable gives access to the journal's database: the journal's own,
    or one of libpq's."""
    return variable == DSN_VARIABLE or variable.startswith("PG")


def _no_command(found: str) -> InvalidInput:
    return inputs.refused("the hook", found, "a command and its arguments", "name a program")
