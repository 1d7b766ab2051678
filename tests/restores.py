"""A server brought back from a backup and its archived log, as it was at a named point."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg import sql

from recovery_journal.postgres import cluster as clusters
from recovery_journal.postgres.cluster import Cluster
from tests.rules.scenes import until
from tests.servers import PrivateServer

BACKUP_LIMIT_S = 60


def archive_of(server: PrivateServer) -> Path:
    """Where the server's log is archived."""
    return server.cluster.folder / "archive"


def archiving(folder: Path) -> PrivateServer:
    """A running server that archives its log."""
    server = PrivateServer.at(folder)
    clusters._make_private(archive_of(server))
    with (server.cluster.data / "postgresql.conf").open("a", encoding="utf-8") as settings:
        settings.write(f"archive_mode = on\narchive_command = 'cp %p {archive_of(server)}/%f'\n")
    server.start()
    return server


def backed_up(server: PrivateServer, name: str) -> Cluster:
    """A base backup of the server, not started."""
    folder = server.cluster.folder / name
    folder.mkdir()
    cluster = Cluster(folder, server.bin_path)
    clusters._make_private(cluster.data)
    copy = ["-D", str(cluster.data), "-d", server.dsn, "-c", "fast"]
    cluster._run("pg_basebackup", *copy, limit_s=BACKUP_LIMIT_S)
    (cluster.data / ".s.PGSQL.5432.lock").unlink()  # the primary's, copied along
    return cluster


def name_point(server: PrivateServer, name: str) -> None:
    """Events from now on are not there after a restore to this point."""
    _execute(server, sql.SQL("SELECT pg_create_restore_point({})").format(name))


@contextmanager
def restored_to(server: PrivateServer, backup: Cluster, name: str) -> Iterator[PrivateServer]:
    """The server as it was at the point, in a new life of its own; stopped in the end."""
    _archive_everything(server)
    with (backup.data / "postgresql.auto.conf").open("a", encoding="utf-8") as settings:
        settings.write(
            f"restore_command = 'cp {archive_of(server)}/%f %p'\n"
            f"recovery_target_name = '{name}'\n"
            "recovery_target_action = 'promote'\n"
            "archive_mode = off\n"
        )
    (backup.data / "recovery.signal").touch()
    backup.start()
    restored = PrivateServer(backup)
    try:
        until(lambda: not _ask(restored, "pg_is_in_recovery()"), "the end of the restore")
        yield restored
    finally:
        restored.stop("immediate")


def dumped_to(server: PrivateServer, schema: str, dsn: str, folder: Path) -> None:
    """Dump one schema of the server, and load it into another cluster."""
    dump = folder / f"{schema}.sql"
    command = ["pg_dump", "--schema", schema, "--no-owner", "--file", str(dump), server.dsn]
    _run(server, command)
    # pg_dump sets what servers of its own version know, which an older one refuses.
    lines = dump.read_text(encoding="utf-8").splitlines(keepends=True)
    known = [line for line in lines if not line.startswith("SET transaction_timeout")]
    dump.write_text("".join(known), encoding="utf-8")
    _run(server, ["psql", "--quiet", "--set", "ON_ERROR_STOP=1", "--file", str(dump), dsn])


def _run(server: PrivateServer, command: list[str]) -> None:
    program, *arguments = command
    done = subprocess.run(
        [str(server.bin_path / program), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def _archive_everything(server: PrivateServer) -> None:
    segment = _ask(server, "pg_walfile_name(pg_current_wal_lsn())")
    _execute(server, sql.SQL("SELECT pg_switch_wal()"))
    until((archive_of(server) / str(segment)).exists, "the archived log")


def _ask(server: PrivateServer, expression: str) -> object:
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        row = connection.execute(f"SELECT {expression}".encode()).fetchone()
    assert row is not None
    return row[0]


def _execute(server: PrivateServer, statement: sql.SQL | sql.Composed) -> None:
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute(statement)
