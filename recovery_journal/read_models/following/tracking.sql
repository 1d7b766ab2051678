-- How far each projection has followed the log, and its state.

CREATE TABLE IF NOT EXISTS projection_tracking (
    projection text COLLATE "C" PRIMARY KEY,
    position bigint NOT NULL,
    state text NOT NULL DEFAULT 'following' CHECK (state IN ('following', 'stopped')),
    -- The fold that made the rows: its version and its hash.
    fold_version bigint NOT NULL DEFAULT 1,
    fold_hash text NOT NULL DEFAULT '',
    -- Why it stopped: names position, stream and tag.
    error text,
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 50);  -- one row per projection, updated with every batch
