"""A journal with an attempt in every stage, and what must be as it was after a refusal."""

from datetime import timedelta
from itertools import count
from typing import Any, Self

from psycopg.pq import TransactionStatus

import recovery_journal as rj
from tests.rules.scenes import held, make_ready, rows

TABLES = """
SELECT relname::text AS name
FROM pg_class
WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r'
ORDER BY relname
"""

DIGEST = """
SELECT '{name}' AS name, md5(coalesce(string_agg(it::text, '|' ORDER BY it::text), '')) AS digest
FROM {name} AS it
"""


class Scene:
    """One journal that many calls are made on, and what was last seen in its tables."""

    def __init__(self, journal: rj.Journal, dsn: str) -> None:
        self.journal = journal
        self.dsn = dsn
        self._numbers = count(1)
        self.held = held(journal, "held", kind="report", tenant="acme")
        make_ready(journal, "ready", kind="report")
        held(journal, "waiting").wait("for a person")
        held(journal, "ended").complete({"n": 1})
        rj.Follower(journal).catch_up(30)
        names = [row["name"] for row in rows(journal, TABLES)]
        parts = [DIGEST.format(name=name) for name in names]
        self._digests = " UNION ALL ".join(parts)
        self._seen = self.seen()

    def fresh(self, what: str) -> str:
        """An id that was never used."""
        return f"{what} {next(self._numbers)}"

    def lease(self) -> rj.Lease:
        """A lease of its own for one call."""
        return held(self.journal, self.fresh("attempt"), ttl=timedelta(seconds=60))

    def seen(self) -> dict[str, str]:
        """A digest of every table."""
        return {row["name"]: row["digest"] for row in rows(self.journal, self._digests)}

    def note(self) -> Self:
        """Take what is in the tables now as what must stay."""
        self._seen = self.seen()
        return self

    def assert_whole(self, *, is_changed: bool) -> None:
        """No transaction is open, the journal answers, and, unless the call had an answer,
        nothing in any table has changed."""
        connection = self.journal.database.connection()
        assert connection.info.transaction_status is TransactionStatus.IDLE
        if not is_changed:
            assert self.seen() == self._seen
        with self.journal.database.transaction() as cursor:
            cursor.execute("SELECT 1")


def assert_refusal(error: Any) -> None:
    """Of the project's own, and in four parts: cannot what, found, needed, what to do."""
    assert isinstance(error, rj.RecoveryJournalError), error
    message = str(error)
    assert message.startswith("cannot "), message
    for part in ("found", "needed", "; "):
        assert part in message, message
