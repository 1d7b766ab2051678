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
    """Show the journal's health: queue, failing recoveries, refused writes, projection lag."""
    with journal_of(context, must_be_accepted=False) as journal:
        found = journal.status()
    page.show_result(found, overview(found), as_json=as_json)


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
    """Delete inputs, run steps, checkpoints and results of runs that ended long ago, the error
    texts of that time, and superseded checkpoints of open runs; never the log.

    A pruned run cannot be resumed.
    """
    with journal_of(context) as journal:
        pruned = journal.prune(older_than=older_than, keep_checkpoints=keep_checkpoints)
    ended = (
        (pruned.run_steps, "run step"),
        (pruned.checkpoints, "checkpoint"),
        (pruned.announcements, "announcement"),
        (pruned.results, "result"),
        (pruned.error_texts, "error text"),
    )
    sentence = (
        f"Pruned {words.plural(pruned.runs, 'run')}: "
        f"{', '.join(words.plural(count, thing) for count, thing in ended)}; of open runs, "
        f"{words.plural(pruned.superseded_checkpoints, 'superseded checkpoint')}."
    )
    page.show_result(pruned, [sentence], as_json=as_json)
