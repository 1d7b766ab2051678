"""The texts of failures, kept beside the log until they are pruned."""

from collections.abc import Mapping, Sequence
from typing import Final

from msgspec.structs import replace
from psycopg import Cursor
from psycopg.rows import DictRow

from recovery_journal.domain.error_texts import WITH_TEXT, ErrorTexts, withheld
from recovery_journal.postgres.arrays import array
from recovery_journal.store.move import Move

KEEP: Final = """
INSERT INTO error_texts (attempt_id, version, run_id, text)
SELECT *
FROM unnest(
    %(attempt_ids)s::text[], %(versions)s::bigint[], %(run_ids)s::text[], %(texts)s::text[]
)
"""

FIND: Final = """
SELECT attempt_id, version, text
FROM error_texts
WHERE attempt_id = ANY(%(attempt_ids)s)
"""

Texts = Mapping[tuple[str, int], str]
"""By attempt and version of the event."""


class FailureTexts:
    """Takes the texts out of events before they are appended, and keeps them where the operator
    wants that (`Limits.error_texts`)."""

    def __init__(self, place: ErrorTexts) -> None:
        self._place = place

    def withhold(self, moves: Sequence[Move]) -> tuple[list[Move], dict[tuple[str, int], str]]:
        """Return the moves as the log keeps them, and the texts that the log must not keep."""
        if self._place is ErrorTexts.LOG:
            return list(moves), {}
        texts: dict[tuple[str, int], str] = {}
        kept = []
        for move in moves:
            if move.kinds.isdisjoint(WITH_TEXT):
                kept.append(move)
                continue
            events = []
            for event in move.events:
                without, text = withheld(event)
                events.append(without)
                if text:
                    texts[event.originator_id, event.originator_version] = text
            kept.append(replace(move, events=tuple(events)))
        return kept, texts

    def keep(self, cursor: Cursor[DictRow], moves: Sequence[Move], texts: Texts) -> None:
        """Keep the texts of these moves, in the transaction that appends their events."""
        rows = [
            (event.originator_id, event.originator_version, event.run_id, text)
            for move in moves
            for event in move.events
            if (text := texts.get((event.originator_id, event.originator_version)))
        ]
        if rows:
            names = ("attempt_ids", "versions", "run_ids", "texts")
            columns = zip(names, zip(*rows, strict=True), strict=True)
            cursor.execute(KEEP, {name: array(column) for name, column in columns})


def find_texts(cursor: Cursor[DictRow], attempt_ids: Sequence[str]) -> Texts:
    """The texts of these attempts' failures, as far as they still exist."""
    rows = cursor.execute(FIND, {"attempt_ids": list(attempt_ids)}).fetchall()
    return {(row["attempt_id"], row["version"]): row["text"] for row in rows}
