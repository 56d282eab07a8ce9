-- What is measured. metric and aggregation are read by position (src/metering/usage/metric.rs).
CREATE TABLE tenancy.metrics (
    metric text COLLATE "C" CONSTRAINT metrics_pkey PRIMARY KEY,
    aggregation text COLLATE "C" NOT NULL DEFAULT 'sum' CHECK (aggregation IN ('sum', 'max', 'last', 'unique')),
    unit text,
    created_at timestamptz NOT NULL DEFAULT now()
);
SELECT pg_catalog.pg_extension_config_dump('tenancy.metrics', '');
COMMENT ON TABLE tenancy.metrics IS
    'What is measured: its unit, and how the events of a period become one figure: their sum, the greatest, the last, or the number of different resources (unique). Kept by create_metric(). Every level reads it.';
CREATE TRIGGER announce_change AFTER INSERT OR UPDATE OR DELETE ON tenancy.metrics FOR EACH ROW EXECUTE FUNCTION tenancy.announce_change();
CREATE TRIGGER announce_truncate AFTER TRUNCATE ON tenancy.metrics FOR EACH STATEMENT EXECUTE FUNCTION tenancy.announce_change();
ALTER TABLE tenancy.metrics ENABLE ALWAYS TRIGGER announce_change;
ALTER TABLE tenancy.metrics ENABLE ALWAYS TRIGGER announce_truncate;

-- Events that the rollup has not taken yet. Written by position (src/metering/usage/inbox.rs), the narrow columns first.
CREATE TABLE tenancy.usage_inbox (
    tenant_id uuid NOT NULL,
    txid bigint NOT NULL,
    occurred_at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL,
    counted boolean NOT NULL,
    metric text COLLATE "C" NOT NULL,
    quantity numeric NOT NULL,
    resource_id uuid,
    properties jsonb,
    by_sql boolean NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 100000);
CREATE INDEX usage_inbox_txid_idx ON tenancy.usage_inbox (txid);
CREATE INDEX usage_inbox_tenant_id_idx ON tenancy.usage_inbox (tenant_id, metric, txid, counted);
SELECT pg_catalog.pg_extension_config_dump('tenancy.usage_inbox', '');
CREATE FUNCTION tenancy.stamp_usage() RETURNS trigger LANGUAGE c AS 'MODULE_PATHNAME', 'pg_tenancy_stamp_usage';
COMMENT ON FUNCTION tenancy.stamp_usage() IS 'Internal: trigger that names the running transaction in a row of the inbox that comes from a dump or by SQL.';
CREATE TRIGGER stamp_usage BEFORE INSERT ON tenancy.usage_inbox FOR EACH ROW EXECUTE FUNCTION tenancy.stamp_usage();
ALTER TABLE tenancy.usage_inbox ENABLE ALWAYS TRIGGER stamp_usage;
COMMENT ON TABLE tenancy.usage_inbox IS
    'Usage events until the rollup adds them to tenancy.usage_buckets and moves them to tenancy_archive.usage_events; counted says that consume_quota() recorded the event, by_sql that the row came from a dump or by SQL. Only functions reach it.';

-- How far the rollup is: the row of the greatest number counts, and there is no other (a row of its own for each rollup, so that it is found
-- at once where a long snapshot keeps the old ones). Of another cluster it would say nothing, so it is in no dump.
CREATE TABLE tenancy.usage_progress (
    rollups bigint CONSTRAINT usage_progress_pkey PRIMARY KEY,
    floor bigint NOT NULL,
    pending bigint[] NOT NULL
);
COMMENT ON TABLE tenancy.usage_progress IS
    'How many rollups there were, and what they have left: rows of the inbox whose txid is at least floor, or one of pending. Only functions reach it.';

CREATE VIEW tenancy.usage_pending AS
    SELECT i.* FROM tenancy.usage_inbox i
    WHERE i.txid >= coalesce((SELECT p.floor FROM tenancy.usage_progress p ORDER BY p.rollups DESC LIMIT 1), 0)
    UNION ALL
    SELECT i.* FROM tenancy.usage_inbox i
    WHERE i.txid = ANY ((SELECT p.pending FROM tenancy.usage_progress p ORDER BY p.rollups DESC LIMIT 1)::bigint[])
      AND i.txid >= (SELECT min(x) FROM unnest((SELECT p.pending FROM tenancy.usage_progress p ORDER BY p.rollups DESC LIMIT 1)) AS x);
COMMENT ON VIEW tenancy.usage_pending IS
    'The events of the inbox, read without those that the rollup has taken and that a long snapshot keeps from being removed. Only functions reach it.';

CREATE TABLE tenancy.usage_buckets (
    tenant_id uuid NOT NULL,
    metric text COLLATE "C" NOT NULL,
    bucket_start timestamptz NOT NULL,
    quantity numeric NOT NULL,
    events bigint NOT NULL,
    consumed numeric NOT NULL,
    max_quantity numeric NOT NULL,
    last_quantity numeric NOT NULL,
    last_at timestamptz NOT NULL,
    CONSTRAINT usage_buckets_pkey PRIMARY KEY (tenant_id, metric, bucket_start)
) WITH (fillfactor = 70);
SELECT pg_catalog.pg_extension_config_dump('tenancy.usage_buckets', '');
COMMENT ON TABLE tenancy.usage_buckets IS
    'The events that the rollup has taken, by 15 minutes: their sum and number, the part of the sum that consume_quota() recorded, the greatest and the last. Only functions reach it.';

-- The resources of metrics that count different ones.
CREATE TABLE tenancy.usage_uniques (
    tenant_id uuid NOT NULL,
    metric text COLLATE "C" NOT NULL,
    bucket_start timestamptz NOT NULL,
    resource_id uuid NOT NULL,
    CONSTRAINT usage_uniques_pkey PRIMARY KEY (tenant_id, metric, bucket_start, resource_id)
);
SELECT pg_catalog.pg_extension_config_dump('tenancy.usage_uniques', '');
COMMENT ON TABLE tenancy.usage_uniques IS
    'Which resources the events of a metric with aggregation unique named, by 15 minutes. Only functions reach it.';

-- In a tenant's own database: what the control database has not heard of. Of another cluster it would say nothing, so it is in no dump.
CREATE TABLE tenancy.unreported_usage (
    day integer CONSTRAINT unreported_usage_pkey PRIMARY KEY,
    version bigint NOT NULL
) WITH (fillfactor = 50);
COMMENT ON TABLE tenancy.unreported_usage IS
    'In a tenant''s own database: days (of UTC, since 1970) whose buckets have changed since they were reported to the control database, with a number that grows with each rollup. Only functions reach it.';

-- Idempotency keys. Partitions spread the newest pages of the index; each is dumped for itself.
CREATE TABLE tenancy.usage_keys (
    tenant_id uuid NOT NULL,
    key_hash uuid NOT NULL,
    payload_hash uuid NOT NULL,
    recorded_at timestamptz NOT NULL,
    CONSTRAINT usage_keys_pkey PRIMARY KEY (tenant_id, key_hash)
) PARTITION BY HASH (tenant_id, key_hash);
CREATE INDEX usage_keys_recorded_at_idx ON tenancy.usage_keys USING brin (recorded_at);
CREATE TABLE tenancy.usage_keys_0 PARTITION OF tenancy.usage_keys FOR VALUES WITH (MODULUS 8, REMAINDER 0);
CREATE TABLE tenancy.usage_keys_1 PARTITION OF tenancy.usage_keys FOR VALUES WITH (MODULUS 8, REMAINDER 1);
CREATE TABLE tenancy.usage_keys_2 PARTITION OF tenancy.usage_keys FOR VALUES WITH (MODULUS 8, REMAINDER 2);
CREATE TABLE tenancy.usage_keys_3 PARTITION OF tenancy.usage_keys FOR VALUES WITH (MODULUS 8, REMAINDER 3);
CREATE TABLE tenancy.usage_keys_4 PARTITION OF tenancy.usage_keys FOR VALUES WITH (MODULUS 8, REMAINDER 4);
CREATE TABLE tenancy.usage_keys_5 PARTITION OF tenancy.usage_keys FOR VALUES WITH (MODULUS 8, REMAINDER 5);
CREATE TABLE tenancy.usage_keys_6 PARTITION OF tenancy.usage_keys FOR VALUES WITH (MODULUS 8, REMAINDER 6);
CREATE TABLE tenancy.usage_keys_7 PARTITION OF tenancy.usage_keys FOR VALUES WITH (MODULUS 8, REMAINDER 7);
SELECT pg_catalog.pg_extension_config_dump('tenancy.usage_keys_0', '');
SELECT pg_catalog.pg_extension_config_dump('tenancy.usage_keys_1', '');
SELECT pg_catalog.pg_extension_config_dump('tenancy.usage_keys_2', '');
SELECT pg_catalog.pg_extension_config_dump('tenancy.usage_keys_3', '');
SELECT pg_catalog.pg_extension_config_dump('tenancy.usage_keys_4', '');
SELECT pg_catalog.pg_extension_config_dump('tenancy.usage_keys_5', '');
SELECT pg_catalog.pg_extension_config_dump('tenancy.usage_keys_6', '');
SELECT pg_catalog.pg_extension_config_dump('tenancy.usage_keys_7', '');
COMMENT ON TABLE tenancy.usage_keys IS
    'Idempotency keys of usage events, and what was recorded under them, as the first 16 bytes of SHA-256; kept for tenancy.idempotency_days. Only functions reach it.';
COMMENT ON TABLE tenancy.usage_keys_0 IS 'A part of tenancy.usage_keys. Only functions reach it.';
COMMENT ON TABLE tenancy.usage_keys_1 IS 'A part of tenancy.usage_keys. Only functions reach it.';
COMMENT ON TABLE tenancy.usage_keys_2 IS 'A part of tenancy.usage_keys. Only functions reach it.';
COMMENT ON TABLE tenancy.usage_keys_3 IS 'A part of tenancy.usage_keys. Only functions reach it.';
COMMENT ON TABLE tenancy.usage_keys_4 IS 'A part of tenancy.usage_keys. Only functions reach it.';
COMMENT ON TABLE tenancy.usage_keys_5 IS 'A part of tenancy.usage_keys. Only functions reach it.';
COMMENT ON TABLE tenancy.usage_keys_6 IS 'A part of tenancy.usage_keys. Only functions reach it.';
COMMENT ON TABLE tenancy.usage_keys_7 IS 'A part of tenancy.usage_keys. Only functions reach it.';

-- What is left of quotas, kept by consume_quota(): era is changes / 64, so that of a row's many versions the newest is found first. Made again
-- from the events where it is missing, so it is in no dump. Read by position (src/metering/usage/quota.rs).
CREATE TABLE tenancy.quota_counters (
    tenant_id uuid NOT NULL,
    metric text COLLATE "C" NOT NULL,
    period text COLLATE "C" NOT NULL,
    period_start timestamptz NOT NULL,
    era bigint NOT NULL,
    consumed numeric NOT NULL,
    recorded numeric NOT NULL,
    rollups bigint NOT NULL,
    changes bigint NOT NULL,
    CONSTRAINT quota_counters_pkey PRIMARY KEY (tenant_id, metric, period, period_start, era)
) WITH (fillfactor = 70);
COMMENT ON TABLE tenancy.quota_counters IS
    'What consume_quota() has counted in each limited period: consumed by it, and recorded beside it in the buckets as of that number of rollups. Only functions reach it.';

-- Should someone grant these tables by mistake, they show nothing.
ALTER TABLE tenancy.usage_inbox ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenancy.usage_progress ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenancy.usage_buckets ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenancy.usage_uniques ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenancy.usage_keys ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenancy.quota_counters ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenancy.usage_keys_0 ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenancy.usage_keys_1 ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenancy.usage_keys_2 ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenancy.usage_keys_3 ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenancy.usage_keys_4 ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenancy.usage_keys_5 ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenancy.usage_keys_6 ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenancy.usage_keys_7 ENABLE ROW LEVEL SECURITY;

COMMENT ON FUNCTION usage_total(text, timestamptz, timestamptz) IS
    'What the bound tenant used of a metric in the quarters of an hour that begin from from_time to to_time: the sum, the greatest, the last, or the number of different resources, as the metric says; NULL where there is no greatest or last. Counts what is committed, and the transaction''s own. Errors: 42501 no tenant bound; P0002 unknown metric; 22023 from_time after to_time. Level app. Example: SELECT usage_total(''api_calls'', ''2026-11-01'', ''2026-12-01'');';
COMMENT ON FUNCTION usage_series(text, text, timestamptz, timestamptz) IS
    'What the bound tenant used of a metric, in steps of 15m, hour, day or month by the calendar of tenancy.time_zone; steps without an event are left out. Errors: 42501 no tenant bound; P0002 unknown metric; 22023 another step, or from_time after to_time. Level app. Example: SELECT * FROM usage_series(''api_calls'', ''day'', ''2026-11-01'', ''2026-12-01'');';
COMMENT ON FUNCTION monthly_usage(text) IS
    'What the bound tenant used in a calendar month (YYYY-MM) of tenancy.time_zone, or by default in the month that its limits are counted over now, of each metric that it used or is limited by; max_value and remaining are NULL where its months are not limited. Errors: 42501 no tenant bound; 22023 malformed month. Level app. Example: SELECT * FROM monthly_usage();';
COMMENT ON FUNCTION tenant_usage(uuid, text) IS
    'What monthly_usage() shows of any tenant. Errors: P0002 unknown tenant; 22023 malformed month. Level operator. Example: SELECT * FROM tenant_usage(find_tenant(''acme''));';
COMMENT ON FUNCTION usage_period(text, timestamptz) IS
    'The hour, day or month that a moment, by default now, is in for the bound tenant: what its limits and quotas are counted over. Borders are those of tenancy.time_zone, of quarters of an hour; the months of a tenant whose subscription says so begin when that did. Errors: 42501 no tenant bound; 22023 another period, or an infinite moment. Level app. Example: SELECT * FROM usage_period(''month'');';
CREATE FUNCTION record_usage(metric text, quantity numeric DEFAULT 1, idempotency_key text DEFAULT NULL, occurred_at timestamptz DEFAULT NULL,
                             resource_id uuid DEFAULT NULL, properties jsonb DEFAULT NULL) RETURNS boolean
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'pg_tenancy_record_usage';
CREATE FUNCTION record_duration(metric text, started timestamptz, ended timestamptz, idempotency_key text DEFAULT NULL,
                                resource_id uuid DEFAULT NULL, properties jsonb DEFAULT NULL) RETURNS numeric
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'pg_tenancy_record_duration';

COMMENT ON FUNCTION create_metric(text, text, text) IS
    'Creates a metric, or changes its unit; how the events of a period become one figure is sum, max, last or unique (the number of different resource_ids). Returns its name. Errors: 22023 malformed; 55000 another aggregation for a metric that has events. Level operator. Example: SELECT create_metric(''api_calls'', ''calls'');';
COMMENT ON FUNCTION record_usage(text, numeric, text, timestamp with time zone, uuid, jsonb) IS
    'Records a usage event of the bound tenant in this transaction, and returns true. With an idempotency key, which is unique per tenant for tenancy.idempotency_days (at least 35), the same event again is recorded once and returns false; the same means metric, quantity, resource_id, properties, and occurred_at where it is given (NULL is now). quantity is at least 0. Errors: P0002 unknown metric; 23505 the key was used for another event; 22023 malformed, or no resource_id for a metric that counts different ones; 42501 no tenant bound; 25006 read-only tenant or transaction. Level app. Example: SELECT record_usage(''api_calls'');';
COMMENT ON FUNCTION record_usage_batch(jsonb) IS
    'Records the events of a JSON array, all or none: objects with the arguments of record_usage() as fields, of which all but metric may be missing or null. Returns how many were new. Errors: 22023 malformed array, or a field of another name; otherwise as record_usage(). Level app. Example: SELECT record_usage_batch(''[{"metric": "api_calls", "quantity": 3}]'');';
COMMENT ON FUNCTION record_duration(text, timestamp with time zone, timestamp with time zone, text, uuid, jsonb) IS
    'Records as usage how long something took, in whole minutes rounded up, at the time when it ended; returns the minutes, also where the idempotency key was recorded before. Errors: 22023 it ended before it started; otherwise as record_usage(). Level app. Example: SELECT record_duration(''agent_minutes'', now() - interval ''90 seconds'', now());';
COMMENT ON FUNCTION rollup_usage() IS
    'Adds the usage events of the inbox to the buckets and moves them to tenancy_archive.usage_events, as the workers do every few seconds; how many. Sums that are asked for are exact before and after. Errors: 55000 not READ COMMITTED, or a schema tenancy_archive of someone else. Level admin. Example: SELECT rollup_usage();';
COMMENT ON FUNCTION trim_usage_archive(integer, boolean) IS
    'Drops the months of tenancy_archive.usage_events before the last keep_months and the running one, or detaches them to be tables of their own; how many. The sums by 15 minutes stay. The workers do so by tenancy.usage_retention_months. Errors: 22023 keep_months not from 0 to 1200. Level admin. Example: SELECT trim_usage_archive(13);';
COMMENT ON FUNCTION trim_usage_keys() IS
    'Forgets the idempotency keys of usage events that are older than tenancy.idempotency_days; how many. The workers do so every hour. Level admin. Example: SELECT trim_usage_keys();';
COMMENT ON FUNCTION consume_quota(text, numeric) IS
    'Records a usage event of the bound tenant, as record_usage() does, unless more than a limit of the metric would then have been used in its hour, day, month or in total; returns what remains of the tightest limit, NULL for no limit. However many sessions consume at once, the limit is not passed; they wait for each other until their transactions end. What record_usage() recorded counts too. Errors: 54000 limit reached, nothing is recorded; P0002 unknown metric, or one that the plan says nothing of; 22023 malformed, or a metric that is no sum; 42501 no tenant bound; 25006 read-only tenant or transaction. Level app. Example: SELECT consume_quota(''api_calls'');';
COMMENT ON FUNCTION maintain_usage() IS
    'Does at once all that the workers do for usage, for servers without workers: the rollup, the months of the archive to come and those that tenancy.usage_retention_months lets go, old idempotency keys and old counters of quotas. Returns how many things that was. Errors: 55000 not READ COMMITTED. Level admin. Example: SELECT maintain_usage();';
