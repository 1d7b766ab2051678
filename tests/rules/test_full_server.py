"""A server without free connections: a process that has one continues, others wait and say why."""

from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Thread

import psycopg
import pytest

import recovery_journal as rj
from recovery_journal.domain.errors import ServerUnavailable
from tests.rules.scenes import LIMITS, held, until, worked
from tests.servers import PrivateServer

CONNECTION_LIMIT = 10


@pytest.fixture
def small_server(server_folder: Path) -> Iterator[PrivateServer]:
    server = PrivateServer.at(server_folder)
    with (server.cluster.data / "postgresql.conf").open("a", encoding="utf-8") as settings:
        settings.write(
            f"max_connections = {CONNECTION_LIMIT}\nsuperuser_reserved_connections = 1\n"
        )
        settings.write("max_wal_senders = 0\nmax_worker_processes = 1\n")
    server.start()
    try:
        with psycopg.connect(server.dsn, autocommit=True) as connection:
            connection.execute("CREATE ROLE journal LOGIN")
            connection.execute("CREATE SCHEMA recovery_journal AUTHORIZATION journal")
        yield server
    finally:
        server.stop("immediate")


def test_a_full_server_delays_new_connections_and_no_others(small_server: PrivateServer) -> None:
    dsn = small_server.dsn.replace("postgres@", "journal@")
    problems: list[rj.Retry] = []
    with rj.open(dsn, limits=LIMITS) as journal, ExitStack() as others:
        lease = worked(held(journal))
        held(journal, "a-2").hand_back("to be found on the list")
        with suppress(psycopg.OperationalError):
            for _ in range(CONNECTION_LIMIT):
                others.enter_context(psycopg.connect(dsn))

        with pytest.raises(ServerUnavailable, match=r"connection slots.*takes another connection"):
            rj.open(dsn)
        sweeper = rj.Sweeper(journal, on_problem=problems.append)
        thread = Thread(target=sweeper.run)
        thread.start()
        until(lambda: problems, "the sweeper's first try")
        lease.record_step("step-3", {"n": 3})
        delays = {one.kind.value: one for one in journal.status().delays}
        journal.report_lost(worker_id="worker of a-1", reason="gone")
        said = delays["connections"]

        others.close()
        with rj.open(dsn, limits=LIMITS) as again:
            until(lambda: len(again.dispatch_ready()) == 2, "both attempts")
        sweeper.stop()
        thread.join()

        assert {type(problem) for problem in problems} == {ServerUnavailable}
        assert "9 of 9 are in use" in said.what
        assert "max_connections" in said.do
