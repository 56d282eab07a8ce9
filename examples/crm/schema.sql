-- As its owner: the template, an ordinary schema with ordinary tables. No table has a tenant column, and none needs row security:
-- each tenant gets a copy of all this. As an admin: its registration.

\connect - :owner
SET client_min_messages = warning;
SET search_path = crm_template, public;

\echo
\echo '== 2. The template: what every tenant''s schema is made from'
\echo

CREATE TYPE crm_template.user_role AS ENUM ('admin', 'manager', 'sales_rep', 'viewer');
CREATE TYPE crm_template.activity_type AS ENUM ('call', 'email', 'meeting', 'note', 'task');
CREATE DOMAIN crm_template.email_address AS text CHECK (VALUE ~ '^[^@\s]+@[^@\s]+\.[^@\s]+$' AND length(VALUE) <= 254);

CREATE FUNCTION crm_template.set_updated_at() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at := now();
    RETURN NEW;
END
$$;

CREATE TABLE crm_template.users (
    id             serial PRIMARY KEY,
    account_id     uuid UNIQUE,  -- the person in tenancy.users, who may be in other tenants, too
    email          email_address NOT NULL UNIQUE,
    password_hash  text NOT NULL CHECK (password_hash LIKE '$2_$%'),
    first_name     text NOT NULL CHECK (length(first_name) BETWEEN 1 AND 100),
    last_name      text NOT NULL CHECK (length(last_name) BETWEEN 1 AND 100),
    role           user_role NOT NULL DEFAULT 'sales_rep',
    permissions    jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(permissions) = 'object'),
    is_active      boolean NOT NULL DEFAULT true,
    email_verified boolean NOT NULL DEFAULT false,
    last_login_at  timestamptz,
    created_by     integer REFERENCES users ON DELETE SET NULL,
    updated_by     integer REFERENCES users ON DELETE SET NULL,
    created_at     timestamptz NOT NULL DEFAULT now(),
    updated_at     timestamptz NOT NULL DEFAULT now(),
    deleted_at     timestamptz
);
CREATE INDEX users_role_idx ON crm_template.users (role) WHERE deleted_at IS NULL;
CREATE INDEX users_created_by_idx ON crm_template.users (created_by);
CREATE INDEX users_updated_by_idx ON crm_template.users (updated_by);
CREATE INDEX users_permissions_idx ON crm_template.users USING gin (permissions jsonb_path_ops);

CREATE TABLE crm_template.password_reset_tokens (
    id         serial PRIMARY KEY,
    user_id    integer NOT NULL REFERENCES users ON DELETE CASCADE,
    token_hash bytea NOT NULL UNIQUE CHECK (octet_length(token_hash) = 32),  -- SHA-256 of a random token
    expires_at timestamptz NOT NULL DEFAULT now() + interval '1 hour',
    used_at    timestamptz,
    created_at timestamptz NOT NULL DEFAULT now()
);
-- Which of them are still good depends on the time of the query, so that no index can know it.
CREATE INDEX password_reset_tokens_unused_idx ON crm_template.password_reset_tokens (user_id, expires_at) WHERE used_at IS NULL;

CREATE TABLE crm_template.companies (
    id             serial PRIMARY KEY,
    parent_id      integer REFERENCES companies ON DELETE SET NULL CHECK (parent_id <> id),
    name           text NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    industry       text,
    website        text,
    phone          text,
    country        char(2) COLLATE "C" CHECK (country ~ '^[A-Z]{2}$'),
    employees      integer CHECK (employees >= 0),
    annual_revenue numeric(15,2) CHECK (annual_revenue >= 0),
    currency       char(3) COLLATE "C" NOT NULL DEFAULT 'USD' CHECK (currency ~ '^[A-Z]{3}$'),
    custom_fields  jsonb NOT NULL DEFAULT '{}',
    owner_id       integer REFERENCES users ON DELETE SET NULL,
    created_by     integer REFERENCES users ON DELETE SET NULL,
    updated_by     integer REFERENCES users ON DELETE SET NULL,
    created_at     timestamptz NOT NULL DEFAULT now(),
    updated_at     timestamptz NOT NULL DEFAULT now(),
    deleted_at     timestamptz
);
CREATE UNIQUE INDEX companies_name_key ON crm_template.companies (lower(name)) WHERE deleted_at IS NULL;
CREATE INDEX companies_parent_id_idx ON crm_template.companies (parent_id);
CREATE INDEX companies_owner_id_idx ON crm_template.companies (owner_id);
CREATE INDEX companies_custom_fields_idx ON crm_template.companies USING gin (custom_fields jsonb_path_ops);
CREATE INDEX companies_annual_revenue_idx ON crm_template.companies (currency, annual_revenue DESC NULLS LAST) INCLUDE (name);

CREATE TABLE crm_template.contacts (
    id            serial PRIMARY KEY,
    company_id    integer REFERENCES companies ON DELETE SET NULL,
    first_name    text NOT NULL,
    last_name     text NOT NULL,
    full_name     text NOT NULL GENERATED ALWAYS AS (first_name || ' ' || last_name) STORED,
    email         email_address,
    phone         text,
    position      text,
    lead_source   text,
    tags          text[] NOT NULL DEFAULT '{}',
    custom_fields jsonb NOT NULL DEFAULT '{}',
    owner_id      integer REFERENCES users ON DELETE SET NULL,
    created_by    integer REFERENCES users ON DELETE SET NULL,
    updated_by    integer REFERENCES users ON DELETE SET NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now(),
    deleted_at    timestamptz
);
CREATE INDEX contacts_search_idx ON crm_template.contacts
    USING gin (to_tsvector('simple', first_name || ' ' || last_name || ' ' || coalesce(email::text, '')));
CREATE UNIQUE INDEX contacts_email_key ON crm_template.contacts (lower(email::text)) WHERE deleted_at IS NULL;
CREATE INDEX contacts_last_name_idx ON crm_template.contacts (last_name text_pattern_ops, first_name);
CREATE INDEX contacts_company_id_idx ON crm_template.contacts (company_id);
CREATE INDEX contacts_owner_id_idx ON crm_template.contacts (owner_id);
CREATE INDEX contacts_custom_fields_idx ON crm_template.contacts USING gin (custom_fields jsonb_path_ops);
CREATE INDEX contacts_tags_idx ON crm_template.contacts USING gin (tags);

-- Reference rows: every tenant begins with these, and may change its own.
CREATE TABLE crm_template.deal_stages (
    stage       text PRIMARY KEY,
    position    smallint NOT NULL UNIQUE,
    probability smallint NOT NULL CHECK (probability BETWEEN 0 AND 100),
    is_closed   boolean NOT NULL DEFAULT false
);
INSERT INTO crm_template.deal_stages VALUES
    ('prospecting', 1, 10, false), ('qualification', 2, 25, false), ('proposal', 3, 50, false), ('negotiation', 4, 75, false),
    ('won', 5, 100, true), ('lost', 6, 0, true);

CREATE TABLE crm_template.deals (
    id                  serial PRIMARY KEY,
    title               text NOT NULL CHECK (length(title) BETWEEN 1 AND 200),
    value               numeric(12,2) NOT NULL DEFAULT 0 CHECK (value >= 0),
    currency            char(3) COLLATE "C" NOT NULL DEFAULT 'USD',
    probability         smallint NOT NULL DEFAULT 10 CHECK (probability BETWEEN 0 AND 100),
    weighted_value      numeric(14,2) NOT NULL GENERATED ALWAYS AS (round(value * probability / 100, 2)) STORED,
    stage               text NOT NULL DEFAULT 'prospecting' REFERENCES deal_stages ON UPDATE CASCADE,
    contact_id          integer REFERENCES contacts ON DELETE SET NULL,
    company_id          integer REFERENCES companies ON DELETE SET NULL,
    owner_id            integer REFERENCES users ON DELETE SET NULL,
    expected_close_date date,
    actual_close_date   date,
    created_by          integer REFERENCES users ON DELETE SET NULL,
    updated_by          integer REFERENCES users ON DELETE SET NULL,
    created_at          timestamptz NOT NULL DEFAULT now(),
    updated_at          timestamptz NOT NULL DEFAULT now(),
    deleted_at          timestamptz
);
CREATE INDEX deals_stage_idx ON crm_template.deals (stage, expected_close_date) WHERE deleted_at IS NULL;
CREATE INDEX deals_contact_id_idx ON crm_template.deals (contact_id);
CREATE INDEX deals_company_id_idx ON crm_template.deals (company_id);
CREATE INDEX deals_owner_id_idx ON crm_template.deals (owner_id);
CREATE INDEX deals_created_at_idx ON crm_template.deals USING brin (created_at) WITH (pages_per_range = 32);

CREATE TABLE crm_template.deal_contacts (
    id         serial PRIMARY KEY,
    deal_id    integer NOT NULL REFERENCES deals ON DELETE CASCADE,
    contact_id integer NOT NULL REFERENCES contacts ON DELETE CASCADE,
    role       text NOT NULL DEFAULT 'participant' CHECK (role IN ('decision_maker', 'influencer', 'participant')),
    UNIQUE (deal_id, contact_id)
);
CREATE INDEX deal_contacts_contact_id_idx ON crm_template.deal_contacts (contact_id);

CREATE TABLE crm_template.activities (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    type         activity_type NOT NULL,
    subject      text NOT NULL,
    description  text,
    contact_id   integer REFERENCES contacts ON DELETE CASCADE,
    company_id   integer REFERENCES companies ON DELETE CASCADE,
    deal_id      integer REFERENCES deals ON DELETE CASCADE,
    owner_id     integer REFERENCES users ON DELETE SET NULL,
    due_at       timestamptz,
    completed_at timestamptz,
    created_by   integer REFERENCES users ON DELETE SET NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    CHECK (num_nonnulls(contact_id, company_id, deal_id) >= 1)
);
CREATE INDEX activities_contact_id_idx ON crm_template.activities (contact_id, created_at DESC);
CREATE INDEX activities_company_id_idx ON crm_template.activities (company_id, created_at DESC);
CREATE INDEX activities_deal_id_idx ON crm_template.activities (deal_id, created_at DESC);
CREATE INDEX activities_open_idx ON crm_template.activities (owner_id, due_at) WHERE completed_at IS NULL;

-- What the application's own code asks for; a migration adds its row with everything else that it does.
CREATE TABLE crm_template.schema_migrations (
    version    text PRIMARY KEY,
    applied_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO crm_template.schema_migrations (version) VALUES ('001');

CREATE STATISTICS crm_template.deals_stage_probability (dependencies) ON stage, probability FROM crm_template.deals;

SELECT format('CREATE TRIGGER set_updated_at BEFORE UPDATE ON %I FOR EACH ROW EXECUTE FUNCTION set_updated_at()', name)
FROM unnest(ARRAY['users', 'companies', 'contacts', 'deals', 'activities']) AS name \gexec

CREATE VIEW crm_template.pipeline AS
    SELECT s.position, s.stage, count(d.id) AS deals, coalesce(sum(d.value), 0) AS value, coalesce(sum(d.weighted_value), 0) AS weighted_value,
           min(d.expected_close_date) AS next_close
    FROM deal_stages AS s LEFT JOIN deals AS d ON d.stage = s.stage AND d.deleted_at IS NULL
    GROUP BY s.stage, s.position;

COMMENT ON TABLE users IS 'Who works here. Passwords are bcrypt hashes.';
COMMENT ON TABLE companies IS 'Customers and prospects; a subsidiary names its parent.';
COMMENT ON COLUMN deals.probability IS 'In per cent';
COMMENT ON VIEW pipeline IS 'Open and closed deals by stage';

GRANT SELECT, INSERT, UPDATE, DELETE ON users, password_reset_tokens, companies, contacts, deal_stages, deals, deal_contacts, activities TO :"app";
GRANT SELECT ON pipeline, schema_migrations TO :"app";
GRANT USAGE ON ALL SEQUENCES IN SCHEMA crm_template TO :"app";
GRANT SELECT ON companies, contacts, deal_stages, deals, deal_contacts, activities, pipeline, schema_migrations TO :"readonly";
GRANT SELECT (id, email, first_name, last_name, role, is_active, last_login_at) ON users TO :"readonly";
-- Whoever makes a tenant makes its first user, too, and no more.
GRANT INSERT, SELECT (id) ON users TO :"operator";
GRANT USAGE ON SEQUENCE users_id_seq TO :"operator";

\connect - :admin
\set ECHO queries
SELECT register_template('crm', 'crm_template', data_tables => '{deal_stages,schema_migrations}', tenant_schema => 'tenant_{slug}') AS template;
SELECT template, schema_name, data_tables, tenant_schema FROM tenancy.templates;
\set ECHO none
\echo 'Roles of people, in pg_tenancy''s ranks, are those of the CRM:'
\set ECHO queries
SELECT add_role('manager', 70) AS manager, add_role('sales_rep', 50) AS sales_rep;
\set ECHO none
