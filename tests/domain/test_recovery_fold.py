"""The fold of one stream, under any events in any order."""

import msgspec
from hypothesis import given as forall
from hypothesis import strategies as st

from recovery_journal.domain.events import (
    AbandonReason,
    AnyEvent,
    Ending,
)
from recovery_journal.domain.recovery import Stage, project
from tests.domain.any_event import streams
from tests.domain.histories import (
    abandoned,
    ended,
    expired,
    given,
    granted,
    lifted,
    quarantined,
    recovered,
    reloaded,
    replayed,
    resumed,
)


@forall(streams())
def test_a_fold_never_refuses_whatever_is_in_the_log(stream: tuple[AnyEvent, ...]) -> None:
    recovery = project(None, stream)

    assert recovery is not None
    assert recovery.version == len(stream)
    assert recovery.stage in Stage


@forall(streams(), st.data())
def test_a_fold_cut_anywhere_ends_the_same(
    stream: tuple[AnyEvent, ...], data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(stream)))

    assert project(project(None, stream[:cut]), stream[cut:]) == project(None, stream)


@forall(streams())
def test_a_fold_changes_nothing_that_it_was_given(stream: tuple[AnyEvent, ...]) -> None:
    before = project(None, stream[:-1])
    kept = msgspec.json.encode(stream)
    frozen = repr(before)

    project(before, stream[-1:])

    assert repr(before) == frozen
    assert msgspec.json.encode(stream) == kept


def test_a_whole_life_is_shown_by_its_events() -> None:
    recovery = given(
        granted(),
        *recovered(lost_epoch=1, recovery_no=1),
        *recovered(lost_epoch=3, recovery_no=2),
        ended(epoch=5),
    )

    assert (recovery.stage, recovery.version) == (Stage.ENDED, 12)
    assert (recovery.recovery_no, recovery.fence.epoch) == (2, 5)


def test_the_state_as_of_a_version_is_the_fold_up_to_it() -> None:
    past = (granted(), *recovered(lost_epoch=1, recovery_no=1))

    stages = [given(*past[:version]).stage for version in range(1, len(past) + 1)]

    assert stages == [
        Stage.HELD,
        Stage.EXPIRED,
        Stage.RELOADED,
        Stage.REPLAYED,
        Stage.READY,
        Stage.HELD,
    ]


def test_a_late_renewal_is_no_end() -> None:
    recovery = given(granted(), expired(None), abandoned(AbandonReason.RENEWED_LATE))

    assert (recovery.stage, recovery.ended) == (Stage.HELD, None)


def test_an_attempt_that_a_person_sent_back_has_nothing_reloaded_yet() -> None:
    past = (granted(), expired(), reloaded(), replayed())

    lifted_again = given(*past, quarantined(), lifted(epoch=3))
    resumed_again = given(*past, ended(Ending.WAITING), resumed(3))

    for recovery in (lifted_again, resumed_again):
        assert recovery.stage is Stage.EXPIRED
        assert (recovery.reloaded, recovery.replayed, recovery.ready) == (None, None, None)
