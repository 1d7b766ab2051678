"""Whole fleets on a server of their own: the parts of the case, and the herd after an outage."""

import tempfile
import threading
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Final, NamedTuple

import recovery_journal as rj
from recovery_journal.domain.errors import LeaseLost, ServerUnavailable
from recovery_journal.postgres.database import Database
from recovery_journal.store.acquisition import terms_of
from recovery_journal.store.lease_row import COLUMNS, read_leases
from scripts.benchmark.fleet_load import (
    WatchedServer,
    measure_idle,
    measure_sweepers,
    sweep_until_over,
)
from scripts.benchmark.measuring import Line, fresh_schema, one_row, percentiles, say
from scripts.benchmark.processes import PATIENCE_S, Crowd, Job, Signals
from scripts.histories.lost import fill_lost

CONNECTIONS_PER_WORKER: Final = 2


TTL_S: Final = 12.0
LIMITS: Final = rj.Limits(ttl_s=TTL_S, grace_s=1.0)
OUTAGE_S: Final = TTL_S + LIMITS.grace_s + 1
GUARDED_S: Final = OUTAGE_S + 2
RETRY_S: Final = 0.25
"""As a worker does after a heartbeat without a reply."""
SWEEPERS: Final = 2
HOSTS_PER_PROCESS: Final = 25
LEASES_PER_HOST: Final = 50

HOLD: Final = """
UPDATE leases
SET ttl_s = %(ttl_s)s,
    expires_at = clock_timestamp() + make_interval(secs => %(ttl_s)s)
"""

HELD: Final = f"SELECT {COLUMNS} FROM leases WHERE is_watched ORDER BY attempt_id"  # noqa: S608 - a constant

LOST: Final = """
SELECT count(*) AS count
FROM journal_events
WHERE topic = 'lease-expired'
"""


class Renewed(NamedTuple):
    """Of one host: when its last lease was renewed after the outage, the seconds of each first
    heartbeat after it, and how many leases were refused."""

    last_at: float
    took_s: list[float]
    refused_count: int


def host_count_of(options: Namespace) -> int:
    """How many hosts hold the leases."""
    return max(int(options.leases[0]) // LEASES_PER_HOST, 1)


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


def measure_herd(server: WatchedServer, options: Namespace) -> Line:
    """The server is away for longer than all leases hold, comes back, and every lease is renewed at
    once. `lost` must be 0.

    Hosts hold many leases each and renew them one after another over one connection. Every lease
    has ended by the clock when the server is back, and two sweepers that waited for it too are
    there at once. Then the hosts continue to renew for as long as rule R9 protects them, and a
    little longer.
    """
    lease_count, host_count = options.leases[0], host_count_of(options)
    with fresh_schema(server.dsn) as database:
        hosts = _hosts(database, lease_count, host_count)
        given = (server.dsn, database.schema)
        groups = [
            hosts[at : at + HOSTS_PER_PROCESS] for at in range(0, len(hosts), HOSTS_PER_PROCESS)
        ]
        jobs: list[Job] = [
            *(partial(_renew_all, group, *given) for group in groups),
            *[partial(sweep_until_over, LIMITS, *given)] * SWEEPERS,
        ]
        with Crowd(jobs, "fork") as crowd:
            crowd.begin()  # all hosts are connected
            database.connection().close()  # and is opened again afterwards
            server.stop()
            time.sleep(OUTAGE_S)
            server.start()
            back_at = time.monotonic()
            with server.watched() as most:
                time.sleep(GUARDED_S)
            renewed: list[Renewed] = [one for found in crowd.end() for one in found or ()]
        took_ms = [1000 * it for one in renewed for it in one.took_s]
        assert len(took_ms) == lease_count, len(took_ms)
        return {
            "case": "fleet-herd",
            "unit": "s",
            "leases": lease_count,
            "hosts": host_count,
            "sweepers": SWEEPERS,
            "outage_s": OUTAGE_S,
            "renewed_s": round(max(one.last_at for one in renewed) - back_at, 2),
            **percentiles(took_ms, {"heartbeat_p50_ms": 50, "heartbeat_p99_ms": 99}, digits=1),
            "lost": one_row(database, LOST)["count"],
            "refused": sum(one.refused_count for one in renewed),
            "most_connections": most["clients"],
            "most_lock_waits": most["lock_waits"],
            "deadlocks": server.deadlocks(),
        }


def _hosts(database: Database, lease_count: int, host_count: int) -> list[list[rj.LeaseTerms]]:
    """The leases of each host."""
    fill_lost(database, lease_count)
    with database.transaction() as cursor:
        cursor.execute(HOLD, {"ttl_s": TTL_S})
        rows = list(read_leases(cursor, HELD, {}).values())
    return [[terms_of(row) for row in rows[host::host_count]] for host in range(host_count)]


def _renew_all(
    hosts: Sequence[Sequence[rj.LeaseTerms]], dsn: str, schema: str, signals: Signals
) -> list[Renewed]:
    """A process of hosts, each a thread with its own connection."""
    journal = rj.Journal(Database(dsn, schema), limits=LIMITS)
    connected = threading.Barrier(len(hosts) + 1)
    with ThreadPoolExecutor(len(hosts)) as threads:
        renewed = [
            threads.submit(_renew, list(map(journal.adopt, held)), connected, signals.is_over)
            for held in hosts
        ]
        connected.wait(PATIENCE_S)
        signals.begin()
    return [host.result() for host in renewed]


def _renew(leases: list[rj.Lease], connected: threading.Barrier, is_over: Event) -> Renewed:
    """One host: renews before the outage, gets no reply in it, renews all as soon as it is over."""
    leases[0].heartbeat()
    connected.wait(PATIENCE_S)
    while _is_answered(leases[0]):  # until the outage begins
        time.sleep(RETRY_S)
    took, refused = [], 0
    for lease in leases:
        begun = time.monotonic()
        try:
            while not _is_answered(lease):
                time.sleep(RETRY_S)
                begun = time.monotonic()
        except LeaseLost:
            refused += 1
        took.append(time.monotonic() - begun)
    last_at = time.monotonic()
    while not is_over.wait(TTL_S / 3):
        for lease in leases:
            try:
                lease.heartbeat()
            except LeaseLost:
                refused += 1
    return Renewed(last_at, took, refused)


def _is_answered(lease: rj.Lease) -> bool:
    try:
        lease.heartbeat()
    except ServerUnavailable:
        return False
    return True
