-- As the tables' owner: the tables of the application, which had one user before, with a column for the organization. As an admin: their
-- protection, and which rows a plan limits. Keys and references carry the organization, so that none reaches across. Each primary key is
-- also the index by organization alone.

\connect - :owner
SET client_min_messages = warning;

\echo
\echo '== 2. The application''s tables, made by their owner, then protected by an admin'
\echo

CREATE TABLE hybrid.agents (
    organization_id uuid NOT NULL,
    id              uuid NOT NULL DEFAULT gen_random_uuid(),
    name            text NOT NULL CHECK (length(name) BETWEEN 1 AND 100),
    status          text NOT NULL DEFAULT 'idle' CHECK (status IN ('idle', 'running', 'stopped')),
    config          jsonb NOT NULL DEFAULT '{}',
    created_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (organization_id, id),
    UNIQUE (organization_id, name)  -- it was UNIQUE (name)
);
CREATE INDEX ON hybrid.agents (organization_id, status);

CREATE TABLE hybrid.tasks (
    organization_id uuid NOT NULL,
    id              uuid NOT NULL DEFAULT gen_random_uuid(),
    agent_id        uuid NOT NULL,
    title           text NOT NULL CHECK (length(title) BETWEEN 1 AND 200),
    status          text NOT NULL DEFAULT 'queued' CHECK (status IN ('queued', 'running', 'completed', 'failed')),
    created_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (organization_id, id),
    FOREIGN KEY (organization_id, agent_id) REFERENCES hybrid.agents (organization_id, id) ON DELETE CASCADE
);
CREATE INDEX ON hybrid.tasks (organization_id, status);
CREATE INDEX ON hybrid.tasks (organization_id, agent_id);

CREATE TABLE hybrid.messages (
    organization_id uuid NOT NULL,
    id              uuid NOT NULL DEFAULT gen_random_uuid(),
    task_id         uuid NOT NULL,
    author          text NOT NULL CHECK (author IN ('person', 'agent')),
    body            text NOT NULL CHECK (length(body) BETWEEN 1 AND 10000),
    created_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (organization_id, id),
    FOREIGN KEY (organization_id, task_id) REFERENCES hybrid.tasks (organization_id, id) ON DELETE CASCADE
);
CREATE INDEX ON hybrid.messages (organization_id, task_id, created_at);

CREATE TABLE hybrid.sessions (
    organization_id uuid NOT NULL,
    id              uuid NOT NULL DEFAULT gen_random_uuid(),
    agent_id        uuid NOT NULL,
    status          text NOT NULL DEFAULT 'open' CHECK (status IN ('open', 'closed')),
    started_at      timestamptz NOT NULL DEFAULT now(),
    ended_at        timestamptz CHECK (ended_at >= started_at),
    PRIMARY KEY (organization_id, id),
    FOREIGN KEY (organization_id, agent_id) REFERENCES hybrid.agents (organization_id, id) ON DELETE CASCADE,
    CHECK ((status = 'closed') = (ended_at IS NOT NULL))
);
CREATE INDEX ON hybrid.sessions (organization_id, status);
CREATE INDEX ON hybrid.sessions (organization_id, agent_id);

CREATE TABLE hybrid.schedules (
    organization_id uuid NOT NULL,
    id              uuid NOT NULL DEFAULT gen_random_uuid(),
    agent_id        uuid NOT NULL,
    every           interval NOT NULL CHECK (every >= interval '1 minute'),
    status          text NOT NULL DEFAULT 'on' CHECK (status IN ('on', 'off')),
    PRIMARY KEY (organization_id, id),
    FOREIGN KEY (organization_id, agent_id) REFERENCES hybrid.agents (organization_id, id) ON DELETE CASCADE
);
CREATE INDEX ON hybrid.schedules (organization_id, status);
CREATE INDEX ON hybrid.schedules (organization_id, agent_id);

CREATE TABLE hybrid.activity_log (
    organization_id uuid NOT NULL,
    id              bigint GENERATED ALWAYS AS IDENTITY,
    agent_id        uuid,
    user_id         uuid DEFAULT current_user_id(),
    action          text NOT NULL,
    at              timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (organization_id, id),
    FOREIGN KEY (organization_id, agent_id) REFERENCES hybrid.agents (organization_id, id) ON DELETE SET NULL (agent_id)
);
CREATE INDEX ON hybrid.activity_log (organization_id, at);
CREATE INDEX ON hybrid.activity_log (organization_id, agent_id);

GRANT SELECT, INSERT, UPDATE, DELETE ON agents, tasks, messages, schedules TO :"client";
GRANT SELECT, INSERT (agent_id), UPDATE (status), DELETE ON sessions TO :"client";
GRANT SELECT, INSERT ON activity_log TO :"client";

-- Which organization a row is of, pg_tenancy sees to. What may be done in it, these policies say: members read and write, admins delete,
-- and a token or key does no more than its scopes say. The sub-select is computed once per statement, not per row.
SELECT format('CREATE POLICY %1$s_needs ON %2$I AS RESTRICTIVE FOR %1$s TO %3$I %4$s ((SELECT require_role(%5$L) AND require_scope(%6$L)))',
              command, name, :'client', clause, role, name || ':' || action)
FROM unnest(ARRAY['agents', 'tasks', 'messages', 'sessions', 'schedules', 'activity_log']) AS name
CROSS JOIN (VALUES ('select', 'USING',      'member', 'read'),
                   ('insert', 'WITH CHECK', 'member', 'write'),
                   ('update', 'USING',      'member', 'write'),
                   ('delete', 'USING',      'admin',  'write')) AS rule (command, clause, role, action) \gexec

\connect - :admin
\set ECHO queries
SELECT name, protect_table(name, 'organization_id') AS protected
FROM unnest(ARRAY['agents', 'tasks', 'messages', 'sessions', 'schedules', 'activity_log']::regclass[]) AS name;
SELECT limit_table('agents', 'agents') AS agents;
\set ECHO none
