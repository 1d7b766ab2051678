"""Workers and their children are killed, suspended and cut off from the server, for real."""

import os
import signal

import pytest

from recovery_journal.domain.events import (
    Confirmed,
    Dispatched,
    LeaseExpired,
    StaleWriteRefused,
    WriteKind,
)
from recovery_journal.domain.lease import LossReason
from recovery_journal.domain.recovery import Stage
from recovery_journal.worker.outcome import NoticeKind, Outcome
from tests.servers import PrivateServer, server_started_at
from tests.worker.desk import TTL_S, Desk
from tests.worker.functions import is_gone, until


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGALRM])
def test_a_killed_child_is_reported_at_once_and_counts_as_a_crash(
    desk: Desk, number: signal.Signals
) -> None:
    desk.make_ready("a-1", "hold")
    worker = desk.start(ttl_s=30)  # no test waits for this TTL

    os.kill(desk.child_id(), number)
    desk.let_go()

    assert worker.until_ended(2) == [Outcome.DIED, Outcome.COMPLETED]
    losses = desk.events("a-1", LeaseExpired)
    assert losses[-1].loss is LossReason.REPORTED
    assert losses[-1].reason == f"child died of signal {number.value}"
    assert desk.events("a-1", StaleWriteRefused) == []


def test_the_child_of_a_killed_worker_dies_with_it(desk: Desk) -> None:
    desk.make_ready("a-1", "work_for_ever")
    worker = desk.start(ttl_s=30)  # no test waits for this TTL
    child_id = desk.child_id()
    desk.journal.sweep()

    worker.signal(signal.SIGKILL)

    until(lambda: is_gone(child_id), "the child to die")
    desk.sweep_until_lost("a-1")
    recovery = desk.journal.recovery("a-1")
    assert recovery.lost is not None
    assert (recovery.lost.loss, recovery.stage) == (LossReason.SESSION_LOST, Stage.READY)


def test_a_suspended_worker_is_recovered_elsewhere_refused_and_continues(desk: Desk) -> None:
    desk.make_ready("a-1", "hold")
    first = desk.start("w-1", ttl_s=0.5)
    child_id = desk.child_id()

    os.kill(child_id, signal.SIGSTOP)  # so that it cannot fence itself either
    first.signal(signal.SIGSTOP)
    desk.sweep_until_lost("a-1")
    desk.forget_start()
    second = desk.start("w-2", max_attempts=1)
    desk.child_id()
    desk.let_go()
    assert second.until_ended() == [Outcome.COMPLETED]
    assert second.exit_code() == 0
    first.signal(signal.SIGCONT)

    assert first.until_ended() == [Outcome.LOST]
    assert is_gone(child_id)
    assert len(desk.events("a-1", StaleWriteRefused)) == 1
    desk.make_ready("a-2", "count")
    assert first.until_ended(2) == [Outcome.LOST, Outcome.COMPLETED]


def test_the_child_of_a_suspended_worker_fences_itself(desk: Desk) -> None:
    desk.make_ready("a-1", "hold")
    worker = desk.start(ttl_s=0.5)
    child_id = desk.child_id()

    worker.signal(signal.SIGSTOP)
    until(lambda: is_gone(child_id), "the child to fence itself")
    worker.signal(signal.SIGCONT)
    desk.let_go()

    # No worker had taken the lease, so it went back at once, and no crash was counted.
    assert worker.until_ended(2) == [Outcome.FENCED, Outcome.COMPLETED]
    losses = desk.events("a-1", LeaseExpired)
    assert losses[-1].loss is LossReason.HANDED_BACK
    assert desk.journal.recovery("a-1").recoveries_without_progress == 0


def test_a_lost_lease_kills_a_child_that_is_stopped(desk: Desk) -> None:
    desk.make_ready("a-1", "hold_against_sigterm")
    worker = desk.start()
    child_id = desk.child_id()

    os.kill(child_id, signal.SIGSTOP)
    desk.journal.cancel("a-1", by="a tester", reason="not needed")

    assert worker.until_ended() == [Outcome.LOST]
    assert is_gone(child_id)
    assert len(desk.events("a-1", LeaseExpired)) == 1  # the one that made it ready
    refused = desk.events("a-1", StaleWriteRefused)
    assert [event.write for event in refused] == [WriteKind.HEARTBEAT]


def test_what_the_child_forked_goes_with_it(desk: Desk) -> None:
    desk.make_ready("a-1", "hold_with_a_fork")
    worker = desk.start()
    desk.child_id()
    forked_id = int((desk.folder / "forked").read_text())

    desk.let_go()

    assert worker.until_ended() == [Outcome.COMPLETED]
    until(lambda: is_gone(forked_id), "the fork to die")


def test_sigterm_lets_the_child_end(desk: Desk) -> None:
    desk.make_ready("a-1", "hold")
    desk.make_ready("a-2", "hold")
    worker = desk.start()
    desk.child_id()

    worker.signal(signal.SIGTERM)
    until(lambda: worker.is_draining, "the drain")
    desk.let_go()

    assert worker.exit_code() == 0
    assert worker.outcomes == [Outcome.COMPLETED]
    assert desk.journal.recovery("a-2").stage is Stage.READY


def test_a_drain_that_lasts_too_long_hands_the_lease_back(desk: Desk) -> None:
    desk.make_ready("a-1", "hold_against_sigterm")
    worker = desk.start(drain_s=0.2)
    child_id = desk.child_id()

    worker.signal(signal.SIGINT)

    assert worker.exit_code() == 0
    assert worker.outcomes == [Outcome.HANDED_BACK]
    assert is_gone(child_id)
    recovery = desk.journal.recovery("a-1")
    assert recovery.lost is not None
    assert (recovery.lost.loss, recovery.stage) == (LossReason.HANDED_BACK, Stage.READY)
    assert recovery.recoveries_without_progress == 0


def test_a_second_signal_ends_the_worker_at_once(desk: Desk) -> None:
    desk.make_ready("a-1", "hold")
    worker = desk.start(drain_s=3600)
    child_id = desk.child_id()

    worker.signal(signal.SIGTERM)
    until(lambda: any(it.kind is NoticeKind.DRAINING for it in worker.notices), "the drain")
    worker.signal(signal.SIGTERM)

    assert worker.exit_code() == -signal.SIGTERM
    until(lambda: is_gone(child_id), "the child to die")


def test_an_outage_longer_than_the_ttl_kills_the_child_and_is_nobodys_death(
    cut_off: Desk, private_server: PrivateServer
) -> None:
    desk = cut_off
    desk.make_ready("a-1", "hold")
    worker = desk.start()
    child_id = desk.child_id()

    private_server.stop()
    assert worker.until_ended() == [Outcome.FENCED]
    assert is_gone(child_id)
    private_server.start()
    desk.reconnect()
    started_at = server_started_at(desk.journal.database)
    desk.sweep_until_lost("a-1")
    desk.let_go()

    assert worker.until_ended(2) == [Outcome.FENCED, Outcome.COMPLETED]
    loss = desk.events("a-1", LeaseExpired)[-1]
    assert loss.loss is LossReason.TTL
    assert (loss.lease.seen_at - started_at).total_seconds() >= TTL_S
    assert len(desk.events("a-1", Dispatched)) == 2


def test_a_server_that_does_not_answer_kills_the_child_as_well(
    cut_off: Desk, private_server: PrivateServer
) -> None:
    desk = cut_off
    desk.make_ready("a-1", "hold")
    worker = desk.start()
    child_id = desk.child_id()
    processes = private_server.cluster.processes()

    os.kill(child_id, signal.SIGSTOP)  # so that only its parent can kill it
    for process in processes:
        process.suspend()
    try:
        until(lambda: is_gone(child_id), "the worker's own clock to decide")
    finally:
        for process in processes:
            process.resume()
    desk.let_go()

    # An answer that comes too late counts no more: the lease is handed back and claimed again.
    assert worker.until_ended(2) == [Outcome.FENCED, Outcome.COMPLETED]


def test_a_short_outage_costs_nothing(cut_off: Desk, private_server: PrivateServer) -> None:
    desk = cut_off
    desk.make_ready("a-1", "hold")
    worker = desk.start(ttl_s=30)
    child_id = desk.child_id()

    private_server.restart()
    desk.reconnect()
    desk.let_go()

    assert worker.until_ended() == [Outcome.COMPLETED]
    confirmed = desk.events("a-1", Confirmed)[-1]
    assert confirmed.recorded_by.pid == child_id


def test_claiming_continues_after_an_outage(cut_off: Desk, private_server: PrivateServer) -> None:
    desk = cut_off
    worker = desk.start()
    desk.make_ready("a-1", "count")
    worker.until_ended()

    private_server.stop()
    until(lambda: worker.notices[-1].kind is NoticeKind.PROBLEM, "a claim that fails")
    private_server.start()
    desk.make_ready("a-2", "count")

    assert worker.until_ended(2) == [Outcome.COMPLETED, Outcome.COMPLETED]
