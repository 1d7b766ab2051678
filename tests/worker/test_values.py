"""Arguments and results of a worker's function, with types of the user's own."""

from decimal import Decimal

import recovery_journal as rj
from recovery_journal.worker.outcome import Outcome
from tests.rules.scenes import said_last
from tests.values.money import CODECS, PRICE, Currency, Money


def twice(claim: rj.Claim) -> Money:
    """Runs in a child of the worker, which knows the journal's codecs."""
    price = claim.lease.record_step("price", claim.input)
    assert type(price) is Money
    state = claim.lease.checkpoint({"prices": (price, claim.input)})
    return Money(sum((it.amount for it in state["prices"]), Decimal(0)), price.currency)


def test_a_workers_child_writes_and_reads_values_with_codecs(server_dsn: str, schema: str) -> None:
    with rj.open(server_dsn, schema=schema, codecs=CODECS) as journal:
        worker = rj.Worker(journal, "w-1", twice, on_event=lambda _notice: None)
        fresh = journal.acquire(attempt_id="a-1", run_id="r-1", worker_id="w-1", input=PRICE)
        lost = journal.acquire(attempt_id="a-2", run_id="r-2", worker_id="w-1", input=PRICE)
        lost.hand_back()

        outcomes = [worker.run_lease(fresh), *worker.run(until_idle=True).elements()]

        assert outcomes == [Outcome.COMPLETED] * 2
        for attempt_id in ("a-1", "a-2"):
            assert journal.result(attempt_id) == Money(Decimal("200.20"), Currency.EUR)


def test_a_result_that_would_not_come_back_fails_the_attempt_in_words(
    server_dsn: str, schema: str
) -> None:
    with rj.open(server_dsn, schema=schema) as journal:
        worker = rj.Worker(journal, "w-1", lambda _claim: {"a": [PRICE]})
        lease = journal.acquire(attempt_id="a-1", run_id="r-1", worker_id="w-1")

        assert worker.run_lease(lease) is Outcome.FAILED

        ended = journal.recovery("a-1").ended
        assert isinstance(ended, rj.events.LeaseEnded)
        said = said_last(journal)
        assert said is not None
        assert "result.a[0]: Money, a subclass of tuple" in said
