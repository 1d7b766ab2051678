"""A second PostgreSQL server that follows a test's own, to be promoted."""

from collections.abc import Iterator
from contextlib import contextmanager

from recovery_journal.postgres import cluster as clusters
from recovery_journal.postgres.cluster import Cluster
from tests.servers import PrivateServer

BACKUP_LIMIT_S = 60


@contextmanager
def standby_of(primary: PrivateServer) -> Iterator[PrivateServer]:
    """A physical standby, stopped in the end."""
    folder = primary.cluster.folder / "standby"
    folder.mkdir()
    cluster = Cluster(folder, primary.bin_path)
    clusters._make_private(cluster.data)
    copy = ["-D", str(cluster.data), "-d", primary.dsn, "-R", "-c", "fast"]
    cluster._run("pg_basebackup", *copy, limit_s=BACKUP_LIMIT_S)
    (cluster.data / ".s.PGSQL.5432.lock").unlink()  # the primary's, copied along
    cluster.start()
    try:
        yield PrivateServer(cluster)
    finally:
        cluster.stop("immediate")
