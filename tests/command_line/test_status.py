"""The status of the journal, as the API gives it."""

from recovery_journal import Journal
from recovery_journal.domain.lease import LeaseStatus
from recovery_journal.domain.recovery import Stage
from recovery_journal.monitoring.projection_status import ProjectionState
from tests.command_line import scenes


def test_an_empty_journal_has_nothing_to_report(journal: Journal) -> None:
    status = journal.status()

    assert (status.leases, status.recovering, status.failing, status.quarantined) == (
        {},
        {},
        [],
        {},
    )
    assert (status.waiting.count, status.waiting.oldest_attempt_id) == (0, None)
    assert (status.settled_position, status.last_position) == (0, 0)
    assert {one.lag_events for one in status.projections} == {0}
    assert status.server.uptime_s > 0


def test_what_a_follower_has_not_read_is_its_lag(journal: Journal) -> None:
    scenes.held(journal, "a-1", worker_id="w-1")
    journal.rebuild()
    scenes.held(journal, "a-2", worker_id="w-2")

    places = {one.name: one for one in journal.status().projections}

    assert places["workers"].position == 2
    assert places["workers"].lag_events == 2
    assert places["workers"].lag_s > 0
    assert places["dispatch_ready"].is_inline
    assert not places["workers"].is_inline


def test_a_projection_that_stopped_says_why(journal: Journal, server_dsn: str) -> None:
    scenes.execute(
        server_dsn,
        journal.database.schema,
        "UPDATE projection_tracking SET state = 'stopped', error = 'position 7 is damaged' "
        "WHERE projection = 'workers'",
    )

    (stopped,) = [one for one in journal.status().projections if one.name == "workers"]

    assert stopped.state is ProjectionState.STOPPED
    assert stopped.error == "position 7 is damaged"


def test_an_open_append_is_not_yet_settled(journal: Journal, server_dsn: str) -> None:
    scenes.held(journal, "a-1", worker_id="w-1")

    with journal.database.transaction() as cursor:
        cursor.execute(
            "INSERT INTO journal_events (originator_id, originator_version, topic, state) "
            "VALUES ('a-open', 1, 'lease-granted', '{}')"
        )
        other = scenes.in_another_thread(lambda: scenes.status_after(server_dsn, journal, "a-2"))

    assert other.last_position > other.settled_position == 2


def test_a_failing_recovery_is_shown_with_its_error_and_when_it_is_due(
    journal: Journal, server_dsn: str
) -> None:
    scenes.fail_the_replay(journal, server_dsn, "a-1")

    status = journal.status()

    (failing,) = status.failing
    assert (failing.attempt_id, failing.recovery_no) == ("a-1", 1)
    assert failing.failed_step_count == 1
    assert failing.error == "replay: RuntimeError"
    assert failing.retry_at > status.server.now
    assert status.failing_count == 1
    assert status.leases == {LeaseStatus.RECOVERING: 1}
    assert status.recovering == {Stage.RELOADED: 1}


def test_refused_writes_are_counted_and_the_newest_is_named(journal: Journal) -> None:
    for number in (1, 2):
        scenes.refused(scenes.recovered(journal, f"a-{number}", worker_id=f"w-{number}"))
    journal.rebuild()

    refused = journal.status().refused_writes

    assert (refused.count, refused.newest_worker_id) == (2, "w-2")
    assert refused.newest_at == journal.history("a-2")[-1].recorded_at


def test_the_clock_is_the_databases_and_advances(journal: Journal) -> None:
    before = journal.now()

    assert journal.now() > before
