"""Which events cannot follow: no decision is made on a stream that holds one."""

from typing import Any, get_args

import pytest
from msgspec.structs import replace

from recovery_journal.domain.bounds import LARGEST_NUMBER, SMALLEST_NUMBER
from recovery_journal.domain.contradictions import STAGES, contradiction
from recovery_journal.domain.events import (
    AnyEvent,
    Dispatched,
    Ending,
    LeaseExpired,
    Seized,
    WriteKind,
)
from recovery_journal.domain.lease import Fence
from recovery_journal.domain.recovery import Recovery
from tests.domain.histories import (
    confirmed,
    dispatched,
    ended,
    expired,
    given,
    granted,
    history,
    lifted,
    quarantined,
    ready,
    refused,
    reloaded,
    replayed,
    resumed,
    seized,
)

RECOVERED = (granted(), expired(epoch=2), reloaded(), replayed(), ready())
HUGE = Fence(epoch=LARGEST_NUMBER, lease_id="forged")


def last(*happenings: Any) -> tuple[Recovery, AnyEvent]:
    """The attempt before the last of these, and that event."""
    *before, event = history(*happenings)
    return given(*happenings[: len(before)]), event


def test_every_event_has_its_stages() -> None:
    assert set(STAGES) == set(get_args(AnyEvent))


@pytest.mark.parametrize("length", range(2, len(RECOVERED) + 1))
def test_a_recovery_contradicts_itself_nowhere(length: int) -> None:
    assert contradiction(*last(*RECOVERED[:length])) is None


@pytest.mark.parametrize(
    ("happenings", "reason"),
    [
        pytest.param((granted(), granted()), "granted before", id="a second grant"),
        pytest.param((granted(), ended(Ending.COMPLETED), confirmed()), "ended", id="after an end"),
        pytest.param((granted(), dispatched(epoch=9)), "held", id="dispatched while held"),
        pytest.param((granted(), reloaded()), "held", id="reloaded while held"),
        pytest.param((granted(), lifted(epoch=2)), "held", id="lifted while held"),
        pytest.param((granted(), resumed(epoch=2)), "held", id="resumed while held"),
        pytest.param((*RECOVERED, ended(Ending.COMPLETED)), "ready", id="completed while ready"),
        pytest.param((*RECOVERED, confirmed()), "ready", id="confirmed while ready"),
        pytest.param((*RECOVERED, dispatched(epoch=1)), "epoch 1", id="an older fence"),
        pytest.param((granted(), expired(epoch=1)), "epoch 1 after", id="the same fence"),
    ],
)
def test_an_event_that_no_command_appends_is_a_contradiction(
    happenings: tuple[Any, ...], reason: str
) -> None:
    found = contradiction(*last(*happenings))

    assert found is not None
    assert reason in found


@pytest.mark.parametrize("number", [0, 2, 2**40, LARGEST_NUMBER, SMALLEST_NUMBER])
def test_recovery_numbers_leave_none_out(number: int) -> None:
    recovery, event = last(granted(), expired(epoch=2))
    assert isinstance(event, LeaseExpired)

    found = contradiction(recovery, replace(event, recovery_no=number))

    assert found == f"of recovery {number} and not 1"


def test_an_event_of_another_run_is_a_contradiction() -> None:
    recovery, event = last(granted(), confirmed())

    assert contradiction(recovery, replace(event, run_id="r-other"))


def test_a_seizure_names_the_fence_that_it_replaces() -> None:
    recovery, event = last(granted(), expired(epoch=2), seized(epoch=3, from_epoch=2))
    assert isinstance(event, Seized)

    assert contradiction(recovery, event) is None
    assert contradiction(recovery, replace(event, from_fence=HUGE))


def test_a_worker_that_confirms_or_completes_names_the_newest_fence() -> None:
    for happening in (confirmed(), ended(Ending.COMPLETED)):
        recovery, event = last(granted(), happening)
        assert contradiction(recovery, event) is None
        assert contradiction(recovery, replace(event, fence=HUGE))


def test_after_the_largest_epoch_nothing_can_be_dispatched() -> None:
    recovery, event = last(*RECOVERED, dispatched(epoch=3))
    assert isinstance(event, Dispatched)

    assert contradiction(replace(recovery, fence=HUGE), event)


def test_a_refused_write_may_follow_anything() -> None:
    stages = (RECOVERED[:1], RECOVERED[:3], RECOVERED, (granted(), quarantined()))
    for happenings in stages:
        found = last(*happenings, refused(write=WriteKind.HEARTBEAT))
        assert contradiction(*found) is None
