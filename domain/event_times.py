"""The times that events hold: each must be one from which others can be computed."""

from collections.abc import Callable
from datetime import datetime
from operator import attrgetter
from typing import Any, Final, TypeAlias

from recovery_journal.domain.bounds import is_computable
from recovery_journal.domain.events import (
    Abandoned,
    AnyEvent,
    LeaseExpired,
    ReadyForDispatch,
    StepFailed,
)
from recovery_journal.domain.lease import LeaseView

Times: TypeAlias = tuple[datetime | None, ...]

times_of_lease: Final[Callable[[LeaseView], tuple[datetime, ...]]] = attrgetter(
    "granted_at", "renewed_at", "expires_at", "seen_at"
)
"""The time fields of a lease that serves as evidence."""


def _of_loss(event: LeaseExpired) -> Times:
    session = event.session
    evidence = () if session is None else (session.held_at, session.gone_at)
    return (*times_of_lease(event.lease), *evidence)


def _of_abandoned(event: Abandoned) -> Times:
    return () if event.lease is None else times_of_lease(event.lease)


TIMES_OF: Final[dict[type[AnyEvent], Callable[[Any], Times]]] = {
    LeaseExpired: _of_loss,
    Abandoned: _of_abandoned,
    ReadyForDispatch: attrgetter("ready_at", "not_before"),
    StepFailed: attrgetter("retry_at", "waits_since"),
}
"""Every event class with times, and its time fields."""


def time_out_of_bounds(event: AnyEvent) -> datetime | None:
    """A time of the event from which others cannot be computed; None where there is none."""
    times_of = TIMES_OF.get(type(event))
    if times_of is None:
        return None
    for moment in times_of(event):
        if moment is not None and not is_computable(moment):
            return moment
    return None
