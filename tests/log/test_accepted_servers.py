"""Which server a journal lives on: asked of the server by any role, at every new connection."""

import uuid
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

import recovery_journal as rj
from recovery_journal.domain.errors import ServerReplaced
from recovery_journal.postgres.accepted_servers import Comparison, Server, compare
from recovery_journal.postgres.database import Database
from tests.rules.scenes import held

CUT = "SELECT pg_terminate_backend(%(pid)s)"
MOVE = b"UPDATE accepted_servers SET timeline = timeline + 1"


@pytest.fixture
def plain_role(server_dsn: str) -> Iterator[str]:
    """An ordinary role that may make schemas in this database."""
    role = f"plain_{uuid.uuid4().hex[:12]}"
    name = sql.Identifier(role)
    with psycopg.connect(server_dsn, autocommit=True) as connection:
        database = sql.Identifier(connection.info.dbname)
        connection.execute(sql.SQL("CREATE ROLE {}").format(name))
        connection.execute(sql.SQL("GRANT CREATE ON DATABASE {} TO {}").format(database, name))
        yield role
        connection.execute(sql.SQL("DROP OWNED BY {} CASCADE").format(name))
        connection.execute(sql.SQL("DROP ROLE {}").format(name))


def server(system_identifier: int, timeline: int | None) -> Server:
    return Server(system_identifier=system_identifier, timeline=timeline)


@pytest.mark.parametrize(
    ("found", "accepted", "is_accepted"),
    [
        (server(7, 1), server(7, 1), True),
        (server(7, 2), server(7, 1), False),
        (server(7, 1), server(7, 2), False),
        (server(8, 1), server(7, 1), False),
        (server(7, None), server(7, 1), True),
        (server(8, None), server(7, 1), False),
        (server(7, 1), None, False),
    ],
)
def test_a_server_is_the_accepted_one_by_identifier_and_timeline(
    found: Server, accepted: Server | None, *, is_accepted: bool
) -> None:
    assert Comparison(found=found, accepted=accepted).is_accepted is is_accepted


def test_where_a_journal_is_made_it_is_accepted(database: Database) -> None:
    with database.cursor() as cursor:
        comparison = compare(cursor)

    assert comparison.is_accepted
    assert comparison.found == comparison.accepted


def test_a_ordinary_role_may_use_and_accept_it(server_dsn: str, plain_role: str) -> None:
    dsn = make_conninfo(server_dsn, options=f"-c role={plain_role}")

    with rj.open(dsn, schema=plain_role) as journal:
        held(journal)
        report = journal.after_restore(by="clerk-4", reason="a copy", is_restored=True)
        kinds = [one.kind for one in journal.status().delays]

    assert report.fenced_count == 1
    assert kinds == []


def test_a_thread_that_connects_later_is_checked_too(server_dsn: str, schema: str) -> None:
    with rj.open(server_dsn, schema=schema) as journal:
        with journal.database.cursor() as cursor:
            cursor.execute(MOVE)
            pid = journal.database.connection().info.backend_pid
        with psycopg.connect(server_dsn, autocommit=True) as other:
            other.execute(CUT, {"pid": pid})
        with pytest.raises(rj.Retry):
            journal.now()

        for _ in range(2):
            with pytest.raises(ServerReplaced):
                journal.now()


def test_a_sweep_looks_also_without_a_reconnect(server_dsn: str, schema: str) -> None:
    """A pooler keeps the connection while the server behind it becomes another one."""
    with rj.open(server_dsn, schema=schema) as journal:
        journal.sweep()
        with journal.database.cursor() as cursor:
            cursor.execute(MOVE)

        with pytest.raises(ServerReplaced):
            journal.sweep()
