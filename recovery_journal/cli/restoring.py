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
            help="Accept the server and leave all as it is: a switchover or an upgrade of which "
            "you know that it lost nothing.",
        ),
    ] = False,
    restored: Annotated[
        bool,
        typer.Option(
            "--restored",
            help="Do it although the server looks like the accepted one, as a copied volume does.",
        ),
    ] = False,
    check: Annotated[bool, typer.Option("--check", help="Only say what there is to do.")] = False,
    as_json: AsJson = False,
) -> ExitCode:
    """Go on with a journal that was restored from a backup, or failed over to a standby.

    See that the old server is gone for good, first. Every lease that was held is taken back and
    recovered, epochs and positions that may have been used are skipped, and where lease rows and
    log differ it is said. Again, it is no news.
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
    if as_json:
        page.show_json(found)
    else:
        page.show(*_told(found, is_check=check))
    return code_of(found.swept)


def _told(found: Restored, *, is_check: bool) -> Iterator[RenderableType]:
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
            f"Epochs go on above {epochs.skipped_to:,} (found {epochs.last:,}), positions above "
            f"{positions.skipped_to:,} (found {positions.last:,})."
        )
        yield page.text(f"Took back {words.plural(found.fenced_count, 'lease')}.")
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
        yield page.text("Leave --check out to take held leases back and accept the server.")


def _differences(found: Restored) -> Iterator[RenderableType]:
    if not found.differences:
        yield page.text("Leases and log say the same.")
        return
    yield Text()
    rows = [
        (
            one.attempt_id,
            one.run_id or "",
            one.lease_status or "",
            one.lease_version,
            one.log_version,
        )
        for one in found.differences[:LISTED]
    ]
    headings = ("leases and log differ", "run", "lease", "lease knows", "log holds")
    yield page.table(headings, rows, numbers=("lease knows", "log holds"))
    if len(found.differences) > LISTED:
        yield Text(f"and {len(found.differences) - LISTED:,} more, see --json", style="dim")
    yield page.text("Make the rows of all projections anew: recovery-journal rebuild.", "yellow")
