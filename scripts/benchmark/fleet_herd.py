"""A thundering herd: the server comes back, and every lease of the fleet is renewed at once.

Hosts hold many leases each and renew them one after another over one connection. The outage is
longer than a lease and its grace, so that every lease has ended by the clock when the server is
back, and two sweepers that waited for it too are there at once. Then the hosts go on with renewing
for as long as rule R9 protects them, and a little longer: nothing may be lost.
"""

import multiprocessing
import threading
import time
from collections.abc import Sequence
from itertools import chain
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from typing import Any, Final, NamedTuple

from recovery_journal.domain.errors import LeaseLost, ServerUnavailable
from recovery_journal.journal import Journal
from recovery_journal.limits import Limits
from recovery_journal.postgres.database import Database
from recovery_journal.store.acquisition import terms_of
from recovery_journal.store.lease import Lease, LeaseTerms
from recovery_journal.store.lease_row import COLUMNS, read_leases
from scripts.benchmark.fleet_server import FleetServer
from scripts.benchmark.fleet_sweepers import sweep_until
from scripts.benchmark.fresh_schema import fresh_schema
from scripts.benchmark.lost_fleet import fill_lost

TTL_S: Final = 12.0
LIMITS: Final = Limits(ttl_s=TTL_S, grace_s=1.0)
OUTAGE_S: Final = TTL_S + LIMITS.grace_s + 1
GUARDED_S: Final = OUTAGE_S + 2
AGAIN_S: Final = 0.25
"""As a worker does after a heartbeat without an answer."""
SWEEPERS: Final = 2
HOSTS_PER_PROCESS: Final = 25
PATIENCE_S: Final = 120

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

_forking = multiprocessing.get_context("fork")


class Renewed(NamedTuple):
    """What one process of hosts tells: when its last lease was renewed after the outage, how long
    each first heartbeat after it took, and how many leases were refused."""

    last_at: float
    took_s: list[float]
    refused_count: int


def measure_herd(server: FleetServer, *, lease_count: int, host_count: int) -> dict[str, Any]:
    """Seconds until all leases are renewed, and how many were lost although nobody had died."""
    with fresh_schema(server.dsn) as database:
        hosts = _hosts(database, lease_count, host_count)
        given = (server.dsn, database.schema)
        answers = _forking.Queue()
        is_over = _forking.Event()
        groups = [
            hosts[at : at + HOSTS_PER_PROCESS] for at in range(0, len(hosts), HOSTS_PER_PROCESS)
        ]
        processes = [
            _forking.Process(target=_renew_all, args=(*given, group, answers, is_over))
            for group in groups
        ]
        processes += [
            _forking.Process(target=sweep_until, args=(*given, is_over, LIMITS))
            for _ in range(SWEEPERS)
        ]
        for process in processes:
            process.start()
        try:
            for _ in groups:
                answers.get(timeout=PATIENCE_S)  # all of its hosts are connected
            database.connection().close()  # and is opened again afterwards
            server.stop()
            time.sleep(OUTAGE_S)
            server.start()
            back_at = time.monotonic()
            with server.watched() as most:
                time.sleep(GUARDED_S)
            is_over.set()
            told: list[Renewed] = [answers.get(timeout=PATIENCE_S) for _ in groups]
        finally:
            is_over.set()
            for process in processes:
                process.join(PATIENCE_S)
        took = sorted(chain.from_iterable(one.took_s for one in told))
        assert len(took) == lease_count, len(took)
        return {
            "case": "fleet-herd",
            "unit": "s",
            "leases": lease_count,
            "hosts": host_count,
            "sweepers": SWEEPERS,
            "outage_s": OUTAGE_S,
            "renewed_s": round(max(one.last_at for one in told) - back_at, 2),
            "heartbeat_p50_ms": round(1000 * took[len(took) // 2], 1),
            "heartbeat_p99_ms": round(1000 * took[len(took) * 99 // 100], 1),
            "lost": _lost_count(database),
            "refused": sum(one.refused_count for one in told),
            "most_connections": most["clients"],
            "most_lock_waits": most["lock_waits"],
            "deadlocks": server.deadlocks(),
        }


def _hosts(database: Database, lease_count: int, host_count: int) -> list[list[LeaseTerms]]:
    """What each host holds."""
    fill_lost(database, lease_count)
    with database.transaction() as cursor:
        cursor.execute(HOLD, {"ttl_s": TTL_S})
        rows = list(read_leases(cursor, HELD, {}).values())
    return [[terms_of(row) for row in rows[host::host_count]] for host in range(host_count)]


def _renew_all(
    dsn: str,
    schema: str,
    hosts: Sequence[Sequence[LeaseTerms]],
    answers: "Queue[Renewed | None]",
    is_over: Event,
) -> None:
    """A process of hosts, each a thread with its own connection."""
    journal = Journal(Database(dsn, schema), limits=LIMITS)
    told: list[Renewed] = []
    connected = threading.Barrier(len(hosts) + 1)

    def renew(held: Sequence[LeaseTerms]) -> None:
        told.append(_renew([journal.adopt(terms) for terms in held], connected, is_over))

    threads = [threading.Thread(target=renew, args=(held,)) for held in hosts]
    for thread in threads:
        thread.start()
    connected.wait(PATIENCE_S)
    answers.put(None)
    for thread in threads:
        thread.join()
    answers.put(
        Renewed(
            max(one.last_at for one in told),
            list(chain.from_iterable(one.took_s for one in told)),
            sum(one.refused_count for one in told),
        )
    )


def _renew(leases: Sequence[Lease], connected: threading.Barrier, is_over: Event) -> Renewed:
    """One host: renews before the outage, is refused in it, renews all as soon as it is over."""
    leases[0].heartbeat()
    connected.wait(PATIENCE_S)
    while _is_answered(leases[0]):  # until the outage begins
        time.sleep(AGAIN_S)
    took, refused = [], 0
    for lease in leases:
        begun = time.monotonic()
        try:
            while not _is_answered(lease):
                time.sleep(AGAIN_S)
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


def _is_answered(lease: Lease) -> bool:
    try:
        lease.heartbeat()
    except ServerUnavailable:
        return False
    return True


def _lost_count(database: Database) -> int:
    with database.cursor() as cursor:
        row = cursor.execute(LOST).fetchone()
    assert row is not None
    return int(row["count"])
