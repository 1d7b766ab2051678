"""Events as they are stored: what is written comes back, and nothing is left out."""

import msgspec
import pytest
from hypothesis import given as forall

from recovery_journal.domain.events import (
    AnyEvent,
    CheckpointReloaded,
    LeaseExpired,
    LeaseGranted,
    ReadyForDispatch,
    RecoveryEvent,
    Replayed,
    tag_of,
)
from recovery_journal.domain.pipeline import RecoveryStep
from tests.domain.any_event import EVERY_CLASS, events
from tests.domain.histories import granted, history

EVENT = msgspec.json.Decoder(AnyEvent)


@forall(events())
def test_an_event_comes_back_from_json_as_it_was(event: AnyEvent) -> None:
    encoded = msgspec.json.encode(event)

    assert EVENT.decode(encoded) == event
    assert msgspec.json.encode(EVENT.decode(encoded)) == encoded


@forall(events())
def test_json_says_every_field_and_the_tag(event: AnyEvent) -> None:
    written = msgspec.json.decode(msgspec.json.encode(event))

    assert written.pop("type") == tag_of(event)
    assert set(written) == set(event.__struct_fields__)


def test_tags_are_distinct_and_stored_for_ever() -> None:
    # A change here is a change of what logs already hold: give a new meaning a new tag instead.
    assert [tag_of(of) for of in EVERY_CLASS] == [
        "lease-granted",
        "lease-expired",
        "seized",
        "checkpoint-reloaded",
        "replayed",
        "ready-for-dispatch",
        "dispatched",
        "confirmed",
        "step-failed",
        "abandoned",
        "quarantined",
        "quarantine-lifted",
        "resumed",
        "stale-write-refused",
        "lease-ended",
    ]


def test_every_event_class_is_in_the_union() -> None:
    assert set(EVERY_CLASS) == set(RecoveryEvent.__subclasses__())


def test_the_four_steps_are_four_events() -> None:
    steps = {of: of.step for of in EVERY_CLASS if of.step is not None}

    assert steps == dict(
        zip(
            (LeaseExpired, CheckpointReloaded, Replayed, ReadyForDispatch),
            RecoveryStep.pipeline(),
            strict=True,
        )
    )


@pytest.mark.parametrize("of", EVERY_CLASS, ids=tag_of)
def test_an_event_is_frozen(of: type[RecoveryEvent]) -> None:
    assert of.__struct_config__.frozen
    assert not of.__struct_config__.omit_defaults


def test_an_event_of_an_older_program_is_read_with_the_defaults_of_its_new_fields() -> None:
    (event,) = history(granted())
    old = msgspec.json.decode(msgspec.json.encode(event))
    for name in ("tenant", "priority", "timeout_s", "reason", "trace_id"):
        del old[name]

    read = EVENT.decode(msgspec.json.encode(old))

    assert isinstance(read, LeaseGranted)
    assert (read.tenant, read.priority, read.timeout_s) == ("", 0, None)
    assert (read.reason, read.trace_id) == ("", None)


def test_an_unknown_tag_is_not_read_as_something_else() -> None:
    (event,) = history(granted())
    strange = msgspec.json.encode(event).replace(b"lease-granted", b"lease-inherited")

    with pytest.raises(msgspec.ValidationError, match="lease-inherited"):
        EVENT.decode(strange)
