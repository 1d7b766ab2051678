"""The server that the journal was accepted on: another one may have lost the end of the log.

A server is identified by its system identifier, which initdb draws, and its timeline, which every
promotion and every restore to a point in time changes. The schema stores both, so a dump, a backup
and a standby carry the identity of their origin.
"""

from collections.abc import Sequence
from typing import Final

import msgspec.structs
from msgspec import Struct
from psycopg import Connection, Cursor
from psycopg.rows import DictRow

from recovery_journal.domain.errors import ServerReplaced

# By the log's name and not by pg_control_checkpoint(), which shows a promoted server's new timeline
# only after its next checkpoint. A standby has no timeline of its own.
COMPARE: Final = """
SELECT found.system_identifier,
    CASE
        WHEN NOT pg_is_in_recovery()
        THEN ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::integer
    END AS timeline,
    accepted.system_identifier AS accepted_system_identifier,
    accepted.timeline AS accepted_timeline
FROM pg_control_system() AS found
LEFT JOIN (
    SELECT system_identifier, timeline
    FROM accepted_servers
    ORDER BY acceptance_no DESC
    LIMIT 1
) AS accepted ON true
"""

ACCEPT: Final = """
INSERT INTO accepted_servers (
    system_identifier, timeline, accepted_by, reason, fenced_count, differences
)
VALUES (
    %(system_identifier)s, %(timeline)s, %(by)s, %(reason)s, %(fenced_count)s,
    %(differences)s::jsonb
)
"""


class Server(Struct, frozen=True, kw_only=True):
    """One server, as PostgreSQL identifies it. A standby has no timeline."""

    system_identifier: int
    timeline: int | None

    def __str__(self) -> str:
        timeline = "as a standby" if self.timeline is None else f"timeline {self.timeline}"
        return f"system identifier {self.system_identifier}, {timeline}"


class Comparison(Struct, frozen=True, kw_only=True):
    """The present server, and the one that the journal was accepted on last."""

    found: Server
    accepted: Server | None

    @property
    def is_accepted(self) -> bool:
        """Whether both are the same; a standby follows one timeline after the other."""
        if self.accepted is None:
            return False
        if self.found.timeline is None:
            return self.found.system_identifier == self.accepted.system_identifier
        return self.found == self.accepted

    def require(self, schema: str) -> None:
        """Raise `ServerReplaced` unless both are the same."""
        if not self.is_accepted:
            accepted = "none yet" if self.accepted is None else str(self.accepted)
            raise ServerReplaced(schema, found=str(self.found), needed=accepted)


def compare(cursor: Cursor[DictRow] | Connection[DictRow]) -> Comparison:
    """The server behind this cursor, and the accepted one."""
    row = cursor.execute(COMPARE).fetchone()
    assert row is not None
    accepted = None
    if row["accepted_system_identifier"] is not None:
        accepted = Server(
            system_identifier=row["accepted_system_identifier"], timeline=row["accepted_timeline"]
        )
    found = Server(system_identifier=row["system_identifier"], timeline=row["timeline"])
    return Comparison(found=found, accepted=accepted)


def accept(
    cursor: Cursor[DictRow],
    server: Server,
    *,
    by: str,
    reason: str,
    fenced_count: int = 0,
    differences: Sequence[Struct] = (),
) -> None:
    """Accept a server, by this person's decision."""
    values = {
        **msgspec.structs.asdict(server),
        "by": by,
        "reason": reason,
        "fenced_count": fenced_count,
        "differences": msgspec.json.encode(differences).decode(),
    }
    cursor.execute(ACCEPT, values)
