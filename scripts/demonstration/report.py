"""The end of the demonstration: the timeline of every recovery, and the proof."""

from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise

import recovery_journal as rj
from recovery_journal.events import LeaseExpired
from scripts.demonstration.checks import Check
from scripts.demonstration.evidence import Evidence
from scripts.harness.screen import Screen

PHASES = ("found", "reloaded", "replayed", "ready", "claimed", "at work")


def show_timeline(screen: Screen, evidence: Evidence) -> None:
    """Which worker held the job, when and on what evidence it was lost, from where it was replayed,
    which worker took over, and how long each phase took."""
    stories = [
        (
            f"#{one.recovery_no}",
            f"{one.worker_id} → {one.dispatched_to or 'none'}",
            f"lost at {screen.time_of(one.lost_at)}" if one.lost_at else "",
            _evidence(one, evidence.losses[one.recovery_no]),
            f"checkpoint {one.checkpoint_ordinal or 0}",
            f"replayed {_range(one)}",
        )
        for one in evidence.recoveries
    ]
    for one, story in zip(evidence.recoveries, _aligned(stories), strict=True):
        phases = _phases(one, evidence.losses[one.recovery_no])
        screen.show(f"{story}\n[dim]    milliseconds: {phases}[/dim]")


def show_checks(screen: Screen, checks: Sequence[Check]) -> None:
    """One line for each check."""
    marks = {True: "[green]✓[/green]", False: "[red]✗[/red]"}
    screen.columns((marks[it.holds], f"[bold]{it.name}[/bold]", it.finding) for it in checks)


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)) for row in rows]


def _evidence(one: rj.RecoveryContextRow, loss: LeaseExpired) -> str:
    if one.loss == "ttl":
        silent_ms = _ms(loss.lease.renewed_at, one.lost_at) or 0.0
        return f"silent for {silent_ms / 1000:.1f} s"
    if one.loss == "session_lost":
        return "its session ended"
    return loss.reason


def _range(one: rj.RecoveryContextRow) -> str:
    first, last = (one.checkpoint_ordinal or 0) + 1, one.to_ordinal or 0
    return f"{first}-{last}" if last >= first else "nothing"


def _phases(one: rj.RecoveryContextRow, loss: LeaseExpired) -> str:
    steps = ("lost", "reloaded", "replayed", "made_ready", "dispatched", "confirmed")
    moments = [loss.lease.renewed_at, *(getattr(one, f"{step}_at") for step in steps)]
    return ", ".join(
        f"{name} {'never' if spent is None else f'{spent:,.0f}'}"
        for name, spent in zip(PHASES, (_ms(*it) for it in pairwise(moments)), strict=True)
    )


def _ms(one: datetime | None, other: datetime | None) -> float | None:
    return (other - one).total_seconds() * 1000 if one and other else None
