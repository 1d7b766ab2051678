"""Values across a kill -9: the next process gets the values that the first one would have seen."""

import pickle
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import recovery_journal as rj
from recovery_journal.domain.events import Replayed
from recovery_journal.values.payload import encode
from tests.acceptance import billing
from tests.acceptance.folding_program import WORDS
from tests.acceptance.job import LIMITS
from tests.acceptance.programs import launched, started
from tests.acceptance.stop import Settings
from tests.acceptance.values_program import VALUES_VARIABLE
from tests.rules.scenes import claim_one, events_of, sweep_until, types_of
from tests.schemas import own_schema
from tests.values.accepted import accepted, sample, shape
from tests.values.money import CODECS, PRICE

BILLING = "tests.acceptance.billing_program"
FOLDING = "tests.acceptance.folding_program"
KEEPING = "tests.acceptance.values_program"
SEEDS = range(1, 4)


def settings_of(journal: rj.Journal, dsn: str, stop_at: str) -> Settings:
    return Settings(dsn=dsn, schema=journal.database.schema, stop_at=stop_at)


@settings(
    max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(values=st.lists(accepted(), min_size=30, max_size=30))
def test_any_accepted_values_of_a_killed_worker_are_read_as_they_were(
    server_dsn: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    values: list[object],
) -> None:
    values = [*values, sample(), [PRICE]]
    file = tmp_path / "values"
    file.write_bytes(pickle.dumps(values))
    monkeypatch.setenv(VALUES_VARIABLE, str(file))
    with (
        own_schema(server_dsn) as schema,
        rj.open(server_dsn, schema=schema, limits=LIMITS, codecs=CODECS) as journal,
    ):
        with started(KEEPING, settings_of(journal, server_dsn, "recorded")) as worker:
            worker.kill()
        assert sweep_until(journal).is_ready

        claim = claim_one(journal)
        claim.lease.complete(values)

        expected = shape(values)
        assert shape(claim.input) == expected
        assert shape(claim.state) == shape({"values": values})
        assert shape([step.output for step in claim.tail]) == expected
        assert shape(journal.result("a-1")) == expected


@pytest.mark.parametrize("stop_at", ["recorded-0", "saved-0", "recorded-1", "saved-1", "never"])
def test_a_bill_is_the_same_whether_or_not_its_worker_was_killed(
    journal: rj.Journal, server_dsn: str, stop_at: str
) -> None:
    if stop_at != "never":
        with started(BILLING, settings_of(journal, server_dsn, stop_at)) as worker:
            worker.kill()
        assert sweep_until(journal).is_ready

    with launched(BILLING, settings_of(journal, server_dsn, "")) as worker:
        worker.until_said("completed")

    assert shape(journal.result("a-1")) == shape(billing.RESULT)
    ended = journal.recovery("a-1").ended
    assert ended is not None
    assert getattr(ended, "result_digest", None) == encode(billing.RESULT, name="it").digest


@pytest.mark.parametrize("seed", SEEDS)
def test_a_reducer_that_iterates_a_set_is_not_taken_for_one_that_diverged(
    journal: rj.Journal, server_dsn: str, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    lease = journal.acquire(attempt_id="a-1", run_id="r-1", kind="count", worker_id="w-1")
    lease.record_step("read", WORDS)
    lease.record_step("read again", set(WORDS))

    monkeypatch.setenv("PYTHONHASHSEED", str(seed))
    with started(FOLDING, settings_of(journal, server_dsn, "ready")) as sweeper:
        order_of_sweeper = sweeper.said()
    monkeypatch.setenv("PYTHONHASHSEED", str(seed + 100))
    with started(FOLDING, settings_of(journal, server_dsn, "1 claimed")) as claimer:
        order_of_claimer = claimer.said()

    assert order_of_sweeper != order_of_claimer
    assert events_of(journal, Replayed)[0].state_digest is not None
    assert "Quarantined" not in types_of(journal)
