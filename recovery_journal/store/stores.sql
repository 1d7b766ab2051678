-- The built-in lease, run-step and checkpoint store: what the log's decisions are about.
--
-- The log is the truth about ownership; a worker's write is checked against its lease row. Every
-- change of an attempt locks its lease row first, then appends, then changes the row.

-- Larger for every lease granted or seized, and never used again.
CREATE SEQUENCE epochs AS bigint CACHE 1;

-- The object id of this sequence separates the session locks and the channel of this journal from
-- those of others. No number is drawn from it: session locks have random numbers, so that they
-- cannot be predicted.
CREATE SEQUENCE session_locks AS integer CYCLE;

CREATE TABLE runs (
    run_id text COLLATE "C" PRIMARY KEY,
    kind text NOT NULL,
    -- Null after pruning.
    input bytea,
    input_digest text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Its input, run steps and checkpoints are gone, so no attempt of it may be opened.
    pruned_at timestamptz,
    CHECK (input IS NOT NULL OR pruned_at IS NOT NULL)
);

-- Runs with something left to prune: pruning does not read the pruned ones again.
CREATE INDEX runs_unpruned ON runs (run_id) WHERE pruned_at IS NULL;

CREATE TABLE leases (
    attempt_id text COLLATE "C" PRIMARY KEY,
    run_id text COLLATE "C" NOT NULL REFERENCES runs,
    attempt_no integer NOT NULL,
    kind text NOT NULL,
    tenant text NOT NULL,
    priority integer NOT NULL,
    code_version text NOT NULL,
    -- Derived from the stream, and changed with it: status, fence, holder. `version` is that of the
    -- last event that changed the row: the steps of a recovery, up to the last one, do not.
    status text NOT NULL,
    -- Whether a sweep has to check it: it may be lost, orphaned or overdue. Indexes use this column
    -- instead of the status, because a recovery begins and ends as held without changing it.
    is_watched boolean NOT NULL
        GENERATED ALWAYS AS (status IN ('held', 'recovering', 'ready')) STORED,
    version bigint NOT NULL,
    epoch bigint NOT NULL,
    lease_id text NOT NULL,
    worker_id text NOT NULL,
    host text NOT NULL,
    boot_id text NOT NULL,
    pid bigint NOT NULL,
    process_started text NOT NULL,
    -- The end of this lock is evidence of the holder's death. Null where the holder has none, so
    -- that only the TTL decides.
    session_lock integer,
    recovery_no integer NOT NULL DEFAULT 0,
    dispatch_id text,
    is_confirmed boolean NOT NULL DEFAULT false,
    -- The database's clock. `expires_at` is null where nothing can expire.
    granted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    renewed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz,
    ttl_s double precision NOT NULL,
    deadline_at timestamptz,
    retry_at timestamptz,
    ended_at timestamptz,
    -- How far the run has come, as its worker reports.
    ordinal bigint NOT NULL,
    chain text NOT NULL,
    checkpoint_count bigint NOT NULL,
    -- Reported for a lease before it expires by itself: which loss, and why.
    loss text,
    loss_reason text,
    result bytea,
    result_digest text
) WITH (
    -- Room for the next versions of each row on its own page.
    fillfactor = 45,
    -- Most versions die on their page and are pruned there, by the next reader of the page. Vacuum
    -- is needed for the index entries of claimed and ended attempts; by default it would wait for a
    -- fifth of a table that keeps every ended attempt.
    autovacuum_vacuum_scale_factor = 0.01,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_analyze_scale_factor = 0.01,
    autovacuum_analyze_threshold = 1000,
    -- A sweep of an idle fleet is short; it must not use all the cores at once.
    parallel_workers = 0
);

-- No index names the status, the stage's other columns or a time that moves: a lease passes through
-- its whole recovery, and every heartbeat, without a new index entry.

-- At most one open attempt per run.
CREATE UNIQUE INDEX leases_open_run ON leases (run_id) WHERE ended_at IS NULL;

-- All attempts of a run: to number the next one, and to see when the last one ended.
CREATE INDEX leases_run ON leases (run_id, attempt_no);

-- The rows that a sweep checks, in the order in which it takes: attempts that have ended, wait for
-- a person or are quarantined cost it nothing. It reads every other one once. An index on the time
-- of their end would save that read, and cost each heartbeat an entry in every index; as a lower
-- bound that only sweeps move up, it would still cost each lease such an update in every TTL.
CREATE INDEX leases_watched ON leases (attempt_id) WHERE is_watched;

CREATE INDEX leases_dispatch ON leases (dispatch_id) WHERE dispatch_id IS NOT NULL;

CREATE INDEX leases_ended ON leases (ended_at) WHERE ended_at IS NOT NULL;

CREATE TABLE run_steps (
    run_id text COLLATE "C" NOT NULL REFERENCES runs,
    ordinal bigint NOT NULL,
    name text NOT NULL,
    output bytea NOT NULL,
    chain text NOT NULL,
    epoch bigint NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (run_id, ordinal)
);

-- A run step announced before its effect; in doubt until it is recorded.
CREATE TABLE announcements (
    run_id text COLLATE "C" NOT NULL REFERENCES runs,
    ordinal bigint NOT NULL,
    name text NOT NULL,
    epoch bigint NOT NULL,
    announced_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (run_id, ordinal)
);

-- `state` is null where a person chose to start from the input again at this ordinal.
CREATE TABLE checkpoints (
    run_id text COLLATE "C" NOT NULL REFERENCES runs,
    checkpoint_no bigint NOT NULL,
    ordinal bigint NOT NULL,
    chain text NOT NULL,
    state bytea,
    state_digest text,
    format_version integer NOT NULL,
    code_version text NOT NULL,
    epoch bigint NOT NULL,
    is_void boolean NOT NULL DEFAULT false,
    written_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (run_id, checkpoint_no)
);

-- The texts of failures, by the version of their events. A text may quote payloads, so the log
-- keeps only its digest, and pruning erases it here.
CREATE TABLE error_texts (
    attempt_id text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    run_id text COLLATE "C" NOT NULL REFERENCES runs,
    text text NOT NULL,
    written_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (attempt_id, version)
);

CREATE INDEX error_texts_run ON error_texts (run_id);

CREATE INDEX error_texts_written ON error_texts (written_at);

-- Which code versions workers of a kind demand (of any kind, where it is empty), and when last.
CREATE TABLE code_version_demand (
    kind text COLLATE "C" NOT NULL,
    code_version text COLLATE "C" NOT NULL,
    asked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (kind, code_version)
);

-- Quarantined attempts whose notice is pending: written with the quarantine, and deleted once a
-- hook call has succeeded or a person has lifted the quarantine. No process takes a row before
-- `next_try_at`: another one is calling the hook, or the last try has failed.
CREATE TABLE pending_quarantine_notices (
    attempt_id text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    try_count integer NOT NULL DEFAULT 0,
    next_try_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (attempt_id, version)
);

-- One row per life of the server, so that an outage is no evidence of a worker's death (rule R9): a
-- promotion changes the timeline without a restart of the server.
CREATE TABLE server_lives (
    timeline text NOT NULL,
    started_at timestamptz NOT NULL,
    first_seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (timeline, started_at)
);

-- The life in which the journal was created; every other one began with an outage.
INSERT INTO server_lives (timeline, started_at)
VALUES (left(pg_walfile_name(pg_current_wal_lsn()), 8), pg_postmaster_start_time());

-- Attempts whose streams cannot be decided on: the reason, the time, and the event that blocks.
-- `leases.retry_at` keeps each from claims and sweeps until the next try, with back-off; the first
-- try that succeeds deletes the row.
CREATE TABLE set_aside (
    attempt_id text COLLATE "C" PRIMARY KEY,
    position bigint,
    reason text NOT NULL,
    try_count integer NOT NULL DEFAULT 1,
    since timestamptz NOT NULL DEFAULT clock_timestamp()
);
