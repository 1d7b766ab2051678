"""The commands for a person's decisions: `quarantine list`, `quarantine lift`, `resume`,
`cancel`."""

from collections.abc import Iterator
from typing import Annotated

import typer
from rich.text import Text

from recovery_journal.cli import page, words
from recovery_journal.cli.exits import ExitCode
from recovery_journal.cli.options import AsJson, AttemptId, By, Reason
from recovery_journal.cli.swept import show_swept
from recovery_journal.cli.target import journal_of
from recovery_journal.domain.events import LiftOption
from recovery_journal.domain.recovery import Recovery
from recovery_journal.monitoring.quarantined import QuarantinedAttempt
from recovery_journal.recovery.sweep_result import SweepResult
from recovery_journal.restore.skipping import Skipped

quarantine = typer.Typer(
    no_args_is_help=True, help="Attempts that no machine goes on with: list them, lift one."
)


@quarantine.command("list")
def list_quarantined(
    context: typer.Context,
    *,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 100,
    as_json: AsJson = False,
) -> None:
    """List the attempts in quarantine, and those that are set aside because no decision can be
    made on their streams: why, since when, and what you may choose for each."""
    with journal_of(context) as journal:
        found = journal.quarantined(limit=limit)
        now = journal.now()
    if as_json:
        page.show_json(found)
        return
    if not found:
        page.show("No attempt is in quarantine or set aside.")
        return
    for one in found:
        name = page.text(words.recovery_name(one.attempt_id, one.recovery_no), "bold")
        name.append_text(page.text(f"  of run {one.run_id}, kind {one.kind}"))
        page.show(name, page.pairs(_lines(one, words.between(one.since, now)), indent=2), Text())
    if any(one.options for one in found):
        page.show(
            "Let one go on with: recovery-journal quarantine lift ATTEMPT --option OPTION "
            "--by NAME --reason TEXT"
        )


@quarantine.command("lift")
def lift(
    context: typer.Context,
    attempt: AttemptId,
    *,
    option: Annotated[
        LiftOption,
        typer.Option(help="How it goes on; `quarantine list` names those that are possible."),
    ],
    by: By,
    reason: Reason,
    as_json: AsJson = False,
) -> ExitCode:
    """Let a quarantined attempt go on, as you choose; it is driven to ready at once.

    retry: the same again. accept_tip: take the stored state as it is, whatever the dead worker
    had reported. parent: fall back to the checkpoint before. restart: begin from the run's input.
    """
    with journal_of(context) as journal:
        swept = journal.lift_quarantine(attempt, option, by=by, reason=reason)
    return _went_on(swept, as_json=as_json)


def resume(
    context: typer.Context,
    attempt: AttemptId,
    *,
    by: By,
    reason: Reason,
    as_json: AsJson = False,
) -> ExitCode:
    """Let an attempt go on that waits for a person; it is driven to ready at once."""
    with journal_of(context) as journal:
        swept = journal.resume(attempt, by=by, reason=reason)
    return _went_on(swept, as_json=as_json)


def cancel(
    context: typer.Context,
    attempt: AttemptId,
    *,
    by: By,
    reason: Reason,
    as_json: AsJson = False,
) -> None:
    """End an attempt wherever it stands. Its worker, if it has one, is refused from now on."""
    with journal_of(context) as journal:
        recovery: Recovery = journal.cancel(attempt, by=by, reason=reason)
    if as_json:
        page.show_json(recovery)
        return
    page.show(page.text(f"Attempt {recovery.attempt_id} of run {recovery.run_id} is cancelled."))


def skip(
    context: typer.Context,
    position: Annotated[
        int, typer.Argument(metavar="POSITION", min=1, help="Where the event stands in the log.")
    ],
    *,
    by: By,
    reason: Reason,
    as_json: AsJson = False,
) -> ExitCode:
    """Have every reader pass over one event that is in the way: damaged, impossible, or appended
    by something else than the journal.

    It stays in the log. An attempt that was set aside for it goes on, and so do projections that
    stopped at it. Again, it is done already.
    """
    with journal_of(context) as journal:
        done = journal.skip(position, by=by, reason=reason)
    if as_json:
        page.show_json(done)
    else:
        page.show(*_told_of_skip(done))
    is_left = done.left is not None or (done.swept is not None and bool(done.swept.error))
    return ExitCode.PARTLY if is_left else ExitCode.DONE


def _told_of_skip(done: Skipped) -> Iterator[Text]:
    what = f"version {done.version} of attempt {done.attempt_id} at position {done.position}"
    now = "from now on" if done.is_done else "since before"
    yield page.text(f"Every reader passes over {what} {now}.", "bold")
    if done.left:
        yield page.text(f"Still in the way: {done.left}", "red")
    if done.swept:
        yield page.text(f"The attempt was fenced, and is {done.swept.stage or 'as it was'}.")
    if done.projections:
        names = " ".join(done.projections)
        yield page.text(f"Make rows that hold it anew: recovery-journal rebuild {names}", "yellow")


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


def _went_on(swept: SweepResult, *, as_json: bool) -> ExitCode:
    if as_json:
        page.show_json(swept)
    else:
        show_swept([swept])
    return ExitCode.PARTLY if swept.error else ExitCode.DONE
