"""The commands for a person's decisions: `quarantine list`, `quarantine lift`, `resume`, `cancel`,
`skip`, `after-restore`."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Annotated, Final

import typer
from rich.console import RenderableType
from rich.text import Text

from recovery_journal.cli import page, words
from recovery_journal.cli.exits import ExitCode
from recovery_journal.cli.options import AsJson, AttemptId, By, Reason
from recovery_journal.cli.swept import code_of, show_swept, summary
from recovery_journal.cli.target import journal_of
from recovery_journal.domain.events import LiftOption
from recovery_journal.monitoring.quarantined import QuarantinedAttempt
from recovery_journal.restore.restore import Restored
from recovery_journal.restore.skipping import Skipped

LISTED: Final = 20

quarantine = typer.Typer(
    no_args_is_help=True, help="List the attempts in quarantine, and lift the quarantine of one."
)


@quarantine.command("list")
def list_quarantined(
    context: typer.Context,
    *,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 100,
    as_json: AsJson = False,
) -> None:
    """List the attempts in quarantine, and those that are set aside because no decision can be
    made on their streams: why, since when, and the options for each."""
    with journal_of(context) as journal:
        found = journal.quarantined(limit=limit)
        now = journal.now()
    page.show_result(found, _listed(found, now), as_json=as_json)


def _listed(found: Sequence[QuarantinedAttempt], now: datetime) -> Iterator[RenderableType]:
    if not found:
        yield "No attempt is in quarantine or set aside."
    for one in found:
        name = page.text(words.recovery_name(one.attempt_id, one.recovery_no), "bold")
        yield name.append_text(page.text(f"  of run {one.run_id}, kind {one.kind}"))
        yield page.pairs(_lines(one, words.between(one.since, now)), indent=2)
        yield Text()
    if any(one.options for one in found):
        yield (
            "Lift a quarantine: recovery-journal quarantine lift ATTEMPT --option OPTION "
            "--by NAME --reason TEXT"
        )


@quarantine.command("lift")
def lift(
    context: typer.Context,
    attempt: AttemptId,
    *,
    option: Annotated[
        LiftOption,
        typer.Option(help="How to proceed; `quarantine list` shows the options of an attempt."),
    ],
    by: By,
    reason: Reason,
    as_json: AsJson = False,
) -> ExitCode:
    """Lift the quarantine of an attempt, by one of its options; it is recovered at once.

    retry: repeat the step that failed. accept_tip: accept the stored state, whatever progress the
    dead worker had reported. parent: fall back to the checkpoint before. restart: begin again from
    the run's input.
    """
    with journal_of(context) as journal:
        swept = journal.lift_quarantine(attempt, option, by=by, reason=reason)
    return show_swept(swept, [swept], as_json=as_json)


def resume(
    context: typer.Context, attempt: AttemptId, *, by: By, reason: Reason, as_json: AsJson = False
) -> ExitCode:
    """Resume an attempt that waits for a person; it is recovered at once."""
    with journal_of(context) as journal:
        swept = journal.resume(attempt, by=by, reason=reason)
    return show_swept(swept, [swept], as_json=as_json)


def cancel(
    context: typer.Context, attempt: AttemptId, *, by: By, reason: Reason, as_json: AsJson = False
) -> None:
    """End an attempt in any stage. Writes of its worker, if it has one, are refused from now on."""
    with journal_of(context) as journal:
        recovery = journal.cancel(attempt, by=by, reason=reason)
    done = f"Attempt {recovery.attempt_id} of run {recovery.run_id} is cancelled."
    page.show_result(recovery, [page.text(done)], as_json=as_json)


def skip(
    context: typer.Context,
    position: Annotated[
        int, typer.Argument(metavar="POSITION", min=1, help="The event's position in the log.")
    ],
    *,
    by: By,
    reason: Reason,
    as_json: AsJson = False,
) -> ExitCode:
    """Make every reader skip one event that blocks: damaged, impossible, or appended by something
    else than the journal.

    The event stays in the log. An attempt that was set aside because of it proceeds, and so do
    projections that stopped at it. Idempotent: to skip the event again changes nothing.
    """
    with journal_of(context) as journal:
        done = journal.skip(position, by=by, reason=reason)
    page.show_result(done, _skip_lines(done), as_json=as_json)
    is_left = done.left is not None or (done.swept is not None and bool(done.swept.error))
    return ExitCode.PARTLY if is_left else ExitCode.DONE


def _skip_lines(done: Skipped) -> Iterator[Text]:
    what = f"version {done.version} of attempt {done.attempt_id} at position {done.position}"
    now = "from now on" if done.is_done else "since before"
    yield page.text(f"Every reader skips {what} {now}.", "bold")
    if done.left:
        yield page.text(f"Still blocked: {done.left}", "red")
    if done.swept:
        yield page.text(f"The attempt was fenced, and is {done.swept.stage or 'as it was'}.")
    if done.projections:
        names = " ".join(done.projections)
        yield page.text(
            f"Rebuild the rows that hold it: recovery-journal rebuild {names}", "yellow"
        )


def _lines(one: QuarantinedAttempt, age: str) -> list[tuple[str, object]]:
    lines: list[tuple[str, object]] = [
        ("cause", page.text(words.spaced(one.cause or "set aside"), "bold red")),
        ("why", one.explanation or one.error or ""),
        ("position", "" if one.position is None else one.position),
        ("since", f"{words.moment(one.since)} UTC, for {age}"),
        ("worker", one.worker_id or ""),
        ("tenant", one.tenant),
        ("options", " or ".join(one.options)),
    ]
    return [(name, value) for name, value in lines if str(value)]


def after_restore(
    context: typer.Context,
    *,
    by: By,
    reason: Reason,
    nothing_lost: Annotated[
        bool,
        typer.Option(
            "--nothing-lost",
            help="Accept the server and change nothing: for a switchover or an upgrade that is "
            "known to have lost nothing.",
        ),
    ] = False,
    restored: Annotated[
        bool,
        typer.Option(
            "--restored",
            help="Proceed although the server is like the accepted one, as a copied volume is.",
        ),
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing: report the differences.")
    ] = False,
    as_json: AsJson = False,
) -> ExitCode:
    """Accept a server after the journal was restored from a backup or failed over to a standby.

    First make sure that the old server is gone for good. Every held lease is fenced and its
    attempt recovered, epochs and positions that may have been used are skipped, and differences
    between lease rows and log are reported. Idempotent: to repeat it has no effect.
    """
    if nothing_lost and restored:
        raise typer.BadParameter("--nothing-lost and --restored exclude each other")
    with journal_of(context, must_be_accepted=False) as journal:
        if check:
            found = journal.differences()
        else:
            found = journal.after_restore(
                by=by, reason=reason, is_nothing_lost=nothing_lost, is_restored=restored
            )
    page.show_result(found, _restored_lines(found, is_check=check), as_json=as_json)
    return code_of(found.swept)


def _restored_lines(found: Restored, *, is_check: bool) -> Iterator[RenderableType]:
    is_same = found.found == found.accepted_before
    if found.is_done:
        yield page.text(f"Accepted the server with {found.found}.", "bold")
    elif is_same:
        yield page.text(f"Nothing to do: the server with {found.found} is accepted.")
    else:
        yield page.text(f"Not accepted: the server with {found.found}.", "bold yellow")
    if not is_same:
        yield page.text(f"Accepted before: the one with {found.accepted_before or 'nothing'}.")
    if found.raised:
        epochs, positions = found.raised.epochs, found.raised.positions
        yield page.text(
            f"Epochs continue above {epochs.skipped_to:,} (found {epochs.last:,}), positions above "
            f"{positions.skipped_to:,} (found {positions.last:,})."
        )
        yield page.text(f"Fenced {words.plural(found.fenced_count, 'lease')}.")
    if found.swept:
        yield page.text(f"{summary(found.swept)}.")
        for one in [one for one in found.swept if one.error][:LISTED]:
            yield page.text(f"  {one.attempt_id}: {one.error}", "red")
    yield from _differences(found)
    if found.projections:
        yield page.text(
            f"Ahead of the log: {', '.join(found.projections)}. Run recovery-journal rebuild "
            f"{' '.join(found.projections)}.",
            "bold yellow",
        )
    if is_check and not is_same:
        yield page.text("Run it without --check to fence held leases and accept the server.")


def _differences(found: Restored) -> Iterator[RenderableType]:
    if not found.differences:
        yield page.text("Leases and log agree.")
        return
    yield Text()
    listed = found.differences[:LISTED]
    rows = [
        (it.attempt_id, it.run_id or "", it.lease_status or "", it.lease_version, it.log_version)
        for it in listed
    ]
    headings = ("leases and log differ", "run", "lease", "lease version", "log version")
    yield page.table(headings, rows, numbers=headings[-2:])
    yield from page.more(len(found.differences), len(listed), ", see --json")
    yield page.text("Rebuild the rows of all projections: recovery-journal rebuild.", "yellow")
