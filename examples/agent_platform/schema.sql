-- As the tables' owner: the application's tables. As an admin: their protection, and which rows a plan limits.
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

CREATE TABLE agent_platform.agents (
    tenant_id  uuid NOT NULL,
    id         uuid NOT NULL DEFAULT gen_random_uuid(),
    name       text NOT NULL,
    config     jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, name)
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

GRANT SELECT, INSERT, UPDATE, DELETE ON users, agents, workflows, workflow_executions TO :"app";
GRANT SELECT, INSERT, UPDATE ON users, agents, workflows, workflow_executions TO :"client";

-- Usage is recorded in the transaction that makes it. A run takes its tasks from the month's quota before it begins.
CREATE FUNCTION agent_platform.start_run(workflow uuid, tasks integer, at timestamptz DEFAULT now()) RETURNS uuid LANGUAGE plpgsql AS $$
DECLARE
    run uuid;
BEGIN
    PERFORM consume_quota('tasks', tasks);
    INSERT INTO workflow_executions (workflow_id, started_at, task_count) VALUES (workflow, at, tasks) RETURNING id INTO run;
    PERFORM record_usage('workflow_started', idempotency_key => 'started ' || run, resource_id => workflow);
    RETURN run;
END
$$;

CREATE FUNCTION agent_platform.end_run(run uuid) RETURNS numeric LANGUAGE plpgsql AS $$
DECLARE
    ended agent_platform.workflow_executions;
BEGIN
    UPDATE workflow_executions SET status = 'completed', completed_at = now() WHERE id = run AND status = 'running' RETURNING * INTO STRICT ended;
    PERFORM record_usage('task_completed', ended.task_count, 'tasks of ' || run, resource_id => ended.workflow_id);
    UPDATE workflow_executions SET agent_minutes_consumed =
        record_duration('agent_minutes', ended.started_at, ended.completed_at, 'minutes of ' || run, ended.workflow_id)
    WHERE id = run RETURNING * INTO ended;
    RETURN ended.agent_minutes_consumed;
END
$$;

\connect - :admin
\set ECHO queries
SELECT protect_table('users') AS users,
       protect_table('agents') AS agents,
       protect_table('workflows') AS workflows,
       protect_table('workflow_executions') AS workflow_executions;
SELECT table_name, tenant_column FROM tenancy.protected_tables ORDER BY 1;
SELECT limit_table('agents', 'agents') AS agents,
       limit_table('workflows', 'concurrent_workflows', 'status = ''active''') AS concurrent_workflows;
SELECT table_name, resource, condition FROM tenancy.limited_tables ORDER BY 1;
\set ECHO none
