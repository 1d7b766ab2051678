"""Limits that a role, a database or a shell sets do not end our sessions before ours hold."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from recovery_journal.domain.errors import ServerUnavailable
from recovery_journal.postgres.database import Database
from recovery_journal.postgres.session_settings import without_limits
from tests.schemas import own_database

SESSION_COUNT = 60
SHORTEST = "1ms"
LIMITS = ("statement_timeout", "idle_session_timeout", "transaction_timeout")


@pytest.fixture
def database_dsn(server_dsn: str) -> Iterator[str]:
    with own_database(server_dsn) as dsn:
        yield dsn


def limit(dsn: str, *names: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        database = conninfo_to_dict(dsn)["dbname"]
        for name in names:
            if name != "transaction_timeout" or connection.info.server_version >= 170_000:
                connection.execute(f"ALTER DATABASE {database} SET {name} = '{SHORTEST}'".encode())


def open_many(dsn: str) -> list[dict[str, str]]:
    """The limits of many sessions, opened side by side so that each start takes its time."""

    def limits_of_one(_number: int) -> dict[str, str]:
        database = Database(dsn, "recovery_journal")
        try:
            with database.open_connection().connection as connection:
                rows = connection.execute(
                    "SELECT name, setting FROM pg_settings WHERE name = ANY(%s)", [list(LIMITS)]
                ).fetchall()
                return {row["name"]: row["setting"] for row in rows}
        finally:
            database.close()

    with ThreadPoolExecutor(12) as threads:
        return list(threads.map(limits_of_one, range(SESSION_COUNT)))


@pytest.mark.parametrize("names", [(name,) for name in LIMITS] + [LIMITS])
def test_the_shortest_limits_of_others_do_not_end_a_session_of_ours(
    database_dsn: str, names: tuple[str, ...]
) -> None:
    limit(database_dsn, *names)

    for limits in open_many(database_dsn):
        assert limits.pop("statement_timeout") == "60000"
        assert set(limits.values()) == {"0"}


def test_the_options_of_a_dsn_still_hold_in_the_session_that_was_opened_again(
    database_dsn: str,
) -> None:
    limit(database_dsn, *LIMITS)
    dsn = make_conninfo(database_dsn, options="-c work_mem=123kB -c idle_session_timeout=1")
    database = Database(dsn, "recovery_journal")

    with database.cursor() as cursor:
        row = cursor.execute(
            "SELECT current_setting('work_mem') AS memory, "
            "current_setting('idle_session_timeout') AS idle"
        ).fetchone()

    database.close()
    assert row == {"memory": "123kB", "idle": "0"}


def test_the_shells_options_hold_where_the_dsn_has_none(
    database_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(database_dsn, *LIMITS)
    monkeypatch.setenv("PGOPTIONS", "-c work_mem=321kB")
    named = conninfo_to_dict(database_dsn)
    named.pop("options", None)
    database = Database(
        " ".join(f"{name}='{value}'" for name, value in named.items()), "recovery_journal"
    )

    with database.cursor() as cursor:
        row = cursor.execute("SELECT current_setting('work_mem') AS memory").fetchone()

    database.close()
    assert row == {"memory": "321kB"}


def test_a_limit_that_an_older_server_does_not_know_is_not_given_to_it() -> None:
    assert without_limits("-c a=1", 140_010) == (
        "-c a=1 -c statement_timeout=0 -c idle_session_timeout=0"
    )
    assert without_limits("", 170_000).endswith("-c transaction_timeout=0")


def test_a_server_that_is_gone_is_still_reported_as_gone() -> None:
    database = Database("postgresql://x@127.0.0.1:9/x", "recovery_journal")

    with pytest.raises(ServerUnavailable):
        database.connection()
