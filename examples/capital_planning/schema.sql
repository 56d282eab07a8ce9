-- As its owner: the template. As an admin: its registration, and what a tier limits of it.

\connect - :owner
SET client_min_messages = warning;
SET search_path = planning_template;

\echo
\echo '== 2. The template: what every manufacturer''s schema is made from'
\echo

CREATE DOMAIN planning_template.quantity AS numeric(14,3) CHECK (VALUE >= 0);
CREATE DOMAIN planning_template.amount AS numeric(16,2);
CREATE TYPE planning_template.forecast_method AS ENUM ('moving_average', 'seasonal', 'manual');

CREATE FUNCTION planning_template.set_updated_at() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at := now();
    RETURN NEW;
END
$$;

CREATE TABLE planning_template.companies (
    id           uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    parent_id    uuid REFERENCES companies CHECK (parent_id <> id),
    name         text NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 200),
    currency     char(3) COLLATE "C" NOT NULL DEFAULT 'EUR' CHECK (currency ~ '^[A-Z]{3}$'),
    fiscal_month smallint NOT NULL DEFAULT 1 CHECK (fiscal_month BETWEEN 1 AND 12),
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE planning_template.products (
    id             bigserial PRIMARY KEY,
    company_id     uuid NOT NULL REFERENCES companies ON DELETE CASCADE,
    sku            text COLLATE "C" NOT NULL CHECK (sku ~ '^[A-Z0-9][A-Z0-9-]{1,39}$'),
    name           text NOT NULL,
    unit_cost      amount NOT NULL CHECK (unit_cost >= 0),
    unit_price     amount NOT NULL CHECK (unit_price >= 0),
    margin         numeric(7,4) GENERATED ALWAYS AS (CASE WHEN unit_price > 0 THEN (unit_price - unit_cost) / unit_price END) STORED,
    lead_time_days smallint NOT NULL DEFAULT 14 CHECK (lead_time_days >= 0),
    attributes     jsonb NOT NULL DEFAULT '{}',
    is_active      boolean NOT NULL DEFAULT true,
    created_at     timestamptz NOT NULL DEFAULT now(),
    updated_at     timestamptz NOT NULL DEFAULT now(),
    UNIQUE (company_id, sku)
);
CREATE INDEX products_sku_idx ON planning_template.products (sku text_pattern_ops) WHERE is_active;
CREATE INDEX products_attributes_idx ON planning_template.products USING gin (attributes jsonb_path_ops);

CREATE TABLE planning_template.sales (
    id         bigint GENERATED ALWAYS AS IDENTITY,
    product_id bigint NOT NULL REFERENCES products,
    sold_on    date NOT NULL,
    quantity   quantity NOT NULL CHECK (quantity > 0),
    unit_price amount NOT NULL,
    revenue    numeric(18,2) NOT NULL GENERATED ALWAYS AS (round(quantity * unit_price, 2)) STORED,
    paid_on    date CHECK (paid_on >= sold_on),
    PRIMARY KEY (id, sold_on)
) PARTITION BY RANGE (sold_on);
CREATE TABLE planning_template.sales_2024 PARTITION OF sales FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
CREATE TABLE planning_template.sales_2025 PARTITION OF sales FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE TABLE planning_template.sales_later PARTITION OF sales DEFAULT;
CREATE INDEX sales_product_id_idx ON planning_template.sales (product_id, sold_on DESC) INCLUDE (quantity, revenue);
CREATE INDEX sales_unpaid_idx ON planning_template.sales (sold_on) WHERE paid_on IS NULL;

CREATE TABLE planning_template.inventory (
    product_id bigint NOT NULL REFERENCES products ON DELETE CASCADE,
    warehouse  text NOT NULL DEFAULT 'main',
    on_hand    quantity NOT NULL DEFAULT 0,
    reserved   quantity NOT NULL DEFAULT 0,
    available  numeric(14,3) NOT NULL GENERATED ALWAYS AS (on_hand::numeric - reserved::numeric) STORED,
    counted_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (product_id, warehouse),
    CONSTRAINT inventory_reserved_check CHECK (reserved <= on_hand)
);
CREATE INDEX inventory_short_idx ON planning_template.inventory (available) WHERE available < 10;

CREATE TABLE planning_template.scenarios (
    id          uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name        text NOT NULL UNIQUE,
    based_on    uuid REFERENCES scenarios ON DELETE SET NULL,
    assumptions jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(assumptions) = 'object'),
    is_baseline boolean NOT NULL DEFAULT false,
    created_by  uuid,  -- a user in tenancy.users
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX scenarios_one_baseline_key ON planning_template.scenarios (is_baseline) WHERE is_baseline;

CREATE TABLE planning_template.forecasts (
    id          bigserial PRIMARY KEY,
    scenario_id uuid NOT NULL REFERENCES scenarios ON DELETE CASCADE,
    product_id  bigint NOT NULL REFERENCES products ON DELETE CASCADE,
    month       date NOT NULL CHECK (extract(day FROM month) = 1),
    method      forecast_method NOT NULL DEFAULT 'moving_average',
    quantity    quantity NOT NULL,
    low         quantity,
    high        quantity,
    CHECK (low <= quantity AND quantity <= high),
    UNIQUE (scenario_id, product_id, month)
);
CREATE INDEX forecasts_product_id_idx ON planning_template.forecasts (product_id, month);

CREATE TABLE planning_template.working_capital_metrics (
    company_id uuid NOT NULL REFERENCES companies ON DELETE CASCADE,
    month      date NOT NULL CHECK (extract(day FROM month) = 1),
    dso        numeric(8,2) NOT NULL CHECK (dso >= 0),
    dio        numeric(8,2) NOT NULL CHECK (dio >= 0),
    dpo        numeric(8,2) NOT NULL CHECK (dpo >= 0),
    ccc        numeric(8,2) NOT NULL GENERATED ALWAYS AS (dso + dio - dpo) STORED,
    PRIMARY KEY (company_id, month)
);

-- Log-ins of tenants' other systems. AES-256-GCM by the backend, whose key the database never sees: the ciphertext ends with the tag,
-- and a nonce serves a key once.
CREATE TABLE planning_template.api_credentials (
    name       text PRIMARY KEY,
    key_id     text NOT NULL,
    nonce      bytea NOT NULL CHECK (octet_length(nonce) = 12),
    ciphertext bytea NOT NULL CHECK (octet_length(ciphertext) > 16),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (key_id, nonce)
);

CREATE TABLE planning_template.user_preferences (
    user_id    uuid NOT NULL,
    preference text NOT NULL,
    value      jsonb NOT NULL,
    PRIMARY KEY (user_id, preference)
);

SELECT format('CREATE TRIGGER set_updated_at BEFORE UPDATE ON %I FOR EACH ROW EXECUTE FUNCTION set_updated_at()', name)
FROM unnest(ARRAY['companies', 'products', 'scenarios', 'api_credentials']) AS name \gexec

-- Every tenant begins with a baseline.
INSERT INTO scenarios (name, assumptions, is_baseline) VALUES ('Baseline', '{"growth": 0, "price_change": 0}', true);

CREATE VIEW planning_template.cash_conversion AS
    SELECT c.name AS company, m.month, m.dso, m.dio, m.dpo, m.ccc, m.ccc - lag(m.ccc) OVER (PARTITION BY c.id ORDER BY m.month) AS change
    FROM companies AS c JOIN working_capital_metrics AS m ON m.company_id = c.id;

CREATE MATERIALIZED VIEW planning_template.monthly_sales AS
    SELECT product_id, date_trunc('month', sold_on)::date AS month, sum(quantity) AS quantity, sum(revenue) AS revenue
    FROM sales GROUP BY 1, 2;
CREATE UNIQUE INDEX monthly_sales_key ON planning_template.monthly_sales (product_id, month);

-- A materialized view is refreshed by its owner: so this runs as the owner, in the schema that it is in.
CREATE FUNCTION planning_template.refresh_monthly_sales() RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER
SET search_path = planning_template, pg_temp AS $$
BEGIN
    REFRESH MATERIALIZED VIEW monthly_sales;
    RETURN (SELECT count(*) FROM planning_template.monthly_sales);
END
$$;

-- The inventory that a product needs to get through its lead time.
CREATE FUNCTION planning_template.reorder_quantity(product bigint) RETURNS numeric LANGUAGE sql STABLE BEGIN ATOMIC
    SELECT greatest(0, ceil(coalesce(avg(m.quantity), 0) / 30 * p.lead_time_days) - coalesce((SELECT sum(i.available) FROM inventory AS i WHERE i.product_id = p.id), 0))
    FROM products AS p LEFT JOIN monthly_sales AS m ON m.product_id = p.id
    WHERE p.id = product GROUP BY p.id;
END;

COMMENT ON TABLE working_capital_metrics IS 'Days of sales, inventory and payables outstanding, and the cash conversion cycle that they make';
COMMENT ON COLUMN working_capital_metrics.ccc IS 'dso + dio - dpo, in days';

GRANT SELECT, INSERT, UPDATE, DELETE ON companies, products, sales, inventory, scenarios, forecasts, working_capital_metrics, api_credentials,
    user_preferences TO :"app";
GRANT SELECT ON cash_conversion, monthly_sales TO :"app";
GRANT USAGE ON ALL SEQUENCES IN SCHEMA planning_template TO :"app";
REVOKE EXECUTE ON FUNCTION refresh_monthly_sales() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION refresh_monthly_sales() TO :"app";

\connect - :admin
\set ECHO queries
SELECT register_template('default', 'planning_template', data_tables => '{scenarios}') AS template;
SELECT template, schema_name, data_tables, tenant_schema FROM tenancy.templates;
-- In every tenant's schema, and those to come. The template's schema is closed to admins, so that the table is looked up in the catalog.
SELECT limit_table(c.oid, 'skus') AS skus, limit_table('tenancy.memberships', 'users') AS users
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE n.nspname = 'planning_template' AND c.relname = 'products';
\set ECHO none
