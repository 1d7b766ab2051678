"""Helpers that the tests of rebuilding share."""

import threading
from typing import Any

import pytest

from recovery_journal.projections.catalog import BUILT_IN
from recovery_journal.read_models.following.follower import Follower
from recovery_journal.read_models.rebuild.check import Check
from recovery_journal.read_models.rebuild.rebuild import Rebuild
from recovery_journal.read_models.tables.projection_table import table_of
from tests.projections.writing import Writer


def rebuild(writer: Writer, **options: Any) -> Rebuild:
    return Rebuild(writer.database, writer.reader, **options)


def follow(writer: Writer) -> None:
    Follower(writer).catch_up(60)


def truncate(writer: Writer) -> None:
    with writer.database.cursor() as cursor:
        for projection in BUILT_IN:
            cursor.execute(f"TRUNCATE {table_of(projection).name}".encode())


def is_right(writer: Writer) -> bool:
    return all(it.is_right and not it.pending_count for it in Check(writer.database).run())


def on_thread(function: Any) -> None:
    """Run on a thread, so on a connection, of its own."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            function()
        except BaseException as error:  # noqa: BLE001 — raised again below
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]


def small_ranges(patch: pytest.MonkeyPatch) -> None:
    """Split also a short log into many ranges of streams."""
    patch.setattr("recovery_journal.read_models.rebuild.rebuild.FEWEST_EVENTS", 10)


def described(writer: Writer) -> list[dict[str, Any]]:
    with writer.database.cursor() as cursor:
        columns = cursor.execute(
            "SELECT table_name, column_name, ordinal_position, data_type, collation_name, "
            "is_nullable FROM information_schema.columns WHERE table_schema = current_schema() "
            "AND table_name LIKE 'projection%' ORDER BY 1, 3"
        ).fetchall()
        indexes = cursor.execute(
            "SELECT tablename, indexname, indexdef FROM pg_indexes "
            "WHERE schemaname = current_schema() AND tablename LIKE 'projection%' ORDER BY 1, 2"
        ).fetchall()
    return [*columns, *indexes]
