"""The settings that only the server or the database may set, and on which the journal's promises
rest."""

from typing import Final

from psycopg import Connection, Cursor
from psycopg.rows import DictRow

from recovery_journal.domain.errors import SettingRefused

ENCODING: Final = "UTF8"

# On a server that forgets what it has written, the journal can keep no promise.
WEAKENED: Final = """
SELECT name
FROM unnest(ARRAY['fsync', 'full_page_writes']) AS needed(name)
WHERE current_setting(name) <> 'on'
"""


class DurabilityWeakened(UserWarning):
    """The server may lose or damage what it has acknowledged."""


def require_unicode(connection: Connection[DictRow]) -> None:
    """Raise `SettingRefused` where the database cannot store every text: ids, reasons and names
    are any Unicode."""
    found = connection.info.parameter_status("server_encoding") or _asked(connection)
    if found != ENCODING:
        do = f"CREATE DATABASE ... ENCODING '{ENCODING}' TEMPLATE template0, and use that one"
        raise SettingRefused("server_encoding", found=found, needed=ENCODING, do=do)


def _asked(connection: Connection[DictRow]) -> str:
    """Queried, because a pooler need not pass on what the server reports at the start."""
    row = connection.execute("SHOW server_encoding").fetchone()
    assert row is not None
    encoding: str = row["server_encoding"]
    return encoding


def weakened(cursor: Cursor[DictRow]) -> list[str]:
    """The settings by which the server may lose or damage what it has acknowledged."""
    return [row["name"] for row in cursor.execute(WEAKENED).fetchall()]


def words_of(name: str) -> str:
    """The meaning of such a setting."""
    return (
        f"{name} is off: a crash of the server's machine may lose what was acknowledged, "
        "and damage the log"
    )
