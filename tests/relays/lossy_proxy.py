"""A proxy before PostgreSQL that loses one chosen request, or its reply, and the connection.

It reads the frontend's messages, so that it knows which statement a reply belongs to. From the
client's side both losses look the same: it does not learn whether the statement was committed.
"""

import socket
import threading
from contextlib import suppress
from enum import StrEnum

from tests.relays.relay import Relay, read_typed, read_untyped, shut

READY_FOR_QUERY = b"Z"


class Lost(StrEnum):
    """The lost message. After REQUEST nothing happened, after REPLY everything did."""

    REQUEST = "request"
    REPLY = "reply"


class LossyProxy(Relay):
    """Until it is set to lose something, it passes everything on."""

    def __init__(self, dsn: str) -> None:
        super().__init__(dsn)
        self._lock = threading.Lock()
        self._pattern: bytes | None = None
        self._lost = Lost.REPLY
        self._passed_first = 0
        self._times = 0
        self.loss_count = 0

    def lose(
        self, pattern: bytes, lost: Lost = Lost.REPLY, *, after: int = 0, times: int = 1
    ) -> None:
        """Lose the next so many statements whose text holds the pattern, once `after` others have
        passed."""
        with self._lock:
            self._pattern, self._lost = pattern, lost
            self._passed_first, self._times = after, times

    def serve(self, client: socket.socket) -> None:
        """Message by message, until one is to be lost."""
        server = self.connect()
        is_losing = threading.Event()
        replies = threading.Thread(
            target=self._forward_replies, args=(client, server, is_losing), daemon=True
        )
        replies.start()
        with suppress(OSError, EOFError):
            # The first message has no type; encryption is switched off in our DSN.
            server.sendall(read_untyped(client))
            while True:
                message = read_typed(client)
                lost = self._take_loss(message)
                if lost is Lost.REQUEST:
                    break
                if lost is Lost.REPLY:
                    is_losing.set()
                server.sendall(message)
        if not is_losing.is_set():
            shut(client)
            shut(server)

    def _forward_replies(
        self, client: socket.socket, server: socket.socket, is_losing: threading.Event
    ) -> None:
        with suppress(OSError, EOFError):
            while True:
                message = read_typed(server)
                if not is_losing.is_set():
                    client.sendall(message)
                elif message[:1] == READY_FOR_QUERY:
                    break  # the server is done with it; the client never hears so
        shut(client)
        shut(server)

    def _take_loss(self, message: bytes) -> Lost | None:
        """The loss of this message, if it is the one."""
        with self._lock:
            if self._pattern is None or self._pattern not in message:
                return None
            if self._passed_first:
                self._passed_first -= 1
                return None
            self.loss_count += 1
            self._times -= 1
            if self._times == 0:
                self._pattern = None
            return self._lost
