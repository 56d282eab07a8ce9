-- In a tenant's own database: what it has reported last. One row at most; of another cluster it would say nothing, so it is in no dump.
CREATE TABLE tenancy.sent_reports (
    digest text NOT NULL,
    sent_at timestamptz NOT NULL,
    verified_at timestamptz
);
COMMENT ON TABLE tenancy.sent_reports IS
    'In a tenant''s own database: when it has reported to the control database last, a digest of what that was beside usage, and when the usage of all days was last compared. Only functions reach it.';

-- What tenants' own databases have reported, beside usage. They report again what is missing, so it is in no dump.
CREATE TABLE tenancy.database_reports (
    tenant_id uuid CONSTRAINT database_reports_pkey PRIMARY KEY,
    reported_at timestamptz NOT NULL
);
COMMENT ON TABLE tenancy.database_reports IS
    'When the own database of each tenant has reported its usage last; tenancy.database_state shows it. Only functions reach it.';

CREATE TABLE tenancy.database_limits (
    tenant_id uuid NOT NULL,
    resource text COLLATE "C" NOT NULL,
    used bigint NOT NULL,
    reported_at timestamptz NOT NULL,
    CONSTRAINT database_limits_pkey PRIMARY KEY (tenant_id, resource)
);
COMMENT ON TABLE tenancy.database_limits IS
    'How many live rows of each resource that tables are limited by a tenant has in its own database, as that database has reported (reported_at: when it has last said something else). Not dumped. Level operator.';
