"""One connection per thread to the journal's schema, with PostgreSQL's errors translated into the
journal's."""

import logging
import os
import threading
import traceback
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

import psycopg
from psycopg import Connection, Cursor
from psycopg.rows import DictRow, dict_row

from recovery_journal.domain.errors import (
    InvalidInput,
    ReadOnlyServer,
    RecoveryJournalError,
    ServerExhausted,
    ServerTooOld,
    ServerUnavailable,
    StoreBusy,
)
from recovery_journal.postgres.connection_string import UNSAID, is_like_dsn, misplaced, parse
from recovery_journal.postgres.inherited_sockets import OPENED
from recovery_journal.postgres.server_settings import require_unicode
from recovery_journal.postgres.session_settings import Durability, SessionSettings, without_limits

OLDEST_SERVER: Final = 14
CONNECT_S: Final = 10.0
LOCK_S: Final = 10.0
STATEMENT_S: Final = 60.0
IDLE_IN_TRANSACTION_S: Final = 10.0
LONGEST_SCHEMA_NAME: Final = 63  # bytes; PostgreSQL cuts a longer name without an error

# A peer that vanished without closing is noticed within about as long as connecting may take.
NETWORK_LIMITS: Final = {
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}

ONE_SNAPSHOT: Final = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"
"""First in a transaction: all its reads are as of one moment."""

WITHOUT_LIMIT: Final = "SET LOCAL statement_timeout = 0"
"""For statements of a transaction that may take any time."""

# Reached a limit, lost a deadlock, or could not be serialised: the same call may succeed later.
BUSY_STATES: Final = frozenset({"55P03", "57014", "40P01", "40001"})
READ_ONLY_STATE: Final = "25006"
EXHAUSTED_CLASS: Final = "53"
TOO_LONG_STATES: Final = frozenset({"25P03", "25P04"})  # idle in a transaction, or in it at all


RowT = TypeVar("RowT")

Guard: TypeAlias = Callable[[Connection[DictRow]], object]


class OwnConnection(NamedTuple):
    """A connection, and whether the backend that answers is the one that greeted: a pooler greets
    in its own name."""

    connection: Connection[DictRow]
    is_direct: bool


class _Session:
    """One connection, the process that opened it, and its number among all of this process."""

    numbers = count(1)

    def __init__(self, own: OwnConnection, thread: "_Thread") -> None:
        self.connection, self.is_direct = own
        self.process_id = os.getpid()
        self.no = next(self.numbers)
        self.is_in_transaction = False
        # To be called once: by `close`, or at the end of the thread or the program.
        self.close = weakref.finalize(thread, self._close)

    @property
    def is_usable(self) -> bool:
        return self.process_id == os.getpid() and not self.connection.closed

    def _close(self) -> None:
        if self.process_id == os.getpid():  # a child's copy stays, see `OpenConnections`
            self.connection.close()


class _Thread:
    """Represents the life of a thread: it is dropped when the thread's local data is."""

    session: _Session | None = None
    exhaustion_count = 0


class _Local(threading.local):
    """The `_Thread` of each thread, made at its first use of the database."""

    def __init__(self) -> None:
        self.thread = _Thread()


class Database:
    """The journal's schema on one server; every thread has its own autocommit connection.

    A connection is opened on first use, again when it broke, and again in a forked child. It is
    closed when its thread ends and by `close`. Each has the settings of `session_settings`, and the
    limits given here, in seconds.
    """

    def __init__(
        self,
        dsn: str,
        schema: str,
        *,
        application_name: str = "recovery_journal",
        connect_s: float = CONNECT_S,
        lock_s: float = LOCK_S,
        statement_s: float = STATEMENT_S,
        idle_in_transaction_s: float = IDLE_IN_TRANSACTION_S,
        durability: Durability = Durability.FULL,
    ) -> None:
        _check_schema_name(schema)
        self.schema = schema
        self._given = parse(dsn)
        if not self._given.is_certain:
            # Its messages name the host and the port of each attempt to connect.
            logging.getLogger("psycopg").addFilter(above_debugging)
        self._options: dict[str, Any] = {
            "application_name": application_name,
            "connect_timeout": max(2, round(connect_s)),  # libpq takes whole seconds, from two
            **NETWORK_LIMITS,
            **self._given.parameters,
            "client_encoding": "utf8",
        }
        self.durability = durability
        self._settings = SessionSettings(
            schema,
            durability,
            lock_timeout=lock_s,
            statement_timeout=statement_s,
            idle_in_transaction_session_timeout=idle_in_transaction_s,
        )
        self._guard: Guard | None = None
        self._local = _Local()
        self._sessions: weakref.WeakSet[_Session] = weakref.WeakSet()
        self._is_closed = False

    @property
    def server(self) -> str:
        """Host, port and database as a person would name them; never the password, and nothing
        of a connection string that can be read in two ways."""
        return self._given.server

    @property
    def dsn(self) -> str:
        """The connection string, with its password: for another program, and never for a
        message."""
        return self._given.text

    def connection(self) -> Connection[DictRow]:
        """This thread's connection, opened if need be; its errors are psycopg's own."""
        return self._session().connection

    def guard(self, guard: Guard) -> None:
        """Call the guard with this thread's connection, and with every thread's next one as soon as
        it is open; a connection is not used if the guard raises. A reconnect may reach another
        server."""
        with self.translated():
            guard(self.connection())
        self._guard = guard

    def is_direct(self) -> bool:
        """Whether this thread's connection ends at the server itself and not at a pooler, which
        lends one backend after another."""
        return self._session().is_direct

    def open_connection(self, **options: Any) -> OwnConnection:
        """A connection beside those of the threads, prepared like them, that the caller must close.
        `options` are libpq's. Errors as in `transaction`."""
        with self.translated():
            connection = self._connect(**options)
        OPENED.add(connection)
        version = self.server_version(connection)
        try:
            return self._prepared(connection)
        except (StoreBusy, ServerUnavailable) as error:
            # A limit of the role may have ended the session before ours was set. Ours is not passed
            # at every start, because poolers refuse parameters there that they do not know.
            given = {**self._options, **options}.get("options", os.environ.get("PGOPTIONS", ""))
            try:
                with self.translated():
                    connection = self._connect(
                        **{**options, "options": without_limits(given, version)}
                    )
                    OPENED.add(connection)
                    return self._prepared(connection)
            except ServerUnavailable as again:
                raise error from again

    def session_no(self) -> int:
        """A number that grows each time this thread's connection had to be opened again."""
        return self._session().no

    def exhaustion_count(self) -> int:
        """How often the server was out of resources when this thread used it."""
        return self._local.thread.exhaustion_count

    @contextmanager
    def cursor(self) -> Iterator[Cursor[DictRow]]:
        """A cursor whose statements commit one by one - or belong to this thread's transaction,
        inside of one. Errors as in `transaction`."""
        with self.translated(), self._session().connection.cursor() as cursor:
            yield cursor

    @contextmanager
    def transaction(self) -> Iterator[Cursor[DictRow]]:
        """One transaction on this thread's connection: committed at the end, rolled back on error.

        It cannot be nested, because the inner one would not commit at its end: pass the cursor on
        instead. Raises `ServerUnavailable` (also when the reply to COMMIT was lost, so that the
        commit is unknown), `StoreBusy`, `ReadOnlyServer`; integrity errors stay psycopg's.
        """
        session = self._session()
        if session.is_in_transaction:
            raise InvalidInput(
                "a transaction inside a transaction",
                found="one open on this thread",
                needed="none",
                do="pass the cursor of the open one on",
            )
        session.is_in_transaction = True
        try:
            with self.translated(), session.connection.transaction():
                yield session.connection.cursor()
        finally:
            session.is_in_transaction = False

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Raise typed errors in place of psycopg's where there is one; leave the others."""
        try:
            yield
        except psycopg.Error as error:
            typed = self.typed(error)
            if typed is None:
                raise
            if isinstance(typed, ServerExhausted):
                self._local.thread.exhaustion_count += 1
            # psycopg's message quotes the DSN, and a traceback shows it.
            raise typed from (error if self._given.is_certain else None)

    def typed(self, error: psycopg.Error) -> RecoveryJournalError | None:
        """The journal's error for a psycopg error, or None."""
        if error.sqlstate in BUSY_STATES:
            return StoreBusy("finish a statement", limit=f"the session's limits ({error.sqlstate})")
        if error.sqlstate == READ_ONLY_STATE:
            return ReadOnlyServer("write to the journal")
        if (error.sqlstate or "").startswith(EXHAUSTED_CLASS):
            return ServerExhausted(server=self.server, reason=self._reason(error))
        is_gone = isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
        if is_gone or error.sqlstate in TOO_LONG_STATES:
            return ServerUnavailable(server=self.server, reason=self._reason(error))
        return None

    def _reason(self, error: psycopg.Error) -> str:
        if not self._given.is_certain:
            return UNSAID
        return " ".join(str(error).split()) or type(error).__name__

    def server_version(self, connection: Connection[DictRow]) -> int:
        """The server's version as libpq counts it: 160002 is 16.2."""
        return connection.info.server_version

    def close(self) -> None:
        """Close the connections of all threads of this process; the database is unusable
        afterwards."""
        self._is_closed = True
        for session in list(self._sessions):
            session.close()

    def _session(self) -> _Session:
        thread = self._local.thread
        session = thread.session
        if session is not None and session.is_usable:
            return session
        if session is not None and session.is_in_transaction and session.process_id == os.getpid():
            # A new connection here would continue outside of the transaction that was lost.
            raise ServerUnavailable(server=self.server, reason="the transaction's connection gone")
        if self._is_closed:
            raise InvalidInput(
                "this database", found="it closed", needed="it open", do="open it again"
            )
        if session is not None:
            session.close()
        thread.session = self._open(thread)
        return thread.session

    def _open(self, thread: _Thread) -> _Session:
        own = self.open_connection()
        if self._guard is not None:
            try:
                with self.translated():
                    self._guard(own.connection)
            except BaseException:
                own.connection.close()
                raise
        session = _Session(own, thread)
        self._sessions.add(session)
        return session

    def _connect(self, **options: Any) -> Connection[DictRow]:
        try:
            return Connection[DictRow].connect(
                "", autocommit=True, row_factory=dict_row, **{**self._options, **options}
            )
        except (psycopg.Error, ValueError) as error:
            # After a timeout psycopg's frames still hold the connection, in a cycle with the error:
            # the server, which may have accepted it meanwhile, would keep it until garbage is
            # collected.
            traceback.clear_frames(error.__traceback__)
            if self._given.is_certain:
                raise
        # Raised here, so that no traceback shows the error whose message quotes the DSN.
        raise psycopg.OperationalError(UNSAID)

    def _prepared(self, connection: Connection[DictRow]) -> OwnConnection:
        try:
            return OwnConnection(connection, is_direct=self._prepare(connection))
        except BaseException:
            connection.close()
            raise

    def _prepare(self, connection: Connection[DictRow]) -> bool:
        """Set the session up; return whether it ends at the server itself."""
        version = self.server_version(connection)
        if version < OLDEST_SERVER * 10_000:
            found = f"{version // 10_000}.{version % 10_000}"
            raise ServerTooOld(found=found, needed=str(OLDEST_SERVER))
        require_unicode(connection)
        with self.translated():
            is_direct = self._settings.apply(connection) == connection.info.backend_pid
        if not is_direct:
            connection.prepare_threshold = None  # the next backend would not know the statement
        return is_direct


def one(cursor: Cursor[RowT]) -> RowT:
    """The row of a statement that always returns one, such as a count."""
    row = cursor.fetchone()
    assert row is not None
    return row


def _check_schema_name(schema: str) -> None:
    if is_like_dsn(schema):
        raise misplaced("the schema name", "the name of a schema")
    is_reserved = schema.startswith("pg_") or schema == "$user"  # which means the user, also quoted
    size = len(schema.encode(errors="surrogatepass"))
    is_text = "\0" not in schema and not any("\ud800" <= letter <= "\udfff" for letter in schema)
    if 0 < size <= LONGEST_SCHEMA_NAME and is_text and not is_reserved:
        return
    raise InvalidInput(
        "the schema name",
        found=repr(schema[:LONGEST_SCHEMA_NAME]),
        needed=f"1 to {LONGEST_SCHEMA_NAME} bytes in UTF-8, no NUL, not 'pg_...' or '$user'",
        do="choose another name",
    )


def above_debugging(record: logging.LogRecord) -> bool:
    """Whether a log record is above the debug level."""
    return record.levelno > logging.DEBUG
