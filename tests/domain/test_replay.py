"""Replaying a tail: every link is recomputed and compared, and no user code runs."""

from dataclasses import dataclass

import pytest
from hypothesis import given as forall
from hypothesis import strategies as st
from msgspec.structs import replace

from recovery_journal.domain.checkpoint import RunStep
from recovery_journal.domain.digest import chain_next, chain_origin, payload_digest, same_codec
from recovery_journal.domain.lease import Progress
from recovery_journal.domain.replay import ReplayMode, ReplayResult, replay_chain
from tests.domain.specimens import (
    ATTEMPT_ID,
    RUN_ID,
    chain_at,
    checkpoint,
    progress,
    run_input,
    run_steps,
)


@dataclass
class Tampering:
    """A way to damage the run step at an index of a tail; says at which ordinal it shows."""

    name: str
    index: int

    def damage(self, tail: tuple[RunStep, ...]) -> tuple[tuple[RunStep, ...], int]:
        step, before, after = tail[self.index], tail[: self.index], tail[self.index + 1 :]
        match self.name:
            case "output":
                return (*before, replace(step, output_digest="cs1:0"), *after), step.ordinal
            case "name":
                return (*before, replace(step, name="another"), *after), step.ordinal
            case "ordinal":
                return (*before, replace(step, ordinal=99), *after), 99
            case "chain":
                return (*before, replace(step, chain="ch1:0"), *after), step.ordinal
            case "missing":
                return (*before, *after), after[0].ordinal
            case "order":
                return (*before, after[0], step, *after[1:]), after[0].ordinal
            case _:
                raise AssertionError(self.name)


def test_a_clean_tail_is_verified() -> None:
    tip = checkpoint(3, tail_count=4)

    outcome = replay_chain(ATTEMPT_ID, tip, None)

    assert outcome.result is ReplayResult.REPLAYED
    assert outcome.mode is ReplayMode.CHAIN
    assert (outcome.from_ordinal, outcome.to_ordinal) == (4, 7)
    assert outcome.digest == outcome.expected_digest == chain_at(7)
    assert outcome.diverged_at is None
    assert outcome.is_verified


def test_an_empty_tail_ends_at_the_checkpoint() -> None:
    outcome = replay_chain(ATTEMPT_ID, checkpoint(3, tail_count=0), None)

    assert outcome.result is ReplayResult.REPLAYED
    assert (outcome.from_ordinal, outcome.to_ordinal) == (4, 3)
    assert (outcome.digest, outcome.expected_from) == (chain_at(3), "checkpoint")


def test_a_run_without_a_checkpoint_is_replayed_from_its_input() -> None:
    outcome = replay_chain(ATTEMPT_ID, run_input(tail_count=2), progress(2))

    assert outcome.mode is ReplayMode.RESTART
    assert (outcome.from_ordinal, outcome.to_ordinal) == (1, 2)
    assert outcome.is_verified


@pytest.mark.parametrize("index", [0, 1, 2])
@pytest.mark.parametrize("name", ["output", "name", "ordinal", "chain", "missing", "order"])
def test_a_tampered_tail_diverges_where_it_was_tampered_with(name: str, index: int) -> None:
    tail, shows_at = Tampering(name, index).damage(run_steps(4, 7))

    outcome = replay_chain(ATTEMPT_ID, checkpoint(3, tail=tail), None)

    assert outcome.result is ReplayResult.DIVERGED
    assert outcome.diverged_at == outcome.to_ordinal == shows_at
    assert outcome.expected_from == "run step"
    assert outcome.digest != outcome.expected_digest
    assert not outcome.is_verified


def test_a_tampered_checkpoint_diverges_at_the_first_step_after_it() -> None:
    outcome = replay_chain(ATTEMPT_ID, checkpoint(3, tail_count=2, chain="ch1:0"), None)

    assert (outcome.result, outcome.diverged_at) == (ReplayResult.DIVERGED, 4)


@pytest.mark.parametrize("ordinal", [3, 4, 5, 6])
def test_a_reported_digest_is_compared_at_its_own_ordinal(ordinal: int) -> None:
    false_report = Progress(ordinal=ordinal, digest=chain_at(ordinal + 1))

    outcome = replay_chain(ATTEMPT_ID, checkpoint(3, tail_count=3), false_report)

    assert (outcome.result, outcome.diverged_at) == (ReplayResult.DIVERGED, ordinal)
    assert outcome.expected_from == "heartbeat"
    assert (outcome.digest, outcome.expected_digest) == (chain_at(ordinal), chain_at(ordinal + 1))


@pytest.mark.parametrize("ordinal", [3, 4, 5, 6])
def test_a_true_report_inside_the_tail_does_not_end_the_replay(ordinal: int) -> None:
    outcome = replay_chain(ATTEMPT_ID, checkpoint(3, tail_count=3), progress(ordinal))

    assert outcome.result is ReplayResult.REPLAYED
    assert outcome.digest == chain_at(6)
    assert outcome.is_verified


def test_a_report_at_the_end_of_the_tail_is_what_verifies_it() -> None:
    outcome = replay_chain(ATTEMPT_ID, checkpoint(3, tail_count=3), progress(6))

    assert (outcome.expected_from, outcome.expected_digest) == ("heartbeat", chain_at(6))


def test_a_report_from_before_the_checkpoint_is_not_compared() -> None:
    stale = Progress(ordinal=2, digest="ch1:0")

    outcome = replay_chain(ATTEMPT_ID, checkpoint(3, tail_count=1), stale)

    assert outcome.result is ReplayResult.REPLAYED


def test_a_link_that_contradicts_its_own_record_is_wrong_whatever_the_worker_said() -> None:
    step = run_steps(4, 4)[0]
    tip = checkpoint(3, tail=(replace(step, chain="ch1:0"),))

    outcome = replay_chain(ATTEMPT_ID, tip, progress(4))

    assert (outcome.result, outcome.expected_from) == (ReplayResult.DIVERGED, "run step")


def test_a_report_in_another_codec_is_not_compared() -> None:
    report = Progress(ordinal=4, digest=chain_at(4).replace("ch1:", "ch2:"))

    outcome = replay_chain(ATTEMPT_ID, checkpoint(3, tail_count=1), report)

    assert outcome.result is ReplayResult.REPLAYED
    assert outcome.expected_from == "run step"


def test_digests_of_different_codecs_never_verify_each_other() -> None:
    digest = payload_digest(b"state")
    other = digest.replace("cs1:", "cs2:")

    outcome = replace(replay_chain(ATTEMPT_ID, checkpoint(), None), digest=digest)

    assert not same_codec(digest, other)
    assert not replace(outcome, expected_digest=other).is_verified
    assert replace(outcome, expected_digest=digest).is_verified


def test_nothing_is_verified_without_an_expectation() -> None:
    outcome = replay_chain(ATTEMPT_ID, checkpoint(), None)

    assert not replace(outcome, expected_digest=None).is_verified


names = st.text(max_size=6)


@forall(names, names, st.integers(1, 30), names, names, st.integers(1, 30))
def test_links_of_different_steps_differ(
    name: str, output: str, ordinal: int, other_name: str, other_output: str, other_ordinal: int
) -> None:
    link = chain_next("ch1:0", ordinal=ordinal, name=name, output_digest=output)
    other = chain_next("ch1:0", ordinal=other_ordinal, name=other_name, output_digest=other_output)

    is_same = (name, output, ordinal) == (other_name, other_output, other_ordinal)
    assert (link == other) is is_same


@forall(names, names, names, names)
def test_origins_of_different_runs_differ(
    run_id: str, digest: str, other_id: str, other: str
) -> None:
    is_same = (run_id, digest) == (other_id, other)

    assert (chain_origin(run_id, digest) == chain_origin(other_id, other)) is is_same


@forall(st.lists(st.tuples(names, names), max_size=8), st.data())
def test_any_recorded_tail_verifies_wherever_the_checkpoint_was(
    outputs: list[tuple[str, str]], data: st.DataObject
) -> None:
    steps, chain = [], chain_origin(RUN_ID, "cs1:0")
    chains = [chain]
    for ordinal, (name, output) in enumerate(outputs, start=1):
        chain = chain_next(chain, ordinal=ordinal, name=name, output_digest=output)
        chains.append(chain)
        steps.append(
            RunStep(ordinal=ordinal, name=name, output_digest=output, chain=chain, epoch=1)
        )
    saved_at = data.draw(st.integers(0, len(steps)))
    reported_at = data.draw(st.integers(0, len(steps)))
    tip = replace(
        checkpoint(), ordinal=saved_at, chain=chains[saved_at], tail=tuple(steps[saved_at:])
    )

    outcome = replay_chain(
        ATTEMPT_ID, tip, Progress(ordinal=reported_at, digest=chains[reported_at])
    )

    assert outcome.result is ReplayResult.REPLAYED
    assert outcome.digest == chains[-1]
    assert outcome.is_verified
