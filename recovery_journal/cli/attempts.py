"""The commands that inspect attempts: `history`, `show`."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Annotated

import typer
from msgspec import Struct
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from recovery_journal import inputs
from recovery_journal.cli import page, words
from recovery_journal.cli.attempt_history import AttemptHistory, history_of, phases
from recovery_journal.cli.changes import Change, changes, fields, shown
from recovery_journal.cli.essentials import essentials, tag_shown
from recovery_journal.cli.options import AsJson, At, Moment, moment_of
from recovery_journal.cli.target import journal_of
from recovery_journal.cli.timeline import heading, journal_timeline, recoveries, timeline
from recovery_journal.domain.errors import StreamUnusable
from recovery_journal.domain.recovery import Recovery
from recovery_journal.journal import Journal
from recovery_journal.monitoring.history import HistoryEntry

AttemptOrRecovery = typer.Argument(
    metavar="ATTEMPT", help="An attempt such as a-42, or its recovery a-42#2.", show_default=False
)
RecoveryNo = Annotated[
    int | None,
    typer.Option("--recovery", metavar="N", min=0, help="Only this recovery of the attempt."),
]
VersionNo = Annotated[
    int | None,
    typer.Option("--version", metavar="N", min=1, help="As of the attempt's N-th event."),
]


class ChangedEntry(Struct, frozen=True, kw_only=True):
    """One event and the fields that it changed."""

    entry: HistoryEntry
    changes: list[Change]


class ShowDocument(Struct, frozen=True, kw_only=True):
    """The output of `show --json`: the attempt as of an event, and the events up to it; with `--at`
    also the moment that was meant."""

    attempt_id: str
    version: int
    at: Moment | None
    recovery: Recovery
    entries: list[ChangedEntry]


def history(
    context: typer.Context,
    attempt: Annotated[str | None, AttemptOrRecovery] = None,
    *,
    recovery: RecoveryNo = None,
    of_journal: Annotated[
        bool,
        typer.Option(
            "--journal", help="The journal's own history: skipped events, accepted servers."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show every event of an attempt, and how long each recovery took."""
    if of_journal is (attempt is not None):
        raise typer.BadParameter("give either an ATTEMPT or --journal")
    if attempt is None:
        _show_journal(context, as_json=as_json)
        return
    with journal_of(context) as journal:
        whole = history_of(journal, attempt, recovery)
    part, last = whole.part(), whole.steps[-1].after
    phases_found = phases(part)
    document = {
        "attempt_id": last.attempt_id,
        "run_id": last.run_id,
        "stage": last.stage,
        "entries": [one.entry for one in part],
        "recoveries": phases_found,
    }
    parts: list[RenderableType] = [heading(last), Text(), timeline(part)]
    if phases_found:
        parts += [Text(), recoveries(phases_found)]
    page.show_result(document, parts, as_json=as_json)
    _require_whole(whole, as_json=as_json)


def _show_journal(context: typer.Context, *, as_json: bool) -> None:
    with journal_of(context) as journal:
        entries = journal.history_of_journal()
    nothing = "No event was skipped and no server accepted by a person."
    parts = [journal_timeline(entries)] if entries else [nothing]
    page.show_result(entries, parts, as_json=as_json)


def show(
    context: typer.Context,
    attempt: Annotated[str, AttemptOrRecovery],
    *,
    recovery: RecoveryNo = None,
    version: VersionNo = None,
    at: At = None,
    as_json: AsJson = False,
) -> None:
    """Show an attempt as of an event, a position or a time, and what each event up to there
    changed."""
    if version is not None and at is not None:
        raise typer.BadParameter("--version and --at name two moments; give one of them")
    with journal_of(context) as journal:
        whole = history_of(journal, attempt, recovery)
        moment = None if at is None else moment_of(journal, at)
        if moment is not None:
            version = _version_at(journal, whole, moment)
    last = whole.steps[-1].entry.event.originator_version
    part = [one for one in whole.part() if version is None or one.after.version <= version]
    is_behind = version is None or version > last
    if not part or (version is not None and is_behind and whole.obstacle is None):
        option = "--version" if at is None else "--at"
        raise inputs.refused(option, str(at or version), f"one of its {last} events", "choose one")
    before = {one.after.version: earlier.after for earlier, one in pairwise(whole.steps)}
    changed = [
        ChangedEntry(entry=one.entry, changes=changes(before.get(one.after.version), one.after))
        for one in part
    ]
    document = ShowDocument(
        attempt_id=part[-1].after.attempt_id,
        version=part[-1].after.version,
        at=moment,
        recovery=part[-1].after,
        entries=changed,
    )
    page.show_result(document, _shown(document), as_json=as_json)
    if is_behind:
        _require_whole(whole, as_json=as_json)


def _shown(document: ShowDocument) -> Iterator[RenderableType]:
    for one in document.entries:
        yield _event_line(one.entry)
        yield Padding(page.text(essentials(one.entry.event), "dim"), (0, 0, 0, 2))
        yield _change_lines(one.changes)
        yield Text()
    moment = "" if document.at is None else f", at {document.at}"
    yield page.text(f"As of version {document.version}{moment}", "bold")
    yield page.pairs([(name, shown(value)) for name, value in fields(document.recovery).items()])


def _event_line(entry: HistoryEntry) -> Text:
    event = entry.event
    line = page.text(f"version {event.originator_version}  ", "bold")
    line.append_text(page.styled(tag_shown(event)))
    line.append(f"  position {entry.position}, {words.moment(entry.recorded_at)} UTC")
    return line


def _change_lines(found: Sequence[Change]) -> Table:
    rows = []
    for change in found:
        before = "" if change.before is None else f"{shown(change.before)} → "
        rows.append((change.field, before + shown(change.after)))
    return page.pairs(rows or [("nothing", "the event changes no field")], indent=4)


def _require_whole(whole: AttemptHistory, *, as_json: bool) -> None:
    """Raise the error that blocks the rest, if there is one, after what comes before it is
    shown."""
    if whole.obstacle is None:
        return
    if not as_json:
        rest = f"From version {whole.obstacle.version} on nothing is shown: it cannot be read."
        page.show(Text(), page.text(rest, "bold red"))
    raise whole.obstacle


def _version_at(journal: Journal, whole: AttemptHistory, moment: Moment) -> int | None:
    """The attempt's version then; None where an unreadable event blocks."""
    try:
        return journal.recovery(whole.steps[0].after.attempt_id, at=moment.position).version
    except StreamUnusable:
        return None
