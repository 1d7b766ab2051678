"""The commands that maintain the journal: `rebuild`, `prune`."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated, Any

import msgspec
import typer
from rich.console import RenderableType
from rich.text import Text

from recovery_journal.cli import page, words
from recovery_journal.cli.exits import ExitCode
from recovery_journal.cli.options import AsJson
from recovery_journal.cli.progress import watching
from recovery_journal.cli.target import journal_of
from recovery_journal.read_models.rebuild.check import CheckedProjection, RowDifference
from recovery_journal.read_models.rebuild.progress import RebuildReport
from recovery_journal.store.superseded_checkpoints import DEFAULT_KEPT


def rebuild(
    context: typer.Context,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PROJECTION]...", help="Only these projections.", show_default=False
        ),
    ] = None,
    *,
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing: compare the rows with the log.")
    ] = False,
    process_count: Annotated[
        int | None,
        typer.Option(
            "--processes",
            metavar="NUMBER",
            help="How many processes fold; else one for each core.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> ExitCode:
    """Rebuild the rows of projections from the log, while workers and readers continue.

    A rebuild that was killed or failed before is resumed.
    """
    # Typer gives an empty list where the API means all by None.
    wanted = names or None
    with journal_of(context) as journal, watching(is_silent=as_json) as on_progress:
        if check:
            checked = journal.check(wanted, on_progress=on_progress)
        else:
            report = journal.rebuild(wanted, process_count=process_count, on_progress=on_progress)
    if not check:
        page.show_result(report, _rebuilt(report), as_json=as_json)
        return ExitCode.DONE
    page.show_result(checked, _checked(checked), as_json=as_json)
    return ExitCode.DONE if all(one.is_right for one in checked) else ExitCode.DIFFERENT


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


def _rebuilt(report: RebuildReport) -> Iterator[RenderableType]:
    rows = [
        (one.projection, f"{one.row_count:,}", one.position, words.duration(one.switch_s))
        for one in report.projections
    ]
    headings = ("projection", "rows", "position", "switched in")
    yield page.table(headings, rows, numbers=headings[1:])
    yield Text()
    yield (
        f"Rebuilt from {words.plural(report.event_count, 'event')} "
        f"in {words.duration(report.seconds)}."
    )


def _checked(checked: tuple[CheckedProjection, ...]) -> Iterator[RenderableType]:
    rows = [
        (
            one.projection,
            *(f"{one.row_count:,}", one.position, f"{one.pending_count:,}"),
            page.text(f"{one.difference_count:,}", "green" if one.is_right else "bold red"),
            words.digest(one.digest),
        )
        for one in checked
    ]
    headings = ("projection", "rows", "position", "pending", "differences", "digest")
    yield page.table(headings, rows, numbers=headings[1:-1])
    for one in checked:
        for difference in one.differences:
            yield Text()
            yield from _both_rows(one.projection, difference)
        yield from page.more(one.difference_count, len(one.differences))
    yield Text()
    if all(one.is_right for one in checked):
        yield "The rows match the log."
    else:
        yield "The rows differ from the log; `rebuild` makes them again."


def _both_rows(projection: str, difference: RowDifference) -> Iterator[RenderableType]:
    """One key, with the stored rows and the rows that the log gives, side by side."""
    key = ", ".join(str(part) for part in difference.key)
    yield page.text(f"{projection} {key}", "bold")
    stored, expected = difference.stored, difference.expected
    names = {**(stored or {}), **(expected or {})}
    rows = [
        (
            page.text(f"  {name}", "bold red" if _is_different(name, difference) else ""),
            _value(stored, name),
            _value(expected, name),
        )
        for name in names
    ]
    yield page.table(("  field", "stored", "from the log"), rows)


def _is_different(name: str, difference: RowDifference) -> bool:
    stored, expected = difference.stored, difference.expected
    return stored is None or expected is None or stored.get(name) != expected.get(name)


def _value(row: dict[str, Any] | None, name: str) -> str:
    return "no row" if row is None else msgspec.json.encode(row.get(name)).decode()
