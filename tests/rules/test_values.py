"""A value comes back as it went in, in each of the five places, undisturbed and recovered alike."""

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import time
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import recovery_journal as rj
from recovery_journal.domain.errors import PayloadCorrupt
from recovery_journal.domain.events import (
    LeaseExpired,
    QuarantineCause,
    Quarantined,
    Replayed,
    StepFailed,
)
from recovery_journal.domain.replay import ReplayMode
from recovery_journal.recovery.reducer_child import Folded
from tests.rules.scenes import (
    OpenJournal,
    change,
    claim_one,
    events_of,
    held,
    last_of,
    report,
    sweep_until,
    text_of,
    types_of,
    until,
)
from tests.values.accepted import accepted, sample, shape
from tests.values.money import CODECS, CURRENCY, MONEY, PRICE, Currency, Money, total

KIND = "collect"
SOON = rj.Policy(backoff_s=0.01, backoff_limit_s=0.02)
QUICK = rj.Limits(ttl_s=60.0, grace_s=0.0, policy=SOON)


def collect(state: Any, name: str, output: Any) -> Any:
    """A reducer that keeps all that it is given."""
    return {name: (output, state)}


@pytest.fixture
def folding(open_journal: OpenJournal) -> rj.Journal:
    return open_journal(reducers={KIND: collect}, limits=QUICK)


@pytest.fixture
def numbers() -> Iterator[int]:
    """Of runs: hypothesis goes through one journal many times."""
    return iter(range(1_000))


class Undisturbed:
    """One run without a loss: what its worker was given in each place."""

    def __init__(self, journal: rj.Journal, attempt_id: str, value: Any) -> None:
        lease = held(journal, attempt_id, kind=KIND, input=value)
        self.lease = lease
        self.input = [lease.input, journal.load(lease).input]
        self.state = lease.checkpoint({"state": value})
        self.output = lease.record_step("step", value)


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(value=accepted() | st.just(sample()))
def test_any_accepted_value_comes_back_in_each_of_the_five_places(
    folding: rj.Journal, numbers: Iterator[int], value: Any
) -> None:
    attempt_id = f"a-{next(numbers)}"
    first = Undisturbed(folding, attempt_id, value)
    report(folding, first.lease)

    claim = claim_one(folding)
    claim.lease.complete(value)

    expected = shape(value)
    assert [shape(it) for it in first.input] == [expected] * 2
    assert shape(claim.input) == expected
    assert shape(first.output) == shape(claim.tail[0].output) == expected
    assert shape(first.state) == shape(claim.state) == shape({"state": value})
    assert shape(claim.folded_state) == shape({"step": (value, {"state": value})})
    assert shape(folding.result(attempt_id)) == expected


def test_a_folded_state_may_begin_with_the_input(folding: rj.Journal) -> None:
    lease = held(folding, kind=KIND, input=sample())
    lease.record_step("step", (1, {2}))
    report(folding, lease)

    folded = claim_one(folding).folded_state

    assert shape(folded) == shape({"step": ((1, {2}), sample())})


PLACES: dict[str, Callable[[rj.Journal, rj.Lease, Any], Any]] = {
    "record_step": lambda _journal, lease, value: lease.record_step("step", value),
    "checkpoint": lambda _journal, lease, value: lease.checkpoint(value),
    "input": lambda _journal, lease, _value: lease.input,
    "load": lambda journal, lease, _value: journal.load(lease).input,
}


@pytest.mark.parametrize("place", PLACES)
def test_a_worker_is_never_given_the_callers_own_object(journal: rj.Journal, place: str) -> None:
    value: Any = {"lines": [[Decimal("1.0")]], "tags": {"a"}}
    lease = held(journal, input=value)

    found = PLACES[place](journal, lease, value)
    value["lines"][0].append("changed by the caller")
    found["tags"].add("changed by the worker")
    again = PLACES[place](journal, lease, {"lines": [[Decimal("1.0")]], "tags": {"a"}})

    assert shape(again) == shape({"lines": [[Decimal("1.0")]], "tags": {"a"}})
    report(journal, lease)
    claim = claim_one(journal)
    for kept in (claim.input, claim.state, *(step.output for step in claim.tail)):
        assert kept is None or "changed" not in str(kept)


def test_changing_what_was_recorded_changes_nothing_that_a_recovery_reads(
    journal: rj.Journal,
) -> None:
    lease = held(journal)
    output = lease.record_step("step", [1])
    output.append(2)
    state = lease.checkpoint({"all": output})
    state["all"].append(3)
    lease.record_step("again", output)
    report(journal, lease)

    claim = claim_one(journal)

    assert (claim.state, claim.tail[0].output) == ({"all": [1, 2]}, [1, 2])


@pytest.mark.parametrize("bad", [Counter("a"), bytearray(b"a"), Currency.EUR, 2**64])
def test_what_would_not_come_back_is_refused_and_the_lease_continues(
    journal: rj.Journal, bad: object
) -> None:
    lease = held(journal)

    with pytest.raises(rj.InvalidInput, match=r"input\.a\[0\]: "):
        held(journal, "a-2", input={"a": [bad]})
    with pytest.raises(rj.InvalidInput, match=r"output\.a\[0\]: "):
        lease.record_step("step", {"a": [bad]})
    with pytest.raises(rj.InvalidInput, match=r"state\.a\[0\]: "):
        lease.checkpoint({"a": [bad]})
    with pytest.raises(rj.InvalidInput, match=r"result\.a\[0\]: "):
        lease.complete({"a": [bad]})

    assert lease.record_step("step", {"a": [1]}) == {"a": [1]}
    assert lease.progress.ordinal == 1


def test_a_reducer_whose_state_would_not_come_back_is_to_blame_with_its_path(
    open_journal: OpenJournal,
) -> None:
    journal = open_journal(reducers={KIND: lambda _state, _name, _output: {"n": [1j]}})
    lease = held(journal, kind=KIND)
    lease.record_step("step")

    report(journal, lease)

    failed = last_of(journal, StepFailed)
    assert failed.error_class == "InvalidInput"
    assert "the folded state.n[0]: complex" in text_of(journal, failed)


FOLDS: dict[str, tuple[Any, Any, int]] = {
    "keys in another order": ({"a": 1, "b": {"c": 1, "d": 2}}, {"b": {"d": 2, "c": 1}, "a": 1}, 1),
    "elements in another order": ({8 * it for it in (1, 0)}, {8 * it for it in (0, 1)}, 1),
    "a float for an int": ({"n": 1}, {"n": 1.0}, 0),
    "a tuple for a list": ({"n": [1]}, {"n": (1,)}, 0),
    "another exponent": (Decimal("1.0"), Decimal("1.00"), 0),
    "a list in another order": ([1, 2], [2, 1], 0),
    "the other half hour": (time(2, 30), time(2, 30, fold=1), 0),
}


@pytest.mark.parametrize("case", FOLDS)
def test_folded_states_are_compared_by_type_and_content_and_not_by_order(
    open_journal: OpenJournal, case: str
) -> None:
    swept, claimed, claim_count = FOLDS[case]
    sweeper = open_journal(reducers={KIND: lambda *_: swept})
    claimer = open_journal(reducers={KIND: lambda *_: claimed})
    lease = held(sweeper, kind=KIND)
    lease.record_step("step")
    report(sweeper, lease)

    claims = claimer.claim(worker_id="w")

    assert [shape(claim.folded_state) for claim in claims] == [shape(claimed)] * claim_count
    if not claims:
        assert last_of(sweeper, Quarantined).cause is QuarantineCause.DIVERGED


def test_the_input_of_a_run_that_is_gone_is_missed_in_words(damaged: rj.Journal) -> None:
    lease = held(damaged, input=1)
    change(damaged, "DELETE FROM leases")
    change(damaged, "DELETE FROM runs")

    with pytest.raises(PayloadCorrupt, match=r"the input of run 'run of a-1'.* has no row"):
        lease.input  # noqa: B018 - reading it is the test


# One run, opened again -------------------------------------------------------------------------


def test_a_run_is_opened_again_with_its_input_whatever_order_its_keys_are_in(
    journal: rj.Journal,
) -> None:
    held(journal, run_id="r", input={"b": {8, 0}, "a": {"y": 1, "x": 2}}).fail("not today")

    again = held(journal, "a-2", run_id="r", input={"a": {"x": 2, "y": 1}, "b": {0, 8}})

    assert shape(again.input) == shape({"b": {8, 0}, "a": {"y": 1, "x": 2}})  # as first given
    report(journal, again)
    assert claim_one(journal).input == again.input
    digests = {journal.recovery(it).granted.input_digest for it in ("a-1", "a-2")}
    assert len(digests) == 1


@pytest.mark.parametrize("other", [{"n": 1.0}, {"n": True}, {"n": 1, "m": 1}, [("n", 1)], None])
def test_a_run_is_not_opened_again_with_an_input_of_another_type(
    journal: rj.Journal, other: object
) -> None:
    held(journal, run_id="r", input={"n": 1}).fail("not today")

    with pytest.raises(rj.RunMismatch, match="input"):
        held(journal, "a-2", run_id="r", input=other)


# Codecs ----------------------------------------------------------------------------------------


def test_values_with_codecs_come_back_in_each_of_the_five_places(open_journal: OpenJournal) -> None:
    journal = open_journal(codecs=CODECS, reducers={"bill": total})
    lease = held(journal, kind="bill", input={"limit": PRICE})
    recorded = lease.record_step("line", PRICE)
    report(journal, lease)

    claim = claim_one(journal)
    claim.lease.complete([claim.folded_state])

    assert (type(recorded), recorded) == (Money, PRICE)
    assert (claim.input, claim.tail[0].output) == ({"limit": PRICE}, PRICE)
    assert journal.result("a-1") == [Money(Decimal("200.20"), Currency.EUR)]
    assert [it.mode for it in events_of(journal, Replayed)] == [ReplayMode.FOLD]


def written(journal: rj.Journal, place: str) -> rj.Lease:
    """An attempt with money in one place."""
    lease = held(journal, kind=KIND, input=PRICE if place == "input" else None)
    if place == "state":
        lease.checkpoint([PRICE])
    lease.record_step("line", (PRICE,) if place == "output" else None)
    return lease


@pytest.mark.parametrize("place", ["input", "output", "state"])
def test_a_claimer_without_the_codec_gives_back_to_one_that_has_it(
    open_journal: OpenJournal, place: str
) -> None:
    knowing, other = open_journal(codecs=CODECS, limits=QUICK), open_journal(limits=QUICK)
    report(knowing, written(knowing, place))

    for _ in range(7):  # more often than anything that counts may happen
        assert other.claim(worker_id="w-without") == []
        assert events_of(other, LeaseExpired)[-1].loss is rj.LossReason.HANDED_BACK
        failed = last_of(other, StepFailed)
        assert failed.error_class == "CodecMissing"
        assert "a value of codec 'money', which this journal does not have" in text_of(
            other, failed
        )
        assert sweep_until(other).is_ready

    claim = claim_one(knowing)
    claim.lease.complete(PRICE)
    assert PRICE in (claim.input, claim.state and claim.state[0], (claim.tail[0].output or [0])[0])
    assert knowing.result("a-1") == PRICE
    assert "Quarantined" not in types_of(knowing)
    assert len({failed.waits_since for failed in events_of(other, StepFailed)}) == 1


def test_a_claimer_that_gives_back_keeps_what_else_it_has_won(open_journal: OpenJournal) -> None:
    knowing, other = open_journal(codecs=CODECS, limits=QUICK), open_journal(limits=QUICK)
    report(knowing, written(knowing, "output"), held(knowing, "a-2"))

    claims = other.claim(worker_id="w-without", limit=2)

    assert [claim.lease.attempt_id for claim in claims] == ["a-2"]


def test_an_attempt_whose_codec_no_process_has_is_a_persons_matter_after_a_long_wait(
    open_journal: OpenJournal,
) -> None:
    policy = rj.Policy(backoff_s=0.01, backoff_limit_s=0.02, version_wait_s=0.3)
    limits = rj.Limits(ttl_s=60.0, grace_s=0.0, policy=policy)
    knowing, other = open_journal(codecs=CODECS, limits=limits), open_journal(limits=limits)
    report(knowing, written(knowing, "output"))

    def is_quarantined() -> bool:
        other.claim(worker_id="w-without")
        other.sweep()
        return other.recovery("a-1").stage is rj.Stage.QUARANTINED

    until(is_quarantined, "the quarantine")

    quarantined = last_of(other, Quarantined)
    assert quarantined.cause is QuarantineCause.TOO_NEW
    assert quarantined.explanation == "CodecMissing; none came within 0.3 s"
    assert "codec 'money'" in text_of(other, quarantined)
    assert knowing.lift_quarantine("a-1", "retry", by="ann", reason="deployed").is_ready
    assert claim_one(knowing).tail[0].output == (PRICE,)


@pytest.mark.parametrize("place", ["input", "output", "state"])
def test_a_sweeper_whose_reducer_lacks_the_codec_waits_and_blames_no_run(
    open_journal: OpenJournal, place: str
) -> None:
    knowing = open_journal(codecs=CODECS, reducers={KIND: collect}, limits=QUICK)
    other = open_journal(reducers={KIND: collect}, limits=QUICK)
    lease = written(knowing, place)

    report(other, lease)
    for _ in range(7):  # more often than a reducer may raise
        sweep_until(other)

    waits = events_of(other, StepFailed)
    assert {(it.error_class, it.failed_step.value) for it in waits} == {("CodecMissing", "replay")}
    assert len({it.waits_since for it in waits}) == 1
    assert sweep_until(knowing).is_ready
    assert claim_one(knowing).folded_state is not None


def test_waits_for_a_codec_are_no_tries_of_the_reducer(open_journal: OpenJournal) -> None:
    def raising(_state: Any, _name: str, _output: Any) -> Any:
        raise ValueError("not yet")

    knowing = open_journal(codecs=CODECS, reducers={KIND: raising}, limits=QUICK)
    other = open_journal(reducers={KIND: raising}, limits=QUICK)
    report(other, written(knowing, "output"))
    for _ in range(6):
        sweep_until(other)

    for _ in range(4):
        assert sweep_until(knowing).stage is rj.Stage.RELOADED
    assert sweep_until(knowing).stage is rj.Stage.QUARANTINED


def test_a_claimer_whose_reducer_needs_a_codec_of_its_state_gives_back(
    open_journal: OpenJournal,
) -> None:
    """The sweeper folds nothing; the claimer's own state is of a type that it cannot read."""
    plain = open_journal(limits=QUICK)
    own = rj.Codec(name="money", type=Money, encode=lambda it: it.amount, decode=lambda _form: None)
    broken = open_journal(codecs=[own, CURRENCY], reducers={KIND: collect}, limits=QUICK)
    knowing = open_journal(codecs=CODECS, limits=QUICK)
    report(plain, written(knowing, "output"))

    assert broken.claim(worker_id="w-broken") == []

    failed = last_of(plain, StepFailed)
    assert (failed.error_class, events_of(plain, LeaseExpired)[-1].loss) == (
        "CodecFailed",
        rj.LossReason.REPORTED,
    )
    assert sweep_until(plain).is_ready
    assert claim_one(knowing).tail[0].output == (PRICE,)


def test_a_result_without_its_codec_is_refused_in_words(open_journal: OpenJournal) -> None:
    held(open_journal(codecs=CODECS)).complete([PRICE])

    with pytest.raises(
        rj.CodecMissing, match="the result of attempt 'a-1': found a value of codec"
    ):
        open_journal().result("a-1")
    assert open_journal(codecs=[MONEY, CURRENCY]).result("a-1") == [PRICE]


def test_a_damaged_value_with_a_codec_is_damaged_for_every_reader(
    open_journal: OpenJournal,
) -> None:
    knowing, other = open_journal(codecs=CODECS, limits=QUICK), open_journal(limits=QUICK)
    lease = written(knowing, "output")
    report(knowing, lease)
    change(knowing, r"UPDATE run_steps SET output = output || '\x00'")

    assert other.claim(worker_id="w-without") == []

    assert last_of(other, Quarantined).cause is QuarantineCause.DIVERGED


def test_a_time_zone_that_this_machine_does_not_know_is_waited_for(
    open_journal: OpenJournal,
) -> None:
    journal = open_journal(limits=QUICK)
    lease = held(journal)
    lease.checkpoint(time(1, 2, 3, 4))
    report(journal, lease)
    zone = r"'\xc71307960102030400ac4d6172732f4f6c796d707573'::bytea"  # with Mars/Olympus
    change(
        journal,
        f"UPDATE checkpoints SET state = {zone}, "  # noqa: S608 - a constant
        f"state_digest = 'cs1:' || encode(sha256({zone}), 'hex')",
    )

    assert journal.claim(worker_id="w") == []

    failed = last_of(journal, StepFailed)
    assert (failed.error_class, "'Mars/Olympus'" in text_of(journal, failed)) == (
        "CodecMissing",
        True,
    )


def test_what_a_reducers_child_answers_can_be_distinguished_from_an_error_of_the_users() -> None:
    assert not Folded(error_class="CodecMissing").is_unreadable
