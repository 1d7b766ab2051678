"""How long a process waits for the server, by statement: what psycopg waits for is timed."""

import re
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from psycopg import Connection, Cursor
from psycopg.sql import Composable

TRANSACTION: Final = "BEGIN, COMMIT"
VERB: Final = re.compile(r"\s*(\w+)")
TABLE: Final = re.compile(
    r"\b(?:UPDATE|INTO|COPY|FROM)\s+(?!unnest|\()\"?([a-z]\w*)", re.IGNORECASE
)


def label_of(statement: object) -> str:
    """A statement in two words: what it does, and to which table first of all."""
    if isinstance(statement, Composable):
        statement = statement.as_string(None)
    text = statement.decode() if isinstance(statement, bytes) else str(statement)
    text = re.sub(r"--.*", "", text)
    verb, table = VERB.match(text), TABLE.search(text)
    return " ".join(found[1] for found in (verb, table) if found)


@contextmanager
def timed_statements() -> Iterator[dict[str, float]]:
    """Within, seconds of waiting by statement, of all connections of this process. What is sent and
    read meanwhile is in it, for that is how long the process does nothing else."""
    waited: defaultdict[str, float] = defaultdict(float)
    label = TRANSACTION
    execute, copy, wait = Cursor.execute, Cursor.copy, Connection.wait

    def timed_execute(self: Any, query: Any, *given: Any, **options: Any) -> Any:  # noqa: ANN401 - psycopg's own
        nonlocal label
        label = label_of(query)
        try:
            return execute(self, query, *given, **options)
        finally:
            label = TRANSACTION

    @contextmanager
    def timed_copy(self: Any, statement: Any, *given: Any, **options: Any) -> Iterator[Any]:  # noqa: ANN401 - likewise
        nonlocal label
        label = label_of(statement)
        try:
            with copy(self, statement, *given, **options) as rows:
                yield rows
        finally:
            label = TRANSACTION

    def timed_wait(self: Any, *given: Any, **options: Any) -> Any:  # noqa: ANN401 - likewise
        begun = time.perf_counter()
        try:
            return wait(self, *given, **options)
        finally:
            waited[label] += time.perf_counter() - begun

    Cursor.execute, Cursor.copy = timed_execute, timed_copy  # type: ignore[method-assign]
    Connection.wait = timed_wait  # type: ignore[method-assign]
    try:
        yield waited
    finally:
        Cursor.execute, Cursor.copy = execute, copy  # type: ignore[method-assign]
        Connection.wait = wait  # type: ignore[method-assign]
