-- The servers that this journal was accepted on, the newest last; every row stays.
--
-- A dump, a backup and a standby carry these rows along, so a journal that finds itself on another
-- server, or on another timeline of this one, knows that the end of its log may be lost.

CREATE TABLE accepted_servers (
    acceptance_no integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    system_identifier bigint NOT NULL,
    timeline integer NOT NULL,
    accepted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    accepted_by text NOT NULL,
    reason text NOT NULL,
    -- How many leases were fenced, and where leases and log differed (JSON).
    fenced_count bigint NOT NULL DEFAULT 0,
    differences jsonb NOT NULL DEFAULT '[]'
);

-- Numbers that are never used, because a discarded timeline may have used them: those above the
-- last one that was found, up to and including the other.
CREATE TABLE skipped_numbers (
    skipped_no integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    last_position bigint NOT NULL,
    skipped_to_position bigint NOT NULL,
    last_epoch bigint NOT NULL,
    skipped_to_epoch bigint NOT NULL,
    skipped_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

INSERT INTO accepted_servers (system_identifier, timeline, accepted_by, reason)
SELECT system_identifier,
    ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::integer,
    session_user,
    'the journal was made here'
FROM pg_control_system();
