"""The database's sockets in a forked child: they are the parent's, so the child must not keep them.

Without them the child, and every program that it starts, can neither use the parent's session nor
keep it open after the parent's death.
"""

import os
import weakref
from typing import Any, Final

import psycopg
from psycopg import Connection

from recovery_journal.process.forks import leave_in_children


class OpenConnections:
    """Every connection that this process has opened."""

    def __init__(self) -> None:
        self._connections: weakref.WeakSet[Connection[Any]] = weakref.WeakSet()
        # A child's copies: if one were dropped, psycopg's finalizer would run, and warn.
        self._inherited: list[Connection[Any]] = []
        leave_in_children(self)

    def add(self, connection: Connection[Any]) -> None:
        """Release its socket in every forked child."""
        self._connections.add(connection)

    def leave(self) -> None:
        """In a forked child: release the sockets without a message to the server. Their numbers are
        pointed at the null device, so that no other files get them while libpq still uses them."""
        nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        for connection in list(self._connections):
            self._inherited.append(connection)
            try:
                number = connection.pgconn.socket
            except psycopg.Error:  # libpq has closed it: its number may be another file's by now
                continue
            os.dup2(nothing, number, inheritable=False)
        os.close(nothing)
        self._connections.clear()


OPENED: Final = OpenConnections()
