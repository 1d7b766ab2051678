"""Whole fleets, on a server of their own that takes as many connections as they need."""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from scripts.benchmark.fleet_herd import measure_herd
from scripts.benchmark.fleet_idle import measure_idle
from scripts.benchmark.fleet_server import FleetServer
from scripts.benchmark.fleet_sweepers import measure_sweepers

CONNECTIONS_PER_WORKER: Final = 2
HOLDERS_PER_HOST: Final = 50
"""Leases that a host of the herd holds."""


def measure_fleet(
    *, lease_count: int, worker_count: int, sweeper_count: int, idle_s: float, rounds: int
) -> Iterator[dict[str, Any]]:
    """A herd of heartbeats after an outage, an idle fleet, and many sweepers; a line for each."""
    host_count = max(lease_count // HOLDERS_PER_HOST, 1)
    needed = max(worker_count * CONNECTIONS_PER_WORKER, host_count) + sweeper_count
    with (
        tempfile.TemporaryDirectory(prefix="rj-") as folder,
        FleetServer.running(Path(folder), connections=needed) as server,
    ):
        _say(f"{lease_count:,} heartbeats at once, after an outage")
        yield measure_herd(server, lease_count=lease_count, host_count=host_count)
        _say(f"{worker_count:,} idle workers")
        yield measure_idle(
            server, worker_count=worker_count, sweeper_count=sweeper_count, idle_s=idle_s
        )
        _say(f"{sweeper_count} sweepers")
        yield measure_sweepers(
            server, lease_count=lease_count, sweeper_count=sweeper_count, rounds=rounds
        )


def _say(text: str) -> None:
    sys.stderr.write(f"fleet: {text}\n")
