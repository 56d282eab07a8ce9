-- tenant_id and months_from are read by position (src/metering/billing/subscription.rs).
CREATE TABLE tenancy.subscriptions (
    tenant_id uuid CONSTRAINT subscriptions_pkey PRIMARY KEY,
    months_from timestamptz,
    status text COLLATE "C" NOT NULL CHECK (status IN ('trialing', 'active', 'past_due', 'canceled')),
    current_period_start timestamptz,
    current_period_end timestamptz,
    grace_until timestamptz,
    restricted_since timestamptz,
    stripe_customer_id text,
    stripe_subscription_id text,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK (current_period_start < current_period_end)
);
CREATE INDEX subscriptions_grace_until_idx ON tenancy.subscriptions (grace_until) WHERE restricted_since IS NULL;
SELECT pg_catalog.pg_extension_config_dump('tenancy.subscriptions', '');
COMMENT ON TABLE tenancy.subscriptions IS
    'What the billing system says of a tenant. Kept by set_subscription(). months_from: the tenant''s months for limits and billing begin on this day and hour of each month, instead of with the calendar''s; grace_until: when a tenant that is past due or canceled becomes read-only; restricted_since: since when it is for that reason. Level app sees its bound tenant''s, operator and admin all.';
ALTER TABLE tenancy.subscriptions ENABLE ROW LEVEL SECURITY;
CREATE POLICY visible_tenants ON tenancy.subscriptions FOR SELECT
    USING (tenant_id BETWEEN (SELECT tenancy.first_visible_tenant()) AND (SELECT tenancy.last_visible_tenant()));

CREATE TABLE tenancy.billing_periods (
    tenant_id uuid NOT NULL,
    period_start timestamptz NOT NULL,
    period_end timestamptz NOT NULL,
    closed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT billing_periods_pkey PRIMARY KEY (tenant_id, period_start),
    CHECK (period_start < period_end)
);
SELECT pg_catalog.pg_extension_config_dump('tenancy.billing_periods', '');
COMMENT ON TABLE tenancy.billing_periods IS
    'Periods of tenants that close_billing_period() has closed; those of one tenant do not overlap. Level app sees its bound tenant''s, operator and admin all.';
ALTER TABLE tenancy.billing_periods ENABLE ROW LEVEL SECURITY;
CREATE POLICY visible_tenants ON tenancy.billing_periods FOR SELECT
    USING (tenant_id BETWEEN (SELECT tenancy.first_visible_tenant()) AND (SELECT tenancy.last_visible_tenant()));

CREATE TABLE tenancy.billing_lines (
    tenant_id uuid NOT NULL,
    billed_with timestamptz NOT NULL,
    period_start timestamptz NOT NULL,
    period_end timestamptz NOT NULL,
    metric text COLLATE "C" NOT NULL,
    unit text,
    aggregation text COLLATE "C" NOT NULL,
    quantity numeric NOT NULL,
    events bigint NOT NULL,
    max_value numeric,
    line_id uuid NOT NULL DEFAULT gen_random_uuid() CONSTRAINT billing_lines_line_id_key UNIQUE,
    CONSTRAINT billing_lines_pkey PRIMARY KEY (tenant_id, billed_with, period_start, metric)
);
CREATE INDEX billing_lines_period_start_idx ON tenancy.billing_lines (tenant_id, period_start, metric);
SELECT pg_catalog.pg_extension_config_dump('tenancy.billing_lines', '');
COMMENT ON TABLE tenancy.billing_lines IS
    'What was billed, frozen. billed_with is the start of the period of tenancy.billing_periods that the line was closed with: where it is not the line''s own period_start, the line is an adjustment of an earlier period, by what came after that was closed. The lines of one period and metric add up to what is billed of it. Level app sees its bound tenant''s, operator and admin all.';
ALTER TABLE tenancy.billing_lines ENABLE ROW LEVEL SECURITY;
CREATE POLICY visible_tenants ON tenancy.billing_lines FOR SELECT
    USING (tenant_id BETWEEN (SELECT tenancy.first_visible_tenant()) AND (SELECT tenancy.last_visible_tenant()));

CREATE VIEW tenancy.billing_adjustments AS
    SELECT tenant_id, period_start, period_end, metric, unit, aggregation, quantity, events, billed_with
    FROM tenancy.billing_lines WHERE billed_with <> period_start
    UNION ALL
    SELECT t.id, p.period_start, p.period_end, p.metric, p.unit, p.aggregation, p.quantity, p.events, NULL
    FROM tenancy.tenants t CROSS JOIN LATERAL pending_adjustments(t.id) p;
COMMENT ON VIEW tenancy.billing_adjustments IS
    'What came for a period after it was closed, by metric: billed_with is the start of the period with which it was billed, NULL while it waits for the tenant''s next close. Ask for one tenant: reading all computes each. Level operator.';

COMMENT ON FUNCTION set_subscription(uuid, text, timestamptz, timestamptz, text, text, interval, boolean) IS
    'Says what the billing system says of a tenant''s subscription: status trialing, active, past_due or canceled; NULL leaves what was said before, and saying the same again changes nothing. A tenant that becomes past_due, or canceled when its current period ends, has grace (from then) until it is made read-only, with reason "subscription past_due" or "subscription canceled"; active or trialing makes it active again, unless an operator has changed its state meanwhile. follows_period makes its months, of limits and of billing, begin when current_period_start does, those that are not closed yet too: close_billing_period() what is over before the day changes. Returns the tenant. Errors: P0002 unknown tenant; 22023 unknown status, or a malformed period or grace; 55000 tenant deleted. Level operator. Example: SELECT set_subscription(find_tenant(''acme''), ''active'', ''2026-11-15 08:00Z'', ''2026-12-15 08:00Z'', ''cus_1'', ''sub_1'');';
COMMENT ON FUNCTION apply_subscription_grace() IS
    'Makes the tenants read-only whose grace has passed, and returns how many; background workers do it every minute. Waits for transactions that have written for them. One that cannot be changed is a WARNING. Errors: 55000 not READ COMMITTED. Level operator. Example: SELECT apply_subscription_grace();';
COMMENT ON FUNCTION close_billing_period(uuid, text) IS
    'Closes a period of a tenant and returns what is billed: a line for each metric that was used, and one (kind adjustment) for each metric of an earlier period that something came for since. month (YYYY-MM) is the tenant''s month that begins in that calendar month of tenancy.time_zone; NULL is the oldest that is over and not closed. A period that is closed stays as it is: the same lines again. Months of one tenant that has changed over to its subscription''s period, or back, do not overlap: the first is shorter. Errors: P0002 unknown tenant; 22023 malformed month; 55000 not over, closed as a part of other periods, or the isolation level is not READ COMMITTED. Level operator. Example: SELECT * FROM close_billing_period(find_tenant(''acme''), ''2025-10'');';
COMMENT ON FUNCTION pending_adjustments(uuid) IS
    'What came for closed periods of a tenant since they were closed, and is not billed yet: with its next close it will be. Errors: P0002 unknown tenant. Level operator. Example: SELECT * FROM pending_adjustments(find_tenant(''acme''));';
COMMENT ON FUNCTION export_billing_period(uuid, text) IS
    'The lines that were billed with the periods of a tenant that begin in a month (YYYY-MM), with the tenant''s external id and Stripe ids, as a billing system takes them; idempotency_key is the same at every call. Errors: P0002 unknown tenant; 22023 malformed month; 55000 not closed. Level operator. Example: SELECT * FROM export_billing_period(find_tenant(''acme''), ''2025-10'');';
