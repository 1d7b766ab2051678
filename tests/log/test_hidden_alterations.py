"""An altered protection of the log that keeps its name, kind and body is still a problem."""

from typing import LiteralString

import pytest
from psycopg import sql

import recovery_journal as rj
from recovery_journal.monitoring.protections import body_of
from tests.schemas import own_role


def replaced(column: LiteralString, by: LiteralString) -> LiteralString:
    """Another constraint under the name of the one on this column."""
    return (
        f"ALTER TABLE journal_events DROP CONSTRAINT journal_events_{column}_check, "
        f"ADD CONSTRAINT journal_events_{column}_check {by}"
    )


def unique_positions(by: LiteralString) -> LiteralString:
    """Another unique index under the name of the one on positions."""
    name: LiteralString = "journal_events_notification_id_idx"
    return f"DROP INDEX {name}; CREATE UNIQUE INDEX {name} ON journal_events {by}"


KEPT_ALWAYS: LiteralString = (
    "; ALTER TABLE journal_events ENABLE ALWAYS TRIGGER journal_refuse_change"
)
ALTERED: tuple[tuple[LiteralString, str], ...] = (
    (
        (
            "DROP TRIGGER journal_refuse_change ON journal_events; "
            "CREATE TRIGGER journal_refuse_change BEFORE UPDATE OF topic OR DELETE OR TRUNCATE "
            "ON journal_events FOR EACH STATEMENT EXECUTE FUNCTION journal_refuse_change()"
            + KEPT_ALWAYS
        ),
        "trigger journal_refuse_change is missing or altered",
    ),
    (
        (
            "DROP TRIGGER journal_refuse_change ON journal_events; "
            "CREATE TRIGGER journal_refuse_change BEFORE UPDATE OR DELETE OR TRUNCATE "
            "ON journal_events FOR EACH STATEMENT EXECUTE FUNCTION journal_refuse_change('x')"
            + KEPT_ALWAYS
        ),
        "trigger journal_refuse_change is missing or altered",
    ),
    (
        "ALTER FUNCTION journal_refuse_append RESET search_path",
        "function journal_refuse_append is missing or altered",
    ),
    (
        "ALTER FUNCTION journal_refuse_append SET search_path = pg_catalog",
        "function journal_refuse_append is missing or altered",
    ),
    (
        "ALTER FUNCTION journal_check_appended SET session_replication_role = replica",
        "function journal_check_appended is missing or altered",
    ),
    (
        "ALTER FUNCTION journal_refuse_append STRICT",
        "function journal_refuse_append is missing or altered",
    ),
    (
        "ALTER FUNCTION journal_refuse_append STABLE",
        "function journal_refuse_append is missing or altered",
    ),
    ("ALTER SEQUENCE journal_events_notification_id_seq CACHE 100", "sequence of positions"),
    ("ALTER SEQUENCE journal_events_notification_id_seq CYCLE", "sequence of positions"),
    ("ALTER SEQUENCE journal_events_notification_id_seq INCREMENT BY 5", "sequence of positions"),
    (
        (
            "ALTER TABLE journal_events DROP CONSTRAINT journal_events_pkey, "
            "ADD CONSTRAINT journal_events_pkey PRIMARY KEY (originator_id, originator_version) "
            "DEFERRABLE INITIALLY DEFERRED"
        ),
        "no valid unique index on originator_id, originator_version",
    ),
    ("ALTER TABLE journal_events ALTER state DROP NOT NULL", "column state is missing or altered"),
    (
        "ALTER TABLE journal_events DROP CONSTRAINT journal_events_topic_check",
        "constraint journal_events_topic_check is missing",
    ),
    (
        (
            "ALTER TABLE journal_events DROP CONSTRAINT journal_events_state_check, "
            "ADD CONSTRAINT journal_events_state_check CHECK (true) NOT VALID"
        ),
        "constraint journal_events_state_check is missing",
    ),
    (replaced("state", "CHECK (true)"), "constraint journal_events_state_check is missing or alt"),
    (replaced("state", "CHECK (octet_length(state) <= 10485760)"), "constraint journal_events_st"),
    (replaced("topic", "CHECK (char_length(topic) <= 100) NOT VALID"), "constraint journal_event"),
    (
        replaced("originator_version", "CHECK (originator_version >= 0)"),
        "constraint journal_events_originator_version_check is missing or altered",
    ),
    (
        replaced("topic", "UNIQUE (notification_id, topic)"),
        "constraint journal_events_topic_check",
    ),
    (
        "ALTER TABLE journal_events ADD CONSTRAINT no_a_9 CHECK (originator_id <> 'a-9')",
        "constraint no_a_9 does not belong there",
    ),
    (
        "ALTER TABLE journal_events ADD CONSTRAINT once EXCLUDE USING btree (topic WITH =)",
        "constraint once does not belong there",
    ),
    (
        "ALTER TABLE journal_events ALTER recorded_at DROP DEFAULT",
        "column recorded_at is missing or altered",
    ),
    (
        "ALTER TABLE journal_events ALTER recorded_at SET DEFAULT statement_timestamp()",
        "column recorded_at is missing or altered",
    ),
    (
        "ALTER TABLE journal_events ALTER topic SET DEFAULT 'confirmed'",
        "column topic is missing or altered",
    ),
    (
        'DROP VIEW journal_log; ALTER TABLE journal_events ALTER topic TYPE text COLLATE "C"',
        "column topic is missing or altered",
    ),
    ("ALTER TABLE journal_events ADD COLUMN more text", "column more does not belong there"),
    (
        "ALTER TABLE journal_events ADD COLUMN more text GENERATED ALWAYS AS (topic) STORED",
        "column more does not belong there",
    ),
    ("ALTER TABLE journal_events ALTER notification_id DROP IDENTITY", "positions can be chosen"),
    (unique_positions("(notification_id) WHERE topic <> 'x'"), "no valid unique index on notif"),
    (unique_positions("(notification_id, lower(topic))"), "no valid unique index on notificat"),
    (unique_positions("((notification_id + 0))"), "no valid unique index on notification_id"),
    (unique_positions("(notification_id, topic)"), "no valid unique index on notification_id"),
    ("GRANT UPDATE ON journal_events TO PUBLIC", "PUBLIC has UPDATE on the log"),
    ("GRANT UPDATE (topic) ON journal_events TO PUBLIC", "PUBLIC has UPDATE on the log"),
    ("GRANT TRIGGER ON journal_events TO PUBLIC", "PUBLIC has TRIGGER on the log"),
    (
        "GRANT DELETE, TRUNCATE ON journal_events TO PUBLIC",
        "PUBLIC has DELETE, TRUNCATE on the log",
    ),
    (
        "GRANT UPDATE ON SEQUENCE journal_events_notification_id_seq TO PUBLIC",
        "PUBLIC has UPDATE on the sequence of positions",
    ),
)


@pytest.mark.parametrize(("statement", "words"), ALTERED)
def test_an_alteration_that_keeps_names_and_bodies_is_a_problem_too(
    journal: rj.Journal, statement: LiteralString, words: str
) -> None:
    assert journal.status().problems == []

    with journal.database.transaction() as cursor:
        cursor.execute(statement)

    [problem] = journal.status().problems
    assert words in problem.what


def test_another_function_of_its_name_does_not_stand_in_for_an_altered_one(
    journal: rj.Journal,
) -> None:
    with journal.database.transaction() as cursor:
        cursor.execute("SET LOCAL check_function_bodies = off")
        cursor.execute(
            sql.SQL(
                "CREATE OR REPLACE FUNCTION journal_refuse_change() RETURNS trigger "
                "LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; "
                "CREATE FUNCTION journal_refuse_change(integer) RETURNS integer "
                "LANGUAGE plpgsql AS {}"
            ).format(sql.Literal(body_of("journal_refuse_change")))
        )

    [problem] = journal.status().problems

    assert "function journal_refuse_change is missing or altered" in problem.what


def test_a_writer_role_is_no_problem(server_dsn: str, journal: rj.Journal) -> None:
    with own_role(server_dsn) as role:
        with journal.database.cursor() as cursor:
            cursor.execute("SELECT journal_grant_writer(%s::regrole)", [role])

        assert journal.status().problems == []

        with journal.database.cursor() as cursor:
            cursor.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(role)))


def test_an_index_that_is_stored_in_another_way_is_no_problem(journal: rj.Journal) -> None:
    with journal.database.transaction() as cursor:
        cursor.execute(unique_positions("(notification_id) INCLUDE (topic) WITH (fillfactor = 90)"))

    assert journal.status().problems == []


def test_a_default_that_only_looks_like_ours_is_a_problem(journal: rj.Journal) -> None:
    with journal.database.transaction() as cursor:
        cursor.execute(
            "CREATE FUNCTION clock_timestamp() RETURNS timestamptz LANGUAGE sql AS "
            "'SELECT pg_catalog.now()'"
        )
        schema = sql.Identifier(journal.database.schema)
        cursor.execute(
            sql.SQL(
                "ALTER TABLE journal_events ALTER recorded_at SET DEFAULT {}.clock_timestamp()"
            ).format(schema)
        )

    [problem] = journal.status().problems

    assert "column recorded_at is missing or altered" in problem.what


def test_more_than_one_alteration_is_more_than_one_problem(journal: rj.Journal) -> None:
    with journal.database.transaction() as cursor:
        for statement, _words in ALTERED[2:3] + ALTERED[7:8] + ALTERED[-1:]:
            cursor.execute(statement)

    assert len(journal.status().problems) == 3
