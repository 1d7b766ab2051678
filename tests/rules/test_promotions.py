"""Rule R9 when a standby takes over: its server started long ago, and yet it is an outage."""

from collections.abc import Iterator
from datetime import timedelta

import psycopg
import pytest

import recovery_journal as rj
from domain.events import LeaseExpired
from tests.rules.scenes import change, events_of, held, rows, sweep_until, until
from tests.servers import PrivateServer
from tests.standbys import standby_of

TTL_S = 0.5
GRACE_S = 0.2
LIMITS = rj.Limits(ttl_s=TTL_S, grace_s=GRACE_S, sweeper_ttl_s=TTL_S)


@pytest.fixture
def standby(private_server: PrivateServer) -> Iterator[PrivateServer]:
    """A physical standby that follows the private server."""
    with standby_of(private_server) as standby:
        yield standby


def says(server: PrivateServer, condition: str) -> bool:
    """What a server answers, be it a standby or not."""
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        row = connection.execute(f"SELECT {condition}".encode()).fetchone()
    assert row is not None
    return bool(row[0])


def test_a_promotion_is_nobodys_death(
    private_server: PrivateServer, standby: PrivateServer
) -> None:
    with rj.open(private_server.dsn, limits=LIMITS) as primary:
        alive, dead = held(primary, "alive"), held(primary, "a-1")
        primary.sweep()
        change(primary, "UPDATE leases SET expires_at = clock_timestamp() - interval '1 hour'")
        end = rows(primary, "SELECT pg_current_wal_lsn()::text AS lsn")[0]["lsn"]
    until(lambda: says(standby, f"pg_last_wal_replay_lsn() >= '{end}'"), "the standby's copy")
    long_ago = f"clock_timestamp() - pg_postmaster_start_time() > interval '{2 * TTL_S} s'"
    until(lambda: says(standby, long_ago), "a server that started long ago")
    private_server.kill()
    assert says(standby, "pg_promote()")

    with rj.open(standby.dsn, limits=LIMITS, must_be_accepted=False) as promoted:
        promoted.after_restore(by="hook", reason="all had come over", is_nothing_lost=True)
    with rj.open(standby.dsn, limits=LIMITS) as journal:
        promoted_at = journal.now()
        first = journal.sweep()
        renewal = journal.adopt(alive.terms).heartbeat()
        sweep_until(journal)

        assert first == []
        assert renewal.expires_at > promoted_at
        (lost,) = events_of(journal, LeaseExpired)
        assert lost.lease.seen_at - promoted_at > timedelta(seconds=TTL_S + GRACE_S)
        with pytest.raises(rj.LeaseLost):
            journal.adopt(dead.terms).heartbeat()
