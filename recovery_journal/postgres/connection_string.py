"""Parses a connection string, and decides how messages may name its server.

A password with an unescaped `/`, `@`, `:`, `#`, `?`, `%` or blank shifts the parts of a connection
string: libpq then takes a piece of it for a host or a database. So messages name a server by its
parsed parts only where there is but one way to read the string.
"""

import os
import re
from typing import Any, Final

import psycopg
from msgspec import Struct
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from recovery_journal.domain.errors import InvalidInput

DSN_VARIABLE: Final = "RECOVERY_JOURNAL_DSN"
UNNAMED: Final = "the server of the DSN that was given"
UNSAID: Final = (
    "the DSN can be read in two ways, so nothing of it is shown; escape the password (%2F for a /, "
    "%40 for an @), or leave it out and set PGPASSWORD or a .pgpass file"
)

_ESCAPED: Final = r"(?:[A-Za-z0-9._~-]|%[0-9A-Fa-f]{2})"
_SECRET: Final = r"(?:[A-Za-z0-9._~!$'()*+,;=&-]|%[0-9A-Fa-f]{2})"  # noqa: S105 - an alphabet
_HOST: Final = rf"(?:{_ESCAPED}*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{{1,5}})?"
_URI: Final = re.compile(
    rf"postgres(?:ql)?://(?:{_ESCAPED}*(?::{_SECRET}*)?@)?{_HOST}(?:,{_HOST})*"
    rf"(?:/{_ESCAPED}*)?(?:\?[a-z_]+=(?:{_ESCAPED}|[/:,])*(?:&[a-z_]+=(?:{_ESCAPED}|[/:,])*)*)?"
)
_PAIR: Final = r"\s*([a-z_]+)\s*=\s*(?:'(?:[^'\\]|\\.)*'|[^\s'\\]*)"
_PAIRS: Final = re.compile(rf"(?:{_PAIR}(?=\s|$))*\s*")
_NAME: Final = re.compile(r"[A-Za-z0-9._,:/\[\]-]*")
"""Hosts, addresses, ports, folders of sockets."""
_NAMES: Final = ("host", "hostaddr", "port")

_KEYWORD: Final = r"(?:host|hostaddr|port|user|dbname|passfile|service|options|ssl\w+|password)"
_KEYED: Final = rf"{_KEYWORD}\s*=\s*(?:'(?:[^'\\]|\\.)*'|\S*)\s+"
_LIKE: Final = re.compile(
    rf"\s*(?:postgres\w*(?:\+\w+)?(?::/|//)|(?:{_KEYED})*(?:ssl)?password\s*=|{_KEYED}{_KEYWORD}\s*=)",
    re.IGNORECASE,
)
"""The beginnings of a connection string, including mistyped ones."""

CREDENTIALS: Final = re.compile(r"[^\s'\"]*:[^\s'\"]*@[^\s'\"]*")
"""A text that may be the end of a connection string. It may be an attempt's id as well."""


class ConnectionString(Struct, frozen=True):
    """A connection string, parsed. `is_certain` means that it can be read in one way only."""

    parameters: dict[str, Any]
    is_certain: bool

    def __repr__(self) -> str:
        return f"ConnectionString({self.server!r})"

    @property
    def text(self) -> str:
        """The string for another program, with its password."""
        return make_conninfo("", **self.parameters)

    @property
    def server(self) -> str:
        """Host, port and database as a person would name them; never the password."""
        if not self.is_certain:
            return UNNAMED
        host = self.parameters.get("host") or os.environ.get("PGHOST") or "the local socket"
        port = self.parameters.get("port") or os.environ.get("PGPORT") or "5432"
        database = self.parameters.get("dbname") or os.environ.get("PGDATABASE") or ""
        return f"{host}:{port}/{database}"


def parse(dsn: str) -> ConnectionString:
    """Parse a connection string. Raises `InvalidInput`, which shows nothing of it."""
    try:
        found = conninfo_to_dict(dsn)
    except (psycopg.Error, UnicodeError):
        # The parser's message quotes the DSN, and with it perhaps the password. Nor is it kept as
        # the context of the error that is raised below.
        found = None
    if found is None:
        raise InvalidInput(
            "the DSN",
            found="no PostgreSQL connection string",
            needed="a string like postgresql://user@host:5432/database",
            do="correct it",
        )
    parameters = {name: value for name, value in found.items() if value is not None}
    return ConnectionString(parameters, _is_certain(dsn, parameters))


def is_like_dsn(text: str) -> bool:
    """Whether a text that was passed for something else is a connection string, by its beginning:
    then no message may show it or use it as a name."""
    return _LIKE.match(text) is not None


def is_like_dsns_path(path: str) -> bool:
    """The same for a path, from which blanks and slashes may have been removed."""
    steps = path.split("/")
    return CREDENTIALS.search(path) is not None or any(is_like_dsn(f"{step}/") for step in steps)


def misplaced(name: str, needed: str) -> InvalidInput:
    """The error for a text that is like a DSN; it does not show the text."""
    return InvalidInput(
        name,
        found="what is like a DSN (not shown)",
        needed=needed,
        do=f"give a DSN as the DSN: with --dsn, or in ${DSN_VARIABLE}",
    )


def _is_certain(dsn: str, parameters: dict[str, Any]) -> bool:
    if dsn.startswith(("postgresql://", "postgres://")):
        return _URI.fullmatch(dsn) is not None
    names = re.findall(_PAIR, dsn)
    return (
        _PAIRS.fullmatch(dsn) is not None
        and len(names) == len(set(names))  # of two the last one counts: a part of a password
        and all(_NAME.fullmatch(str(parameters.get(name, ""))) for name in _NAMES)
        and not re.search(r"[@:/?#=%\s]", str(parameters.get("dbname", "")))
    )
