"""How many files and frames a reader has to follow: from a lost lease to its claim, and to a run
step that is recorded. `pytest -s` prints both ways.

Counted are the functions of the package, comprehensions as parts of the function they stand in (as
from Python 3.12 on).
"""

import re
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Final, NamedTuple

import recovery_journal as rj
from tests.rules.scenes import held, until_passed, worked

ROOT: Final = Path(__file__).parents[2]
PACKAGES: Final = tuple(f"{ROOT / name}/" for name in ("domain", "projections", "recovery_journal"))
COMPREHENSIONS: Final = ("<listcomp>", "<dictcomp>", "<setcomp>", "<genexpr>")
STEP: Final = re.compile(r"^\d+\. `([\w/]+\.py)`: `([\w.]+)`", re.MULTILINE)

Call = tuple[str, str]
"""A file of the package, and a function in it."""


class Trace(NamedTuple):
    """The functions that were called, in order of their first call, and the deepest stack."""

    calls: list[Call]
    deepest: list[Call]

    @property
    def files(self) -> set[str]:
        return {file for file, _ in self.calls}

    def __str__(self) -> str:
        stack = "\n".join(f"  {file}: {function}" for file, function in self.deepest)
        return f"{len(self.files)} files, {len(self.deepest)} frames deep\n{stack}"


def call_of(frame: FrameType) -> Call | None:
    """The frame's function, where it is one of the package."""
    path = str(Path(frame.f_code.co_filename).resolve())
    if not path.startswith(PACKAGES) or frame.f_code.co_name in COMPREHENSIONS:
        return None
    return path.removeprefix(f"{ROOT}/"), frame.f_code.co_qualname.replace(".<locals>", "")


def trace_of(act: Callable[[], object]) -> Trace:
    """Everything of the package that is called by an act, in this thread."""
    calls: dict[Call, None] = {}
    deepest: list[Call] = []

    def note(frame: FrameType, event: str, _: object) -> None:
        nonlocal deepest
        if event != "call" or (call := call_of(frame)) is None:
            return
        calls.setdefault(call)
        stack: list[Call] = []
        caller: FrameType | None = frame
        while caller is not None:
            if (outer := call_of(caller)) is not None:
                stack.insert(0, outer)
            caller = caller.f_back
        deepest = max(deepest, stack, key=len)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        act()
    finally:
        sys.setprofile(before)
    return Trace([*calls], deepest)


def recovered(journal: rj.Journal) -> Trace:
    """From the sweep that finds a lost lease to the claim of its attempt."""
    for name in ("once before", "traced"):
        worked(held(journal, name, ttl=timedelta(seconds=1)), step_count=3)
        until_passed(journal, name)
        claims: list[rj.Claim] = []

        def recover(claims: list[rj.Claim] = claims) -> None:
            journal.sweep()
            claims += journal.claim(worker_id="w-2")

        trace = trace_of(recover)
        assert [claim.lease.attempt_id for claim in claims] == [name]
    return trace


def test_the_way_of_a_lost_lease_to_its_claim_is_short(journal: rj.Journal) -> None:
    trace = recovered(journal)

    print(trace)  # noqa: T201 - for `pytest -s`
    assert len(trace.files) <= 52
    assert len(trace.deepest) <= 12


def test_the_way_of_a_run_step_is_short(journal: rj.Journal) -> None:
    lease = held(journal)
    lease.record_step("count", 1)

    trace = trace_of(lambda: lease.record_step("count", 2))

    print(trace)  # noqa: T201 - for `pytest -s`
    assert len(trace.files) <= 9
    assert len(trace.deepest) <= 8


def test_the_documented_way_of_a_lost_lease_is_the_one_that_is_taken(journal: rj.Journal) -> None:
    explanation = (ROOT / "docs/explanation.md").read_text(encoding="utf-8")
    documented = STEP.findall(explanation)

    called = recovered(journal).calls

    assert len(documented) > 10
    assert [call for call in called if call in documented] == documented
