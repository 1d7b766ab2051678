"""Attempts that cannot be decided on are set aside, so that no other attempt waits for them.

Nothing is appended to such a stream: it may be of a newer program, or damaged. Its lease row stays
unchanged, except for the time of the next try. Tries back off, because a program that can read the
stream may be deployed meanwhile, or a blocking transaction may end.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from psycopg import Cursor
from psycopg.rows import DictRow

from recovery_journal.domain.errors import RecoveryJournalError, StoreBusy, StreamUnusable
from recovery_journal.domain.policy import Policy
from recovery_journal.log.open_writers import BRIEF, is_lock_timeout
from recovery_journal.postgres.arrays import array

TIMEOUT_LIMIT: Final = 40
"""After this many lock timeouts in one call, the rest of the batch waits for the next call."""

BE_BRIEF: Final = f"SET LOCAL lock_timeout = '{BRIEF}'"
"""The longest time that a batch of attempts waits for the lock of one."""

SET_ASIDE: Final = """
WITH noted AS (
    INSERT INTO set_aside (attempt_id, position, reason)
    SELECT *
    FROM unnest(%(attempt_ids)s::text[], %(positions)s::bigint[], %(reasons)s::text[])
    ON CONFLICT (attempt_id) DO UPDATE
    SET position = excluded.position,
        reason = excluded.reason,
        try_count = least(set_aside.try_count + 1, 1000000)
    RETURNING attempt_id, try_count
)
UPDATE leases
SET retry_at = clock_timestamp() + make_interval(
        secs => least(%(backoff_s)s * 2.0 ^ least(try_count - 1, 30), %(backoff_limit_s)s)
    )
FROM noted
WHERE leases.attempt_id = noted.attempt_id
"""

TAKE_BACK: Final = "DELETE FROM set_aside WHERE attempt_id = ANY(%(attempt_ids)s::text[])"


def set_aside(
    cursor: Cursor[DictRow], problems: Mapping[str, RecoveryJournalError], policy: Policy
) -> None:
    """Leave these attempts alone until their next try, and record why."""
    if not problems:
        return
    positions = [
        problem.position if isinstance(problem, StreamUnusable) else None
        for problem in problems.values()
    ]
    noted = {
        "attempt_ids": array(list(problems)),
        "positions": positions,
        "reasons": [_storable(str(problem)) for problem in problems.values()],
        "backoff_s": policy.backoff_s,
        "backoff_limit_s": policy.backoff_limit_s,
    }
    cursor.execute(SET_ASIDE, noted)


def take_back(cursor: Cursor[DictRow], attempt_ids: Sequence[str]) -> None:
    """These can be decided on again."""
    if attempt_ids:
        cursor.execute(TAKE_BACK, {"attempt_ids": array(list(attempt_ids))})


class Halving:
    """The parts of a batch, for a loop that does one after the other; where one attempt of a part
    is locked, the part is done in halves, down to the locked attempt, which is left out.

    The first part may be None, for whatever a statement finds.
    """

    def __init__(self, attempt_ids: Sequence[str] | None) -> None:
        self._parts: list[Sequence[str] | None] = [attempt_ids]
        self._timeout_count = 0

    def __iter__(self) -> Iterator[Sequence[str] | None]:
        while self._parts:
            yield self._parts.pop()

    def halve(self, attempt_ids: Sequence[str], error: StoreBusy) -> str | None:
        """After a part has failed, of which these were locked: do its halves next. Return the
        attempt that is left out. Raises the error where it is not a lock timeout, or came before
        any attempt was locked, and after `TIMEOUT_LIMIT` timeouts: what was done by then stays
        done."""
        self._timeout_count += 1
        if not attempt_ids or not is_lock_timeout(error) or self._timeout_count > TIMEOUT_LIMIT:
            raise error
        if len(attempt_ids) == 1:
            return attempt_ids[0]
        middle = len(attempt_ids) // 2
        self._parts += [attempt_ids[middle:], attempt_ids[:middle]]
        return None


def _storable(reason: str) -> str:
    """The text without characters that no column can hold."""
    return reason.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()
