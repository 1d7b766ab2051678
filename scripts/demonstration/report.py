"""The end of the demonstration: the timeline of every recovery, and the proof."""

from collections.abc import Sequence

from scripts.demonstration.checks import Check
from scripts.demonstration.screen import Screen
from scripts.demonstration.timeline import Recovered


def show_timeline(screen: Screen, recoveries: Sequence[Recovered]) -> None:
    """Who held the job, when and on what evidence it was lost, from where it was replayed, who
    took over, and how long each phase took."""
    stories = [
        (
            f"#{one.recovery_no}",
            f"{one.worker_id} → {one.taken_over_by or 'nobody'}",
            f"lost at {screen.time_of(one.lost_at)}",
            _evidence(one),
            f"checkpoint {one.checkpoint_ordinal}",
            f"replayed {_range(one)}",
        )
        for one in recoveries
    ]
    for one, story in zip(recoveries, _aligned(stories), strict=True):
        screen.say(f"{story}\n[dim]    {_phases(one)}[/dim]")


def show_checks(screen: Screen, checks: Sequence[Check]) -> None:
    """One line for each check."""
    marks = {True: "[green]✓[/green]", False: "[red]✗[/red]"}
    screen.columns((marks[it.holds], f"[bold]{it.name}[/bold]", it.finding) for it in checks)


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)) for row in rows]


def _evidence(one: Recovered) -> str:
    if one.loss == "ttl":
        return f"silent for {one.silent_s:.1f} s"
    if one.loss == "session_lost":
        return "its session ended"
    return one.reason


def _range(one: Recovered) -> str:
    if one.to_ordinal == one.checkpoint_ordinal:
        return "nothing"
    return f"{one.checkpoint_ordinal + 1}-{one.to_ordinal}"


def _phases(one: Recovered) -> str:
    phases = {
        "found": one.silent_s,
        "reloaded": one.reloaded_s,
        "replayed": one.replayed_s,
        "ready": one.made_ready_s,
        "claimed": one.claimed_s,
        "at work": one.working_s,
    }
    told = [
        f"{name} {'never' if phase_s is None else f'{phase_s * 1000:,.0f}'}"
        for name, phase_s in phases.items()
    ]
    return f"milliseconds: {', '.join(told)}"
