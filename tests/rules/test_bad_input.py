"""Bad input results in a typed error that says found, needed and what to do; nothing is written."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

import msgspec
import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import recovery_journal as rj
from recovery_journal.domain.errors import (
    PayloadCorrupt,
    SchemaMissing,
    SchemaTooNew,
    ServerTooOld,
    ServerUnavailable,
)
from recovery_journal.postgres.database import Database
from recovery_journal.values.payload import BUILT_IN
from tests.bad_input.anything import Nowhere
from tests.rules.scenes import (
    OpenJournal,
    change,
    claim_one,
    held,
    report,
    rows,
    said_last,
    types_of,
)

TABLES = (
    "journal_events",
    "leases",
    "runs",
    "run_steps",
    "announcements",
    "checkpoints",
    "projection_dispatch_ready",
)
LONGEST = "\N{PILE OF POO}" * 200
BAD_IDS = {
    "empty": "",
    "too long": "x" * 201,
    "NUL": "a\0b",
    "lone surrogate": "a\ud800",
    "no text": 7,
    "nothing": None,
}
GOOD_IDS = [
    "a",
    LONGEST,
    "بندر/../'; DROP TABLE leases; --",
    "tab\tand\nnew line",
    "%s %(id)s {}",
    "\u202eright to left",
    "e\u0301 is not \u00e9",
    "\ufeff",
    '"quoted"',
    "back\\slash",
    " ",
]


def nested() -> list[Any]:
    """A list that holds itself."""
    itself: list[Any] = []
    itself.append(itself)
    return itself


BAD_PAYLOADS = {
    "a class": object,
    "an object": object(),
    "itself": nested(),
    "huge": 2**64,
    "very negative": -(2**63) - 1,
    "lone surrogate": "\ud800",
    "complex": 1 + 2j,
    "a function": nested,
    "keys": {1: "one"},
    "a generator": (number for number in range(3)),
    "a time zone that raises": datetime(2031, 1, 1, tzinfo=Nowhere()),
}


@pytest.fixture
def counted(journal: rj.Journal) -> Any:
    """A journal with something in it, whose row counts must be the same afterwards."""
    held(journal, "there already")
    before = counts(journal)
    yield journal
    assert counts(journal) == before


def counts(journal: rj.Journal) -> dict[str, int]:
    return {
        table: rows(journal, f"SELECT count(*) AS count FROM {table}")[0]["count"]  # noqa: S608
        for table in TABLES
    }


def assert_says(error: Exception) -> None:
    """Cannot do what: found, needed; what to do."""
    message = str(error)
    assert message.startswith("cannot ")
    for part in (" found ", " needed ", "; "):
        assert part in message


@pytest.mark.parametrize("name", ["attempt_id", "run_id", "worker_id", "kind"])
@pytest.mark.parametrize("bad", BAD_IDS)
def test_a_bad_id_is_refused(counted: rj.Journal, name: str, bad: str) -> None:
    given: dict[str, Any] = {"attempt_id": "a", "run_id": "r", "worker_id": "w"}

    with pytest.raises(rj.InvalidInput, match=name) as refused:
        counted.acquire(**{**given, name: BAD_IDS[bad]})

    assert_says(refused.value)


@pytest.mark.parametrize("good", GOOD_IDS)
def test_an_id_of_any_unicode_is_kept_as_it_is(journal: rj.Journal, good: str) -> None:
    lease = held(journal, good, run_id=good, worker_id=good, kind=good, tenant=good)
    lease.begin_step(good)
    assert lease.record_step(good, good) == good
    assert lease.step_key == f"{good}/1"
    lease.checkpoint(good)
    report(journal, lease)

    assert [row.attempt_id for row in journal.dispatch_ready(tenants=[good])] == [good]
    claim = claim_one(journal, good, kinds=[good])
    assert (claim.lease.attempt_id, claim.state) == (good, good)
    claim.lease.complete(good)
    assert journal.recovery(good).granted.holder.worker_id == good


BAD_CALLS: dict[str, Callable[[Any], object]] = {
    "no TTL": lambda journal: held(journal, ttl=timedelta(0)),
    "a negative TTL": lambda journal: held(journal, ttl=timedelta(seconds=-1)),
    "a TTL of ages": lambda journal: held(journal, ttl=timedelta.max),
    "seconds as TTL": lambda journal: held(journal, ttl=30),
    "a negative timeout": lambda journal: held(journal, timeout=timedelta(days=-1)),
    "too high a priority": lambda journal: held(journal, priority=2**31),
    "half a priority": lambda journal: held(journal, priority=0.5),
    "a yes as priority": lambda journal: held(journal, priority=True),
    "a long tenant": lambda journal: held(journal, tenant="x" * 201),
    "a version with NUL": lambda journal: held(journal, code_version="\0"),
    "an empty event id": lambda journal: held(journal, event_id=""),
    "a long event id": lambda journal: journal.claim(worker_id="w", event_id="x" * 201),
    "an empty trace id": lambda journal: held(journal, trace_id=""),
    "a claim of none": lambda journal: journal.claim(worker_id="w", limit=0),
    "a claim of all": lambda journal: journal.claim(worker_id="w", limit=10**9),
    "a claim without a worker": lambda journal: journal.claim(worker_id=""),
    "one kind as text": lambda journal: journal.claim(worker_id="w", kinds="report"),
    "a kind with NUL": lambda journal: journal.claim(worker_id="w", kinds=["\0"]),
    "a claim without a TTL": lambda journal: journal.claim(worker_id="w", ttl=timedelta(0)),
    "a list of none": lambda journal: journal.dispatch_ready(limit=-1),
    "a naive datetime": lambda journal: journal.contexts(since=datetime(2031, 1, 1)),  # noqa: DTZ001
    "a date as text": lambda journal: journal.contexts(since="2031-01-01"),
    "a log from text": lambda journal: journal.log(after="x"),
    "a log from before": lambda journal: journal.log(after=-1),
    "version 0": lambda journal: journal.recovery("there already", version=0),
    "a version to come": lambda journal: journal.recovery("there already", version=2),
    "a version that is a yes": lambda journal: journal.recovery("there already", version=True),
    "a report without a reason": lambda journal: journal.report_lost(worker_id="w", reason=""),
    "a report of a number": lambda journal: journal.report_lost(
        worker_id="w",
        incarnation=7,
        reason="gone",
    ),
    "a report with NUL": lambda journal: journal.report_lost(
        worker_id="w", incarnation="\0", reason="gone"
    ),
    "an incarnation of nothing": lambda journal: journal.report_lost(
        worker_id="w", incarnation="", reason="gone"
    ),
    "a long reason": lambda journal: journal.report_lost(worker_id="w", reason="x" * 2001),
    "an empty history": lambda journal: journal.history(""),
}


class MuteError(Exception):
    def __str__(self) -> NoReturn:
        raise RuntimeError("no word")


@pytest.mark.parametrize("call", BAD_CALLS)
def test_a_bad_argument_is_refused(counted: rj.Journal, call: str) -> None:
    with pytest.raises(rj.InvalidInput) as refused:
        BAD_CALLS[call](counted)

    assert_says(refused.value)


@pytest.mark.parametrize("payload", BAD_PAYLOADS)
def test_what_cannot_be_encoded_is_refused_everywhere(counted: rj.Journal, payload: str) -> None:
    bad = BAD_PAYLOADS[payload]
    lease = counted.adopt(_terms(counted))
    calls: list[Callable[[], object]] = [
        lambda: held(counted, "a-2", input=bad),
        lambda: lease.record_step("step", bad),
        lambda: lease.checkpoint(bad),
        lambda: lease.complete(bad),
    ]

    for call in calls:
        with pytest.raises(rj.InvalidInput, match="cannot be encoded") as refused:
            call()
        assert_says(refused.value)


def test_bytes_that_are_nested_too_deeply_are_damaged() -> None:
    with pytest.raises(PayloadCorrupt, match="RecursionError"):
        BUILT_IN.decode_digested(b"\x91" * 100_000 + b"\xc0", what="a state")


def test_what_is_too_large_is_refused(counted: rj.Journal) -> None:
    with pytest.raises(rj.InvalidInput, match="store it elsewhere"):
        held(counted, "a-2", input=b"\0" * (64 * 1024 * 1024))


def _terms(journal: rj.Journal) -> rj.LeaseTerms:
    recovery = journal.recovery("there already")
    return rj.LeaseTerms(
        attempt_id=recovery.attempt_id,
        run_id=recovery.run_id,
        worker_id=recovery.holder.worker_id,
        kind=recovery.granted.kind,
        code_version="",
        fence=recovery.fence,
        ttl_s=60.0,
        expires_at=datetime.now(UTC),
        progress=journal.load(held_again(journal)).checkpoint.progress,
    )


def held_again(journal: rj.Journal) -> rj.Lease:
    recovery = journal.recovery("there already")
    return journal.acquire(
        attempt_id=recovery.attempt_id,
        run_id=recovery.run_id,
        worker_id=recovery.holder.worker_id,
        event_id=recovery.granted.event_id,
    )


@pytest.mark.parametrize("name", ["", "x" * 201, "\0", "\ud800"])
def test_a_bad_name_of_a_run_step_is_refused(counted: rj.Journal, name: str) -> None:
    lease = held_again(counted)

    for write in (lease.begin_step, lease.record_step):
        with pytest.raises(rj.InvalidInput):
            write(name)


def test_a_run_step_other_than_the_announced_is_refused(journal: rj.Journal) -> None:
    lease = held(journal)
    lease.begin_step("charge")

    with pytest.raises(rj.InvalidInput, match="found 'refund', needed 'charge', as announced"):
        lease.record_step("refund")

    assert types_of(journal) == ["LeaseGranted"]


def test_an_unknown_attempt_is_named(counted: rj.Journal) -> None:
    for read in (counted.history, counted.recovery):
        with pytest.raises(rj.UnknownAttempt, match="'unknown'") as refused:
            read("unknown")
        assert_says(refused.value)


def test_a_duplicate_acquire_is_refused(counted: rj.Journal) -> None:
    with pytest.raises(rj.AttemptExists, match="'there already'") as refused:
        held(counted, "there already", run_id="another run")

    assert_says(refused.value)


BAD_LIMITS: dict[str, dict[str, Any]] = {
    "NaN as TTL": {"ttl_s": float("nan")},
    "a TTL for ever": {"ttl_s": float("inf")},
    "no TTL": {"ttl_s": 0.0},
    "a negative grace": {"grace_s": -0.1},
    "NaN as grace": {"grace_s": float("nan")},
    "sweepers for ever": {"sweeper_ttl_s": float("inf")},
    "cohorts of none": {"cohort_size": 0},
    "no time to fold": {"reducer_s": 0.0},
    "NaN to fold": {"reducer_s": float("nan")},
    "no state": {"state_bytes": -1},
    "fleets of none": {"fleet_workers": 0},
    "more than the fleet": {"fleet_share": 1.5},
    "NaN of the fleet": {"fleet_share": float("nan")},
    "text": {"ttl_s": "30"},
    "5,001 digits": {"cohort_size": 10**5_000},
    "no policy": {"policy": None},
}
BAD_POLICIES: dict[str, dict[str, Any]] = {
    "no crash allowed": {"crash_loop_count": 0},
    "no try allowed": {"raise_limit": 0},
    "NaN to wait": {"backoff_s": float("nan")},
    "for ever": {"backoff_limit_s": float("inf")},
    "backwards": {"backoff_s": -1.0},
    "perhaps": {"may_restart": "perhaps"},
}


@pytest.mark.parametrize("case", BAD_LIMITS)
def test_a_limit_that_is_none_is_refused(case: str) -> None:
    with pytest.raises(rj.InvalidInput) as refused:
        rj.Limits(**BAD_LIMITS[case])

    assert next(iter(BAD_LIMITS[case])) in str(refused.value)
    assert_says(refused.value)


@pytest.mark.parametrize("case", BAD_POLICIES)
def test_a_policy_that_is_none_is_refused(case: str) -> None:
    with pytest.raises(rj.InvalidInput) as refused:
        rj.Policy(**BAD_POLICIES[case])

    assert_says(refused.value)


def test_a_failure_that_says_nothing_is_recorded_all_the_same(journal: rj.Journal) -> None:
    held(journal).fail(MuteError())

    ended = journal.recovery("a-1").ended
    assert isinstance(ended, rj.events.LeaseEnded)
    assert (ended.error_class, ended.message) == ("MuteError", "")
    assert said_last(journal).startswith("a message that")


def test_a_changed_limit_is_checked_too() -> None:
    with pytest.raises(rj.InvalidInput):
        msgspec.structs.replace(rj.Limits(), ttl_s=float("nan"))


def test_an_unreachable_server_is_named_without_its_password(server_dsn: str, schema: str) -> None:
    nowhere = "postgresql://me:secret@127.0.0.1:9/nowhere?connect_timeout=2"

    with pytest.raises(ServerUnavailable, match=r"127\.0\.0\.1:9/nowhere") as refused:
        rj.open(nowhere, schema=schema)

    assert "secret" not in str(refused.value)
    assert_says(refused.value)
    assert _schemas(server_dsn, schema) == []


def test_a_database_that_is_not_there_is_named(server_dsn: str, schema: str) -> None:
    with pytest.raises(ServerUnavailable, match="nowhere"):
        rj.open(make_conninfo(server_dsn, dbname="nowhere"), schema=schema)


def test_a_server_too_old_is_refused(
    server_dsn: str, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Database, "server_version", lambda _self, _connection: 13_0014)

    with pytest.raises(ServerTooOld, match=r"found version 13\.14, needed 14") as refused:
        rj.open(server_dsn, schema=schema)

    assert_says(refused.value)
    assert _schemas(server_dsn, schema) == []


def test_a_schema_made_by_a_newer_version_is_refused_and_left_alone(
    journal: rj.Journal, server_dsn: str
) -> None:
    change(journal, "UPDATE journal_schema SET version = 1000")

    with pytest.raises(SchemaTooNew, match="found schema version 1000") as refused:
        rj.open(server_dsn, schema=journal.database.schema)

    assert_says(refused.value)
    change(journal, "UPDATE journal_schema SET version = 1")


def test_a_schema_without_a_journal_is_refused_where_it_must_exist(
    server_dsn: str, schema: str
) -> None:
    with pytest.raises(SchemaMissing, match=schema) as refused:
        rj.open(server_dsn, schema=schema, must_exist=True)

    assert_says(refused.value)
    assert _schemas(server_dsn, schema) == []


@pytest.mark.parametrize("bad", ["x" * 64, "pg_mine", "nul\0", "\ud800"])
def test_a_bad_schema_name_is_refused(server_dsn: str, bad: str) -> None:
    with pytest.raises(rj.InvalidInput, match="the schema name"):
        rj.open(server_dsn, schema=bad)


@pytest.mark.parametrize("bad", ["postgresql://[", "host=localhost nonsense", "port"])
def test_a_dsn_that_is_none_is_refused_without_quoting_it(bad: str, schema: str) -> None:
    with pytest.raises(rj.InvalidInput, match="the DSN") as refused:
        rj.open(bad, schema=schema)

    assert bad not in str(refused.value)


def _schemas(dsn: str, name: str) -> list[Any]:
    with psycopg.connect(dsn) as connection:
        query = "SELECT nspname FROM pg_namespace WHERE nspname = %s"
        return connection.execute(query, [name]).fetchall()


def test_a_closed_journal_says_so(open_journal: OpenJournal, server_dsn: str) -> None:
    schema = open_journal().database.schema
    journal = rj.open(server_dsn, schema=schema)
    journal.close()

    with pytest.raises(rj.InvalidInput, match="it closed"):
        journal.sweep()
