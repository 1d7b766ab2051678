"""A run that adds up an invoice, and waits over a change of the clocks: its arithmetic shows
whether a value came back as something else."""

from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import recovery_journal as rj
from tests.acceptance.job import TTL

BERLIN = ZoneInfo("Europe/Berlin")
INPUT = {
    "lines": (Decimal("100.10"), Decimal("19.02")),
    "begun_at": datetime(2031, 10, 25, 12, 30, tzinfo=BERLIN),
    "checked_at": datetime(2031, 10, 26, 2, 30, tzinfo=BERLIN, fold=1),
}
RESULT = {
    "total": Decimal("119.12"),
    "due_at": datetime(2031, 10, 26, 12, 30, tzinfo=BERLIN),
    "left": timedelta(hours=10),
    "tags": frozenset({"paid", "checked"}),
    "steps": ("line 0", "line 1"),
}


def begin(journal: rj.Journal) -> rj.Claim:
    """The first worker's work."""
    lease = journal.acquire(
        attempt_id="a-1", run_id="r-1", kind="bill", worker_id="w-1", ttl=TTL, input=INPUT
    )
    return journal.load(lease)


def work_on(claim: rj.Claim, reach: Callable[[str], object] = lambda _boundary: None) -> None:
    """Do the rest, from the last checkpoint on; the same, disturbed or not."""
    lease, lines = claim.lease, claim.input["lines"]
    state: Any = claim.state or {"total": Decimal(0), "tags": {"checked"}, "steps": ()}
    for step in claim.tail:
        state = _added(state, step.name, step.output)
    for number in range(len(state["steps"]), len(lines)):
        name = f"line {number}"
        state = _added(state, name, lease.record_step(name, lines[number]))
        reach(f"recorded-{number}")
        state = lease.checkpoint(state)
        reach(f"saved-{number}")
    lease.complete(_result(claim.input, state))


def _added(state: Any, name: str, amount: Any) -> Any:
    return {
        "total": state["total"] + amount if state["steps"] else amount,
        "tags": state["tags"] | {"paid"},
        "steps": (*state["steps"], name),
    }


def _result(given: Any, state: Any) -> dict[str, Any]:
    due_at = given["begun_at"] + timedelta(days=1)
    left_s = due_at.timestamp() - given["checked_at"].timestamp()
    return {
        "total": state["total"],
        "due_at": due_at,
        "left": timedelta(seconds=left_s),
        "tags": frozenset(state["tags"]),
        "steps": state["steps"],
    }
