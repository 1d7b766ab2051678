"""A connection pooler in transaction mode before a PostgreSQL server.

It does what such poolers do: it greets clients in its own name, and lends a backend for one
transaction, the next one for the next. Settings and locks of a session are left behind with the
backend that had them. Trust authentication only; COPY and cancelling are not emulated.
"""

import select
import socket
import struct
import threading
from collections import deque
from contextlib import suppress
from typing import Final

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.relays.relay import Relay, read_typed, read_untyped

PROTOCOL: Final = 3 << 16
READY: Final = b"Z\0\0\0\5I"
MADE_UP_KEY: Final = b"K" + struct.pack("!III", 12, 999_999, 4711)
TERMINATE: Final = b"X\0\0\0\4"
BEGINS_A_REPLY: Final = (b"Q", b"S")


class Pooler(Relay):
    """`backend_count` backends are lent in turn."""

    def __init__(
        self,
        dsn: str,
        *,
        search_path: str,
        backend_count: int = 6,
        greets_as_backend: bool = False,
    ) -> None:
        super().__init__(dsn)
        self.dsn = make_conninfo(self.dsn, user="postgres")
        self._database = str(conninfo_to_dict(dsn)["dbname"])
        self._search_path = search_path
        self._greets_as_backend = greets_as_backend
        self._free = threading.Condition()
        self._backends = deque(self._lend() for _ in range(backend_count))

    def serve(self, client: socket.socket) -> None:
        """Greet it, and serve one transaction after the other."""
        read_untyped(client)  # the start: who it is, and what for
        with self._free:
            self._free.wait_for(lambda: bool(self._backends))
            first = self._backends[0]
        key = first.key if self._greets_as_backend else MADE_UP_KEY
        client.sendall(b"R" + struct.pack("!II", 8, 0) + first.parameters + key + READY)
        with suppress(OSError, EOFError):
            while True:
                self._serve_transaction(client)
        client.close()

    def _lend(self) -> "_Backend":
        return _Backend(self.connect(), self._database, self._search_path)

    def _serve_transaction(self, client: socket.socket) -> None:
        message = read_typed(client)  # before a backend is lent for it
        if message[:1] == b"X":
            raise EOFError
        with self._free:
            self._free.wait_for(lambda: bool(self._backends))
            backend = self._backends.popleft()
        try:
            backend.serve(client, message)
        except (OSError, EOFError):  # the client has left in its middle
            with suppress(OSError):
                backend.socket.sendall(TERMINATE)
            backend.socket.close()
            if not self.is_closed:
                backend = self._lend()
            raise
        finally:
            with self._free:
                self._backends.append(backend)
                self._free.notify_all()


class _Backend:
    """One of the pooler's own connections to the server."""

    def __init__(self, connection: socket.socket, database: str, search_path: str) -> None:
        self.socket = connection
        values = ["user", "postgres", "database", database, "search_path", search_path]
        start = b"".join(value.encode() + b"\0" for value in values) + b"\0"
        self.socket.sendall(struct.pack("!II", len(start) + 8, PROTOCOL) + start)
        self.parameters = self.key = b""
        while (message := read_typed(self.socket))[:1] != b"Z":
            if message[:1] == b"S":
                self.parameters += message
            elif message[:1] == b"K":
                self.key = message

    def serve(self, client: socket.socket, message: bytes) -> None:
        """One transaction, from its first message to the reply that says it is over."""
        asked = self._ask(message)
        while True:
            ready, _, _ = select.select([self.socket, client], [], [])
            if client in ready:
                asked += self._ask(read_typed(client))
            if self.socket in ready:
                message = read_typed(self.socket)
                client.sendall(message)
                asked -= int(message[:1] == b"Z")
                if asked == 0 and message == READY:
                    return

    def _ask(self, message: bytes) -> int:
        """Pass a message on; how many "ready"s it will bring."""
        self.socket.sendall(message)
        return int(message[:1] in BEGINS_A_REPLY)
