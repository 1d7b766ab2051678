"""A PostgreSQL server of a program's own, to which the program may do anything."""

import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import psutil
import psycopg
from psycopg.rows import dict_row

from recovery_journal.postgres.cluster import Cluster
from recovery_journal.postgres.embedded import embedded_cluster


class Server:
    """Started on entering; stopped on leaving. A subclass adds settings, and what it does to it."""

    settings: ClassVar[str] = ""
    stop_mode: ClassVar[Literal["fast", "immediate"]] = "immediate"

    def __init__(self, folder: Path, settings: str = "") -> None:
        self.cluster: Cluster = embedded_cluster(folder)
        self.cluster.create()
        self.dsn = self.cluster.dsn
        with (self.cluster.data / "postgresql.conf").open("a", encoding="utf-8") as file:
            file.write(self.settings + settings)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.cluster.stop(self.stop_mode)

    def start(self) -> None:
        """Return once it accepts connections, as soon as older processes of it have ended."""
        self.cluster.start()

    def stop(self) -> None:
        """Return once it has ended; sessions are cut."""
        self.cluster.stop()

    def is_ready(self) -> bool:
        """Whether it accepts connections."""
        return self.cluster.is_ready()

    def keep_log(self, file: Path) -> None:
        """Copy its log to a place outside of its own disk."""
        with suppress(FileNotFoundError):
            shutil.copyfile(self.cluster.log, file)

    def postmaster(self) -> psutil.Process | None:
        """The first of its processes, while it runs."""
        try:
            text = (self.cluster.data / "postmaster.pid").read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        number = int(text.split("\n", 1)[0])
        return next((it for it in self.cluster.processes() if it.pid == number), None)

    def rows(
        self, statement: str, *, search_path: str = "public", **values: object
    ) -> list[dict[str, Any]]:
        """The rows of a query."""
        with psycopg.connect(self.dsn, autocommit=True, row_factory=dict_row) as connection:
            connection.execute("SELECT set_config('search_path', %s, false)", (search_path,))
            return connection.execute(statement.encode(), values or None).fetchall()
