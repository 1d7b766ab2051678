"""Before a PostgreSQL server, on loopback: lets connections in, or leaves them unanswered."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Self

import psycopg
from psycopg.conninfo import make_conninfo

PIECE_BYTES = 64 * 1024


class Doorkeeper:
    """Listens until closed. What came through before it swallows goes on."""

    def __init__(self, dsn: str) -> None:
        with psycopg.connect(dsn) as connection:
            self._path = f"{connection.info.host}/.s.PGSQL.{connection.info.port}"
        self._is_open = threading.Event()
        self._is_open.set()
        self._ends: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.dsn = make_conninfo(
            user="postgres",
            dbname="postgres",
            host="127.0.0.1",
            port=str(self._listener.getsockname()[1]),
            sslmode="disable",
            gssencmode="disable",
        )
        threading.Thread(target=self._accept, daemon=True).start()

    @classmethod
    @contextmanager
    def before(cls, dsn: str) -> Iterator[Self]:
        doorkeeper = cls(dsn)
        try:
            yield doorkeeper
        finally:
            for end in [doorkeeper._listener, *doorkeeper._ends]:
                _shut(end)

    def swallow(self) -> None:
        """Answer no new connection."""
        self._is_open.clear()

    def let_in(self) -> None:
        """Let new ones through again; those that were swallowed are never answered."""
        self._is_open.set()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed
                return
            self._ends.append(client)
            if not self._is_open.is_set():
                continue
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._path)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._ends.append(server)
            for source, target in ((client, server), (server, client)):
                threading.Thread(target=_pass_on, args=(source, target), daemon=True).start()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(PIECE_BYTES):
            target.sendall(piece)
    _shut(source)
    _shut(target)


def _shut(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
