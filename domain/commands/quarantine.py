"""The commands that quarantine: no machine continues the attempt until a person decides."""

from recovery_journal.domain.decisions import LIFT_OPTIONS
from recovery_journal.domain.events import AnyEvent, QuarantineCause, Quarantined
from recovery_journal.domain.policy import Policy
from recovery_journal.domain.recovery import Decision, Recovery, Stage


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
    return recovery.emit(
        Quarantined,
        decision,
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


def quarantine_diverged(
    recovery: Recovery, decision: Decision, *, explanation: str, found: str, expected: str
) -> tuple[AnyEvent, ...]:
    """Quarantine: a claimer found another digest than the recovery did, before any user code
    ran."""
    done = recovery.quarantined if recovery.stage is Stage.QUARANTINED else None
    if done and (done.found_digest, done.expected_digest) == (found, expected):
        return ()
    recovery.require("quarantine the claimed attempt", Stage.HELD)
    return quarantine(
        recovery,
        decision,
        QuarantineCause.DIVERGED,
        explanation,
        found_digest=found,
        expected_digest=expected,
    )


def quarantine_missing_version(
    recovery: Recovery, decision: Decision, policy: Policy
) -> tuple[AnyEvent, ...]:
    """Quarantine: workers of other code versions claimed during the whole wait, and none of this
    one."""
    done = recovery.quarantined if recovery.stage is Stage.QUARANTINED else None
    if done and done.cause is QuarantineCause.CODE_CHANGED:
        return ()
    recovery.require("give up waiting for its code version", Stage.READY)
    explanation = (
        f"it needs code version {recovery.code_version!r}: for {policy.version_wait_s:g} s only "
        f"workers of other versions have asked for runs of kind {recovery.granted.kind!r}"
    )
    return quarantine(recovery, decision, QuarantineCause.CODE_CHANGED, explanation)
