"""A private server comes back after everything that a test may do to it."""

import multiprocessing

import psycopg
import pytest

from tests.servers import PrivateServer


def count_of_kept(server: PrivateServer) -> int:
    with psycopg.connect(server.dsn) as connection:
        row = connection.execute("SELECT count(*) FROM kept").fetchone()
    assert row is not None
    return int(row[0])


def keep_one(server: PrivateServer) -> None:
    with psycopg.connect(server.dsn) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept (number int)")
        connection.execute("INSERT INTO kept VALUES (1)")


def test_what_was_committed_survives_kill(private_server: PrivateServer) -> None:
    keep_one(private_server)

    private_server.kill()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(private_server.dsn)
    private_server.start()

    assert count_of_kept(private_server) == 1


def test_what_was_committed_survives_a_restart_in_any_mode(private_server: PrivateServer) -> None:
    keep_one(private_server)

    private_server.restart("fast")
    private_server.restart("immediate")
    private_server.restart("smart")

    assert count_of_kept(private_server) == 1


def test_a_child_process_may_kill_and_start_the_server(private_server: PrivateServer) -> None:
    keep_one(private_server)
    spawning = multiprocessing.get_context("spawn")

    for act in (private_server.kill, private_server.start):
        child = spawning.Process(target=act)
        child.start()
        child.join()
        assert child.exitcode == 0

    assert count_of_kept(private_server) == 1
