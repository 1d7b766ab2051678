"""Bugs on purpose, each a change to the product's text: what a fuzzer must find to be trusted."""

from typing import Final

from scripts.simulation.plants import Edit

PLANTS: Final[dict[str, tuple[Edit, ...]]] = {
    "deep-state": (
        Edit(
            "recovery_journal/log/mapper.py",
            "UnicodeDecodeError, RecursionError)",
            "UnicodeDecodeError)",
        ),
    ),
    "time-without-offset": (
        Edit("domain/bounds.py", "Annotated[datetime, Meta(tz=True)]", "datetime"),
    ),
    "reason-not-counted-before": (
        Edit(
            "projections/workers.py",
            "row.losses.get(event.loss.value, 0)",
            'row.losses[event.loss.value] if event.loss == "stalled" and row.losses else 0',
        ),
    ),
    "alive-without-a-loss": (
        Edit(
            "domain/recovery.py",
            "recovery.lost is not None and _is_crash(recovery.lost)",
            "_is_crash(recovery.lost)",
        ),
    ),
}
