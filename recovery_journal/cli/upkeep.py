"""The commands of upkeep: `status`, `prune`."""

from datetime import timedelta
from typing import Annotated

import typer

from recovery_journal.cli import page, words
from recovery_journal.cli.options import AsJson
from recovery_journal.cli.overview import overview
from recovery_journal.cli.target import journal_of
from recovery_journal.store.superseded_checkpoints import DEFAULT_KEPT


def status(context: typer.Context, *, as_json: AsJson = False) -> None:
    """How the journal fares: stages, what waits and fails, refused writes, projections, the log."""
    with journal_of(context, must_be_accepted=False) as journal:
        found = journal.status()
    if as_json:
        page.show_json(found)
    else:
        page.show(*overview(found))


def prune(
    context: typer.Context,
    *,
    older_than: Annotated[
        timedelta,
        typer.Option(
            parser=words.age,
            metavar="AGE",
            help="Only runs whose every attempt ended longer ago than that: 30d, 12h, 90min.",
        ),
    ],
    keep_checkpoints: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="Of each open run keep the newest N checkpoints, two or more, whatever their age.",
        ),
    ] = DEFAULT_KEPT,
    as_json: AsJson = False,
) -> None:
    """Forget inputs, run steps, checkpoints and results of runs that ended long ago, what failures
    said so long ago, and the old superseded checkpoints of open runs; never the log.

    A pruned run cannot be taken up again.
    """
    with journal_of(context) as journal:
        pruned = journal.prune(older_than=older_than, keep_checkpoints=keep_checkpoints)
    if as_json:
        page.show_json(pruned)
        return
    page.show(
        f"Pruned {words.plural(pruned.runs, 'run')}: {words.plural(pruned.run_steps, 'run step')}, "
        f"{words.plural(pruned.checkpoints, 'checkpoint')}, "
        f"{words.plural(pruned.announcements, 'announcement')}, "
        f"{words.plural(pruned.results, 'result')}, "
        f"{words.plural(pruned.error_texts, 'error text')}; of open runs, "
        f"{words.plural(pruned.superseded_checkpoints, 'superseded checkpoint')}."
    )
