"""Keep the present version of the schema for ever, with some rows, as `pg_dump` writes it.

`python -m tests.migrations.dump` writes `schema-<version>.sql` beside this file. Run it once for
each version, before that version is released, and never again: a later program must migrate what
this one has left in its users' databases.
"""

import subprocess
import tempfile
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final

import recovery_journal as rj
from recovery_journal import Follower
from recovery_journal.postgres.embedded import EmbeddedServer
from recovery_journal.postgres.schema import newest_version
from recovery_journal.process import identity
from tests.command_line import scenes

SCHEMA: Final = "dumped_journal"
"""Stands for the name of a schema everywhere in a dump, and nowhere for anything else."""

# Other servers, and other roles, than those of the dump load it.
OPTIONS: Final = ("--inserts", "--no-owner", "--no-privileges", "--schema", SCHEMA)


def dumps() -> list[Traversable]:
    """The dumps of all versions."""
    return sorted(
        (file for file in files(__package__).iterdir() if file.name.endswith(".sql")),
        key=lambda file: file.name,
    )


def version_of(dump: Traversable) -> int:
    """The version of the schema in this dump."""
    return int(dump.name.removeprefix("schema-").removesuffix(".sql"))


def leave_rows(journal: rj.Journal, dsn: str) -> None:
    """An attempt in each status that a program may leave behind."""
    scenes.held(journal, "a-held", worker_id="w-held").begin_step("mail")
    scenes.recovered(journal, "a-ready", worker_id="w-ready")
    scenes.quarantined(journal, "a-quarantined", dsn=dsn)
    scenes.waiting(journal, "a-waiting")
    scenes.held(journal, "a-completed", worker_id="w-completed").complete({"pages": 12})
    scenes.held(journal, "a-failed", worker_id="w-failed").fail("not a number")
    scenes.held(journal, "a-cancelled", worker_id="w-cancelled")
    journal.cancel("a-cancelled", by="clerk-1", reason="not needed any more")
    Follower(journal).catch_up(timeout_s=60)


def main() -> None:
    """Write the dump of the present version."""
    # Events say which machine recorded them; a dump must not say on which one it was made.
    identity._host = lambda: "host-1"  # type: ignore[assignment]  # it has a cache
    identity._boot_id = lambda: "boot-1"  # type: ignore[assignment]  # likewise
    with (
        tempfile.TemporaryDirectory(prefix="rj-") as folder,
        EmbeddedServer.start(Path(folder)) as server,
    ):
        with rj.open(server.dsn, schema=SCHEMA) as journal:
            leave_rows(journal, server.dsn)
        dumped = subprocess.run(
            [server.bin_path / "pg_dump", *OPTIONS, server.dsn],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    # Without the session settings at its head, some of which older servers do not know, and what is
    # meant for psql alone.
    body = dumped[dumped.index("CREATE SCHEMA") :]
    lines = [line for line in body.splitlines() if line and not line.startswith(("--", "\\"))]
    file = Path(__file__).with_name(f"schema-{newest_version()}.sql")
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"wrote {file}")  # noqa: T201 - to the person who runs it


if __name__ == "__main__":
    main()
