"""Raises the sequences, so that epochs and positions that a discarded timeline may have used are
never used again."""

from typing import Final

from msgspec import Struct
from psycopg import Cursor
from psycopg.rows import DictRow

from recovery_journal.postgres.database import one

RATE: Final = 1_000_000
"""More epochs or positions than the journal can give out in a second."""
SHORTEST_S: Final = 1_000
"""The least to skip, as if so many seconds were lost, whatever the clocks say."""

# One restore at a time moves the sequences, and only forward. Appends continue meanwhile: the
# positions that they draw until then are below those drawn afterwards, because they are fewer than
# the least that is skipped.
LOCK: Final = "LOCK TABLE skipped_numbers IN SHARE ROW EXCLUSIVE MODE"

# The age of the last event: the longest time that the discarded timeline may have lasted.
LOST_S: Final = """
SELECT extract(epoch FROM clock_timestamp() - coalesce(
        (SELECT recorded_at FROM journal_events ORDER BY notification_id DESC LIMIT 1),
        (SELECT made_at FROM journal_schema)
    ))::float8 AS lost_s
"""

LAST: Final = """
SELECT greatest(
        pg_sequence_last_value('epochs'),
        (SELECT max(epoch) FROM leases)
    ) AS epoch,
    greatest(
        (SELECT max(notification_id) FROM journal_events),
        (SELECT max(skipped_to_position) FROM skipped_numbers)
    ) AS position,
    pg_sequence_last_value('journal_events_notification_id_seq') AS drawn_position
"""

RAISE: Final = """
SELECT setval('epochs', %(epoch)s),
    setval('journal_events_notification_id_seq', %(position)s)
"""

RECORD: Final = """
INSERT INTO skipped_numbers (last_position, skipped_to_position, last_epoch, skipped_to_epoch)
VALUES (%(last_position)s, %(position)s, %(last_epoch)s, %(epoch)s)
"""

# A transaction that was open at the restore had drawn its positions before, and may have committed
# since: the skipped range begins behind the last event below its end.
SKIPPED: Final = """
SELECT skipped_no,
    coalesce(
        (
            SELECT max(notification_id)
            FROM journal_events
            WHERE notification_id > last_position
                AND notification_id <= skipped_to_position
        ),
        last_position
    ) AS last_position,
    skipped_to_position
FROM skipped_numbers
"""

POSITIONS: Final = f"{SKIPPED} ORDER BY skipped_no"


class Skipped(Struct, frozen=True, kw_only=True):
    """Numbers that are never used: all above `last`, up to and including `skipped_to`."""

    last: int
    skipped_to: int


class Raised(Struct, frozen=True, kw_only=True):
    """The numbers skipped of each sequence."""

    epochs: Skipped
    positions: Skipped


def raise_numbers(cursor: Cursor[DictRow]) -> Raised:
    """Raise both sequences above everything that was found, by a million numbers for each second
    since the last event, but never by less than 1,000 seconds' worth.

    The sequences move at once, whether or not the transaction commits: a repetition does no harm.
    The call waits for no open transaction that has appended.
    """
    cursor.execute(LOCK)
    lost = one(cursor.execute(LOST_S))
    last = one(cursor.execute(LAST))
    margin = RATE * int(max(lost["lost_s"], SHORTEST_S))
    epoch, position = last["epoch"] or 0, last["position"] or 0
    raised = Raised(
        epochs=Skipped(last=epoch, skipped_to=epoch + margin),
        positions=Skipped(
            last=position, skipped_to=max(position, last["drawn_position"] or 0) + margin
        ),
    )
    values = {
        "last_epoch": epoch,
        "epoch": raised.epochs.skipped_to,
        "last_position": position,
        "position": raised.positions.skipped_to,
    }
    cursor.execute(RAISE, values)
    cursor.execute(RECORD, values)
    return raised


def skipped_positions(cursor: Cursor[DictRow]) -> tuple[Skipped, ...]:
    """The positions that no event of this log has, one range for each restore. Until the
    transactions that were open then have ended, a range may still begin later."""
    rows = cursor.execute(POSITIONS).fetchall()
    return tuple(
        Skipped(last=row["last_position"], skipped_to=row["skipped_to_position"]) for row in rows
    )
