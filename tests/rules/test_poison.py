"""Runs that no worker can continue: they are requeued, refused or quarantined, and the others of
their batch are not kept waiting."""

import errno
import os
import signal
import time
from datetime import timedelta
from typing import Any

import psutil
import pytest

import recovery_journal as rj
from recovery_journal.domain.checkpoint import FORMAT_VERSION
from recovery_journal.domain.errors import CheckpointTooLarge, CheckpointTooNew, ReducerFailed
from recovery_journal.domain.events import (
    LeaseExpired,
    QuarantineCause,
    Quarantined,
    ReadyForDispatch,
    StepFailed,
)
from recovery_journal.recovery.replayer import HUNG_LIMIT, POSTPONED
from recovery_journal.store.acquisition import DRAW
from tests.rules.scenes import (
    OpenJournal,
    change,
    claim_one,
    events_of,
    held,
    last_of,
    make_ready,
    report,
    rows,
    said_last,
    sum_up,
    sweep_until,
    text_of,
    types_of,
    until,
    worked,
)

BY = {"by": "on-call", "reason": "checked"}
FAST = rj.Policy(raise_limit=3, backoff_s=0.01, backoff_limit_s=0.05)
LIMITS_FOLDING = rj.Limits(ttl_s=60.0, grace_s=0.0, reducer_s=0.3, policy=FAST)


def raising(_state: Any, _name: str, _output: Any) -> Any:
    raise ValueError("cannot fold this")


def endless(_state: Any, _name: str, _output: Any) -> Any:
    while True:
        pass


def dying(_state: Any, _name: str, _output: Any) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def nonsense(_state: Any, _name: str, _output: Any) -> Any:
    return object()


BAD_REDUCERS = {
    "ValueError": raising,
    "DeadlinePassed": endless,
    "ChildDied": dying,
    "InvalidInput": nonsense,
}


async def fold_later(state: Any, _name: str, _output: Any) -> Any:
    return state


def fold_bit_by_bit(state: Any, _name: str, _output: Any) -> Any:
    yield state


# A claimer's reducer --------------------------------------------------------------------------


@pytest.mark.parametrize("error_class", BAD_REDUCERS)
def test_a_claimers_bad_reducer_gives_its_claim_back_and_loses_no_other(
    open_journal: OpenJournal, error_class: str
) -> None:
    sweeper = open_journal(limits=LIMITS_FOLDING)
    reducers = {"bad": BAD_REDUCERS[error_class], "sum": sum_up}
    claimer = open_journal(limits=LIMITS_FOLDING, reducers=reducers)
    for number, kind in enumerate(("sum", "bad", "sum")):
        report(sweeper, worked(held(sweeper, f"a-{number}", kind=kind), step_count=3))

    claims = claimer.claim(worker_id="w-2", limit=3)

    assert [claim.lease.attempt_id for claim in claims] == ["a-0", "a-2"]
    assert [claim.folded_state for claim in claims] == [{"sum": 6}, {"sum": 6}]
    for claim in claims:
        claim.lease.heartbeat()
    failed = last_of(sweeper, StepFailed, "a-1")
    assert (failed.error_class, failed.failed_step) == (error_class, rj.RecoveryStep.REPLAY)
    lost = events_of(sweeper, LeaseExpired, "a-1")[-1]
    assert lost.loss is rj.LossReason.REPORTED
    assert lost.reason.startswith(f"cannot fold the tail of run 'run of a-1': found {error_class}")


@pytest.mark.parametrize("returned", [fold_later, fold_bit_by_bit])
def test_a_reducer_that_returns_code_which_has_not_run_fails_and_leaves_no_warning(
    open_journal: OpenJournal, capfd: pytest.CaptureFixture[str], returned: Any
) -> None:
    policy = rj.Policy(raise_limit=1)
    limits = rj.Limits(ttl_s=60.0, grace_s=0.0, policy=policy)
    journal = open_journal(limits=limits, reducers={"bad": lambda *given: returned(*given)})  # noqa: PLW0108 - a lambda, so that the door cannot see it
    lease = worked(held(journal, kind="bad"))

    report(journal, lease)

    quarantined = last_of(journal, Quarantined)
    assert quarantined.cause is QuarantineCause.RAISED
    assert "whose code has not run" in text_of(journal, quarantined)
    assert "never awaited" not in capfd.readouterr().err


@pytest.mark.parametrize("error_class", BAD_REDUCERS)
def test_a_reducer_that_is_bad_for_every_claimer_is_quarantined_after_a_few_tries(
    open_journal: OpenJournal, error_class: str
) -> None:
    sweeper = open_journal(limits=LIMITS_FOLDING)
    claimer = open_journal(limits=LIMITS_FOLDING, reducers={"bad": BAD_REDUCERS[error_class]})
    lease = worked(held(sweeper, kind="bad"))
    lease.hand_back()

    for _ in range(2):
        assert claimer.claim(worker_id="w-2") == []
        assert sweep_until(sweeper).is_ready
    assert claimer.claim(worker_id="w-2") == []

    quarantined = last_of(sweeper, Quarantined)
    assert quarantined.cause is QuarantineCause.RAISED
    assert error_class in quarantined.explanation
    assert len(events_of(sweeper, StepFailed)) == 2


def test_a_claimer_that_folds_for_longer_than_a_ttl_keeps_its_other_claims(
    open_journal: OpenJournal,
) -> None:
    slow = rj.Limits(ttl_s=60.0, grace_s=0.0, reducer_s=1.0, policy=FAST)
    journal = open_journal(limits=slow)
    claimer = open_journal(limits=slow, reducers={"bad": endless})
    report(journal, worked(held(journal, "a-1", kind="bad")), held(journal, "a-2"))

    (claim,) = claimer.claim(worker_id="w-2", limit=2, ttl=timedelta(seconds=0.5))

    query = "SELECT attempt_id FROM leases WHERE status = 'held' AND expires_at > renewed_at"
    assert rows(journal, query) == [{"attempt_id": "a-2"}]
    granted = claim.lease.terms.expires_at - timedelta(seconds=0.5)
    (row,) = rows(journal, "SELECT renewed_at FROM leases WHERE attempt_id = 'a-2'")
    assert row["renewed_at"] > granted + timedelta(seconds=0.25)


def test_a_kind_whose_reducer_never_ends_keeps_a_claim_waiting_only_a_few_times(
    open_journal: OpenJournal,
) -> None:
    journal = open_journal(limits=LIMITS_FOLDING)
    claimer = open_journal(limits=LIMITS_FOLDING, reducers={"bad": endless, "sum": sum_up})
    count = HUNG_LIMIT + 2
    for number in range(count):
        report(journal, worked(held(journal, f"a-{number}", kind="bad")))
    report(journal, worked(held(journal, "a-good", kind="sum")))

    claims = claimer.claim(worker_id="w-2", limit=count + 1)

    assert [claim.lease.attempt_id for claim in claims] == ["a-good"]
    failures = [last_of(journal, StepFailed, f"a-{number}").error_class for number in range(count)]
    assert failures == ["DeadlinePassed"] * HUNG_LIMIT + [POSTPONED] * 2
    assert events_of(journal, LeaseExpired, "a-4")[-1].loss is rj.LossReason.HANDED_BACK


def test_a_kind_whose_reducer_never_ends_keeps_a_sweep_waiting_only_a_few_times(
    open_journal: OpenJournal,
) -> None:
    journal = open_journal(limits=LIMITS_FOLDING, reducers={"bad": endless, "sum": sum_up})
    count = HUNG_LIMIT + 2
    leases = [
        worked(held(journal, f"a-{number}", kind="bad", worker_id="w-1")) for number in range(count)
    ]
    worked(held(journal, "a-good", kind="sum", worker_id="w-1"))

    report(journal, leases[0])

    assert types_of(journal, "a-good")[-1] == "ReadyForDispatch"
    failures = [last_of(journal, StepFailed, f"a-{number}").error_class for number in range(count)]
    assert failures == ["DeadlinePassed"] * HUNG_LIMIT + [POSTPONED] * 2


def test_a_host_without_processes_folds_another_time_and_blames_no_run(
    open_journal: OpenJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = open_journal(limits=LIMITS_FOLDING, reducers={"sum": sum_up})
    lease = worked(held(journal, kind="sum"), step_count=3)

    def no_more() -> int:
        raise BlockingIOError(errno.EAGAIN, "no more processes")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fork", no_more)
        report(journal, lease)
    assert sweep_until(journal).is_ready
    for _ in range(FAST.raise_limit + 1):
        with monkeypatch.context() as patched:
            patched.setattr(os, "fork", no_more)
            assert journal.claim(worker_id="w-2") == []
        assert sweep_until(journal).is_ready

    assert claim_one(journal).folded_state == {"sum": 6}
    failures = events_of(journal, StepFailed)
    assert {failed.error_class for failed in failures} == {POSTPONED}
    texts = [failed.message for failed in failures if failed.message]
    assert texts[0].startswith("no process for a reducer: ")


def test_a_fresh_attempt_whose_tail_cannot_be_folded_is_refused_with_the_reason(
    open_journal: OpenJournal,
) -> None:
    journal = open_journal(limits=LIMITS_FOLDING, reducers={"sum": raising})
    worked(held(journal, "a-1", run_id="r", kind="sum")).fail("broken")
    lease = held(journal, "a-2", run_id="r", kind="sum")

    with pytest.raises(ReducerFailed, match="ValueError: cannot fold this"):
        journal.load(lease)

    lease.fail("cannot begin")


def test_what_a_reducer_forks_ends_with_it(open_journal: OpenJournal, tmp_path: Any) -> None:
    def forking(_state: Any, _name: str, _output: Any) -> Any:
        if os.fork() == 0:
            (tmp_path / "forked").write_text(str(os.getpid()))
            time.sleep(600)
            os._exit(0)
        until((tmp_path / "forked").exists, "the fork")
        return endless(None, "", None)

    journal = open_journal(limits=LIMITS_FOLDING, reducers={"bad": forking})
    report(journal, worked(held(journal, kind="bad"), step_count=2))

    forked = int((tmp_path / "forked").read_text())
    until(lambda: not _is_running(forked), "its end")


def _is_running(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


# A checkpoint in a newer format ---------------------------------------------------------------

NEWER = "UPDATE checkpoints SET format_version = %(version)s, state_digest = 'cs9:unknown'"
OLDER = r"""
UPDATE checkpoints
SET format_version = 1, state_digest = 'cs1:' || encode(sha256(state), 'hex')
"""


def write_newer(journal: rj.Journal) -> None:
    change(journal, NEWER, {"version": FORMAT_VERSION + 1})


def upgrade(journal: rj.Journal) -> None:
    """A newer sweeper comes, to which the format is known."""
    change(journal, OLDER)


def test_a_checkpoint_in_a_newer_format_waits_for_a_newer_sweeper(
    open_journal: OpenJournal,
) -> None:
    journal = open_journal(limits=LIMITS_FOLDING)
    lease = worked(held(journal))
    write_newer(journal)

    (swept,) = report(journal, lease)

    assert swept.stage is rj.Stage.EXPIRED
    failed = last_of(journal, StepFailed)
    assert failed.error_class == "CheckpointTooNew"
    assert "format 2, known are up to 1" in said_last(journal)
    upgrade(journal)
    assert sweep_until(journal).is_ready
    assert claim_one(journal).state == {"sum": 1}


def test_no_newer_program_comes_in_time_so_a_person_decides(
    open_journal: OpenJournal,
) -> None:
    policy = rj.Policy(version_wait_s=0.2, backoff_s=0.01, backoff_limit_s=0.02)
    journal = open_journal(limits=rj.Limits(ttl_s=60.0, grace_s=0.0, policy=policy))
    lease = worked(held(journal))
    write_newer(journal)
    report(journal, lease)

    until(lambda: sweep_until(journal).stage is rj.Stage.QUARANTINED, "the quarantine")

    quarantined = last_of(journal, Quarantined)
    assert quarantined.cause is QuarantineCause.TOO_NEW
    assert "none came within 0.2 s" in quarantined.explanation
    failures = events_of(journal, StepFailed)
    assert {failed.waits_since for failed in failures} == {failures[0].waits_since}


def test_an_older_claimer_leaves_a_newer_checkpoint_alone_and_quarantines_nothing(
    open_journal: OpenJournal,
) -> None:
    journal = open_journal(limits=LIMITS_FOLDING)
    report(journal, worked(held(journal)), held(journal, "a-2"))
    write_newer(journal)

    assert [claim.lease.attempt_id for claim in journal.claim(worker_id="w", limit=2)] == ["a-2"]

    assert events_of(journal, LeaseExpired)[-1].loss is rj.LossReason.HANDED_BACK
    assert last_of(journal, StepFailed).error_class == "CheckpointTooNew"
    upgrade(journal)
    assert sweep_until(journal).is_ready
    assert claim_one(journal).state == {"sum": 1}


def test_an_older_program_opens_no_attempt_of_a_run_with_a_newer_checkpoint(
    journal: rj.Journal,
) -> None:
    worked(held(journal, "a-1", run_id="r")).fail("broken")
    write_newer(journal)

    with pytest.raises(CheckpointTooNew, match="upgrade recovery-journal"):
        held(journal, "a-2", run_id="r")

    assert rows(journal, "SELECT attempt_id FROM leases") == [{"attempt_id": "a-1"}]


@pytest.mark.parametrize(
    ("option", "state"), [("retry", {"sum": 1}), ("parent", None), ("restart", None)]
)
def test_a_checkpoint_that_is_too_new_may_be_passed_by(
    open_journal: OpenJournal, option: str, state: object
) -> None:
    policy = rj.Policy(version_wait_s=0, backoff_s=0.01, backoff_limit_s=0.02)
    journal = open_journal(limits=rj.Limits(ttl_s=60.0, grace_s=0.0, policy=policy))
    lease = worked(held(journal))
    write_newer(journal)
    report(journal, lease)
    assert sweep_until(journal).stage is rj.Stage.QUARANTINED
    if option == "retry":
        upgrade(journal)

    assert journal.lift_quarantine("a-1", option, **BY).is_ready

    claim = claim_one(journal)
    assert claim.state == state
    assert len(claim.tail) == {"retry": 1, "parent": 2, "restart": 0}[option]
    claim.lease.complete()


# A checkpoint above the limit -----------------------------------------------------------------


def test_a_checkpoint_above_the_limit_is_refused_where_it_is_written(journal: rj.Journal) -> None:
    lease = held(journal)

    with pytest.raises(
        rj.InvalidInput, match=r"found 100,\d+,\d+ bytes, needed at most 67,108,864"
    ):
        lease.checkpoint(b"\0" * 100_000_000)

    lease.checkpoint({"smaller": True})
    lease.complete()


SMALL = rj.Limits(ttl_s=60.0, grace_s=0.0, state_bytes=100)


@pytest.mark.parametrize("reducers", [{}, {"sum": sum_up}])
def test_a_checkpoint_above_the_limit_stops_its_own_attempt_alone(
    open_journal: OpenJournal, reducers: dict[str, Any]
) -> None:
    journal = open_journal(limits=SMALL, reducers=reducers)
    large = held(journal, "a-1", kind="sum", worker_id="w-1")
    large.checkpoint({"text": "x" * 200})
    worked(held(journal, "a-2", kind="sum", worker_id="w-1"))

    report(journal, large)

    quarantined = last_of(journal, Quarantined)
    assert quarantined.cause is QuarantineCause.TOO_LARGE
    assert "has 208 bytes, the limit is 100 bytes" in quarantined.explanation
    assert claim_one(journal).lease.attempt_id == "a-2"


def test_a_claimer_with_a_lower_limit_gives_back_what_another_may_load(
    open_journal: OpenJournal,
) -> None:
    small, large = open_journal(limits=SMALL), open_journal()
    lease = held(large)
    lease.checkpoint({"text": "x" * 200})
    report(large, lease)

    assert small.claim(worker_id="w-2") == []

    assert last_of(large, StepFailed).error_class == "CheckpointTooLarge"
    assert sweep_until(large).is_ready
    assert claim_one(large).state == {"text": "x" * 200}


@pytest.mark.parametrize("option", ["retry", "parent", "restart"])
def test_a_checkpoint_above_the_limit_may_be_passed_by(
    open_journal: OpenJournal, option: str
) -> None:
    small, large = open_journal(limits=SMALL), open_journal()
    lease = worked(held(small))
    lease.checkpoint({"text": "x" * 200})
    report(small, lease)
    journal = large if option == "retry" else small

    assert journal.lift_quarantine("a-1", option, **BY).is_ready

    expected = {"retry": {"text": "x" * 200}, "parent": {"sum": 1}, "restart": None}
    claim = claim_one(journal)
    assert claim.state == expected[option]
    claim.lease.complete()


def test_no_attempt_is_opened_where_its_checkpoint_could_not_be_loaded(
    open_journal: OpenJournal,
) -> None:
    small = open_journal(limits=SMALL)
    lease = held(small, "a-1", run_id="r")
    lease.checkpoint({"text": "x" * 200})
    lease.fail("broken")

    with pytest.raises(CheckpointTooLarge, match="208 bytes, the limit is 100"):
        held(small, "a-2", run_id="r")


# A foreign writer -----------------------------------------------------------------------------

FOREIGN = "UPDATE run_steps SET epoch = epoch + 1000 WHERE ordinal = 2"


def test_a_run_that_an_unknown_worker_continued_is_quarantined(journal: rj.Journal) -> None:
    lease = worked(held(journal))
    change(journal, FOREIGN)

    report(journal, lease)

    quarantined = last_of(journal, Quarantined)
    assert (quarantined.cause, quarantined.ordinal) == (QuarantineCause.FOREIGN, 2)
    assert f"epoch {lease.fence.epoch + 1000} wrote" in quarantined.explanation


@pytest.mark.parametrize(
    ("option", "tail"), [("retry", [1, 2]), ("accept_tip", [1, 2]), ("restart", [])]
)
def test_a_foreign_tip_may_be_repaired_accepted_or_left(
    journal: rj.Journal, option: str, tail: list[int]
) -> None:
    lease = worked(held(journal), checkpoint_at=None)
    change(journal, FOREIGN)
    report(journal, lease)
    assert journal.lift_quarantine("a-1", "retry", **BY).stage is rj.Stage.QUARANTINED
    if option == "retry":
        change(journal, "UPDATE run_steps SET epoch = epoch - 1000 WHERE ordinal = 2")

    assert journal.lift_quarantine("a-1", option, **BY).is_ready

    for worker_id in ("w-2", "w-3"):  # and again: what was accepted stays accepted
        claim = claim_one(journal, worker_id)
        assert [step.ordinal for step in claim.tail] == tail
        report(journal, claim.lease)
        assert types_of(journal)[-1] == "ReadyForDispatch"
    claim_one(journal, "w-4").lease.complete()


# A changed code version -----------------------------------------------------------------------

VERSIONS = rj.Limits(ttl_s=60.0, grace_s=0.0, policy=rj.Policy(version_wait_s=0.3))
WAITED = "SELECT renewed_at < clock_timestamp() - interval '0.6 s' AS has FROM leases"


def wait_out(journal: rj.Journal) -> None:
    """Wait until the attempt has waited for its version, and so long no version of its own came."""
    until(lambda: rows(journal, WAITED)[0]["has"], "the wait for a version")


def test_a_ready_attempt_names_the_version_it_needs_and_only_such_workers_get_it(
    open_journal: OpenJournal,
) -> None:
    journal = open_journal(limits=VERSIONS)
    make_ready(journal, "a-1", code_version="1")

    assert last_of(journal, ReadyForDispatch).code_version == "1"
    assert journal.claim(worker_id="new", code_versions=["2"]) == []
    assert len(journal.claim(worker_id="both", code_versions=["2", "1"])) == 1


def test_who_needs_no_version_goes_to_every_worker(journal: rj.Journal) -> None:
    make_ready(journal, "a-1")

    assert len(journal.claim(worker_id="new", code_versions=["2"])) == 1


def test_a_version_that_no_worker_has_is_a_persons_matter(
    open_journal: OpenJournal,
) -> None:
    journal = open_journal(limits=VERSIONS)
    make_ready(journal, "a-1", code_version="1")
    assert journal.claim(worker_id="new", code_versions=["2"]) == []
    assert journal.sweep() == []
    wait_out(journal)

    (swept,) = journal.sweep()

    assert swept.stage is rj.Stage.QUARANTINED
    quarantined = last_of(journal, Quarantined)
    assert quarantined.cause is QuarantineCause.CODE_CHANGED
    assert "needs code version '1'" in quarantined.explanation
    assert journal.dispatch_ready() == []


@pytest.mark.parametrize(
    ("claim", "why"),
    [
        ({"code_versions": ["1"], "kinds": ["run"], "tenants": ["none"]}, "one of its own came"),
        ({"code_versions": ["1"], "tenants": ["none"]}, "one of its own came for any kind"),
        ({"code_versions": ["2"], "kinds": ["other"]}, "others came for another kind"),
        ({"kinds": ["other"]}, "no version was named"),
    ],
)
def test_a_rolling_deploy_or_an_absent_fleet_quarantines_nothing(
    open_journal: OpenJournal, claim: dict[str, list[str]], why: str
) -> None:
    journal = open_journal(limits=VERSIONS)
    make_ready(journal, "a-1", code_version="1", kind="run")
    if "1" in claim.get("code_versions", []):
        assert journal.claim(worker_id="new", code_versions=["2"]) == []
    wait_out(journal)

    assert journal.claim(worker_id="w", **claim) == []  # type: ignore[arg-type]  # filters

    assert journal.sweep() == [], why
    assert len(journal.claim(worker_id="old", code_versions=["1"])) == 1


def test_a_version_at_work_is_not_missed(open_journal: OpenJournal) -> None:
    journal = open_journal(limits=VERSIONS)
    make_ready(journal, "a-1", code_version="1")
    held(journal, "a-2", code_version="1")
    assert journal.claim(worker_id="new", code_versions=["2"]) == []
    until(lambda: rows(journal, f"{WAITED} WHERE attempt_id = 'a-1'")[0]["has"], "the wait")

    assert journal.sweep() == []


@pytest.mark.parametrize("option", ["retry", "accept_tip", "restart"])
def test_a_changed_code_may_be_waited_for_again_or_waived(
    open_journal: OpenJournal, option: str
) -> None:
    journal = open_journal(limits=VERSIONS)
    report(journal, worked(held(journal, code_version="1")))
    assert journal.claim(worker_id="new", code_versions=["2"]) == []
    wait_out(journal)
    journal.sweep()

    assert journal.lift_quarantine("a-1", option, **BY).is_ready

    wanted = ["1"] if option == "retry" else ["2"]
    claim = claim_one(journal, "new", code_versions=wanted)
    assert claim.state == (None if option == "restart" else {"sum": 1})
    report(journal, claim.lease)
    claim_one(journal, "newer", code_versions=wanted).lease.complete()


# Attempts of one run --------------------------------------------------------------------------


READ = """
SELECT relname AS name, coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0) AS count
FROM pg_stat_xact_user_tables
WHERE schemaname = current_schema() AND relname IN ('run_steps', 'leases')
ORDER BY relname
"""


def test_opening_an_attempt_reads_neither_the_tail_nor_the_attempts_before(
    journal: rj.Journal,
) -> None:
    for number in range(1, 31):
        lease = held(journal, f"a-{number}", run_id="r")
        lease.record_step("more", "x" * 500)
        lease.fail("poison")
    change(journal, "ANALYZE leases")
    change(journal, "ANALYZE run_steps")

    with journal.database.transaction() as cursor:
        for other_way in ("seqscan", "bitmapscan", "sort"):  # the tables are small
            cursor.execute(f"SET LOCAL enable_{other_way} = off".encode())
        before = cursor.execute(READ).fetchall()
        progress = journal._runs.end("r", cursor)
        drawn = cursor.execute(DRAW, {"run_id": "r"}).fetchone()
        after = cursor.execute(READ).fetchall()

    assert drawn is not None
    assert (progress.ordinal, drawn["attempt_no"]) == (30, 31)
    for earlier, later in zip(before, after, strict=True):
        assert later["count"] - earlier["count"] <= 2, later["name"]


def test_attempts_of_one_run_are_numbered_and_resume_where_the_last_one_stood(
    journal: rj.Journal,
) -> None:
    for number in range(1, 30):
        lease = held(journal, f"a-{number}", run_id="r")
        assert lease.progress.ordinal == number - 1
        lease.record_step("more", number)
        if number % 10 == 0:
            lease.checkpoint({"at": number})
        lease.fail("poison")

    lease = held(journal, "a-last", run_id="r")

    assert journal.recovery("a-last").granted.attempt_no == 30
    claim = journal.load(lease)
    assert (claim.state, [step.output for step in claim.tail]) == (
        {"at": 20},
        list(range(21, 30)),
    )
    assert claim.checkpoint.progress == lease.progress
    lease.complete()
