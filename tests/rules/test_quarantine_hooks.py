"""A hook is notified when a run is quarantined: at least once, and no recovery waits for it."""

import json
import sys
import threading
from pathlib import Path
from typing import Any

import psycopg
import pytest

import recovery_journal as rj
from recovery_journal.domain.errors import HookFailed, Retry
from recovery_journal.monitoring.quarantine_notifier import TRY_LIMIT, CommandFailed
from tests.rules.scenes import (
    OpenJournal,
    change,
    claim_one,
    held,
    report,
    rows,
    types_of,
    until,
    worked,
)

BY = {"by": "on-call", "reason": "checked"}
FAST = rj.Limits(ttl_s=60.0, grace_s=0.0, policy=rj.Policy(backoff_s=0.01, backoff_limit_s=0.01))
CORRUPT = r"UPDATE checkpoints SET state = '\x00'"


def quarantine(journal: rj.Journal, attempt_id: str = "a-1") -> None:
    lease = worked(held(journal, attempt_id, tenant="acme"))
    change(journal, CORRUPT)
    report(journal, lease)
    assert types_of(journal, attempt_id)[-1] == "Quarantined"


def pending(journal: rj.Journal) -> list[str]:
    query = "SELECT attempt_id FROM pending_quarantine_notices ORDER BY attempt_id"
    return [row["attempt_id"] for row in rows(journal, query)]


def test_a_hook_learns_which_attempt_why_and_what_may_be_chosen(journal: rj.Journal) -> None:
    quarantine(journal)
    notified: list[rj.QuarantinedAttempt] = []

    assert journal.notify_quarantines(notified.append) == 1

    assert notified == journal.quarantined()
    assert (notified[0].attempt_id, notified[0].cause, notified[0].tenant) == (
        "a-1",
        "corrupt",
        "acme",
    )
    assert "checkpoint 1 of run 'run of a-1' has digest" in notified[0].explanation


def test_a_hook_is_notified_of_each_quarantine_once(journal: rj.Journal) -> None:
    quarantine(journal)
    notified: list[rj.QuarantinedAttempt] = []

    for _ in range(2):
        journal.notify_quarantines(notified.append)
    assert journal.lift_quarantine("a-1", "retry", **BY).stage is rj.Stage.QUARANTINED
    for _ in range(2):
        journal.notify_quarantines(notified.append)

    assert [one.attempt_id for one in notified] == ["a-1", "a-1"]
    assert notified[0].since < notified[1].since


def test_what_a_claimer_or_a_timeout_quarantined_is_reported_too(open_journal: OpenJournal) -> None:
    journal = open_journal()
    report(journal, worked(held(journal)))
    change(journal, r"UPDATE run_steps SET output = '\x00' WHERE ordinal = 2")
    assert journal.claim(worker_id="w-2") == []
    notified: list[rj.QuarantinedAttempt] = []

    journal.notify_quarantines(notified.append)

    assert [one.cause for one in notified] == ["diverged"]


def test_what_a_person_has_lifted_meanwhile_is_reported_no_more(journal: rj.Journal) -> None:
    quarantine(journal)
    assert pending(journal) == ["a-1"]

    journal.lift_quarantine("a-1", "restart", **BY)

    assert pending(journal) == []
    claim_one(journal).lease.complete()


def test_what_was_cancelled_meanwhile_is_reported_no_more(journal: rj.Journal) -> None:
    quarantine(journal)

    journal.cancel("a-1", **BY)

    assert pending(journal) == []


def test_a_stale_write_takes_no_attempt_out_of_quarantine(journal: rj.Journal) -> None:
    lease = worked(held(journal))
    change(journal, CORRUPT)
    report(journal, lease)
    with pytest.raises(rj.LeaseLost):
        lease.heartbeat()
    notified: list[rj.QuarantinedAttempt] = []

    assert journal.notify_quarantines(notified.append) == 1


def test_a_hook_that_raises_is_called_again_and_not_for_ever(open_journal: OpenJournal) -> None:
    journal = open_journal(limits=FAST)
    quarantine(journal)
    problems: list[HookFailed] = []

    def refuse(_attempt: rj.QuarantinedAttempt) -> None:
        raise ConnectionError("no answer")

    def is_given_up() -> bool:
        assert journal.notify_quarantines(refuse, on_problem=problems.append) == 0
        return not pending(journal)

    until(is_given_up, "the last try")

    assert len(problems) == TRY_LIMIT
    assert "found ConnectionError: no answer" in str(problems[0])
    assert "it is called again in 0.01 s" in str(problems[0])
    assert "is not called again" in str(problems[-1])
    assert types_of(journal)[-1] == "Quarantined"


async def notify_later(_attempt: rj.QuarantinedAttempt) -> None:
    pass


def notify_bit_by_bit(_attempt: rj.QuarantinedAttempt) -> Any:
    yield


@pytest.mark.parametrize("returned", [notify_later, notify_bit_by_bit])
def test_a_hook_that_returns_code_which_has_not_run_counts_as_failed(
    journal: rj.Journal, returned: Any
) -> None:
    quarantine(journal)
    problems: list[HookFailed] = []

    notified_count = journal.notify_quarantines(lambda it: returned(it), on_problem=problems.append)  # noqa: PLW0108 - a lambda, so that the door cannot see it

    assert notified_count == 0
    assert "whose code has not run" in str(problems[0])
    assert pending(journal) == ["a-1"]


def test_one_that_fails_does_not_keep_the_others_from_being_reported(journal: rj.Journal) -> None:
    for attempt_id in ("a-1", "a-2", "a-3"):
        quarantine(journal, attempt_id)
    notified = []

    def notify(attempt: rj.QuarantinedAttempt) -> None:
        if attempt.attempt_id == "a-2":
            raise ValueError("not this one")
        notified.append(attempt.attempt_id)

    assert journal.notify_quarantines(notify) == 2

    assert notified == ["a-1", "a-3"]
    assert pending(journal) == ["a-2"]


def test_a_sweeper_that_dies_while_it_notifies_is_made_up_for(open_journal: OpenJournal) -> None:
    limits = rj.Limits(ttl_s=60.0, grace_s=0.0, hook_s=0.01)
    journal = open_journal(limits=limits)
    quarantine(journal)

    class Died(BaseException):
        pass

    def die(_attempt: rj.QuarantinedAttempt) -> None:
        raise Died

    with pytest.raises(Died):
        journal.notify_quarantines(die)
    notified: list[rj.QuarantinedAttempt] = []
    assert journal.notify_quarantines(notified.append) == 0  # it may be at it still
    change(journal, "UPDATE pending_quarantine_notices SET next_try_at = clock_timestamp()")

    assert journal.notify_quarantines(notified.append) == 1


def test_no_recovery_waits_for_a_hook(open_journal: OpenJournal) -> None:
    journal = open_journal(limits=FAST)
    quarantine(journal, "a-bad")
    entered, proceed = threading.Event(), threading.Event()

    def hang(_attempt: rj.QuarantinedAttempt) -> None:
        entered.set()
        assert proceed.wait(60)

    sweeper = rj.Sweeper(journal, on_quarantine=hang)
    thread = threading.Thread(target=sweeper.run)
    thread.start()
    try:
        assert entered.wait(60)
        worked(held(journal, "a-good"))
        change(journal, "UPDATE leases SET loss = 'reported' WHERE attempt_id = 'a-good'")
        until(lambda: types_of(journal, "a-good")[-1] == "ReadyForDispatch", "the recovery")
    finally:
        proceed.set()
        sweeper.stop()
        thread.join(60)

    assert pending(journal) == []


def test_a_sweeper_reports_a_hook_that_fails(open_journal: OpenJournal) -> None:
    journal = open_journal(limits=FAST)
    quarantine(journal)
    problems: list[Retry] = []

    def refuse(_attempt: rj.QuarantinedAttempt) -> None:
        raise ValueError("no")

    sweeper = rj.Sweeper(journal, on_quarantine=refuse, on_problem=problems.append)
    thread = threading.Thread(target=sweeper.run)
    thread.start()
    until(lambda: len(problems) > 1, "two failures")
    sweeper.stop()
    thread.join(60)

    assert {type(problem) for problem in problems} == {HookFailed}


# Commands -------------------------------------------------------------------------------------

KEEP = "import pathlib, sys; pathlib.Path(sys.argv[1]).write_bytes(sys.stdin.buffer.read())"


def command(tmp_path: Path, program: str, **settings: Any) -> rj.QuarantineCommand:
    (tmp_path / "hook.py").write_text(program)
    words = f"{sys.executable} '{tmp_path / 'hook.py'}' '{tmp_path / 'input'}'"
    return rj.QuarantineCommand(words, **{"limit_s": 60.0, **settings})


def test_a_command_is_given_the_attempt_as_json(journal: rj.Journal, tmp_path: Path) -> None:
    quarantine(journal)

    assert journal.notify_quarantines(command(tmp_path, KEEP)) == 1

    notified = json.loads((tmp_path / "input").read_text())
    assert (notified["attempt_id"], notified["cause"]) == ("a-1", "corrupt")
    assert notified["options"] == ["retry", "parent", "restart"]
    assert "has digest" in notified["explanation"]


FAILING = {
    "raise SystemExit(3)": "exit code 3",
    "import os; os.kill(os.getpid(), 9)": "exit code -9",
}


@pytest.mark.parametrize("program", FAILING)
def test_a_failing_command_is_reported(journal: rj.Journal, tmp_path: Path, program: str) -> None:
    quarantine(journal)
    problems: list[HookFailed] = []

    assert journal.notify_quarantines(command(tmp_path, program), on_problem=problems.append) == 0

    assert FAILING[program] in str(problems[0])


def test_a_command_is_killed_at_its_deadline_with_all_that_it_started(
    journal: rj.Journal, tmp_path: Path
) -> None:
    quarantine(journal)
    program = "import subprocess, time; subprocess.Popen(['sleep', '600']); time.sleep(600)"
    problems: list[HookFailed] = []
    hook = command(tmp_path, program, limit_s=0.5)

    assert journal.notify_quarantines(hook, on_problem=problems.append) == 0

    assert "no end within 0.5 s" in str(problems[0])


def test_a_command_that_reads_nothing_is_as_good(journal: rj.Journal, tmp_path: Path) -> None:
    quarantine(journal)

    assert journal.notify_quarantines(command(tmp_path, "pass")) == 1


def test_a_command_that_does_not_start_is_reported(journal: rj.Journal) -> None:
    quarantine(journal)
    problems: list[HookFailed] = []
    hook = rj.QuarantineCommand("/no/such/program", limit_s=1.0)

    assert journal.notify_quarantines(hook, on_problem=problems.append) == 0

    assert "found a program that does not start" in str(problems[0])
    assert CommandFailed.__name__ not in str(problems[0])


@pytest.mark.parametrize("words", ["", "  ", "page 'me"])
def test_what_is_no_command_is_refused_at_once(words: str) -> None:
    with pytest.raises(rj.InvalidInput, match="name a program"):
        rj.QuarantineCommand(words, limit_s=1.0)


ENVIRONMENT = """
import json, os, pathlib, sys
pathlib.Path(sys.argv[1]).write_text(json.dumps(dict(os.environ)))
"""
LEADING = ("RECOVERY_JOURNAL_DSN", "PGPASSWORD", "PGHOST", "PGSERVICE", "PGPASSFILE")


def test_a_command_gets_nothing_that_names_the_database(
    journal: rj.Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quarantine(journal)
    for name in (*LEADING, "KEPT"):
        monkeypatch.setenv(name, "secret")

    assert journal.notify_quarantines(command(tmp_path, ENVIRONMENT)) == 1

    found = json.loads((tmp_path / "input").read_text())
    assert found["KEPT"] == "secret"
    assert not set(LEADING) & set(found)


def test_a_command_gets_the_dsn_where_that_is_asked_for(
    journal: rj.Journal, tmp_path: Path, server_dsn: str
) -> None:
    quarantine(journal)
    hook = command(tmp_path, ENVIRONMENT, dsn=journal.database.dsn)

    assert journal.notify_quarantines(hook) == 1

    given = json.loads((tmp_path / "input").read_text())["RECOVERY_JOURNAL_DSN"]
    with psycopg.connect(given) as theirs, psycopg.connect(server_dsn) as ours:
        assert theirs.info.dsn == ours.info.dsn
