-- As the tables' owner: the application's tables. As an admin: their protection.
-- Keys and references carry the tenant, so that none reaches across tenants.

\connect - :owner
SET client_min_messages = warning;

\echo
\echo '== 2. The application''s tables, made by their owner, then protected by an admin'
\echo

CREATE TABLE agent_platform.users (
    tenant_id        uuid NOT NULL,
    id               uuid NOT NULL DEFAULT gen_random_uuid(),
    external_auth_id text NOT NULL,
    email            text NOT NULL,
    name             text NOT NULL,
    role             text NOT NULL DEFAULT 'member' CHECK (role IN ('owner', 'admin', 'member')),
    last_login_at    timestamptz,
    created_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, email),
    UNIQUE (tenant_id, external_auth_id)
);

CREATE TABLE agent_platform.workflows (
    tenant_id            uuid NOT NULL,
    id                   uuid NOT NULL DEFAULT gen_random_uuid(),
    created_by           uuid NOT NULL,
    name                 text NOT NULL,
    description          text,
    status               text NOT NULL DEFAULT 'draft' CHECK (status IN ('draft', 'active', 'paused', 'archived')),
    config               jsonb NOT NULL DEFAULT '{}',
    temporal_workflow_id text,
    temporal_run_id      text,
    created_at           timestamptz NOT NULL DEFAULT now(),
    updated_at           timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, name),
    FOREIGN KEY (tenant_id, created_by) REFERENCES agent_platform.users (tenant_id, id)
);
CREATE INDEX ON agent_platform.workflows (tenant_id, status);
CREATE INDEX ON agent_platform.workflows (tenant_id, created_by);

CREATE TABLE agent_platform.workflow_executions (
    tenant_id              uuid NOT NULL,
    id                     uuid NOT NULL DEFAULT gen_random_uuid(),
    workflow_id            uuid NOT NULL,
    status                 text NOT NULL DEFAULT 'running'
                           CHECK (status IN ('running', 'completed', 'failed', 'cancelled')),
    started_at             timestamptz NOT NULL DEFAULT now(),
    completed_at           timestamptz,
    input                  jsonb NOT NULL DEFAULT '{}',
    output                 jsonb,
    error                  text,
    agent_minutes_consumed numeric(10,2) NOT NULL DEFAULT 0 CHECK (agent_minutes_consumed >= 0),
    task_count             integer NOT NULL DEFAULT 0 CHECK (task_count >= 0),
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, workflow_id) REFERENCES agent_platform.workflows (tenant_id, id),
    CHECK ((status = 'running') = (completed_at IS NULL))
);
CREATE INDEX ON agent_platform.workflow_executions (tenant_id, workflow_id);
CREATE INDEX ON agent_platform.workflow_executions (tenant_id, started_at);

GRANT SELECT, INSERT, UPDATE, DELETE ON users, workflows, workflow_executions TO :"app";
GRANT SELECT, INSERT, UPDATE ON users, workflows, workflow_executions TO :"client";

\connect - :admin
\set ECHO queries
SELECT protect_table('users') AS users,
       protect_table('workflows') AS workflows,
       protect_table('workflow_executions') AS workflow_executions;
SELECT table_name, tenant_column FROM tenancy.protected_tables ORDER BY 1;
\set ECHO none
