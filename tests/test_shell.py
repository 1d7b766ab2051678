"""The embedded server is reached whatever the shell's libpq variables say."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.pq import Conninfo

from recovery_journal.domain.errors import RecoveryJournalError
from recovery_journal.postgres.database import Database
from recovery_journal.postgres.embedded import EmbeddedServer
from tests.servers import PrivateServer

USE = """
import sys
from pathlib import Path
import recovery_journal as rj

with rj.open(data=Path(sys.argv[1]), schema=sys.argv[2]) as journal:
    journal.acquire(attempt_id="a", run_id="a", worker_id="w").complete("it's done")
    assert journal.result("a") == "it's done"
"""

SERVICE = "[prod]\nhost=127.0.0.1\nport=6543\nuser=nobody\ndbname=nowhere\nsslmode=require\n"

VARIABLES = {
    "PGAPPNAME": "another",
    "PGCHANNELBINDING": "require",
    "PGCLIENTENCODING": "LATIN1",
    "PGCONNECT_TIMEOUT": "1",
    "PGDATABASE": "nowhere",
    "PGDATESTYLE": "German",
    "PGGEQO": "off",
    "PGGSSENCMODE": "require",
    "PGHOST": "/nowhere",
    "PGHOSTADDR": "127.0.0.1",
    "PGLOADBALANCEHOSTS": "nonsense",
    "PGMAXPROTOCOLVERSION": "nonsense",
    "PGMINPROTOCOLVERSION": "nonsense",
    "PGOPTIONS": "-c default_transaction_read_only=on -c synchronous_commit=off",
    "PGPASSFILE": "/nowhere",
    "PGPASSWORD": "secret",
    "PGPORT": "6543",
    "PGREQUIREAUTH": "scram-sha-256",
    "PGREQUIREPEER": "nobody",
    "PGSSLCERTMODE": "require",
    "PGSSLMAXPROTOCOLVERSION": "nonsense",
    "PGSSLMINPROTOCOLVERSION": "nonsense",
    "PGSSLMODE": "verify-full",
    "PGSSLNEGOTIATION": "direct",
    "PGSSLROOTCERT": "system",
    "PGTARGETSESSIONATTRS": "standby",
    "PGTZ": "Asia/Kathmandu",
    "PGUSER": "nobody",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rj")


def use(folder: Path, schema: str, variables: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, "-c", USE, str(folder), schema],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stderr


@pytest.fixture(scope="module")
def running(folder: Path) -> Iterator[EmbeddedServer]:
    """Kept running, so that each use is short."""
    with EmbeddedServer.start(folder) as server:
        yield server


def service_file(folder: Path) -> dict[str, str]:
    path = folder / "services.conf"
    path.write_text(SERVICE)
    return {"PGSERVICE": "prod", "PGSERVICEFILE": str(path)}


@pytest.mark.usefixtures("running")
@pytest.mark.parametrize("name", VARIABLES)
def test_a_variable_of_the_shell_leads_nowhere_else(folder: Path, name: str) -> None:
    assert use(folder, name.lower(), {name: VARIABLES[name]}) == ""


@pytest.mark.usefixtures("running")
def test_a_service_of_the_shell_leads_nowhere_else(folder: Path) -> None:
    assert use(folder, "service", service_file(folder)) == ""


KEYWORDS = [it.keyword.decode() for it in Conninfo.get_defaults() if it.keyword != b"service"]


@pytest.mark.parametrize("value", ["nonsense", "true", "database", ""])
def test_whatever_a_service_names_leads_nowhere_else(
    running: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    """One by one, because the first that is refused would hide the others."""
    path = tmp_path / "services.conf"
    monkeypatch.setenv("PGSERVICE", "prod")
    monkeypatch.setenv("PGSERVICEFILE", str(path))
    refused = {}

    for keyword in KEYWORDS:
        path.write_text(f"[prod]\n{keyword}={value}\n")
        try:
            with Database(running.dsn, "public").cursor() as cursor:
                cursor.execute("SELECT %(one)s::integer", {"one": 1})
        except RecoveryJournalError as error:
            refused[keyword] = str(error)

    assert refused == {}


@pytest.mark.usefixtures("running")
def test_all_variables_of_the_shell_lead_nowhere_else(folder: Path) -> None:
    assert use(folder, "everything", {**VARIABLES, **service_file(folder)}) == ""


def test_the_servers_own_programs_take_the_dsn(
    running: EmbeddedServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**VARIABLES, **service_file(folder)}.items():
        monkeypatch.setenv(name, value)

    with psycopg.connect(running.dsn) as connection:
        assert connection.info.dbname == "postgres"
    done = subprocess.run(
        [running.bin_path / "pg_isready", "--dbname", running.dsn], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_server_of_another_account_is_not_spoken_to(private_server: PrivateServer) -> None:
    impostor = private_server.dsn.replace("requirepeer=", "requirepeer=not-")

    with pytest.raises(psycopg.OperationalError, match="requirepeer"):
        psycopg.connect(impostor)
