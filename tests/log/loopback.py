"""A way to a server that a test can cut at a chosen message."""

import os
import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

CHUNK = 65536
LIMIT_S = 20


class Loopback:
    """Forwards between a local port and the server.

    `lose_request(text)` drops the connection instead of passing on what contains the text;
    `lose_reply(text)` does so with what the server answers. Each happens once.
    """

    def __init__(self, dsn: str) -> None:
        self._server = _address(dsn)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._port: int = self._listener.getsockname()[1]
        self._dsn = dsn
        self._open: list[socket.socket] = []
        self._lost_request: bytes | None = None
        self._lost_reply: bytes | None = None
        self.has_cut = threading.Event()

    @property
    def dsn(self) -> str:
        """The same server and database, by this way."""
        return make_conninfo(
            self._dsn,
            host="127.0.0.1",
            hostaddr="127.0.0.1",
            port=self._port,
            sslmode="disable",
            gssencmode="disable",
        )

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        _shut(self._listener)
        for connection in self._open:
            _shut(connection)

    def lose_request(self, text: bytes) -> None:
        """The next message to the server that contains this text never arrives."""
        self._lost_request = text

    def lose_reply(self, text: bytes) -> None:
        """The next answer that contains this text never arrives."""
        self._lost_reply = text

    def _accept(self) -> None:
        with suppress(OSError):  # the listener is shut at the end of the test
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(self._server[0], socket.SOCK_STREAM)
                server.connect(self._server[1])
                self._open += [client, server]
                for source, target, is_request in ((client, server, True), (server, client, False)):
                    threading.Thread(
                        target=self._forward, args=(source, target, is_request), daemon=True
                    ).start()

    def _forward(self, source: socket.socket, target: socket.socket, is_request: bool) -> None:  # noqa: FBT001 - a thread's arguments have no names
        with suppress(OSError):  # the other side is gone: there is nobody to tell
            while chunk := source.recv(CHUNK):
                if self._is_lost(chunk, is_request=is_request):
                    self.has_cut.set()
                    break
                target.sendall(chunk)
        _shut(source)
        _shut(target)

    def _is_lost(self, chunk: bytes, *, is_request: bool) -> bool:
        text = self._lost_request if is_request else self._lost_reply
        if text is None or text not in chunk:
            return False
        if is_request:
            self._lost_request = None
        else:
            self._lost_reply = None
        return True


def _address(dsn: str) -> tuple[socket.AddressFamily, str | tuple[str, int]]:
    with psycopg.connect(dsn) as connection:
        host, port = connection.info.host, connection.info.port
    if host.startswith("/"):
        return socket.AF_UNIX, os.fspath(f"{host}/.s.PGSQL.{port}")
    return socket.AF_INET, (str(conninfo_to_dict(dsn).get("hostaddr") or host), port)


def _shut(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
