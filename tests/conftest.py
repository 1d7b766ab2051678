"""Servers and schemas for the tests, and the marker of the tests that use them."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from recovery_journal.postgres.embedded import EmbeddedServer
from tests.schemas import own_database, own_schema
from tests.servers import PrivateServer

DSN_VARIABLE = "RECOVERY_JOURNAL_TEST_DSN"
TESTS = Path(__file__).parent
SQL_FOLDERS = frozenset({"journal", "log", "migrations", "projections", "rules"})


def pytest_configure() -> None:
    """Commands are tested as they are without a terminal, whatever width the caller's has."""
    for name in ("COLUMNS", "LINES"):
        os.environ.pop(name, None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what uses the shared server, so that `-m postgres` runs it on another one, and of it
    what depends on which server that is: `-m sql`."""
    for item in items:
        if "server_dsn" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.postgres)
            if item.path.relative_to(TESTS).parts[0] in SQL_FOLDERS:
                item.add_marker(pytest.mark.sql)


@pytest.fixture(scope="session")
def server_dsn() -> Iterator[str]:
    """A server shared by all tests: the one that the environment names, else the embedded one.

    Tests query all sessions of their database, and end them. So processes that run side by side
    on one server have a database each.
    """
    named = os.environ.get(DSN_VARIABLE)
    if named and "PYTEST_XDIST_WORKER" in os.environ:
        with own_database(named) as dsn:
            yield dsn
        return
    if named:
        yield named
        return
    with (
        tempfile.TemporaryDirectory(prefix="rj-") as folder,
        EmbeddedServer.start(Path(folder)) as server,
    ):
        yield server.dsn


@pytest.fixture
def schema(server_dsn: str) -> Iterator[str]:
    """A schema name that nothing else uses; the schema is the test's to make and ours to drop."""
    with own_schema(server_dsn) as name:
        yield name


@pytest.fixture
def server_folder() -> Iterator[Path]:
    """An empty folder for a server; its path is short enough for a socket, and root's server, which
    runs under another account, may pass through it."""
    with tempfile.TemporaryDirectory(prefix="rj-") as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)


@pytest.fixture
def private_server(server_folder: Path) -> Iterator[PrivateServer]:
    """A running server that the test may stop, restart and kill."""
    server = PrivateServer.at(server_folder)
    server.start()
    try:
        yield server
    finally:
        server.stop("immediate")
