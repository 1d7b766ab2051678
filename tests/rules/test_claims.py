"""Rule R8: exactly one claimer wins, in the order of the list, and only what it asked for."""

import gc
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from functools import partial

import pytest

import recovery_journal as rj
from recovery_journal.domain.errors import PayloadCorrupt
from recovery_journal.domain.events import Dispatched, QuarantineCause, Quarantined
from recovery_journal.store import tips
from tests.rules.scenes import (
    OpenJournal,
    aside,
    at_once,
    change,
    claim_one,
    events_of,
    held,
    last_of,
    make_ready,
    report,
    rows,
    session,
    sum_up,
    types_of,
    until,
    worked,
)

SLEEPING = """
SELECT count(*) AS count
FROM pg_stat_activity
WHERE datname = current_database() AND wait_event = 'PgSleep'
"""


def claimed(journal: rj.Journal, **filters: object) -> list[str]:
    filters = {"worker_id": "w-2", "limit": 100, **filters}
    claims = journal.claim(**filters)  # type: ignore[arg-type]  # passed on
    return [claim.lease.attempt_id for claim in claims]


def test_of_many_claimers_each_attempt_has_one_winner(journal: rj.Journal) -> None:
    attempts = [f"a-{number:02}" for number in range(40)]
    leases = [held(journal, attempt_id, worker_id="w-1") for attempt_id in attempts]
    report(journal, leases[0])  # one worker, all its leases

    def claim_all(worker_id: str) -> list[str]:
        won: list[str] = []
        while found := claimed(journal, worker_id=worker_id, limit=3):
            won += found
        return won

    won = at_once([partial(claim_all, f"w-{number}") for number in range(4)])
    left = claimed(journal)

    assert Counter(id_ for part in [*won, left] for id_ in part) == Counter(attempts)
    assert all(len(events_of(journal, Dispatched, id_)) == 1 for id_ in attempts)


def test_of_two_claimers_of_the_last_attempt_one_wins(journal: rj.Journal) -> None:
    for number in range(20):
        make_ready(journal, f"a-{number}")

        won = at_once([lambda: claimed(journal, limit=1), lambda: claimed(journal, limit=1)])

        assert sorted(map(len, won)) == [0, 1]


def test_claims_come_in_the_order_of_the_list(journal: rj.Journal) -> None:
    for attempt_id, priority in (("a", 0), ("b", 9), ("c", 0), ("d", 9), ("e", -1)):
        make_ready(journal, attempt_id, priority=priority)

    listed = [row.attempt_id for row in journal.dispatch_ready()]

    assert listed == ["b", "d", "a", "c", "e"]
    assert claimed(journal, limit=2) == listed[:2]
    assert claimed(journal) == listed[2:]


def test_a_claimer_passes_over_what_another_one_is_taking(
    journal: rj.Journal, server_dsn: str
) -> None:
    for attempt_id in ("a-1", "a-2", "a-3"):
        make_ready(journal, attempt_id)

    with session(journal, server_dsn) as other:
        other.execute("SELECT FROM leases WHERE attempt_id = 'a-1' FOR NO KEY UPDATE")
        assert claimed(journal, limit=1) == ["a-2"]

    assert claimed(journal) == ["a-1", "a-3"]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, ["a", "b", "c"]),
        ({"kinds": ["report"]}, ["a", "b"]),
        ({"kinds": ["report", "import"]}, ["a", "b", "c"]),
        ({"kinds": []}, []),
        ({"tenants": ["acme"]}, ["a"]),
        ({"tenants": [""]}, ["c"]),
        ({"code_versions": ["1.4"]}, ["a"]),
        ({"kinds": ["report"], "tenants": ["other"], "code_versions": ["1.5"]}, ["b"]),
        ({"kinds": ["import"], "tenants": ["acme"]}, []),
    ],
)
def test_a_claim_takes_only_what_its_filters_allow(
    journal: rj.Journal, filters: dict[str, list[str]], expected: list[str]
) -> None:
    make_ready(journal, "a", kind="report", tenant="acme", code_version="1.4")
    make_ready(journal, "b", kind="report", tenant="other", code_version="1.5")
    make_ready(journal, "c", kind="import", code_version="1.5")

    assert claimed(journal, **filters) == expected

    rest = {row.attempt_id for row in journal.dispatch_ready()}
    assert rest == {"a", "b", "c"} - set(expected)


def test_what_must_not_start_yet_is_neither_listed_nor_claimed(journal: rj.Journal) -> None:
    make_ready(journal, "a-1")
    (row,) = journal.dispatch_ready()
    wait = "UPDATE projection_dispatch_ready SET not_before = clock_timestamp() + %(wait)s"
    change(journal, wait, {"wait": timedelta(seconds=60)})

    assert journal.dispatch_ready() == []
    assert claimed(journal) == []

    change(journal, wait, {"wait": timedelta(seconds=-60)})
    assert [listed.attempt_id for listed in journal.dispatch_ready()] == [row.attempt_id]
    assert claimed(journal) == ["a-1"]
    change(journal, "UPDATE projection_dispatch_ready SET not_before = NULL")


def test_a_claim_is_handed_all_that_its_worker_needs(open_journal: OpenJournal) -> None:
    journal = open_journal(reducers={"sum": sum_up})
    lease = worked(held(journal, kind="sum", input={"of": "numbers"}), step_count=3)
    key = lease.begin_step("charge")
    report(journal, lease)

    claim = claim_one(journal)

    assert claim.input == {"of": "numbers"}
    assert claim.state == {"sum": 1}
    assert [(step.ordinal, step.name, step.output) for step in claim.tail] == [
        (2, "step-2", {"n": 2}),
        (3, "step-3", {"n": 3}),
    ]
    assert claim.folded_state == {"sum": 6}
    assert [(effect.key, effect.name) for effect in claim.in_doubt] == [(key, "charge")]
    assert claim.context is not None
    assert (claim.context.from_ordinal, claim.context.to_ordinal) == (2, 3)
    assert claim.lease.progress == lease.progress
    assert claim.lease.begin_step("charge") == key


def test_a_claim_takes_effect_for_its_own_ttl(journal: rj.Journal) -> None:
    make_ready(journal, "a-1", ttl=timedelta(seconds=5))

    lease = claim_one(journal, ttl=timedelta(seconds=7)).lease

    assert lease.ttl_s == 7.0
    assert rows(journal, "SELECT ttl_s FROM leases") == [{"ttl_s": 7.0}]


def test_a_tip_that_was_damaged_since_the_replay_is_quarantined_and_not_handed_out(
    journal: rj.Journal,
) -> None:
    for attempt_id in ("a-1", "a-2"):
        report(journal, worked(held(journal, attempt_id)))
    change(
        journal,
        r"UPDATE run_steps SET output = '\x00' WHERE run_id = 'run of a-1' AND ordinal = 2",
    )

    assert claimed(journal) == ["a-2"]

    quarantined = last_of(journal, Quarantined)
    assert quarantined.cause is QuarantineCause.DIVERGED
    assert quarantined.found_digest != quarantined.expected_digest


def fold_differently(_state: object, name: str, _output: object) -> object:
    return {"only": name}


def test_a_claimers_reducer_that_goes_another_way_quarantines_before_user_code_runs(
    open_journal: OpenJournal,
) -> None:
    sweeper = open_journal(reducers={"sum": sum_up})
    claimer = open_journal(reducers={"sum": fold_differently})
    for attempt_id, kind in (("a-1", "sum"), ("a-2", "other")):
        report(sweeper, worked(held(sweeper, attempt_id, kind=kind)))

    assert claimed(claimer) == ["a-2"]

    assert last_of(claimer, Quarantined).cause is QuarantineCause.DIVERGED
    assert types_of(claimer, "a-2")[-1] == "Dispatched"


def test_an_attempt_past_its_execution_timeout_is_never_claimed(journal: rj.Journal) -> None:
    make_ready(journal, "a-1", timeout=timedelta(milliseconds=100))
    query = "SELECT deadline_at < clock_timestamp() AS passed FROM leases"
    until(lambda: rows(journal, query)[0]["passed"], "the deadline")

    assert claimed(journal) == []

    journal.sweep()
    assert types_of(journal)[-1] == "LeaseEnded"
    assert journal.dispatch_ready() == []


def test_a_retry_of_the_same_claim_finds_what_was_won(journal: rj.Journal) -> None:
    for attempt_id in ("a-1", "a-2", "a-3"):
        make_ready(journal, attempt_id)

    first = journal.claim(worker_id="w-2", limit=2, event_id="claim-1")
    again = journal.claim(worker_id="w-2", limit=2, event_id="claim-1")

    assert [claim.lease.terms.fence for claim in first] == [
        claim.lease.terms.fence for claim in again
    ]
    assert len(events_of(journal, Dispatched, "a-1")) == 1
    assert claimed(journal, event_id="claim-2") == ["a-3"]


def test_another_workers_claim_of_the_same_id_wins_nothing_of_it(journal: rj.Journal) -> None:
    make_ready(journal, "a-1")
    journal.claim(worker_id="w-2", event_id="claim-1")

    assert journal.claim(worker_id="w-3", event_id="claim-1") == []


@pytest.mark.parametrize("is_cancelled", [False, True])
def test_a_claim_that_was_taken_back_meanwhile_is_not_quarantined(
    journal: rj.Journal, *, is_cancelled: bool
) -> None:
    lease = held(journal)
    if is_cancelled:
        journal.cancel("a-1", by="a tester", reason="not wanted")
    else:
        lease.hand_back()
    before = types_of(journal)

    journal._claims.quarantine_diverged(
        lease, PayloadCorrupt("a state", found="cs1:1", needed="cs1:2")
    )

    assert types_of(journal) == before


@pytest.mark.parametrize("step_count", [2, 1])
def test_what_a_worker_is_handed_is_as_of_one_moment(
    journal: rj.Journal, monkeypatch: pytest.MonkeyPatch, step_count: int
) -> None:
    lease = worked(held(journal))
    zombie = journal.adopt(lease.terms)
    slow = f"{tips.NEWEST_CHECKPOINTS} AND (SELECT pg_sleep(1)) IS NOT NULL"

    with monkeypatch.context() as patched:
        patched.setattr(tips, "NEWEST_CHECKPOINTS", slow)
        with aside(lambda: journal.load(zombie)) as loaded:
            until(lambda: rows(journal, SLEEPING)[0]["count"] == 1, "the load to stand still")
            # The present holder continues.
            worked(lease, step_count=step_count, checkpoint_at=3)
            claim = loaded()

    assert claim.checkpoint.ordinal == 1
    assert [step.ordinal for step in claim.tail] == [2]


@pytest.fixture
def collection() -> Iterator[None]:
    """Whether garbage is collected is as before after the test."""
    was_enabled = gc.isenabled()
    yield
    if was_enabled:
        gc.enable()


@pytest.mark.usefixtures("collection")
@pytest.mark.parametrize("is_enabled", [True, False])
def test_a_claim_leaves_the_collection_of_garbage_as_it_was(
    journal: rj.Journal, *, is_enabled: bool
) -> None:
    make_ready(journal, "a-1")
    (gc.enable if is_enabled else gc.disable)()

    assert claimed(journal) == ["a-1"]
    assert gc.isenabled() is is_enabled

    assert claimed(journal) == []
    assert gc.isenabled() is is_enabled


def test_a_reducer_of_the_claimers_runs_with_its_garbage_collected(
    open_journal: OpenJournal,
) -> None:
    def fold(_state: object, _name: str, _output: object) -> object:
        return {"is_collected": gc.isenabled()}

    journal = open_journal(reducers={"default": fold})
    report(journal, worked(held(journal, "a-1", kind="default")))

    assert claim_one(journal).folded_state == {"is_collected": True}
