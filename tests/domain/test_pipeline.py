"""The public names that this project took over, and what they mean."""

import copy

import msgspec
import pytest

from recovery_journal.domain.errors import WrongStage
from recovery_journal.domain.lease import Progress
from recovery_journal.domain.pipeline import CrashRecoveryPipeline, RecoveryContext, RecoveryStep
from tests.domain.histories import given, granted

THE_FOUR = ("LEASE_EXPIRED", "CHECKPOINT_RELOAD", "REPLAY", "READY_FOR_DISPATCH")


def test_the_pipeline_is_the_four_steps_in_order() -> None:
    assert tuple(step.name for step in RecoveryStep.pipeline()) == THE_FOUR
    assert tuple(RecoveryStep) == RecoveryStep.pipeline()


def test_the_steps_can_be_asked_of_the_class_and_of_a_pipeline() -> None:
    pipeline = CrashRecoveryPipeline("a-1", "r-1")

    assert CrashRecoveryPipeline.steps() == pipeline.steps() == RecoveryStep.pipeline()


def test_a_pipeline_gives_the_replay_context_of_its_ids() -> None:
    context = CrashRecoveryPipeline("a-1", "r-1").replay_context()

    assert context == RecoveryContext("a-1", "r-1")
    assert (context.attempt_id, context.run_id) == ("a-1", "r-1")


def test_a_context_before_any_checkpoint_has_an_empty_range() -> None:
    context = RecoveryContext("a-1", "r-1")

    assert context.checkpoint is None
    assert context.to_ordinal == context.from_ordinal - 1


def test_contexts_compare_by_value() -> None:
    context = RecoveryContext("a-1", "r-1", expected=Progress(ordinal=1, digest="ch1:1"))

    assert context == RecoveryContext("a-1", "r-1", expected=Progress(ordinal=1, digest="ch1:1"))
    assert hash(context) == hash(copy.copy(context))
    assert context != RecoveryContext("a-2", "r-1")
    assert context != RecoveryContext("a-1", "r-2")


def test_a_context_can_be_copied_and_changed_in_the_copy() -> None:
    context = RecoveryContext("a-1", "r-1")

    changed = msgspec.structs.replace(context, to_ordinal=9)

    assert copy.copy(context) == copy.deepcopy(context) == context
    assert changed == RecoveryContext("a-1", "r-1", to_ordinal=9)
    assert context.to_ordinal == 0


def test_a_context_and_a_pipeline_are_immutable() -> None:
    for name in RecoveryContext.__struct_fields__:
        with pytest.raises(AttributeError):
            setattr(RecoveryContext("a-1", "r-1"), name, None)
    for name in CrashRecoveryPipeline.__struct_fields__:
        with pytest.raises(AttributeError):
            setattr(CrashRecoveryPipeline("a-1", "r-1"), name, "a-2")


def test_an_attempt_has_no_context_before_its_checkpoint_is_reloaded() -> None:
    recovery = given(granted())

    with pytest.raises(WrongStage, match=r"found stage held, needed reloaded"):
        recovery.context()
