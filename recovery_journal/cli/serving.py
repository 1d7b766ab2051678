"""The commands that recover: `init`, `run`, `sweep`, `report-lost`."""

import sys
import threading
from datetime import UTC, datetime
from typing import Annotated, Any, Final, TypeAlias

import typer

from recovery_journal.cli import page, words
from recovery_journal.cli.exits import ExitCode, report
from recovery_journal.cli.options import AsJson
from recovery_journal.cli.swept import show_swept, stage
from recovery_journal.cli.target import journal_of, target_of
from recovery_journal.domain.errors import SchemaMissing, SchemaTooOld
from recovery_journal.journal import Journal
from recovery_journal.monitoring.quarantine_notifier import Hook, QuarantineCommand
from recovery_journal.postgres.connection_string import DSN_VARIABLE
from recovery_journal.postgres.schema import newest_version
from recovery_journal.process.signals import running_beside, stopping_on_signals
from recovery_journal.process.throttle import Throttle
from recovery_journal.read_models.following.follower import Follower
from recovery_journal.recovery.sweep_result import SweepResult
from recovery_journal.sweeper import Sweeper

REPEATED_PROBLEM_S: Final = 60.0

OnQuarantine: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--on-quarantine",
        metavar="COMMAND",
        help="Run this command for each attempt that is quarantined, at least once. It gets the "
        "attempt, with cause and explanation, as JSON on its standard input.",
    ),
]

HookGetsDsn: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--hook-gets-dsn",
        help=f"Give that command the journal's DSN, with its password, in ${DSN_VARIABLE}.",
    ),
]


def init(context: typer.Context, *, as_json: AsJson = False) -> None:
    """Create the journal's tables in a schema that this role owns, or migrate those of an older
    program.

    Idempotent. Stop the processes of the older program first.
    """
    target = target_of(context)
    migrated_from = None
    is_made = False
    try:
        journal = target.open(must_be_own=True)
    except SchemaMissing:
        journal = target.open(must_exist=False, must_be_own=True)
        is_made = True
    except SchemaTooOld as error:
        journal = target.open(must_be_own=True, may_migrate=True)
        migrated_from = error.found
    with journal:
        database = journal.database
    version = newest_version()
    document = {
        "server": database.server,
        "schema": database.schema,
        "version": version,
        "is_made": is_made,
        "migrated_from": migrated_from,
    }
    if is_made:
        done = "Made the journal"
    elif migrated_from is not None:
        done = f"Migrated the journal from version {migrated_from}"
    else:
        done = "The journal exists already"
    where = f"schema {database.schema} (version {version}) on {database.server}"
    page.show_result(document, [page.text(f"{done}: {where}")], as_json=as_json)


def sweep(
    context: typer.Context,
    *,
    on_quarantine: OnQuarantine = None,
    hook_gets_dsn: HookGetsDsn = False,
    as_json: AsJson = False,
) -> ExitCode:
    """Fence lost leases, once, and recover each attempt until it is ready for dispatch."""
    with journal_of(context) as journal:
        hook = _hook(journal, on_quarantine, gets_dsn=hook_gets_dsn)
        swept = journal.sweep()
        if hook is not None:
            journal.notify_quarantines(
                hook, on_problem=lambda problem: report(problem, as_json=as_json)
            )
    return show_swept(swept, swept, as_json=as_json, nothing="No lease is lost.")


def report_lost(
    context: typer.Context,
    worker: Annotated[str, typer.Argument(metavar="WORKER", help="The id of the dead worker.")],
    *,
    incarnation: Annotated[
        str | None,
        typer.Option(
            metavar="TOKEN",
            help="Which incarnation of the worker died: boot id, pid and start, joined by colons. "
            "Needed if several incarnations of it hold leases.",
        ),
    ] = None,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="The evidence; kept in the log.")],
    as_json: AsJson = False,
) -> ExitCode:
    """Report a dead worker: its leases are recovered at once, without waiting for the TTL."""
    with journal_of(context) as journal:
        swept = journal.report_lost(worker_id=worker, incarnation=incarnation, reason=reason)
    nothing = f"That incarnation of worker {worker} holds no lease; nothing to recover."
    return show_swept(swept, swept, as_json=as_json, nothing=nothing)


def run(
    context: typer.Context,
    *,
    on_quarantine: OnQuarantine = None,
    hook_gets_dsn: HookGetsDsn = False,
    as_json: AsJson = False,
) -> None:
    """Sweep and follow until SIGTERM or Ctrl-C; print each recovered attempt.

    Any number may run, on any number of machines. An outage of the server is waited out.
    """
    with journal_of(context) as journal:
        hook = _hook(journal, on_quarantine, gets_dsn=hook_gets_dsn)
        Service(journal, hook=hook, as_json=as_json).run()


def _hook(journal: Journal, command: str | None, *, gets_dsn: bool) -> Hook | None:
    if not command:
        return None
    dsn = journal.database.dsn if gets_dsn else None
    return QuarantineCommand(command, limit_s=journal.limits.hook_s, dsn=dsn)


class Service:
    """A sweeper and a follower, each in a thread of its own; the main thread waits for signals."""

    def __init__(self, journal: Journal, *, hook: Hook | None, as_json: bool) -> None:
        self._as_json = as_json
        self._journal = journal
        self._sweeper = Sweeper(
            journal, on_swept=self._print_swept, on_problem=self._report, on_quarantine=hook
        )
        self._follower = Follower(journal, on_problem=self._report)
        self._output_lock = threading.Lock()
        self._swept_count = self._ready_count = 0
        self._throttle = Throttle(REPEATED_PROBLEM_S)
        self._stop = threading.Event()

    def run(self) -> None:
        """Run until stopped; when one of the two fails, the other is stopped and the error
        raised."""
        loops = (self._sweeper.run, self._follower.run)
        with stopping_on_signals(self._stop):
            self._print_start()
            with running_beside(*loops, stop=self._stop):
                try:
                    self._stop.wait()
                finally:
                    self._sweeper.stop()
                    self._follower.stop()
        self._print_stop()

    def _print_start(self) -> None:
        schema, server = self._journal.database.schema, self._journal.database.server
        sentence = f"sweeping and following schema {schema} on {server}"
        self._print("started", sentence, schema=schema, server=server)

    def _print_stop(self) -> None:
        counts = {"swept_count": self._swept_count, "ready_count": self._ready_count}
        swept = words.plural(self._swept_count, "attempt")
        sentence = f"stopped; recovered {swept}, {self._ready_count} of them ready"
        self._print("stopped", sentence, **counts)

    def _print_swept(self, swept: SweepResult) -> None:
        self._swept_count += 1
        self._ready_count += swept.is_ready
        name = words.recovery_name(swept.attempt_id, swept.recovery_no)
        problem = f": {swept.error}" if swept.error else ""
        self._print("swept", f"{name}  {stage(swept).plain}{problem}", swept=swept)

    def _report(self, problem: Exception) -> None:
        """Report a problem at once, and throttle repetitions of the same one to one a minute."""
        with self._output_lock:
            if self._throttle.is_due(str(problem)):
                self._throttle.record(str(problem))
                report(problem, as_json=self._as_json)
                sys.stderr.flush()

    def _print(self, kind: str, sentence: str, **details: Any) -> None:
        at = datetime.now(UTC)
        with self._output_lock:
            if self._as_json:
                page.show_json_line({"type": kind, "at": at, **details})
            else:
                page.show(page.text(f"{words.moment(at)}  {sentence}"))
