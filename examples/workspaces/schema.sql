-- As the tables' owner: the application's tables, and what role and scope a caller needs. As an admin: their protection, and
-- which rows a plan limits.
-- Keys and references carry the workspace, so that none reaches across. Each primary key is also the index by workspace alone.

\connect - :owner
SET client_min_messages = warning;

\echo
\echo '== 2. The application''s tables, made by their owner, then protected by an admin'
\echo

CREATE TABLE workspaces.agents (
    workspace_id uuid NOT NULL,
    id           uuid NOT NULL DEFAULT gen_random_uuid(),
    name         text NOT NULL CHECK (length(name) BETWEEN 1 AND 100),
    instructions text NOT NULL DEFAULT '' CHECK (length(instructions) <= 10000),
    credential   bytea,  -- the agent's log-in elsewhere, by pgp_sym_encrypt() under a key that the database does not have
    created_by   uuid DEFAULT current_user_id(),
    created_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workspace_id, id),
    UNIQUE (workspace_id, name)
);
CREATE INDEX ON workspaces.agents (workspace_id, created_at);

CREATE TABLE workspaces.tasks (
    workspace_id uuid NOT NULL,
    id           uuid NOT NULL DEFAULT gen_random_uuid(),
    agent_id     uuid NOT NULL,
    title        text NOT NULL CHECK (length(title) BETWEEN 1 AND 200),
    status       text NOT NULL DEFAULT 'queued' CHECK (status IN ('queued', 'running', 'completed', 'failed')),
    created_by   uuid DEFAULT current_user_id(),
    created_at   timestamptz NOT NULL DEFAULT now(),
    started_at   timestamptz,
    ended_at     timestamptz CHECK (ended_at >= started_at),
    PRIMARY KEY (workspace_id, id),
    FOREIGN KEY (workspace_id, agent_id) REFERENCES workspaces.agents (workspace_id, id) ON DELETE CASCADE
);
CREATE INDEX ON workspaces.tasks (workspace_id, status);
CREATE INDEX ON workspaces.tasks (workspace_id, agent_id);

CREATE TABLE workspaces.messages (
    workspace_id uuid NOT NULL,
    id           uuid NOT NULL DEFAULT gen_random_uuid(),
    task_id      uuid NOT NULL,
    author       text NOT NULL CHECK (author IN ('person', 'agent')),
    body         text NOT NULL CHECK (length(body) BETWEEN 1 AND 10000),
    created_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workspace_id, id),
    FOREIGN KEY (workspace_id, task_id) REFERENCES workspaces.tasks (workspace_id, id) ON DELETE CASCADE
);
CREATE INDEX ON workspaces.messages (workspace_id, task_id, created_at);

GRANT SELECT, INSERT, UPDATE, DELETE ON agents, tasks, messages TO :"client";

-- Which workspace a row is of, pg_tenancy sees to. What may be done in it, these policies say: viewers read, members write, and a
-- token or key does no more than its scopes say. The sub-select is computed once per statement, not per row.
SELECT format('CREATE POLICY %1$s_needs ON %2$I AS RESTRICTIVE FOR %1$s TO %3$I %4$s ((SELECT require_role(%5$L) AND require_scope(%6$L)))',
              command, name, :'client', clause, role, name || ':' || action)
FROM unnest(ARRAY['agents', 'tasks', 'messages']) AS name
CROSS JOIN (VALUES ('select', 'USING',      'viewer', 'read'),
                   ('insert', 'WITH CHECK', 'member', 'write'),
                   ('update', 'USING',      'member', 'write'),
                   ('delete', 'USING',      'member', 'write')) AS rule (command, clause, role, action) \gexec

-- Passwords stay with the application; users themselves are pg_tenancy's. Of no workspace, and out of the API server's reach.
CREATE TABLE workspaces.passwords (
    user_id       uuid PRIMARY KEY,
    password_hash text NOT NULL
);
GRANT SELECT, INSERT, UPDATE, DELETE ON passwords TO :"app";

-- bcrypt looks at no more than 72 bytes.
CREATE DOMAIN workspaces.password AS text NOT NULL CHECK (octet_length(VALUE) BETWEEN 12 AND 72);

\connect - :admin
\set ECHO queries
SELECT protect_table('agents', 'workspace_id') AS agents,
       protect_table('tasks', 'workspace_id') AS tasks,
       protect_table('messages', 'workspace_id') AS messages;
SELECT table_name, tenant_column FROM tenancy.protected_tables ORDER BY 1;
SELECT limit_table('tasks', 'concurrent_tasks', 'status = ''running''') AS concurrent_tasks,
       limit_table('tenancy.memberships', 'members') AS members;
SELECT table_name, resource, condition FROM tenancy.limited_tables ORDER BY 2;
\set ECHO none
