"""A journal for the test's own, undisturbed side."""

from collections.abc import Iterator

import pytest

import recovery_journal as rj
from tests.acceptance.job import LIMITS
from tests.rules.in_step import assert_in_step


@pytest.fixture
def journal(server_dsn: str, schema: str) -> Iterator[rj.Journal]:
    """In step with its log when the test is done with it."""
    with rj.open(server_dsn, schema=schema, limits=LIMITS) as journal:
        yield journal
        assert_in_step(journal)
