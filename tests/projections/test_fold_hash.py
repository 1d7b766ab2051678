"""A fold that does something else has another hash, whatever it is that changed."""

import types
from collections.abc import Callable, Iterator
from enum import Enum
from itertools import pairwise
from random import Random
from typing import Any, Union, get_args, get_origin, get_type_hints

import pytest
from msgspec.structs import replace

from recovery_journal.domain.errors import FoldFailed
from recovery_journal.domain.events import (
    Abandoned,
    AnyEvent,
    LeaseExpired,
    QuarantineLifted,
    Replayed,
    Resumed,
    StepFailed,
    tag_of,
)
from recovery_journal.domain.recovery import Stage, project
from recovery_journal.projections.catalog import BUILT_IN
from recovery_journal.projections.corpus import corpus
from recovery_journal.projections.dispatch_ready import DispatchReady, DispatchReadyRow
from recovery_journal.projections.fold_hash import fold_hash
from recovery_journal.projections.projection import Fold, Projection, Record, StreamRow
from recovery_journal.projections.recovery_contexts import RECOVERY_CONTEXTS, RecoveryContexts
from recovery_journal.projections.workers import WORKERS, Workers
from tests.projections.logs import random_log

every_projection = pytest.mark.parametrize("projection", BUILT_IN, ids=lambda it: it.name)

Change = Callable[[Any, AnyEvent, Any], Any]
"""(row before, event, row after) → the row after, as another fold would have it."""


def changed(projection: Projection[Any], change: Change) -> Projection[Any]:
    """The projection with a fold whose rows are changed afterwards."""

    class Changed(type(projection)):  # type: ignore[misc]  # a class made for one test
        def fold(self, row: Any, record: Record) -> Any:
            after = super().fold(row, record)
            return after if after is row else change(row, record.event, after)

    return Changed()


def steps_of(projection: Projection[Any]) -> list[tuple[Any, AnyEvent, Any]]:
    """The effect of the fold on random logs: each row before, event, and row after."""
    steps: list[tuple[Any, AnyEvent, Any]] = []

    def note(before: Any, event: AnyEvent, after: Any) -> Any:
        steps.append((before, event, after))
        return after

    watching = changed(projection, note)
    for seed in range(40):
        Fold(watching, {}).add(random_log(Random(seed), act_count=120))
    return steps


def values_of(event: AnyEvent) -> Iterator[tuple[str, object]]:
    """The fields of an event on which folds branch: choices, flags, and what may be missing."""
    for name in event.__struct_fields__:
        value = getattr(event, name)
        if isinstance(value, Enum | bool):
            yield name, value
        elif may_be_missing(type(event), name):
            yield name, value is None


def may_be_missing(of: type[Any], name: str) -> bool:
    hint = get_type_hints(of)[name]
    return get_origin(hint) in (Union, types.UnionType) and type(None) in get_args(hint)


# -- what the hash says of a fold ----------------------------------------------------------------

# Rows in databases belong to these folds. Where a hash here is no longer right, a fold now
# does something else: raise the `version` of its projection, pin both again, and record in the
# changelog that `recovery-journal rebuild` with its name has to be run after the upgrade.
PINNED = {
    "dispatch_ready": (1, "fold1:5dea2a375142fcf3bfde147c0d0aa3f9a1de65952e742c50adda7864a40ad12b"),
    "moments": (1, "fold1:244b0408def4ee7955acac2a636b0131009b923665f7bc8a37d2a1bf84484dec"),
    "recovery_contexts": (
        1,
        "fold1:862fa631b8bdba53697d067f2111685013b874ccab04cb6352409106dea96251",
    ),
    "workers": (1, "fold1:fd734f8f1863149d255a2584cf3abb923120443096f12007fc7d0073fd0c6a65"),
}


def test_the_folds_of_the_built_in_projections_are_those_of_their_versions() -> None:
    found = {it.name: (it.version, fold_hash(it)) for it in BUILT_IN}

    assert found == PINNED, "a fold changed: see what to do above PINNED"


@every_projection
def test_to_leave_a_field_as_it_was_is_another_fold(projection: Projection[Any]) -> None:
    steps = steps_of(projection)
    fields = [it for it in projection.row_type.__struct_fields__ if it != projection.guard]
    done = {
        (type(event), field)
        for before, event, after in steps
        for field in fields
        if before is not None and same_key(projection, before, after)
        if getattr(before, field) != getattr(after, field)
    }
    unnoticed = [
        (of.__name__, field)
        for of, field in sorted(done, key=str)
        if fold_hash(changed(projection, keeping(projection, of, field))) == fold_hash(projection)
    ]

    assert len(done) >= len(projection.row_type.__struct_fields__) / 3
    assert unnoticed == []


def same_key(projection: Projection[Any], before: Any, after: Any) -> bool:
    return projection.primary_key(before) == projection.primary_key(after)


def keeping(projection: Projection[Any], of: type[Any], field: str) -> Change:
    def keep(before: Any, event: AnyEvent, after: Any) -> Any:
        if type(event) is not of or before is None or not same_key(projection, before, after):
            return after
        return replace(after, **{field: getattr(before, field)})

    return keep


@every_projection
def test_to_overlook_one_choice_of_an_event_is_another_fold(projection: Projection[Any]) -> None:
    done = {
        (type(event), *choice)
        for _, event, _ in steps_of(projection)
        for choice in values_of(event)
    }
    unnoticed = [
        (of.__name__, name, value)
        for of, name, value in sorted(done, key=str)
        if fold_hash(overlooking(projection, of, name, value)) == fold_hash(projection)
    ]

    assert len(done) >= 10
    assert unnoticed == []


def overlooking(
    projection: Projection[Any], of: type[Any], name: str, value: object
) -> Projection[Any]:
    class Overlooking(type(projection)):  # type: ignore[misc]  # a class made for one test
        def key(self, event: AnyEvent) -> str | None:
            is_it = type(event) is of and (name, value) in values_of(event)
            return None if is_it else super().key(event)

    return Overlooking()


class CountsWhatOthersRecord(Workers):
    def key(self, event: AnyEvent) -> str | None:
        return super().key(event) or event.recorded_by.name


class LeavesTwice(DispatchReady):
    def fold(self, row: DispatchReadyRow | None, record: Record) -> DispatchReadyRow | None:
        return super().fold(replace(row, left_position=None) if row else None, record)


class NeverLostOnlyWhenQuarantined(RecoveryContexts):
    def fold(self, row: Any, record: Record) -> Any:
        is_first = row is None and isinstance(record.event, Resumed)
        return row if is_first else super().fold(row, record)


class Renamed(RecoveryContexts):
    name = "recoveries"


class OtherKey(RecoveryContexts):
    key_fields = ("attempt_id", "run_id")


def contexts(change: Change) -> Projection[Any]:
    return changed(RECOVERY_CONTEXTS, change)


OTHER_FOLDS: dict[str, Projection[Any]] = {
    "has another name": Renamed(),
    "has another key": OtherKey(),
    "counts what others record": CountsWhatOthersRecord(),
    "an entry leaves twice": LeavesTwice(),
    "resumed without a loss has no row": NeverLostOnlyWhenQuarantined(),
    "an unfenced loss has no fence": contexts(
        lambda _, event, after: (
            replace(after, fence=event.fence) if isinstance(event, LeaseExpired) else after
        )
    ),
    "an abandoned recovery keeps its fence": contexts(
        lambda before, event, after: (
            replace(after, fence=before.fence) if isinstance(event, Abandoned) else after
        )
    ),
    "an abandoned attempt has ended, whatever the reason": contexts(
        lambda _, event, after: (
            replace(after, stage=Stage.ENDED) if isinstance(event, Abandoned) else after
        )
    ),
    "failures are not counted on": contexts(
        lambda _, event, after: (
            replace(after, failed_step_count=1) if isinstance(event, StepFailed) else after
        )
    ),
    "any expected digest verifies": contexts(
        lambda _, event, after: (
            replace(after, is_verified=event.expected_digest is not None)
            if isinstance(event, Replayed)
            else after
        )
    ),
    "what was ready before the lift stays so": contexts(
        lambda before, event, after: (
            replace(after, made_ready_at=before.made_ready_at)
            if isinstance(event, QuarantineLifted)
            else after
        )
    ),
    "every loss is fleet-wide": changed(
        WORKERS,
        lambda before, event, after: (
            replace(after, fleet_wide_count=(before.fleet_wide_count if before else 0) + 1)
            if isinstance(event, LeaseExpired)
            else after
        ),
    ),
}


@pytest.mark.parametrize("what", OTHER_FOLDS)
def test_another_fold_has_another_hash(what: str) -> None:
    originals = {fold_hash(projection) for projection in BUILT_IN}

    assert fold_hash(OTHER_FOLDS[what]) not in originals


def test_a_fold_that_is_written_differently_and_does_the_same_has_the_same_hash() -> None:
    same = changed(RECOVERY_CONTEXTS, lambda _before, _event, after: replace(after))

    assert fold_hash(same) == fold_hash(RECOVERY_CONTEXTS)


class WiderRow(StreamRow, frozen=True, kw_only=True):
    note: str | None = None


class NarrowerRow(StreamRow, frozen=True, kw_only=True):
    pass


class Touching(Projection[Any]):
    """Makes a row for every attempt, and raises at one kind of event."""

    name = "touching"
    key_fields = ("attempt_id",)

    def __init__(self, row_type: type[StreamRow], *, stumbles_at: type[Any] | None = None) -> None:
        self.row_type = row_type
        self._stumbles_at = stumbles_at

    def fold(self, _row: Any, record: Record) -> Any:
        event = record.event
        if type(event) is self._stumbles_at:
            raise LookupError(event.originator_id)
        return self.row_type(attempt_id=event.originator_id, version=event.originator_version)


def test_another_column_is_another_fold() -> None:
    assert fold_hash(Touching(WiderRow)) != fold_hash(Touching(NarrowerRow))


def test_a_fold_that_raises_has_a_hash_that_says_where() -> None:
    stumbling = [
        Touching(NarrowerRow),
        Touching(NarrowerRow, stumbles_at=Abandoned),
        Touching(NarrowerRow, stumbles_at=Resumed),
    ]
    with pytest.raises(FoldFailed):
        Fold(stumbling[1], {}).add(corpus())

    assert len({fold_hash(it) for it in stumbling}) == len(stumbling)


# -- the corpus ------------------------------------------------------------------------------------


def test_the_corpus_has_every_event() -> None:
    assert {tag_of(record.event) for record in corpus()} == {
        tag_of(event) for event in get_args(AnyEvent)
    }


@pytest.mark.parametrize("of", get_args(AnyEvent), ids=lambda of: of.__name__)
def test_every_choice_that_an_event_offers_is_in_the_corpus(of: type[Any]) -> None:
    events = [record.event for record in corpus() if type(record.event) is of]
    found = {choice for event in events for choice in values_of(event)}

    assert set(offered(of)) - found == set()


def offered(of: type[Any]) -> Iterator[tuple[str, object]]:
    for name, hint in get_type_hints(of).items():
        if name not in of.__struct_fields__:
            continue
        if may_be_missing(of, name):
            yield from ((name, is_missing) for is_missing in (True, False))
        elif isinstance(hint, type) and issubclass(hint, Enum):
            yield from ((name, member) for member in hint)
        elif hint is bool:
            yield from ((name, flag) for flag in (True, False))


def test_the_corpus_is_a_log_that_could_be() -> None:
    records = corpus()
    streams: dict[str, list[AnyEvent]] = {}
    for record in records:
        streams.setdefault(record.event.originator_id, []).append(record.event)

    assert [it.position for it in records] == sorted({it.position for it in records})
    for events in streams.values():
        assert [it.originator_version for it in events] == list(range(1, len(events) + 1))
        assert project(None, iter(events)) is not None


def test_positions_have_gaps_and_times_go_back_at_times() -> None:
    records = corpus()
    steps = {after.position - before.position for before, after in pairwise(records)}
    times = [record.recorded_at for record in records]

    assert 1 in steps
    assert max(steps) > 500
    assert times != sorted(times)
