"""Each setting of the server's catalogue that has few values, at each of its other values."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import psycopg
import pytest
from psycopg import Connection, errors, sql
from psycopg.conninfo import make_conninfo
from psycopg.rows import TupleRow

from recovery_journal.domain.errors import SettingRefused
from recovery_journal.postgres.session_settings import REQUIRED
from tests.log.test_session_settings import work_through
from tests.schemas import own_database, own_role

# `test_session_settings` tries those that are known to matter, in `.ci/run` too.
pytestmark = pytest.mark.nightly

PART_COUNT = 8
FEWEST_VALUES = 100
"""Of the settings of any version, so that an empty list is not taken for a good one."""

FOUND = """
SELECT name, value
FROM pg_settings
CROSS JOIN LATERAL unnest(coalesce(enumvals, ARRAY['on', 'off'])) AS value
WHERE vartype IN ('bool', 'enum') AND value <> setting AND context = ANY(%s)
ORDER BY name, value
"""


class Setting(NamedTuple):
    """A setting and one of the values that it does not have by default."""

    name: str
    value: str


def settings(dsn: str, *contexts: str) -> list[Setting]:
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(FOUND, [list(contexts)]).fetchall()
    return [Setting(*row) for row in rows]


@contextmanager
def superuser(dsn: str) -> Iterator[Connection[TupleRow]]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        yield connection


def try_set(dsn: str, kind: str, name: str, setting: Setting) -> bool:
    """Whether a role or a database can have it at all."""
    statement = sql.SQL("ALTER {} {} SET {} = {}").format(
        sql.SQL("ROLE" if kind == "role" else "DATABASE"),
        sql.Identifier(name),
        sql.Identifier(setting.name),
        sql.Literal(setting.value),
    )
    with superuser(dsn) as connection:
        try:
            connection.execute(statement)
        except (errors.CantChangeRuntimeParam, errors.ActiveSqlTransaction):
            return False
    return True


@pytest.mark.parametrize("part", range(PART_COUNT))
def test_no_setting_of_a_database_changes_what_is_written_and_read(
    server_dsn: str, part: int
) -> None:
    found = settings(server_dsn, "user", "superuser", "backend", "superuser-backend")
    assert len(found) >= FEWEST_VALUES
    broken = []

    for setting in found[part::PART_COUNT]:
        with own_database(server_dsn) as dsn:
            with superuser(dsn) as connection:
                database = connection.info.dbname
            if not try_set(dsn, "database", database, setting):
                continue
            try:
                work_through(dsn)
            except Exception as error:  # noqa: BLE001 - each of a part is tried, all are reported
                broken.append((setting, repr(error)))

    assert not broken


def test_a_setting_of_superusers_on_an_ordinary_role_works_or_is_refused_by_name(
    server_dsn: str,
) -> None:
    found = settings(server_dsn, "superuser")
    refused = set()

    for setting in found:
        with own_role(server_dsn) as role, own_database(server_dsn) as dsn:
            with superuser(dsn) as connection:
                connection.execute(
                    sql.SQL("GRANT CREATE ON DATABASE {} TO {}").format(
                        sql.Identifier(connection.info.dbname), sql.Identifier(role)
                    )
                )
            if not try_set(dsn, "role", role, setting):
                continue
            try:
                work_through(make_conninfo(dsn, user=role))
            except SettingRefused as error:
                assert f"found {setting.name} = {setting.value}" in str(error)  # noqa: PT017 - or it works
                refused.add(setting.name)

    assert refused == set(REQUIRED)
