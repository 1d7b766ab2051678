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
    -- Where a tail may be lost: the last position and epoch found, and the last of those that will
    -- never be given out, because the lost future may have done so.
    last_position bigint,
    skipped_to_position bigint,
    last_epoch bigint,
    skipped_to_epoch bigint,
    -- How many leases were fenced, and where leases and log said different things (JSON).
    fenced_count bigint NOT NULL DEFAULT 0,
    differences jsonb NOT NULL DEFAULT '[]'
);

INSERT INTO accepted_servers (system_identifier, timeline, accepted_by, reason)
SELECT system_identifier,
    ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::integer,
    session_user,
    'the journal was made here'
FROM pg_control_system();
