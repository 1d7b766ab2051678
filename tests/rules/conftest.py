"""Journals that are checked, when a test is done with them, to be in step with their log."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

import recovery_journal as rj
from tests.rules.in_step import assert_in_step
from tests.rules.scenes import LIMITS, OpenJournal


@pytest.fixture
def open_journal(server_dsn: str, schema: str) -> Iterator[OpenJournal]:
    """Opens journals on one schema; in the end the schema is in step."""
    with ExitStack() as opened:

        def open_one(*, limits: rj.Limits = LIMITS, **settings: object) -> rj.Journal:
            opening = rj.open(server_dsn, schema=schema, limits=limits, **settings)  # type: ignore[arg-type]  # passed on
            return opened.enter_context(opening)

        first = open_one()
        yield open_one
        assert_in_step(first)


@pytest.fixture
def journal(open_journal: OpenJournal) -> rj.Journal:
    """A journal whose leases are lost as soon as their TTL has passed."""
    return open_journal()


@pytest.fixture
def damaged(server_dsn: str, schema: str) -> Iterator[rj.Journal]:
    """A journal whose log a test makes unreadable, so that nothing can be checked against it."""
    with rj.open(server_dsn, schema=schema, limits=LIMITS) as journal:
        yield journal
