"""Before a PostgreSQL server: lets connections in, or leaves them unanswered."""

import socket
import threading

from tests.relays.relay import Relay


class Doorkeeper(Relay):
    """Connections from before it swallows continue."""

    def __init__(self, dsn: str) -> None:
        super().__init__(dsn)
        self._lets_in = threading.Event()
        self._lets_in.set()

    def swallow(self) -> None:
        """Answer no new connection."""
        self._lets_in.clear()

    def let_in(self) -> None:
        """Let new ones through again; those that were swallowed are never answered."""
        self._lets_in.set()

    def serve(self, client: socket.socket) -> None:
        """Through the door, or not."""
        if self._lets_in.is_set():
            super().serve(client)
