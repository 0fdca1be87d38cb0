-- Revision 0002: which processes run, and how long each source takes.

CREATE TABLE dims_processes (
    process TEXT NOT NULL,
    host TEXT NOT NULL,
    role TEXT NOT NULL,
    pid BIGINT NOT NULL,
    version TEXT NOT NULL,
    config_hash TEXT NOT NULL,
    queues TEXT[] DEFAULT '{}' NOT NULL,
    started_at TIMESTAMPTZ NOT NULL,
    seen_at TIMESTAMPTZ DEFAULT clock_timestamp() NOT NULL,
    last_sweep_at TIMESTAMPTZ,
    last_claim_at TIMESTAMPTZ,
    last_stored_at TIMESTAMPTZ,
    clock_offset DOUBLE PRECISION,
    problem TEXT,
    PRIMARY KEY (process)
);
COMMENT ON TABLE dims_processes IS
    'One row per process of DIMS: where it runs, which version and configuration it has, and when it last made progress.';
COMMENT ON COLUMN dims_processes.process IS 'role@host, or the name that Celery gives a worker';
COMMENT ON COLUMN dims_processes.seen_at IS 'its last sign of life, by the clock of the database';
COMMENT ON COLUMN dims_processes.last_sweep_at IS 'when it last sent wake-ups for everything that waited';
COMMENT ON COLUMN dims_processes.last_claim_at IS 'when one of its workers last claimed a source';
COMMENT ON COLUMN dims_processes.last_stored_at IS 'when it last stored an event';
COMMENT ON COLUMN dims_processes.clock_offset IS 'seconds by which the clock of its host is ahead of the database';
COMMENT ON COLUMN dims_processes.problem IS 'why it makes no progress, or NULL if it does';

ALTER TABLE dims_sources ADD COLUMN scan_seconds DOUBLE PRECISION;
COMMENT ON COLUMN dims_sources.scan_seconds IS 'how long its last scan took';
