"""Attempts that cannot be decided on are set aside, so that no other attempt waits for them.

Nothing is appended to such a stream: it may be of a newer program, or damaged. Its lease row stays
unchanged, except for the time of the next try. Tries back off, because a program that can read the
stream may be deployed meanwhile, or a blocking transaction may end.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Generic, TypeVar

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

AnswerT = TypeVar("AnswerT")


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


class Halving(Generic[AnswerT]):
    """Carries out an act for many attempts; where one of them is locked, for half as many at a
    time, down to the locked one, which is then skipped for now."""

    def __init__(
        self,
        act: Callable[[Sequence[str]], dict[str, AnswerT]],
        give_up: Callable[[str, StoreBusy], AnswerT],
    ) -> None:
        self._act = act
        self._give_up = give_up
        self._timeout_count = 0

    def halve(self, attempt_ids: Sequence[str], error: StoreBusy) -> dict[str, AnswerT]:
        """Repeat in halves after the act has failed for all of these. Raises the error where it is
        not a lock timeout, and after `TIMEOUT_LIMIT` timeouts: what was done by then stays done."""
        self._timeout_count += 1
        if not is_lock_timeout(error) or self._timeout_count > TIMEOUT_LIMIT:
            raise error
        if len(attempt_ids) == 1:
            return {attempt_ids[0]: self._give_up(attempt_ids[0], error)}
        middle = len(attempt_ids) // 2
        return self._try(attempt_ids[:middle]) | self._try(attempt_ids[middle:])

    def _try(self, attempt_ids: Sequence[str]) -> dict[str, AnswerT]:
        try:
            return self._act(attempt_ids)
        except StoreBusy as error:
            return self.halve(attempt_ids, error)


def _storable(reason: str) -> str:
    """The text without characters that no column can hold."""
    return reason.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()
