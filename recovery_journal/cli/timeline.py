"""The history of an attempt as a timeline, and below it how long each recovery took."""

from collections.abc import Iterable, Sequence

from rich.table import Table
from rich.text import Text

from recovery_journal.cli import page, words
from recovery_journal.cli.attempt_history import HistoryStep, RecoveryPhases
from recovery_journal.cli.essentials import essentials_of, tag_shown
from recovery_journal.domain.recovery import Recovery
from recovery_journal.monitoring.history import HistoryEntry

HEADINGS = ("position", "time (UTC)", "after", "event", "what")


def heading(recovery: Recovery) -> Text:
    """The attempt's name and its present stage."""
    granted = recovery.granted
    line = page.text(f"Attempt {recovery.attempt_id}", "bold")
    line.append_text(page.text(f" of run {recovery.run_id}, kind {granted.kind}"))
    if granted.tenant:
        line.append_text(page.text(f", tenant {granted.tenant}"))
    line.append(": ").append_text(page.styled(recovery.stage.value))
    if recovery.recovery_no:
        line.append(f", lost {words.plural(recovery.recovery_no, 'time')}")
    return line


def timeline(steps: Sequence[HistoryStep]) -> Table:
    """One line per event; a line with the date alone wherever a new day begins."""
    return page.table(HEADINGS, _rows(steps), numbers=("position", "after"))


def _rows(steps: Sequence[HistoryStep]) -> Iterable[Sequence[object]]:
    before = None
    for one in steps:
        entry, at = one.entry, one.entry.recorded_at
        if before is None or words.day(before) != words.day(at):
            yield ("", Text(words.day(at), style="dim"), "", "", "")
        after = "" if before is None else f"+{words.between(before, at)}"
        tag = page.styled(tag_shown(entry.event))
        yield (entry.position, words.time_of_day(at), after, tag, essentials_of(entry))
        before = at


def journal_timeline(entries: Sequence[HistoryEntry]) -> Table:
    """One line per event of the journal's own stream."""
    rows = [
        (
            entry.position,
            words.moment(entry.recorded_at),
            page.styled(tag_shown(entry.event)),
            essentials_of(entry),
        )
        for entry in entries
    ]
    return page.table(("position", "time (UTC)", "event", "what"), rows, numbers=("position",))


def recoveries(found: Sequence[RecoveryPhases]) -> Table:
    """One line per recovery: when and how it began, and the length of each of its phases."""
    rows = [
        (
            page.text(words.recovery_name(one.attempt_id, one.recovery_no), "bold"),
            words.time_of_day(one.began_at),
            words.duration(one.total_s),
            _beginning(one),
            _phases(one),
        )
        for one in found
    ]
    made = page.table(("recovery", "began (UTC)", "total", "how", "phases"), rows)
    made.columns[0].no_wrap = made.columns[2].no_wrap = True
    return made


def _beginning(one: RecoveryPhases) -> str:
    if one.loss is None:
        return "never lost"
    silent = "" if one.silent_s is None else f", silent for {words.duration(one.silent_s)}"
    return f"lost by {one.worker_id}: {words.spaced(one.loss)}{silent}"


def _phases(one: RecoveryPhases) -> str:
    parts = [f"{phase.name} {words.duration(phase.seconds)}" for phase in one.phases]
    if one.taken_over_by is not None:
        parts.append(f"taken over by {one.taken_over_by}")
    return " · ".join(parts) or "just begun"
