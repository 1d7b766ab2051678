"""A proxy before PostgreSQL that loses one chosen request, or its reply, and the connection.

It reads the frontend's messages, so that it knows which statement a reply belongs to. From the
client's side both losses look the same: nobody told it whether the statement was committed.
"""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from typing import Self

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

READY_FOR_QUERY = b"Z"


class Lost(StrEnum):
    """What does not arrive. After REQUEST nothing happened, after REPLY everything did."""

    REQUEST = "request"
    REPLY = "reply"


class LossyProxy:
    """Listens on loopback. Until told to lose something, it passes everything on."""

    def __init__(self, dsn: str) -> None:
        self._family, self._upstream = _address(dsn)
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        self.dsn = _through(dsn, port)
        self._lock = threading.Lock()
        self._pattern: bytes | None = None
        self._lost = Lost.REPLY
        self._passed_first = 0
        self._open: list[socket.socket] = []
        self.loss_count = 0
        threading.Thread(target=self._accept, daemon=True).start()

    @classmethod
    @contextmanager
    def before(cls, dsn: str) -> Iterator[Self]:
        """A proxy before this server, closed in the end with all its connections."""
        proxy = cls(dsn)
        try:
            yield proxy
        finally:
            proxy.close()

    def lose(self, pattern: bytes, lost: Lost = Lost.REPLY, *, after: int = 0) -> None:
        """Lose the next statement whose text holds the pattern, once `after` others have passed."""
        with self._lock:
            self._pattern, self._lost, self._passed_first = pattern, lost, after

    def close(self) -> None:
        """Close the listener and what came through it."""
        _shut(self._listener)
        for end in self._open:
            _shut(end)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed
                return
            # Messages are passed on one by one; none may wait for the one before to be answered.
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            server = socket.socket(self._family)
            server.connect(self._upstream)
            if self._family is not socket.AF_UNIX:
                server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._open += [client, server]
            connection = _Connection(self, client, server)
            threading.Thread(target=connection.forward_requests, daemon=True).start()
            threading.Thread(target=connection.forward_replies, daemon=True).start()

    def take_loss(self, message: bytes) -> Lost | None:
        """What this message loses, if it is the one."""
        with self._lock:
            if self._pattern is None or self._pattern not in message:
                return None
            if self._passed_first:
                self._passed_first -= 1
                return None
            self._pattern = None
            self.loss_count += 1
            return self._lost


class _Connection:
    """One client's connection and its two directions."""

    def __init__(self, proxy: LossyProxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._is_losing = threading.Event()

    def forward_requests(self) -> None:
        with suppress(OSError, EOFError):
            # The first message has no type; encryption is switched off in our DSN.
            self._server.sendall(_read_untyped(self._client))
            while True:
                message = _read_typed(self._client)
                lost = self._proxy.take_loss(message)
                if lost is Lost.REQUEST:
                    break
                if lost is Lost.REPLY:
                    self._is_losing.set()
                self._server.sendall(message)
        self._close_unless_losing()

    def forward_replies(self) -> None:
        with suppress(OSError, EOFError):
            while True:
                message = _read_typed(self._server)
                if not self._is_losing.is_set():
                    self._client.sendall(message)
                elif message[:1] == READY_FOR_QUERY:
                    break  # the server is done with it; the client never hears so
        _shut(self._client)
        _shut(self._server)

    def _close_unless_losing(self) -> None:
        if not self._is_losing.is_set():
            _shut(self._client)
            _shut(self._server)


def _read_untyped(end: socket.socket) -> bytes:
    head = _read(end, 4)
    return head + _read(end, struct.unpack("!I", head)[0] - 4)


def _read_typed(end: socket.socket) -> bytes:
    kind = _read(end, 1)
    return kind + _read_untyped(end)


def _read(end: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        piece = end.recv(size - len(found))
        if not piece:
            raise EOFError
        found += piece
    return found


def _shut(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()


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
