"""Pauses double up to the longest, and never keep step."""

from hypothesis import given
from hypothesis import strategies as st

from recovery_journal.process.back_off import SHORTEST_SHARE, BackOff


@given(st.floats(0.001, 1), st.floats(1, 100), st.integers(1, 20))
def test_each_pause_is_twice_the_one_before_up_to_the_longest(
    shortest_s: float, longest_s: float, count: int
) -> None:
    back_off = BackOff(shortest_s, longest_s)

    for number in range(count):
        whole_s = min(shortest_s * 2**number, longest_s)
        assert SHORTEST_SHARE * whole_s <= back_off.pause_s() <= whole_s


def test_after_a_reset_it_begins_with_the_shortest() -> None:
    back_off = BackOff(1.0, 64.0)
    for _ in range(5):
        back_off.pause_s()

    back_off.reset()

    assert back_off.pause_s() <= 1.0


def test_another_longest_pause_counts_once() -> None:
    back_off = BackOff(1.0, 2.0)
    for _ in range(4):
        back_off.pause_s()

    assert back_off.pause_s(longest_s=100.0) > 2.0
    assert back_off.pause_s() <= 2.0


def test_two_that_began_together_do_not_stay_in_step() -> None:
    first, second = BackOff(1.0, 1.0), BackOff(1.0, 1.0)

    assert [first.pause_s() for _ in range(10)] != [second.pause_s() for _ in range(10)]
