"""The DSN of an embedded server, complete, so that no libpq variable of the shell can redirect
it."""

from base64 import b64encode
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlencode

from psycopg.pq import Conninfo

# libpq takes a named parameter, even an empty one, from here and neither from its environment nor
# from a service, which may name parameters that no variable does. An invalid value in the
# environment is refused even where it has no effect.
PARAMETERS: Final = {
    "hostaddr": "",
    "password": "",
    "passfile": "",
    "options": "",
    "channel_binding": "disable",
    "sslmode": "disable",
    "sslrootcert": "",
    "ssl_min_protocol_version": "",
    "ssl_max_protocol_version": "",
    "gssencmode": "disable",
    "target_session_attrs": "any",
    "client_encoding": "UTF8",
    "replication": "false",
}

NO_KEY: Final = b64encode(bytes(32)).decode()
"""Of the length that libpq requires. The server requires no password, so it is never used."""

# Programs of an older version refuse a parameter that they do not know.
NEWER_PARAMETERS: Final[tuple[tuple[int, dict[str, str]], ...]] = (
    (16, {"require_auth": "", "sslcertmode": "disable", "load_balance_hosts": "disable"}),
    (17, {"sslnegotiation": "postgres"}),
    (
        18,
        {
            "min_protocol_version": "3.0",
            "max_protocol_version": "3.0",
            "scram_client_key": NO_KEY,
            "scram_server_key": NO_KEY,
        },
    ),
)


def local_dsn(socket_folder: Path, *, account: str, version: int) -> str:
    """The DSN for the server of this socket, for this process's libpq and the programs of that
    major version of PostgreSQL. A server that runs under another account is refused, unless the
    account has no name."""
    known = {option.keyword.decode() for option in Conninfo.get_defaults()}
    parameters = {"host": str(socket_folder), "port": "5432", "requirepeer": account, **PARAMETERS}
    for since, newer in NEWER_PARAMETERS:
        if version >= since:
            parameters |= {name: value for name, value in newer.items() if name in known}
    return f"postgresql://postgres@/postgres?{urlencode(parameters, quote_via=quote, safe='')}"
