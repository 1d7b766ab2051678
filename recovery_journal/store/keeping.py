"""Renews leases between the claim that won them and their hand-over, however long that takes."""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import Event, Lock, Thread
from typing import Final, Protocol

from recovery_journal.domain.errors import RecoveryJournalError
from recovery_journal.domain.lease import Fence, LeaseStatus
from recovery_journal.postgres.database import Database

BYTES_A_SECOND: Final = 8 * 1024 * 1024
"""The lowest rate, in bytes per second, at which one call digests and decodes plain values. No
value is longer than the largest payload."""

SMALL_BYTES: Final = 64 * 1024
"""Values of built-in types up to this length, in bytes, are decoded in a fraction of any TTL."""

# By fence and status, so that a lease that a sweeper has taken back stays lost.
RENEW = """
UPDATE leases
SET renewed_at = clock_timestamp(),
    expires_at = clock_timestamp() + make_interval(secs => %(lasts_s)s)
FROM unnest(%(attempt_ids)s::text[], %(epochs)s::bigint[]) AS mine(attempt_id, epoch)
WHERE leases.attempt_id = mine.attempt_id
    AND leases.epoch = mine.epoch
    AND status = %(status)s
    AND (status = 'held' OR retry_at IS NULL)
RETURNING leases.attempt_id
"""

_log = logging.getLogger("recovery_journal.store.keeping")


class KeepAlive(Protocol):
    """Renews leases while they are loaded. Called between short pieces of work, with the number of
    bytes that one call is about to process."""

    def __call__(self, size_bytes: int = 0) -> object:
        """Renew where that is due."""

    def decoding(self, size_bytes: int) -> AbstractContextManager[None]:
        """Renew while values of so many bytes are decoded."""


class KeepNothing:
    """For callers that have no lease to renew meanwhile."""

    def __call__(self, size_bytes: int = 0) -> None:
        """Nothing is due."""

    def decoding(self, size_bytes: int) -> AbstractContextManager[None]:  # noqa: ARG002 - as above
        """Nothing is due."""
        return nullcontext()


KEEP_NOTHING: Final = KeepNothing()


class Keeping:
    """Renews leases that were just won, three times in their TTL and otherwise not at all.

    Called between short pieces of work, it renews in the caller's thread. While the caller waits
    for the server, `beside` renews in a thread and a connection of its own. That thread has ended
    when `beside` is left, because reducers are forked, and a fork of a process with other threads
    inherits the locks that they held.

    Decoding of plain values holds the interpreter's lock, so a thread cannot renew meanwhile:
    before it, the lease is renewed for as much longer as that many bytes may take. Other values are
    made by Python code, a codec's or ours, for which there is no such bound, but during which a
    thread can renew.
    """

    def __init__(
        self,
        database: Database,
        leases: Sequence[tuple[str, Fence]],
        *,
        status: LeaseStatus,
        ttl_s: float,
        has_codecs: bool = True,
        since: float | None = None,
    ) -> None:
        """`since` is the earliest time at which the leases were won, on the monotonic clock.
        Without codecs of the user, short values need no thread."""
        self._database = database
        self._epochs = {attempt_id: fence.epoch for attempt_id, fence in leases}
        self._status = status
        self._ttl_s = ttl_s
        self._every_s = ttl_s / 3
        self._has_codecs = has_codecs
        self._renewing = Lock()
        self._renewed_at = time.monotonic() if since is None else since
        self._has_renewed = False
        self._failure: RecoveryJournalError | None = None

    def __call__(self, size_bytes: int = 0) -> None:
        """Renew if it is due, or if the next call processes so many bytes that it takes long."""
        allowance_s = size_bytes / BYTES_A_SECOND
        if self._is_due or allowance_s > self._every_s:
            self._renew(allowance_s)

    def held(self) -> set[str]:
        """The attempts whose leases are still held, for most of a TTL at least."""
        if self._has_renewed or self._is_due:
            self._renew()
        return set(self._epochs)

    def decoding(self, size_bytes: int) -> AbstractContextManager[None]:
        """Renew while values of so many bytes are decoded, whatever code runs for that."""
        if size_bytes > SMALL_BYTES or (self._has_codecs and size_bytes):
            return self.beside()
        return nullcontext()

    @contextmanager
    def beside(self) -> Iterator[None]:
        """Renew meanwhile in a thread. If the last renewal failed, renew again here, and raise
        the error of that."""
        ended = Event()
        thread = Thread(target=self._renew_until, args=(ended,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
        if self._failure is not None:
            self._failure = None
            self._renew()

    @property
    def _is_due(self) -> bool:
        return time.monotonic() - self._renewed_at >= self._every_s

    def _renew_until(self, ended: Event) -> None:
        while not ended.wait(self._every_s):
            try:
                self._renew()
                self._failure = None
            except RecoveryJournalError as error:
                _log.warning("cannot renew leases while they are loaded: %s", error)
                self._failure = error

    def _renew(self, allowance_s: float = 0.0) -> None:
        mine = {
            "attempt_ids": list(self._epochs),
            "epochs": list(self._epochs.values()),
            "status": self._status.value,
            "lasts_s": self._ttl_s + allowance_s,
        }
        renewed_at = time.monotonic()
        with self._renewing, self._database.cursor() as cursor:
            found = {row["attempt_id"] for row in cursor.execute(RENEW, mine).fetchall()}
            self._renewed_at, self._has_renewed = renewed_at, True
            if self._status is LeaseStatus.HELD:
                self._epochs = {it: epoch for it, epoch in self._epochs.items() if it in found}
