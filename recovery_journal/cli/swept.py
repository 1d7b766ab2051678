"""The output of a sweep, attempt by attempt."""

from collections import Counter
from collections.abc import Iterator, Sequence

from rich.console import RenderableType
from rich.text import Text

from recovery_journal.cli import page, words
from recovery_journal.cli.exits import ExitCode
from recovery_journal.recovery.sweep_result import SweepResult


def show_swept(
    document: object, swept: Sequence[SweepResult], *, as_json: bool, nothing: str = ""
) -> ExitCode:
    """Print the document, or one line per attempt and the sum, or that there was nothing to do.
    Return the exit code: whether all attempts could proceed."""
    page.show_result(document, _lines(swept) if swept else [page.text(nothing)], as_json=as_json)
    return code_of(swept)


def _lines(swept: Sequence[SweepResult]) -> Iterator[RenderableType]:
    rows = [
        (words.recovery_name(one.attempt_id, one.recovery_no), one.run_id, stage(one), one.error)
        for one in swept
    ]
    yield page.table(("attempt", "run", "stands at", "problem"), rows)
    if len(swept) > 1:
        yield Text()
        yield summary(swept)


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
