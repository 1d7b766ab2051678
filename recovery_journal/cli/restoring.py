"""The command that accepts a server after a restore or a failover: `after-restore`."""

from collections.abc import Iterator
from typing import Annotated

import typer
from rich.console import RenderableType
from rich.text import Text

from recovery_journal.cli import page, words
from recovery_journal.cli.exits import ExitCode
from recovery_journal.cli.options import AsJson, By, Reason
from recovery_journal.cli.swept import code_of, summary
from recovery_journal.cli.target import journal_of
from recovery_journal.restore.restore import Restored

LISTED = 20


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
    page.show_result(found, _lines(found, is_check=check), as_json=as_json)
    return code_of(found.swept)


def _lines(found: Restored, *, is_check: bool) -> Iterator[RenderableType]:
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
