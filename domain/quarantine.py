"""Quarantine: no machine continues the attempt until a person decides."""

from recovery_journal.domain.decisions import LIFT_OPTIONS
from recovery_journal.domain.events import (
    AnyEvent,
    QuarantineCause,
    Quarantined,
)
from recovery_journal.domain.recovery import Decision, Recovery


def quarantine(
    recovery: Recovery,
    decision: Decision,
    cause: QuarantineCause,
    explanation: str,
    *,
    ordinal: int | None = None,
    found_digest: str | None = None,
    expected_digest: str | None = None,
    message: str = "",
) -> tuple[AnyEvent, ...]:
    """Quarantine the attempt for this cause, with the options that a person then has."""
    event = recovery.event(
        Quarantined,
        decision,
        recovery_no=recovery.recovery_no,
        cause=cause,
        explanation=explanation,
        options=LIFT_OPTIONS[cause],
        ordinal=ordinal,
        found_digest=found_digest,
        expected_digest=expected_digest,
        kind=recovery.granted.kind,
        tenant=recovery.granted.tenant,
        message=message,
    )
    return (event,)
