"""The server that runs of the simulation share in a module of tests."""

from collections.abc import Iterator

import pytest

from scripts.simulation.server import simulation_server


@pytest.fixture(scope="module")
def simulation_dsn() -> Iterator[str]:
    """The simulation's own server."""
    with simulation_server() as dsn:
        yield dsn
