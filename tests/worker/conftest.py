"""A journal and a desk for each test."""

from collections.abc import Iterator

import pytest

import recovery_journal as rj
from recovery_journal.journal import Journal
from recovery_journal.limits import Limits
from tests.servers import PrivateServer
from tests.worker.desk import Desk, desk_at

LIMITS = Limits(grace_s=0.2)


@pytest.fixture
def journal(server_dsn: str, schema: str) -> Iterator[Journal]:
    with rj.open(server_dsn, schema=schema, limits=LIMITS) as journal:
        yield journal


@pytest.fixture
def desk(journal: Journal, server_dsn: str) -> Iterator[Desk]:
    with desk_at(journal, server_dsn) as desk:
        yield desk


@pytest.fixture
def cut_off(private_server: PrivateServer) -> Iterator[Desk]:
    """A desk at a server that the test may take away."""
    with (
        rj.open(private_server.dsn, limits=LIMITS) as journal,
        desk_at(journal, private_server.dsn) as desk,
    ):
        yield desk
