"""The output of a sweep, attempt by attempt."""

from collections import Counter
from collections.abc import Sequence

from rich.text import Text

from recovery_journal.cli import page, words
from recovery_journal.cli.exits import ExitCode
from recovery_journal.recovery.sweep_result import SweepResult


def show_swept(swept: Sequence[SweepResult]) -> None:
    """Print one line per attempt, and the sum."""
    rows = [
        (words.recovery_name(one.attempt_id, one.recovery_no), one.run_id, stage(one), one.error)
        for one in swept
    ]
    page.show(page.table(("attempt", "run", "stands at", "problem"), rows))
    if len(swept) > 1:
        page.show(Text(), summary(swept))


def summary(swept: Sequence[SweepResult]) -> str:
    """How many attempts are in each stage."""
    counts = Counter("failed" if one.stage is None else one.stage.value for one in swept)
    parts = [f"{count} {name}" for name, count in counts.most_common()]
    return f"{words.plural(len(swept), 'attempt')}: {', '.join(parts)}"


def stage(one: SweepResult) -> Text:
    """The attempt's present stage."""
    return page.styled("failed" if one.stage is None else one.stage.value)


def code_of(swept: Sequence[SweepResult]) -> ExitCode:
    """The exit code: whether all of them could proceed."""
    return ExitCode.PARTLY if any(one.error for one in swept) else ExitCode.DONE
