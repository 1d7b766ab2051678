"""The command that shows the dispatch-ready list: `ready`."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Annotated

import typer
from rich.console import RenderableType
from rich.text import Text

from recovery_journal.cli import page, words
from recovery_journal.cli.essentials import in_doubt
from recovery_journal.cli.options import AsJson, At, Kinds, Tenants, moment_of
from recovery_journal.cli.target import journal_of
from recovery_journal.projections.dispatch_ready import DispatchReadyRow


def ready(
    context: typer.Context,
    *,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 20,
    kind: Kinds = None,
    tenant: Tenants = None,
    at: At = None,
    as_json: AsJson = False,
) -> None:
    """List the attempts that wait for a worker, in the order in which they are dispatched; or
    those that waited at a position or a time."""
    with journal_of(context) as journal:
        moment = None if at is None else moment_of(journal, at)
        position = None if moment is None else moment.position
        rows = journal.dispatch_ready(limit=limit, kinds=kind, tenants=tenant, at=position)
        now = journal.now()
    if moment is None:
        page.show_result(rows, _lines(rows, now), as_json=as_json)
        return
    then = moment.time or now
    parts = [page.text(f"As of {moment}", "bold"), *_lines(rows, then, waits="waited")]
    page.show_result({"at": moment, "rows": rows}, parts, as_json=as_json)


def _lines(
    rows: Sequence[DispatchReadyRow], now: datetime, *, waits: str = "waits"
) -> Iterator[RenderableType]:
    if not rows:
        yield f"No attempt {waits} for a worker."
        return
    headings = (
        *("#", "attempt", "run", "kind", "tenant", "priority", "waits for", "not before", "from"),
        *("code", "in doubt"),
    )
    lines = [
        (
            number,
            words.recovery_name(row.attempt_id, row.recovery_no),
            *(row.run_id, row.kind, row.tenant, row.priority),
            words.between(row.ready_at, now),
            _not_before(row, now),
            *(row.start.value, row.code_version),
            page.text(in_doubt(row.in_doubt), "bold yellow"),
        )
        for number, row in enumerate(rows, 1)
    ]
    yield page.table(*_filled(headings, lines), numbers=("#", "priority", "waits for"))
    count = sum(bool(row.in_doubt) for row in rows)
    if count:
        yield Text()
        yield (
            f"{words.plural(count, 'attempt')} with effects in doubt: they were announced and "
            "never recorded, so they may happen twice."
        )


def _not_before(row: DispatchReadyRow, now: datetime) -> str:
    """The time before which it must not start; the present list leaves such entries out."""
    if row.not_before is None or row.not_before <= now:
        return ""
    return words.moment(row.not_before)


def _filled(
    headings: Sequence[str], lines: Sequence[Sequence[object]]
) -> tuple[list[str], list[list[object]]]:
    """The rows without the columns that are empty."""
    kept = [index for index in range(len(headings)) if any(str(line[index]) for line in lines)]
    return [headings[index] for index in kept], [[line[index] for index in kept] for line in lines]
