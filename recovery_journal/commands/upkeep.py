"""Looking after the journal: `status`, `rebuild`, `prune`."""

from datetime import timedelta
from typing import Annotated

import typer
from rich.text import Text

from recovery_journal.commands import page, words
from recovery_journal.commands.exits import ExitCode
from recovery_journal.commands.options import AsJson
from recovery_journal.commands.overview import overview
from recovery_journal.commands.rebuilding import watching
from recovery_journal.commands.target import journal_of
from recovery_journal.rebuilding.check import CheckedProjection


def status(context: typer.Context, *, as_json: AsJson = False) -> None:
    """How the journal fares: stages, what waits and fails, refused writes, projections, the log."""
    with journal_of(context) as journal:
        found = journal.status()
    if as_json:
        page.show_json(found)
    else:
        page.show(*overview(found))


def rebuild(
    context: typer.Context,
    *,
    check: Annotated[
        bool,
        typer.Option("--check", help="Change nothing: compare the rows with what the log says."),
    ] = False,
    as_json: AsJson = False,
) -> ExitCode:
    """Make the rows of every projection anew from the log, while everything goes on."""
    if check:
        return _check(context, as_json=as_json)
    with journal_of(context) as journal, watching(is_silent=as_json) as on_progress:
        report = journal.rebuild(on_progress=on_progress)
    if as_json:
        page.show_json(report)
        return ExitCode.DONE
    rows = [
        (one.projection, f"{one.row_count:,}", one.position, words.digest(one.digest))
        for one in report.projections
    ]
    page.show(
        page.table(
            ("projection", "rows", "position", "digest"), rows, numbers=("rows", "position")
        ),
        Text(),
        f"Rebuilt from {words.plural(report.event_count, 'event')} "
        f"in {words.duration(report.seconds)}.",
    )
    return ExitCode.DONE


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
    as_json: AsJson = False,
) -> None:
    """Forget run steps, checkpoints and results of runs that ended long ago; never the log.

    A pruned run cannot be taken up again.
    """
    with journal_of(context) as journal:
        pruned = journal.prune(older_than=older_than)
    if as_json:
        page.show_json(pruned)
        return
    page.show(
        f"Pruned {words.plural(pruned.runs, 'run')}: {words.plural(pruned.run_steps, 'run step')}, "
        f"{words.plural(pruned.checkpoints, 'checkpoint')}, "
        f"{words.plural(pruned.announcements, 'announcement')}, "
        f"{words.plural(pruned.results, 'result')}."
    )


def _check(context: typer.Context, *, as_json: bool) -> ExitCode:
    with journal_of(context) as journal:
        checked = journal.check()
    is_right = all(one.is_right for one in checked)
    if as_json:
        page.show_json(checked)
    else:
        _show_checked(checked)
    return ExitCode.DONE if is_right else ExitCode.DIFFERENT


def _show_checked(checked: tuple[CheckedProjection, ...]) -> None:
    rows = [
        (
            one.projection,
            *(f"{one.row_count:,}", one.position, f"{one.pending_count:,}"),
            page.text(f"{one.difference_count:,}", "green" if one.is_right else "bold red"),
        )
        for one in checked
    ]
    headings = ("projection", "rows", "position", "pending", "differences")
    page.show(page.table(headings, rows, numbers=headings[1:]))
    for one in checked:
        for difference in one.differences:
            key = ", ".join(str(part) for part in difference.key)
            page.show(Text(), page.text(f"{one.projection} {key}", "bold"))
            stored, expected = difference.stored or {}, difference.expected or {}
            page.show(
                page.pairs(
                    [
                        (name, f"stored {stored.get(name)}, the log says {expected.get(name)}")
                        for name in {**stored, **expected}
                        if stored.get(name) != expected.get(name)
                    ],
                    indent=2,
                )
            )
    if all(one.is_right for one in checked):
        page.show(Text(), "The rows are what the log says.")
    else:
        page.show(Text(), "The rows are not what the log says; `rebuild` makes them anew.")
