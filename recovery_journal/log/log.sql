-- The log: one row per event, appended and never changed.
--
-- Layout and names are those of the eventsourcing library's recorder, plus `recorded_at`.
-- Everything here runs once, in one transaction, with the search path set to the schema.

CREATE TABLE journal_events (
    -- "C": the order of bytes, the same on every machine and after every upgrade.
    originator_id text COLLATE "C" NOT NULL,
    -- Streams begin with 1. One that began below it would hold an event that no reader expects.
    originator_version bigint NOT NULL CHECK (originator_version >= 1),
    topic text NOT NULL CHECK (char_length(topic) <= 100),
    -- Ours have a few kilobytes. A reader holds a whole page of them in memory.
    state bytea NOT NULL CHECK (octet_length(state) <= 1048576),
    -- One number at a time: cached numbers would make gaps that last as long as a session.
    notification_id bigint NOT NULL GENERATED ALWAYS AS IDENTITY (CACHE 1),
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (originator_id, originator_version)
) WITH (
    -- Rows never die, so vacuum only has to freeze; the planner still needs statistics.
    autovacuum_vacuum_threshold = 100000000,
    autovacuum_analyze_threshold = 1000,
    autovacuum_analyze_scale_factor = 0.01
);

CREATE UNIQUE INDEX journal_events_notification_id_idx ON journal_events (notification_id);


-- No event is changed or removed. Triggers do not stop an owner who first disables them; they stop
-- every statement that was not written to break the log.

CREATE FUNCTION journal_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'cannot % the log %: its events are append-only; append a new event instead',
        lower(TG_OP), TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege';
END
$$;

CREATE TRIGGER journal_refuse_change
    BEFORE UPDATE OR DELETE OR TRUNCATE ON journal_events
    FOR EACH STATEMENT EXECUTE FUNCTION journal_refuse_change();


-- Each append continues its stream, and the database alone sets its time and position. Statement
-- triggers, because they cover COPY too and cost once per batch: a row trigger is no faster for one
-- event, because the start of a query is the costly part, and half as slow again for a COPY.
-- Conditions in WHEN are slower than either: every statement parses them again.

CREATE FUNCTION journal_refuse_append(refused journal_events, last_position bigint) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    IF refused.notification_id > last_position
        OR refused.notification_id <= current_setting('recovery_journal.last_position')::bigint
    THEN
        RAISE EXCEPTION 'cannot append at position %: the database sets it',
            refused.notification_id USING ERRCODE = 'insufficient_privilege';
    ELSIF refused.originator_version <= 1 OR EXISTS (
        SELECT FROM journal_events AS earlier
        WHERE earlier.originator_id = refused.originator_id
            AND earlier.originator_version = refused.originator_version - 1
    ) THEN
        RAISE EXCEPTION 'cannot append with recorded_at %: the database sets it',
            refused.recorded_at USING ERRCODE = 'insufficient_privilege';
    END IF;
    RAISE EXCEPTION 'cannot append version % of %: found no version % in its stream',
        refused.originator_version, refused.originator_id, refused.originator_version - 1
        USING ERRCODE = 'check_violation', CONSTRAINT = 'journal_events_no_gap';
END
$$;

-- These two run with every append, so they have no search path of their own to be set and reset.
-- Without one they must qualify every name, operators too, or a caller's own search path would
-- decide.

DO $do$
DECLARE
    home text := current_schema();
    positions text := format('%I.journal_events_notification_id_seq', home);
BEGIN
    EXECUTE format($create$
        CREATE FUNCTION journal_note_position() RETURNS trigger LANGUAGE plpgsql AS $$
        DECLARE
            noted pg_catalog.text;
        BEGIN
            -- A position drawn before this statement held its lock could be passed over by
            -- readers. By this function, because it locks the sequence's page: SELECT last_value
            -- does not, and while a writer logs the numbers drawn ahead it shows one that is up
            -- to 32 too high. An assignment, because PERFORM would begin a query.
            noted := pg_catalog.set_config(
                'recovery_journal.last_position',
                coalesce(pg_catalog.pg_sequence_last_value(%2$L), 0)::pg_catalog.text,
                true
            );
            RETURN NULL;
        END
        $$
    $create$, home, positions);

    EXECUTE format($create$
        CREATE FUNCTION journal_check_appended() RETURNS trigger LANGUAGE plpgsql AS $$
        DECLARE
            last_position bigint := pg_catalog.pg_sequence_last_value(%2$L);
        BEGIN
            PERFORM %1$I.journal_refuse_append(event, last_position)
            FROM appended AS event
            WHERE event.recorded_at OPERATOR(pg_catalog.<) pg_catalog.statement_timestamp()
                OR event.recorded_at OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp()
                OR event.notification_id OPERATOR(pg_catalog.>) last_position
                OR event.notification_id OPERATOR(pg_catalog.<=)
                    pg_catalog.current_setting('recovery_journal.last_position')::bigint
                OR (
                    event.originator_version OPERATOR(pg_catalog.>) 1
                    AND NOT EXISTS (
                        SELECT FROM %1$I.journal_events AS earlier
                        WHERE earlier.originator_id OPERATOR(pg_catalog.=) event.originator_id
                            AND earlier.originator_version
                                OPERATOR(pg_catalog.=)
                                (event.originator_version OPERATOR(pg_catalog.-) 1)
                        -- Keeps this a lookup per row: as a join it would be planned for the empty
                        -- table of the session's first append and scan the whole log ever after.
                        OFFSET 0
                    )
                );
            RETURN NULL;
        END
        $$
    $create$, home, positions);
END
$do$;

CREATE TRIGGER journal_note_position
    BEFORE INSERT ON journal_events
    FOR EACH STATEMENT EXECUTE FUNCTION journal_note_position();

CREATE TRIGGER journal_check_appended
    AFTER INSERT ON journal_events
    REFERENCING NEW TABLE AS appended
    FOR EACH STATEMENT EXECUTE FUNCTION journal_check_appended();

-- ALWAYS: session_replication_role = replica switches off triggers that are merely enabled.
ALTER TABLE journal_events ENABLE ALWAYS TRIGGER journal_refuse_change;
ALTER TABLE journal_events ENABLE ALWAYS TRIGGER journal_note_position;
ALTER TABLE journal_events ENABLE ALWAYS TRIGGER journal_check_appended;


-- The log for a person in psql: SELECT * FROM journal_log WHERE attempt = 'a-42';

CREATE FUNCTION journal_event_json(state bytea) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN convert_from(state, 'UTF8')::jsonb;
EXCEPTION WHEN OTHERS THEN
    -- One damaged event must not hide the others.
    RETURN jsonb_build_object('undecodable', encode(state, 'base64'));
END
$$;

CREATE VIEW journal_log AS
SELECT
    notification_id AS position,
    recorded_at,
    originator_id AS attempt,
    originator_version AS version,
    topic AS type,
    journal_event_json(state) AS event
FROM journal_events
ORDER BY notification_id;


-- Events that every reader skips, because a person decided it; the journal's own stream records
-- that person and the reason. Readers believe this table and not that stream: any role that may
-- append to the log may append there too, and must not be able to hide an event from any reader.

CREATE TABLE skipped_events (
    position bigint PRIMARY KEY,
    -- The version of the event in the journal's own stream that records it.
    version bigint NOT NULL
);


-- The privileges that a role needs to append and to read, and no others: SELECT
-- journal_grant_writer('my_writer'); Without a privilege on the other columns it cannot even name a
-- position or a time.

CREATE FUNCTION journal_grant_writer(writer regrole) RETURNS void LANGUAGE plpgsql
SET search_path FROM CURRENT AS $$
DECLARE
    home regnamespace := (
        SELECT relnamespace FROM pg_class WHERE oid = 'journal_events'::regclass
    );
BEGIN
    EXECUTE format('GRANT USAGE ON SCHEMA %s TO %s', home, writer);
    EXECUTE format('GRANT SELECT ON journal_events, journal_log, skipped_events TO %s', writer);
    EXECUTE format('GRANT SELECT ON SEQUENCE journal_events_notification_id_seq TO %s', writer);
    EXECUTE format(
        'GRANT INSERT (originator_id, originator_version, topic, state) ON journal_events TO %s',
        writer
    );
END
$$;
