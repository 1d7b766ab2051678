"""Whole fleets, on a server of their own that takes as many connections as they need."""

import tempfile
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from scripts.benchmark.fleet_herd import host_count_of, measure_herd
from scripts.benchmark.fleet_idle import measure_idle
from scripts.benchmark.fleet_sweepers import measure_sweepers
from scripts.benchmark.measuring import Line, say
from scripts.benchmark.watched_server import WatchedServer

CONNECTIONS_PER_WORKER: Final = 2


def measure_fleet(_dsn: str, options: Namespace) -> Iterator[Line]:
    """A herd of heartbeats after an outage, an idle fleet, and many sweepers; a line for each. On a
    server of its own, because it stops that."""
    clients = max(options.fleet_workers * CONNECTIONS_PER_WORKER, host_count_of(options))
    with (
        tempfile.TemporaryDirectory(prefix="rj-") as folder,
        WatchedServer(Path(folder), connections=clients + options.sweepers) as server,
    ):
        for measure in (measure_herd, measure_idle, measure_sweepers):
            say("fleet", measure.__name__.removeprefix("measure_"))
            yield measure(server, options)
