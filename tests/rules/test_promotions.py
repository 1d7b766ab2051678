"""Rule R9 when a standby takes over: its server started long ago, and yet it is an outage."""

from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

import recovery_journal as rj
from recovery_journal.domain.errors import ServerReplaced, ServerUnavailable, TailLost
from recovery_journal.domain.events import LeaseExpired
from tests.rules.in_step import assert_in_step
from tests.rules.scenes import (
    change,
    claim_one,
    events_of,
    held,
    rows,
    sweep_until,
    until,
    worked,
)
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
    """Whether a server is a standby."""
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


def test_a_promoted_standby_that_lacks_the_end_of_the_log_is_refused_by_programs_that_ran_on(
    private_server: PrivateServer, standby: PrivateServer
) -> None:
    """A worker, a sweeper and a reader know both servers and continue on the primary."""
    hosts = ",".join(
        str(conninfo_to_dict(server.dsn)["host"]) for server in (private_server, standby)
    )
    dsn = make_conninfo(
        user="postgres", dbname="postgres", host=hosts, target_session_attrs="read-write"
    )
    with rj.open(dsn, limits=rj.Limits()) as journal:
        lease = worked(held(journal))
        end = rows(journal, "SELECT pg_current_wal_lsn()::text AS lsn")[0]["lsn"]
        until(lambda: says(standby, f"pg_last_wal_replay_lsn() >= '{end}'"), "the standby's copy")
        with psycopg.connect(standby.dsn, autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET primary_conninfo = ''")
            connection.execute("SELECT pg_reload_conf()")
        until(lambda: says(standby, "NOT EXISTS (SELECT FROM pg_stat_wal_receiver)"), "its end")
        lease.record_step("step-3", {"n": 3})
        lost = held(journal, "a-lost")
        seen = journal.log()[-1].position
        private_server.kill()
        assert says(standby, "pg_promote()")

        with suppress(ServerUnavailable):
            journal.now()
        for use in (journal.sweep, rj.Sweeper(journal).run, rj.Follower(journal).run, journal.log):
            with pytest.raises(ServerReplaced, match="timeline 2"):
                use()
        with pytest.raises(ServerReplaced):
            lease.record_step("step-4", {"n": 4})
        with rj.open(standby.dsn, must_be_accepted=False) as promoted:
            report = promoted.after_restore(by="clerk-4", reason="host 3 burned")

        assert report.fenced_count == 1
        for zombie in (lease, lost):
            with pytest.raises(rj.LeaseLost):
                zombie.heartbeat()
        assert [step.ordinal for step in claim_one(journal).tail] == [2]
        held(journal, "a-next")
        assert "a-lost" not in {entry.event.originator_id for entry in journal.log()}
        with pytest.raises(TailLost):
            journal.log(after=seen)
        assert_in_step(journal)
