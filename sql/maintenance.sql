-- Who ended the install or upgrade script last. Not dumped.
CREATE TABLE tenancy.installation (
    pid integer NOT NULL,
    backend_start timestamptz NOT NULL
);
COMMENT ON TABLE tenancy.installation IS
    'The session that made the extension here: as long as it is a busy psql it may be restoring a dump, and background workers stay away. Only functions reach it.';

CREATE TABLE tenancy.worker_runs (
    task text COLLATE "C" CONSTRAINT worker_runs_pkey PRIMARY KEY,
    runs bigint NOT NULL,
    done bigint NOT NULL,
    failures bigint NOT NULL,
    failures_in_row integer NOT NULL,
    last_started_at timestamptz NOT NULL,
    last_finished_at timestamptz NOT NULL,
    next_due_at timestamptz NOT NULL,
    last_failed_at timestamptz,
    last_sqlstate text,
    last_error text
) WITH (fillfactor = 50);
COMMENT ON TABLE tenancy.worker_runs IS
    'What the background workers have done in this database, by task; tenancy.worker_status shows it. Not dumped. Level monitor.';

CREATE VIEW tenancy.worker_status AS
    SELECT t.task, t.every_s, coalesce(r.runs, 0) AS runs, coalesce(r.done, 0) AS done, coalesce(r.failures, 0) AS failures,
           r.last_started_at, r.last_finished_at,
           extract(epoch FROM r.last_finished_at - r.last_started_at) AS last_duration_s,
           CASE WHEN t.enabled THEN r.next_due_at END AS next_due_at,
           coalesce(r.failures_in_row, 0) AS failures_in_row, r.last_failed_at, r.last_sqlstate, r.last_error,
           t.enabled, t.launcher_pid
    FROM tenancy.worker_tasks() t LEFT JOIN tenancy.worker_runs r ON r.task = t.task;
COMMENT ON VIEW tenancy.worker_status IS
    'The tasks of the background workers in this database: how often, what was done and what failed, when last and when next, at the latest, in seconds where a name ends in _s. failures_in_row counts those since the last success; last_error stays after it. enabled and launcher_pid are the server''s: tenancy.workers_enabled, and the process that starts the workers, NULL when there is none. Level monitor.';

COMMENT ON FUNCTION tenancy.worker_tasks() IS
    'The tasks of the background workers, how often each is done in seconds, and whether the server''s workers are enabled and their launcher runs. Level monitor. Example: SELECT * FROM tenancy.worker_status;';
