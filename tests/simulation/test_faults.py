"""Faults: drawn from a seed, written down, read again, and shrunk to those that matter."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recovery_journal.domain.errors import InvalidInput
from scripts.simulation.faults import (
    Fault,
    FaultKind,
    GivenFaults,
    SeededFaults,
    read,
    shrink,
    written,
)

FAULTS = st.dictionaries(
    st.integers(1, 5_000),
    st.builds(Fault, st.sampled_from(FaultKind), st.floats(0, 1, exclude_max=True)),
    max_size=40,
)
CALLS = range(1, 3_000)


@given(FAULTS)
def test_faults_that_were_written_are_read_as_they_were(faults: dict[int, Fault]) -> None:
    assert read(written(faults)) == faults


@pytest.mark.parametrize("text", ["", "17", "17:crash-before", "x:pause:0.5", "17:flood:0.5"])
def test_what_is_no_list_of_faults_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="the faults"):
        read(text)


def test_a_seed_says_at_each_call_alone_what_goes_wrong() -> None:
    backwards = [SeededFaults(7).at(no) for no in reversed(CALLS)]
    assert backwards[::-1] == [SeededFaults(7).at(no) for no in CALLS]
    assert any(backwards)


def test_seeds_differ_in_the_kinds_they_have() -> None:
    kinds = {
        frozenset(fault.kind for no in CALLS if (fault := SeededFaults(seed).at(no)))
        for seed in range(12)
    }
    assert len(kinds) > 6
    assert frozenset.union(*kinds) == frozenset(FaultKind)


def test_given_faults_are_met_at_their_calls_and_nowhere_else() -> None:
    fault = Fault(FaultKind.LATE, 0.5)
    assert [no for no in CALLS if GivenFaults({17: fault}).at(no)] == [17]


@given(FAULTS.filter(bool), st.data())
def test_only_the_faults_that_a_failure_needs_are_left(
    faults: dict[int, Fault], data: st.DataObject
) -> None:
    needed = data.draw(st.sets(st.sampled_from(sorted(faults)), min_size=1, max_size=4))

    def fails(some: Mapping[int, Fault]) -> bool:
        return needed <= some.keys()

    assert shrink(faults, fails, most_tries=10_000).keys() == needed


def test_shrinking_ends_after_so_many_tries() -> None:
    tries = []

    def fails(some: Mapping[int, Fault]) -> bool:
        tries.append(some)
        return len(some) > 30

    faults = {no: Fault(FaultKind.PAUSE, 0.1) for no in range(40)}
    assert len(shrink(faults, fails, most_tries=5)) > 30
    assert len(tries) == 5
