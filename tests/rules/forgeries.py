"""Events that a role with INSERT on the log, or a faulty program, can append to a stream."""

from collections.abc import Callable
from typing import Any, Final

import msgspec

from recovery_journal.domain.bounds import EARLIEST, LARGEST_NUMBER, LATEST, SMALLEST_NUMBER
from recovery_journal.domain.pipeline import RecoveryStep
from recovery_journal.domain.ranges import YEAR_S
from recovery_journal.journal import Journal
from tests.rules.scenes import rows

APPEND: Final = """
INSERT INTO journal_events (originator_id, originator_version, topic, state)
VALUES (%(stream)s, %(version)s, %(topic)s, %(state)s)
RETURNING notification_id AS position
"""

LAST: Final = """
SELECT coalesce(max(originator_version), 0) AS version
FROM journal_events
WHERE originator_id = %(stream)s
"""

ACTOR: Final = {"role": "worker", "host": "h", "pid": 1, "program": "forger", "name": "w-9"}
LIFE: Final = {"host": "h", "boot_id": "b", "pid": 1, "started": "1"}
HOLDER: Final = {"worker_id": "w-9", "incarnation": LIFE}
HUGE: Final = {"epoch": LARGEST_NUMBER, "lease_id": "forged"}
DEEP: Final = b'{"a":' * 100_000 + b"1" + b"}" * 100_000

Forge = Callable[[Journal, str], tuple[str, bytes]]
"""The tag and the state of an event for an attempt's stream."""


def next_version(journal: Journal, stream: str) -> int:
    """The version that an appended event would have."""
    return int(rows(journal, LAST, {"stream": stream})[0]["version"]) + 1


def put(journal: Journal, stream: str, topic: str, state: bytes) -> int:
    """Append such an event; its position."""
    version = next_version(journal, stream)
    event = {"stream": stream, "version": version, "topic": topic, "state": state}
    return int(rows(journal, APPEND, event)[0]["position"])


def forge(journal: Journal, stream: str, kind: str) -> int:
    """Append the forgery of this kind; its position."""
    return put(journal, stream, *KINDS[kind](journal, stream))


def fence_of(journal: Journal, stream: str) -> dict[str, Any]:
    """The fence that the attempt's lease row shows: every reader of the log knows it too."""
    found = rows(
        journal, "SELECT epoch, lease_id FROM leases WHERE attempt_id = %(id)s", {"id": stream}
    )
    return dict(found[0]) if found else {"epoch": 1, "lease_id": "guessed"}


def event(tag: str, **fields: Any) -> Forge:
    """A readable event; the value "own fence" is the attempt's newest."""

    def made(journal: Journal, stream: str) -> tuple[str, bytes]:
        own = {
            name: fence_of(journal, stream) if value == "own fence" else value
            for name, value in fields.items()
        }
        header = {
            "type": tag,
            "originator_id": stream,
            "originator_version": next_version(journal, stream),
            "event_id": "forged",
            "run_id": f"run of {stream}",
            "recorded_by": ACTOR,
        }
        return tag, msgspec.json.encode({**header, **own})

    return made


def raw(tag: str, state: bytes) -> Forge:
    """Bytes, whatever they are."""
    return lambda _journal, _stream: (tag, state)


def _twisted(old: bytes, new: bytes) -> Forge:
    def made(journal: Journal, stream: str) -> tuple[str, bytes]:
        tag, state = CONFIRMED(journal, stream)
        assert old in state, (old, state)
        return tag, state.replace(old, new, 1)

    return made


CONFIRMED: Final = event("confirmed", fence="own fence", write="run_step", ordinal=1)
ENDED: Final = event("lease-ended", fence="own fence", ending="completed", result_digest="x")

LEGIBLE: Final[dict[str, Forge]] = {
    "seized with the largest epoch": event(
        "seized", recovery_no=1, why="retry_due", fence=HUGE, from_fence="own fence"
    ),
    "seized with the smallest epoch": event(
        "seized",
        recovery_no=SMALLEST_NUMBER,
        why="foreign",
        fence={"epoch": SMALLEST_NUMBER, "lease_id": "forged"},
        from_fence="own fence",
    ),
    "completed": ENDED,
    "cancelled": event("lease-ended", fence="own fence", ending="cancelled"),
    "confirmed": CONFIRMED,
    "quarantine lifted": event("quarantine-lifted", recovery_no=1, option="retry", fence=HUGE),
    "quarantined": event(
        "quarantined", recovery_no=1, cause="corrupt", explanation="", options=["retry"]
    ),
    "dispatched to a stranger": event(
        "dispatched", recovery_no=1, holder=HOLDER, fence=HUGE, ttl_s=YEAR_S, dispatch_id="forged"
    ),
    "a recovery number of 64 bits": event(
        "step-failed",
        recovery_no=LARGEST_NUMBER,
        failed_step=RecoveryStep.REPLAY,
        error_class="E",
        message="",
        try_count=LARGEST_NUMBER,
        retry_at=LATEST,
    ),
    "a second grant": event(
        "lease-granted",
        holder=HOLDER,
        fence=HUGE,
        ttl_s=0.0,
        kind="run",
        code_version="",
        attempt_no=LARGEST_NUMBER,
        input_digest="",
    ),
    "ready with the largest priority": event(
        "ready-for-dispatch",
        recovery_no=1,
        start="tip",
        attempt_no=1,
        kind="run",
        priority=LARGEST_NUMBER,
        ready_at=EARLIEST,
    ),
    "an event of another run": _twisted(b'"run_id":"run of', b'"run_id":"ruin of'),
}

BEFORE_YEAR_1: Final = "0001-01-01T00:00:00+14:00"
AFTER_YEAR_9999: Final = "9999-12-31T23:59:59-14:00"


def ready(**fields: Any) -> Forge:
    """An event that the dispatch-ready list takes in."""
    start = {"recovery_no": 1, "start": "tip", "attempt_no": 1, "kind": "run", "priority": 1}
    return event("ready-for-dispatch", **{**start, "ready_at": EARLIEST, **fields})


def lost(**fields: Any) -> Forge:
    """A loss that the recovery contexts take in, of a lease with these fields."""

    def made(journal: Journal, stream: str) -> tuple[str, bytes]:
        lease = {
            "attempt_id": stream,
            "run_id": f"run of {stream}",
            "kind": "run",
            "holder": HOLDER,
            "fence": fence_of(journal, stream),
            **dict.fromkeys(("granted_at", "renewed_at", "expires_at", "seen_at"), EARLIEST),
            "ttl_s": 1.0,
            "grace_s": 1.0,
            **fields,
        }
        forge = event("lease-expired", lease=lease, loss="ttl", recovery_no=1, fence=HUGE)
        return forge(journal, stream)

    return made


TIMELESS: Final[dict[str, Forge]] = {
    "ready before year 1": ready(ready_at=BEFORE_YEAR_1),
    "not ready before year 10000": ready(not_before=AFTER_YEAR_9999),
    "lost before year 1": lost(expires_at=BEFORE_YEAR_1),
    "lost after year 9999": lost(expires_at=AFTER_YEAR_9999),
    "granted before year 1": lost(granted_at=BEFORE_YEAR_1),
    "a TTL that is longer than time": lost(ttl_s=1e308),
    "a negative grace": lost(grace_s=-1.0),
}

ILLEGIBLE: Final[dict[str, Forge]] = {
    "nothing": raw("confirmed", b""),
    "no JSON": raw("confirmed", b"no JSON"),
    "half an event": raw("confirmed", b'{"type": "con'),
    "JSON of another shape": raw("confirmed", b'["confirmed"]'),
    "null": raw("confirmed", b"null"),
    "not UTF-8": raw("confirmed", b'{"type": "\xff\xfe"}'),
    "NaN": _twisted(b'"ordinal":1', b'"ordinal":NaN'),
    "infinity": _twisted(b'"ordinal":1', b'"ordinal":1e999'),
    "a number of 65 bits": _twisted(b'"ordinal":1', b'"ordinal":18446744073709551616'),
    "text for a number": _twisted(b'"ordinal":1', b'"ordinal":"one"'),
    "a missing field": _twisted(b',"ordinal":1', b""),
    "a field twice, of two types": _twisted(b'"ordinal":1', b'"ordinal":1,"ordinal":"1"'),
    "deep nesting": raw("confirmed", DEEP),
    "two events in one": _twisted(b"}", b"},{}"),
    "another tag than the topic": raw("dispatched", b'{"type":"confirmed"}'),
    "another stream": _twisted(b'"originator_id":"', b'"originator_id":"not '),
    "an unknown tag": raw("lease-teleported", b'{"type":"lease-teleported"}'),
    "a tag of the journal's own stream": raw("event-skipped", b'{"type":"event-skipped"}'),
    "a mebibyte": raw("confirmed", b'"' + b"x" * (2**20 - 100) + b'"'),
    **TIMELESS,
}

KINDS: Final = {**LEGIBLE, **ILLEGIBLE}
