"""The tables of decisions cover everything that can be found."""

from itertools import product

import pytest

from recovery_journal.domain.checkpoint import Checkpoint, CheckpointProblem, ProblemKind
from recovery_journal.domain.decisions import (
    LIFT_OPTIONS,
    TIP_ACTIONS,
    TipAction,
    TipFinding,
    finding,
    standing,
)
from recovery_journal.domain.events import (
    LiftOption,
    QuarantineCause,
    TipStanding,
)
from recovery_journal.domain.lease import Progress
from tests.domain.specimens import checkpoint, problem, progress, run_input


def test_the_table_decides_for_everything_that_can_be_found() -> None:
    assert set(TIP_ACTIONS) == set(product(TipFinding, TipStanding))
    assert set(TIP_ACTIONS.values()) == set(TipAction)


def test_every_cause_leaves_a_person_at_least_one_choice_and_none_twice() -> None:
    assert set(LIFT_OPTIONS) == set(QuarantineCause)
    for options in LIFT_OPTIONS.values():
        assert options
        assert len(set(options)) == len(options)


def test_every_way_to_lift_is_an_option_of_some_cause() -> None:
    assert {option for options in LIFT_OPTIONS.values() for option in options} == set(LiftOption)


@pytest.mark.parametrize(
    ("tip", "expected"),
    [
        (checkpoint(), TipFinding.CHECKPOINT),
        (run_input(), TipFinding.INPUT),
        (run_input(tail_count=2), TipFinding.INPUT),
        (checkpoint(is_terminal=True), TipFinding.TERMINAL),
        (checkpoint(is_waiting=True), TipFinding.WAITING),
        (checkpoint(is_terminal=True, is_waiting=True), TipFinding.TERMINAL),
        (run_input(is_waiting=True), TipFinding.WAITING),
        (problem(ProblemKind.MISSING), TipFinding.MISSING),
        (problem(ProblemKind.CORRUPT), TipFinding.CORRUPT),
        (problem(ProblemKind.UNAVAILABLE), TipFinding.UNAVAILABLE),
        (problem(ProblemKind.TOO_NEW), TipFinding.TOO_NEW),
        (problem(ProblemKind.TOO_LARGE), TipFinding.TOO_LARGE),
        (checkpoint(written_by_epoch=3), TipFinding.FOREIGN),
        (run_input(tail_count=2, is_waiting=True), TipFinding.WAITING),
        (checkpoint(written_by_epoch=3, is_terminal=True), TipFinding.TERMINAL),
    ],
)
def test_an_answer_of_the_store_belongs_to_one_row(
    tip: Checkpoint | CheckpointProblem, expected: TipFinding
) -> None:
    assert finding(tip, newest_writer=2) is expected


def test_whom_a_person_trusted_is_nowhere_foreign() -> None:
    assert finding(checkpoint(written_by_epoch=3)) is TipFinding.CHECKPOINT


@pytest.mark.parametrize(
    ("reported", "expected"),
    [
        (None, TipStanding.UNREPORTED),
        (progress(5, 2), TipStanding.EQUAL),
        (progress(4, 2), TipStanding.AHEAD),
        (progress(5, 1), TipStanding.AHEAD),
        (progress(6, 2), TipStanding.BEHIND),
        (progress(5, 3), TipStanding.BEHIND),
        (progress(4, 3), TipStanding.BEHIND),
        (progress(6, 1), TipStanding.BEHIND),
    ],
)
def test_a_tip_is_behind_as_soon_as_anything_reported_is_missing(
    reported: Progress | None, expected: TipStanding
) -> None:
    tip = checkpoint(3, checkpoint_no=2, tail_count=2)

    assert standing(tip, reported) is expected
