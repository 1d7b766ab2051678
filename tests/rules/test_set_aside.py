"""A damaged or forged event stops its own attempt, and no other; a person can skip it."""

import psycopg
import pytest

import recovery_journal as rj
from recovery_journal.domain.errors import StreamUnusable
from recovery_journal.domain.events import LeaseExpired
from recovery_journal.monitoring.delays import DelayKind
from tests.log.events import ALLOW_VERSION_0
from tests.rules.forgeries import APPEND, ILLEGIBLE, KINDS, LEGIBLE, forge, put
from tests.rules.scenes import (
    change,
    claim_one,
    events_of,
    held,
    make_ready,
    report,
    rows,
    session,
    types_of,
    worked,
)

HONEST = ("a-1", "a-3")

POSITIONS = "SELECT notification_id AS position FROM journal_events WHERE originator_id = %(id)s"

every_kind = pytest.mark.parametrize("kind", KINDS)
readable = pytest.mark.parametrize("kind", LEGIBLE)
illegible = pytest.mark.parametrize("kind", ILLEGIBLE)


def delays(journal: rj.Journal) -> list[DelayKind]:
    return [delay.kind for delay in journal.status().delays]


def skip(journal: rj.Journal, position: int) -> rj.Skipped:
    return journal.skip(position, by="on-call", reason="forged")


def put_before_the_first(journal: rj.Journal, attempt_id: str, version: int) -> int:
    """Put a copy of the grant there, on a table that no longer refuses it; its position."""
    change(journal, ALLOW_VERSION_0)
    change(
        journal,
        "INSERT INTO journal_events (originator_id, originator_version, topic, state) "
        "SELECT originator_id, %(version)s, topic, convert_to(replace(convert_from(state, 'UTF8'), "
        "'\"originator_version\":1,', '\"originator_version\":' || %(version)s || ','), 'UTF8') "
        "FROM journal_events WHERE originator_id = %(attempt_id)s AND originator_version = 1",
        {"attempt_id": attempt_id, "version": version},
    )
    return max(int(row["position"]) for row in rows(journal, POSITIONS, {"id": attempt_id}))


def dump(journal: rj.Journal) -> list[object]:
    return rows(journal, "SELECT * FROM leases ORDER BY attempt_id")


@every_kind
def test_a_claim_passes_over_a_stream_that_it_cannot_use(damaged: rj.Journal, kind: str) -> None:
    for attempt_id in ("a-1", "a-2", "a-3"):
        make_ready(damaged, attempt_id)
    position = forge(damaged, "a-1", kind)

    claims = [claim for _ in range(3) for claim in damaged.claim(worker_id="w-2")]

    assert [claim.lease.attempt_id for claim in claims] == ["a-2", "a-3"]
    [aside] = damaged.quarantined()
    assert (aside.attempt_id, aside.position) == ("a-1", position)
    assert str(position) in str(aside.error)
    assert DelayKind.SET_ASIDE in delays(damaged)


@every_kind
def test_a_sweep_passes_over_a_stream_that_it_cannot_use(damaged: rj.Journal, kind: str) -> None:
    leases = [held(damaged, attempt_id, worker_id="w-1") for attempt_id in ("a-1", "a-2", "a-3")]
    forge(damaged, "a-2", kind)

    swept = {one.attempt_id: one for one in report(damaged, leases[0])}

    assert [swept[attempt_id].is_ready for attempt_id in HONEST] == [True, True]
    assert swept["a-2"].error
    assert [one.attempt_id for one in damaged.quarantined()] == ["a-2"]
    assert damaged.sweep() == []


@every_kind
def test_a_restore_passes_a_stream_that_it_cannot_use(damaged: rj.Journal, kind: str) -> None:
    for attempt_id in ("a-1", "a-2", "a-3"):
        held(damaged, attempt_id)
    forge(damaged, "a-2", kind)
    forge(damaged, "no-one's", kind)

    restored = damaged.after_restore(by="on-call", reason="disk", is_restored=True)

    assert restored.is_done
    stages = {one.attempt_id: one.stage for one in restored.swept}
    assert [stages[attempt_id] for attempt_id in HONEST] == [rj.Stage.READY] * 2
    assert len(damaged.claim(worker_id="w-2", limit=10)) >= len(HONEST)
    largest = rows(damaged, "SELECT max(epoch) AS epoch FROM leases")[0]["epoch"]
    assert largest < 2**62


@every_kind
def test_what_the_worker_of_such_a_stream_returns_is_not_dropped_without_a_word(
    damaged: rj.Journal, kind: str
) -> None:
    lease = worked(held(damaged, "a-2"))
    forge(damaged, "a-2", kind)

    lease.heartbeat()
    lease.record_step("step-3", {"n": 3})
    with pytest.raises((StreamUnusable, rj.LeaseLost)):
        lease.complete({"sum": 6})

    assert lease.own_ending() is None
    assert rows(damaged, "SELECT status, result FROM leases") == [
        {"status": "held", "result": None}
    ]


def test_a_completion_is_believed_only_if_it_is_ones_own(damaged: rj.Journal) -> None:
    lease = worked(held(damaged, "a-2"))
    twin = worked(held(damaged, "a-3"))
    twin.complete({"sum": 3})
    digest = rows(damaged, "SELECT result_digest FROM leases WHERE attempt_id = 'a-3'")
    state = rows(
        damaged,
        "SELECT convert_from(state, 'UTF8') AS state FROM journal_events "
        "WHERE originator_id = 'a-3' ORDER BY originator_version DESC LIMIT 1",
    )[0]["state"]
    own = rows(damaged, "SELECT epoch, lease_id FROM leases WHERE attempt_id = 'a-2'")[0]
    theirs = rows(damaged, "SELECT epoch, lease_id FROM leases WHERE attempt_id = 'a-3'")[0]
    forged = (
        state.replace("a-3", "a-2")
        .replace(f'"epoch":{theirs["epoch"]}', f'"epoch":{own["epoch"]}')
        .replace(theirs["lease_id"], own["lease_id"])
    )
    assert digest[0]["result_digest"] in forged
    put(damaged, "a-2", "lease-ended", forged.encode())

    with pytest.raises(StreamUnusable, match="version 3"):
        lease.complete({"sum": 3})


def test_a_completion_asked_for_again_is_done(damaged: rj.Journal) -> None:
    lease = worked(held(damaged, "a-2"))
    lease.complete({"sum": 3})

    lease.complete({"sum": 3})

    assert damaged.result("a-2") == {"sum": 3}


@every_kind
def test_status_notices_an_event_that_a_held_lease_does_not_know_of(
    damaged: rj.Journal, kind: str
) -> None:
    held(damaged, "a-1")
    assert DelayKind.DIFFERS_FROM_THE_LOG not in delays(damaged)

    position = forge(damaged, "a-1", kind)

    [delay] = [it for it in damaged.status().delays if it.kind is DelayKind.DIFFERS_FROM_THE_LOG]
    assert f"skip {position}" in delay.do


@pytest.mark.parametrize("version", [0, -1, -(2**31)])
@pytest.mark.parametrize("status", ["held", "ready", "waiting"])
def test_status_notices_an_event_before_the_first_where_the_table_let_it_in(
    damaged: rj.Journal, version: int, status: str
) -> None:
    held(damaged, "b-1")
    if status == "ready":
        make_ready(damaged, "a-1")
    else:
        lease = worked(held(damaged, "a-1"))
        if status == "waiting":
            lease.wait("for a person")
    assert DelayKind.DIFFERS_FROM_THE_LOG not in delays(damaged)

    position = put_before_the_first(damaged, "a-1", version)

    [delay] = [it for it in damaged.status().delays if it.kind is DelayKind.DIFFERS_FROM_THE_LOG]
    assert f"(1), as a-1, from position {position} on" in delay.what
    assert f"skip {position}" in delay.do
    assert skip(damaged, position).left is None
    assert DelayKind.DIFFERS_FROM_THE_LOG not in delays(damaged)
    assert [entry.position for entry in damaged.history("a-1") if entry.is_skipped] == [position]
    assert damaged.quarantined() == []


def test_what_stands_before_the_first_event_blames_no_honest_one(damaged: rj.Journal) -> None:
    lease = worked(held(damaged, "a-1"))
    [granted, *_] = damaged.history("a-1")
    position = put_before_the_first(damaged, "a-1", 0)
    report(damaged, lease)
    [aside] = damaged.quarantined()
    assert aside.position == position

    with pytest.raises((rj.InvalidInput, StreamUnusable)):
        skip(damaged, granted.position)
    skip(damaged, position)

    assert [entry.position for entry in damaged.history("a-1") if entry.is_skipped] == [position]
    damaged.sweep()
    assert claim_one(damaged).lease.attempt_id == "a-1"


@every_kind
def test_after_a_skip_the_attempt_is_recovered_as_if_nothing_had_been_there(
    damaged: rj.Journal, kind: str
) -> None:
    lease = worked(held(damaged, "a-2"))
    position = forge(damaged, "a-2", kind)
    report(damaged, lease)

    done = skip(damaged, position)
    damaged.sweep()

    assert (done.is_done, done.left) == (True, None)
    claim = claim_one(damaged)
    assert claim.lease.attempt_id == "a-2"
    claim.lease.complete({"sum": 3})
    assert damaged.result("a-2") == {"sum": 3}
    assert damaged.quarantined() == []
    assert DelayKind.SET_ASIDE not in delays(damaged)


@every_kind
def test_after_a_skip_a_living_worker_continues_undisturbed(damaged: rj.Journal, kind: str) -> None:
    lease = worked(held(damaged, "a-2"))
    position = forge(damaged, "a-2", kind)

    skip(damaged, position)
    lease.complete({"sum": 3})

    assert damaged.result("a-2") == {"sum": 3}
    assert events_of(damaged, LeaseExpired, "a-2") == []


@every_kind
def test_every_reader_passes_over_what_is_skipped(damaged: rj.Journal, kind: str) -> None:
    make_ready(damaged, "a-2")
    make_ready(damaged, "a-3")
    follower = rj.Follower(damaged)
    follower.catch_up(30)
    position = forge(damaged, "a-2", kind)
    for _ in range(3):
        follower.step()

    projections = skip(damaged, position).projections

    follower.catch_up(30)
    if projections:
        damaged.rebuild(list(projections), process_count=1)
        follower.catch_up(30)
    assert [one.is_right for one in damaged.check()] == [True] * 4
    rebuilt = damaged.rebuild(process_count=1)
    assert rebuilt.event_count
    assert [one.is_right for one in damaged.check()] == [True] * 4
    assert {row.attempt_id for row in damaged.dispatch_ready()} == {"a-2", "a-3"}
    assert [entry.position for entry in damaged.history("a-2") if entry.is_skipped] == [position]
    assert damaged.recovery("a-2").stage is rj.Stage.READY
    assert [entry.is_skipped for entry in damaged.log(after=position - 1, limit=1)] == [True]


@illegible
def test_a_projection_stops_at_what_it_cannot_read_until_a_person_skips_it(
    damaged: rj.Journal, kind: str
) -> None:
    follower = rj.Follower(damaged)
    held(damaged, "a-2")
    position = forge(damaged, "a-2", kind)
    held(damaged, "a-3")
    follower.step()
    follower.step()

    stopped = damaged.status()
    assert DelayKind.PROJECTION_STOPPED in [delay.kind for delay in stopped.delays]
    assert all(one.position < position for one in stopped.projections)

    skip(damaged, position)
    follower.catch_up(30)

    followed = damaged.status().projections
    assert all(one.position >= position and one.error is None for one in followed)


def test_an_event_that_the_journal_appended_cannot_be_skipped(damaged: rj.Journal) -> None:
    make_ready(damaged, "a-2")
    before = dump(damaged)

    for entry in damaged.history("a-2"):
        with pytest.raises(rj.InvalidInput, match="appended by the journal"):
            skip(damaged, entry.position)

    assert dump(damaged) == before
    assert damaged.history_of_journal() == []


def test_an_event_of_a_newer_program_of_which_its_row_knows_cannot_be_skipped(
    damaged: rj.Journal,
) -> None:
    held(damaged, "a-2")
    position = forge(damaged, "a-2", "an unknown tag")
    change(damaged, "UPDATE leases SET version = version + 1")

    with pytest.raises(rj.InvalidInput, match="upgrade"):
        skip(damaged, position)


@pytest.mark.parametrize("position", [10**9, 2**63 - 1])
def test_only_an_event_can_be_skipped(damaged: rj.Journal, position: int) -> None:
    with pytest.raises(rj.InvalidInput, match="no event"):
        skip(damaged, position)


def test_a_skip_asked_for_again_is_done_already_and_noted_once(damaged: rj.Journal) -> None:
    held(damaged, "a-2")
    position = forge(damaged, "a-2", "no JSON")

    done = [skip(damaged, position).is_done for _ in range(3)]

    assert done == [True, False, False]
    assert len(damaged.history_of_journal()) == 1


def test_who_skipped_what_and_why_is_an_event_of_the_journals_own_stream(
    damaged: rj.Journal,
) -> None:
    held(damaged, "a-2")
    position = forge(damaged, "a-2", "confirmed")

    damaged.skip(position, by="ada", reason="a forger")

    [entry] = damaged.history_of_journal()
    event = entry.event
    assert isinstance(event, rj.events.EventSkipped)
    assert (event.position, event.attempt_id, event.version) == (position, "a-2", 2)
    assert (event.recorded_by.name, event.reason) == ("ada", "a forger")
    assert event.obstacle
    assert damaged.log(after=position, limit=10)[-1] == entry


def test_several_forgeries_are_skipped_one_after_the_other(damaged: rj.Journal) -> None:
    lease = held(damaged, "a-2")
    positions = [forge(damaged, "a-2", kind) for kind in ("completed", "no JSON", "confirmed")]
    report(damaged, lease)

    left = [skip(damaged, position).left for position in positions]

    assert [why is not None for why in left] == [True, True, False]
    damaged.sweep()
    assert claim_one(damaged).lease.attempt_id == "a-2"


def test_a_skip_beside_an_open_writer_takes_the_event_out_of_rows_rebuilt_meanwhile(
    damaged: rj.Journal, server_dsn: str
) -> None:
    make_ready(damaged, "a-2")
    with session(damaged, server_dsn) as other:
        event = {"stream": "a-9", "version": 1, "topic": "unfinished", "state": b"{}"}
        # In one message: after several, the session would keep a snapshot, for which the rebuild's
        # last index waits.
        psycopg.ClientCursor(other).execute(APPEND, event)
        position = forge(damaged, "a-2", "confirmed")
        damaged.rebuild(process_count=1)
        skip(damaged, position)
        assert [one.differences for one in damaged.check() if not one.is_right] == []

    rj.Follower(damaged).catch_up(30)
    assert all(one.is_right for one in damaged.check())


def test_the_journals_own_stream_is_no_attempts(damaged: rj.Journal) -> None:
    for attempt_id in ("", "\0"):
        with pytest.raises(rj.InvalidInput):
            held(damaged, attempt_id)
        with pytest.raises(rj.InvalidInput):
            damaged.history(attempt_id)


@pytest.mark.parametrize("kind", ["no JSON", "completed", "an unknown tag", "a second grant"])
def test_a_forged_event_in_the_journals_own_stream_stops_no_process(
    damaged: rj.Journal, kind: str
) -> None:
    make_ready(damaged, "a-1")
    position = forge(damaged, "", kind)
    make_ready(damaged, "a-2")

    assert len(damaged.claim(worker_id="w-2", limit=5)) == 2
    rj.Follower(damaged).catch_up(30)
    assert all(one.is_right for one in damaged.check())
    damaged.rebuild(process_count=1)
    assert damaged.after_restore(by="ada", reason="r", is_restored=True).is_done
    entries = damaged.history_of_journal()
    assert entries[0].position == position
    assert isinstance(entries[-1].event, rj.events.RestoreAccepted)


def test_a_forged_skip_takes_nothing_out_of_sight(damaged: rj.Journal) -> None:
    held(damaged, "a-1")
    victim = damaged.history("a-1")[0].position
    state = (
        b'{"type":"event-skipped","originator_id":"","originator_version":1,"event_id":"x",'
        b'"recorded_by":{"role":"person","host":"h","pid":1,"program":"p"},"reason":"r",'
        b'"position":%d,"attempt_id":"a-1","version":1,"stored_tag":"lease-granted",'
        b'"state_digest":"","obstacle":""}' % victim
    )
    put(damaged, "", "event-skipped", state)

    assert types_of(damaged, "a-1") == ["LeaseGranted"]
    assert not damaged.history("a-1")[0].is_skipped
    assert isinstance(damaged.history_of_journal()[0].event, rj.events.EventSkipped)


def test_a_stream_without_a_lease_row_disturbs_no_attempt(damaged: rj.Journal) -> None:
    positions = [forge(damaged, f"no-one's {kind}", kind) for kind in ILLEGIBLE]
    make_ready(damaged, "a-1")

    assert claim_one(damaged).lease.attempt_id == "a-1"
    assert damaged.quarantined() == []
    for position in positions:
        assert skip(damaged, position).left is None
    rj.Follower(damaged).catch_up(30)
    assert all(one.is_right for one in damaged.check())


def test_what_a_newer_program_wrote_comes_back_by_itself(damaged: rj.Journal) -> None:
    """As if the program had been upgraded: the event can be read at the next try."""
    make_ready(damaged, "a-1")
    change(damaged, "UPDATE leases SET version = version - 1")
    assert damaged.claim(worker_id="w-2") == []
    assert damaged.quarantined()

    change(damaged, "UPDATE leases SET version = version + 1, retry_at = clock_timestamp()")

    assert claim_one(damaged).lease.attempt_id == "a-1"
    assert damaged.quarantined() == []
