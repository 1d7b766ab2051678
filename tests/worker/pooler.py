"""A connection pooler in transaction mode before a PostgreSQL server, on loopback.

It does what such poolers do: it greets clients in its own name, and lends a backend for one
transaction, the next one for the next. Settings and locks of a session are left behind with the
backend that had them. Trust authentication only; COPY and cancelling are not emulated.
"""

import select
import socket
import struct
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final, Self

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

PROTOCOL: Final = 3 << 16
READY: Final = b"Z\0\0\0\5I"
MADE_UP_KEY: Final = b"K" + struct.pack("!III", 12, 999_999, 4711)
TERMINATE: Final = b"X\0\0\0\4"
BEGINS_A_REPLY: Final = (b"Q", b"S")


class Pooler:
    """Listens until closed; `backends` are lent in turn."""

    def __init__(
        self, dsn: str, *, search_path: str, backend_count: int, greets_as_backend: bool
    ) -> None:
        self._path = _socket_path(dsn)
        self._search_path = search_path
        self._greets_as_backend = greets_as_backend
        self._free = threading.Condition()
        self._backends: deque[_Backend] = deque()
        self._is_closed = False
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.dsn = make_conninfo(
            user="postgres",
            dbname=str(conninfo_to_dict(dsn).get("dbname") or "postgres"),
            host="127.0.0.1",
            port=str(self._listener.getsockname()[1]),
            sslmode="disable",
            gssencmode="disable",
        )
        for _ in range(backend_count):
            self._backends.append(self._connect())
        threading.Thread(target=self._accept, daemon=True).start()

    @classmethod
    @contextmanager
    def before(
        cls,
        dsn: str,
        *,
        search_path: str,
        backend_count: int = 6,
        greets_as_backend: bool = False,
    ) -> Iterator[Self]:
        pooler = cls(
            dsn,
            search_path=search_path,
            backend_count=backend_count,
            greets_as_backend=greets_as_backend,
        )
        try:
            yield pooler
        finally:
            pooler.close()

    def close(self) -> None:
        self._is_closed = True
        for end in [self._listener, *self._open]:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _connect(self) -> "_Backend":
        backend = _Backend(self._path, self._search_path)
        self._open.append(backend.socket)
        return backend

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed
                return
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._open.append(client)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError, EOFError):
            read_untyped(client)  # the start: who it is, and what for
            with self._free:
                first = self._backends[0]
            key = first.key if self._greets_as_backend else MADE_UP_KEY
            client.sendall(b"R" + struct.pack("!II", 8, 0) + first.parameters + key + READY)
            while True:
                self._serve_transaction(client)
        client.close()

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
            if not self._is_closed:
                backend = self._connect()
            raise
        finally:
            with self._free:
                self._backends.append(backend)
                self._free.notify()


class _Backend:
    """One of the pooler's own connections to the server."""

    def __init__(self, path: str, search_path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        values = ["user", "postgres", "database", "postgres", "search_path", search_path]
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


def read_untyped(end: socket.socket) -> bytes:
    head = _read(end, 4)
    return head + _read(end, struct.unpack("!I", head)[0] - 4)


def read_typed(end: socket.socket) -> bytes:
    kind = _read(end, 1)
    return kind + read_untyped(end)


def _read(end: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        piece = end.recv(size - len(found))
        if not piece:
            raise EOFError
        found += piece
    return found


def _socket_path(dsn: str) -> str:
    with psycopg.connect(dsn) as connection:
        return f"{connection.info.host}/.s.PGSQL.{connection.info.port}"
