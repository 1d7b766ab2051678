"""A relay before a PostgreSQL server, on loopback: each client has a thread and an end of its
own, and everything is closed in the end. The subclass serves the clients."""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Self

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

PIECE_BYTES = 64 * 1024


class Relay:
    """Listens until closed. By itself it passes everything on, both ways."""

    def __init__(self, dsn: str) -> None:
        self._family, self._upstream = _address(dsn)
        self._open: list[socket.socket] = []
        self.is_closed = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.dsn = _through(dsn, self._listener.getsockname()[1])

    @classmethod
    @contextmanager
    def before(cls, dsn: str, **settings: Any) -> Iterator[Self]:
        """One before this server, closed in the end with all its connections."""
        relay = cls(dsn, **settings)
        threading.Thread(target=relay._accept, daemon=True).start()
        try:
            yield relay
        finally:
            relay.close()

    def close(self) -> None:
        """Close the listener and what came through it."""
        self.is_closed = True
        for end in (self._listener, *self._open):
            shut(end)

    def connect(self) -> socket.socket:
        """One more connection to the server."""
        server = socket.socket(self._family)
        server.connect(self._upstream)
        self._keep(server)
        return server

    def serve(self, client: socket.socket) -> None:
        """Serve a client, in its own thread."""
        server = self.connect()
        threading.Thread(target=_pass_on, args=(server, client), daemon=True).start()
        _pass_on(client, server)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed
                return
            self._keep(client)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError, EOFError):  # either side has gone: there is no peer left
            self.serve(client)

    def _keep(self, end: socket.socket) -> None:
        # Messages are passed on one by one; none may wait for the one before to be answered.
        if end.family is not socket.AF_UNIX:
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._open.append(end)


def read_untyped(end: socket.socket) -> bytes:
    """The next message, of the kind that has a length alone: a client's first."""
    head = _read(end, 4)
    return head + _read(end, struct.unpack("!I", head)[0] - 4)


def read_typed(end: socket.socket) -> bytes:
    """The next message; its first byte is its type. Raises `EOFError`."""
    kind = _read(end, 1)
    return kind + read_untyped(end)


def shut(end: socket.socket) -> None:
    """Close a connection also for a thread that waits for it."""
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(PIECE_BYTES):
            target.sendall(piece)
    shut(source)
    shut(target)


def _read(end: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        piece = end.recv(size - len(found))
        if not piece:
            raise EOFError
        found += piece
    return found


def _address(dsn: str) -> tuple[socket.AddressFamily, str | tuple[str, int]]:
    with psycopg.connect(dsn) as connection:
        host, port = connection.info.host, connection.info.port
    if host.startswith("/"):
        return socket.AF_UNIX, f"{host}/.s.PGSQL.{port}"
    return socket.AF_INET, (host, port)


def _through(dsn: str, port: int) -> str:
    given = {
        name: str(value)
        for name, value in conninfo_to_dict(dsn).items()
        if name not in ("host", "hostaddr", "port") and value is not None
    }
    here = {"host": "127.0.0.1", "port": str(port)}
    plain = {"sslmode": "disable", "gssencmode": "disable"}
    return make_conninfo("", **{**given, **here, **plain})
