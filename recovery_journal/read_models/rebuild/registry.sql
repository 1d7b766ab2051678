-- The record of a rebuild's finished work, so that the next start does only what is missing.

CREATE TABLE IF NOT EXISTS rebuilds (
    rebuild_no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- One at a time: a rebuild of other projections, or by another fold, begins from scratch.
    is_only_row boolean NOT NULL DEFAULT true UNIQUE CHECK (is_only_row),
    -- Settled, so what is at or below it is complete and never changes.
    upto bigint NOT NULL,
    begun_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- The process that runs it, or ran it before it died.
    host text NOT NULL,
    process_id bigint NOT NULL,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE IF NOT EXISTS rebuild_projections (
    rebuild_no bigint NOT NULL REFERENCES rebuilds ON DELETE CASCADE,
    projection text COLLATE "C" NOT NULL,
    fold_version bigint NOT NULL,
    fold_hash text NOT NULL,
    -- Where rows mix streams: up to where the shadow's rows have been folded.
    position bigint NOT NULL DEFAULT 0,
    event_count bigint NOT NULL DEFAULT 0,
    switched_at timestamptz,
    PRIMARY KEY (rebuild_no, projection)
);

CREATE TABLE IF NOT EXISTS rebuild_ranges (
    rebuild_no bigint NOT NULL REFERENCES rebuilds ON DELETE CASCADE,
    range_no bigint NOT NULL,
    -- The streams that began behind the one position and at or before the other.
    after_position bigint NOT NULL,
    last_position bigint NOT NULL,
    event_count bigint NOT NULL DEFAULT 0,
    done_at timestamptz,
    PRIMARY KEY (rebuild_no, range_no)
);
