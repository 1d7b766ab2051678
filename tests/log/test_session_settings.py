"""No setting of a role, a database or a server changes what is written, read or promised."""

from collections.abc import Iterator
from datetime import timedelta
from uuid import uuid4

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import recovery_journal as rj
from recovery_journal.domain.errors import InvalidInput, SettingRefused
from recovery_journal.postgres.session_settings import PINNED, REQUIRED, Durability
from tests.rules.scenes import until
from tests.schemas import own_database
from tests.servers import PrivateServer

AWKWARD = 'it\'s \\ "é" \n {}'

# Each was found in use somewhere, or changes what a statement or a value means.
SETTINGS = (
    "DateStyle = 'SQL, DMY'",
    "DateStyle = 'German'",
    "DateStyle = 'Postgres, MDY'",
    "IntervalStyle = 'sql_standard'",
    "IntervalStyle = 'iso_8601'",
    "TimeZone = 'Asia/Kathmandu'",
    "array_nulls = off",
    "backslash_quote = off",
    "bytea_output = 'escape'",
    "check_function_bodies = off",
    "client_encoding = 'LATIN1'",
    "client_min_messages = 'debug1'",
    "cursor_tuple_fraction = 1e-6",
    "default_toast_compression = 'pglz'",
    "default_transaction_deferrable = on",
    "default_transaction_isolation = 'serializable'",
    "default_transaction_read_only = on",
    "enable_indexscan = off",
    "enable_seqscan = off",
    "escape_string_warning = off",
    "exit_on_error = on",
    "extra_float_digits = -15",
    "geqo_threshold = 2",
    "idle_in_transaction_session_timeout = '50ms'",
    "idle_session_timeout = '300ms'",
    "jit_above_cost = 0",
    "lock_timeout = '1ms'",
    "plan_cache_mode = 'force_generic_plan'",
    "plpgsql.check_asserts = off",
    "plpgsql.extra_errors = 'all'",
    "plpgsql.variable_conflict = 'use_variable'",
    "quote_all_identifiers = on",
    "row_security = off",
    "search_path = 'nowhere'",
    "session_replication_role = 'replica'",
    "standard_conforming_strings = off",
    "statement_timeout = '80ms'",
    "synchronize_seqscans = off",
    "synchronous_commit = off",
    "track_activities = off",
    "transform_null_equals = on",
    "work_mem = '64kB'",
    "xmloption = 'document'",
    "zero_damaged_pages = on",
)
OF_SUPERUSERS = ("session_replication_role = 'replica'", "zero_damaged_pages = on")


@pytest.fixture
def database_dsn(server_dsn: str) -> Iterator[str]:
    with own_database(server_dsn) as dsn:
        yield dsn


def set_for_database(dsn: str, *settings: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        name = connection.info.dbname
        for setting in settings:
            connection.execute(f'ALTER DATABASE "{name}" SET {setting}'.encode())


def work_through(dsn: str) -> None:
    """Everything that a journal does, with values that show a changed meaning."""
    with rj.open(dsn, limits=rj.Limits(ttl_s=60.0, grace_s=0.0)) as journal:
        for number in range(4):
            lease = journal.acquire(
                attempt_id=f"{AWKWARD}{number}",
                run_id=f"r{number}",
                worker_id=AWKWARD,
                kind="k",
                input={"text": AWKWARD},
                tenant="NULL" if number % 2 else "",
                timeout=timedelta(hours=1) if number % 2 else None,
                code_version="1" if number % 2 else "",
            )
            lease.record_step(AWKWARD, b"\x00\\\xff")
            lease.checkpoint({"at": 0.1})
            lease.record_step("after", [0.1, None])
            lease.begin_step("in doubt")
        journal.report_lost(worker_id=AWKWARD, reason=AWKWARD)
        assert len(journal.dispatch_ready(tenants=["NULL"])) == 2
        claims = journal.claim(worker_id="w-2", limit=10)
        assert len(claims) == 4
        for claim in claims:
            assert (claim.input, claim.state) == ({"text": AWKWARD}, {"at": 0.1})
            assert [step.output for step in claim.tail] == [[0.1, None]]
            assert [doubt.name for doubt in claim.in_doubt] == ["in doubt"]
            claim.lease.complete(AWKWARD)
        last = claims[0].lease.attempt_id
        history = journal.history(last)
        assert history[-1].recorded_at.utcoffset() == timedelta(0)
        assert getattr(history[2].event, "reason", None) == AWKWARD
        assert journal.result(last) == AWKWARD
        rj.Follower(journal).catch_up(timeout_s=20)
        journal.rebuild(process_count=1)
        assert all(checked.is_right for checked in journal.check())
        assert journal.status().problems == []
        assert journal.prune(older_than=timedelta(0)).runs == 4


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_databases_setting_changes_nothing(database_dsn: str, setting: str) -> None:
    set_for_database(database_dsn, setting)

    work_through(database_dsn)


def test_all_settings_at_once_change_nothing(database_dsn: str) -> None:
    set_for_database(database_dsn, *SETTINGS)

    work_through(database_dsn)


def settings_of(dsn: str) -> dict[str, str]:
    with rj.open(dsn) as journal, journal.database.cursor() as cursor:
        rows = cursor.execute("SELECT name, setting FROM pg_settings").fetchall()
    return {row["name"]: row["setting"] for row in rows}


def test_a_dsn_does_not_get_around_a_pinned_setting(database_dsn: str) -> None:
    options = "-c synchronous_commit=off -c standard_conforming_strings=off -c TimeZone=Asia/Tokyo"

    found = settings_of(make_conninfo(database_dsn, options=options, client_encoding="LATIN1"))

    assert found["synchronous_commit"] == "on"
    assert found["standard_conforming_strings"] == "on"
    assert (found["TimeZone"], found["client_encoding"]) == ("UTC", "UTF8")


def test_every_pinned_setting_is_one_of_the_servers(database_dsn: str) -> None:
    with psycopg.connect(database_dsn) as connection:
        connection.execute("DO $$ BEGIN END $$")  # which brings PL/pgSQL's own settings
        rows = connection.execute("SELECT lower(name), context FROM pg_settings").fetchall()
        version = connection.info.server_version
    contexts: dict[str, str] = dict(rows)

    newer = {"transaction_timeout", "restrict_nonsystem_relation_kind"} if version < 170000 else ()
    for name in set(PINNED) - set(newer):
        assert contexts[name.lower()] in ("user", "superuser"), name
    assert {contexts[name] for name in REQUIRED} == {"superuser"}


@pytest.mark.parametrize(
    ("found", "durability", "needed"),
    [
        ("off", "full", "on"),
        ("local", "full", "on"),
        ("remote_write", "full", "on"),
        ("remote_apply", "full", "remote_apply"),  # the stronger promise of the server's is kept
        ("on", "relaxed", "off"),
    ],
)
def test_a_commit_is_on_disk_unless_the_user_says_otherwise(
    database_dsn: str, found: str, durability: str, needed: str
) -> None:
    set_for_database(database_dsn, f"synchronous_commit = {found}")

    with rj.open(database_dsn, durability=durability) as journal:
        with journal.database.cursor() as cursor:
            row = cursor.execute("SHOW synchronous_commit").fetchone()
        assert row == {"synchronous_commit": needed}
        assert journal.status().server.durability is Durability(durability)


def test_a_durability_that_is_none_is_refused(database_dsn: str) -> None:
    for wrong in ("off", "", 7, None):
        with pytest.raises(InvalidInput, match="durability"):
            rj.open(database_dsn, durability=wrong)  # type: ignore[arg-type]  # on purpose


@pytest.fixture
def ordinary_role(server_dsn: str) -> Iterator[str]:
    """A role that may make schemas in a database, and nothing else."""
    name = f"role_{uuid4().hex[:12]}"
    with psycopg.connect(server_dsn, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN".encode())
        try:
            yield name
        finally:
            connection.execute(f"DROP ROLE {name}".encode())


@pytest.mark.parametrize("setting", OF_SUPERUSERS)
def test_a_setting_that_only_a_superuser_may_take_back_is_refused_in_words(
    server_dsn: str, ordinary_role: str, setting: str
) -> None:
    name = setting.partition(" ")[0]
    with own_database(server_dsn) as dsn:
        with psycopg.connect(dsn, autocommit=True) as connection:
            database = connection.info.dbname
            connection.execute(f'GRANT CREATE ON DATABASE "{database}" TO {ordinary_role}'.encode())
            connection.execute(f"ALTER ROLE {ordinary_role} SET {setting}".encode())
        theirs = make_conninfo(dsn, user=ordinary_role)

        with pytest.raises(SettingRefused, match=rf"{name} = .*RESET {name}"):
            rj.open(theirs)

        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(f"ALTER ROLE {ordinary_role} RESET {name}".encode())
        work_through(theirs)


@pytest.mark.parametrize("encoding", ["LATIN1", "EUC_JP", "WIN1252", "SQL_ASCII"])
def test_a_database_that_cannot_store_every_text_is_refused(server_dsn: str, encoding: str) -> None:
    options = f"ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
    with psycopg.connect(server_dsn) as connection:
        if connection.info.server_version >= 150_000:  # older ones know no other
            options += " LOCALE_PROVIDER libc"
    with own_database(server_dsn, options) as dsn:
        for must_exist in (False, True):
            with pytest.raises(SettingRefused, match=rf"server_encoding = {encoding}, needed UTF8"):
                rj.open(dsn, must_exist=must_exist)


@pytest.mark.parametrize("name", REQUIRED)
def test_a_reload_of_the_servers_configuration_does_not_get_past_a_required_setting(
    private_server: PrivateServer, name: str
) -> None:
    """A superuser's session has set it itself; an ordinary one is left to what `status` shows."""
    bad = {"session_replication_role": "replica"}.get(name, "on")
    dsn = private_server.dsn
    rj.open(dsn).close()
    with psycopg.connect(dsn, autocommit=True) as superuser:
        for statement in (
            "CREATE ROLE application LOGIN",
            "GRANT USAGE ON SCHEMA recovery_journal TO application",
            "GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA recovery_journal TO application",
        ):
            superuser.execute(statement.encode())
        with rj.open(dsn) as its, rj.open(make_conninfo(dsn, user="application")) as theirs:
            assert theirs.status().problems == []
            superuser.execute(f"ALTER SYSTEM SET {name} = {bad}".encode())
            superuser.execute("SELECT pg_reload_conf()")
            until(lambda: theirs.status().problems != [], "the reload to be seen")

            (problem,) = theirs.status().problems
            assert f"{name} was set to {bad}" in problem.what
            with its.database.cursor() as cursor:
                row = cursor.execute(f"SHOW {name}".encode()).fetchone()
            assert row is not None
            assert row[name] == REQUIRED[name]
            with pytest.raises(SettingRefused, match=name):
                rj.open(make_conninfo(dsn, user="application"))
