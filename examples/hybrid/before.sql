-- As the tables' owner: the application as it was, for one user, with the data that it has. It knows nothing of organizations.

\connect - :owner
SET client_min_messages = warning;

\echo
\echo '== 2. The application as it was: one user, no organizations'
\echo

CREATE TABLE hybrid.agents (
    id         uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name       text NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 100),
    status     text NOT NULL DEFAULT 'idle' CHECK (status IN ('idle', 'running', 'stopped')),
    config     jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON hybrid.agents (status);

CREATE TABLE hybrid.tasks (
    id         uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    agent_id   uuid NOT NULL REFERENCES hybrid.agents ON DELETE CASCADE,
    title      text NOT NULL CHECK (length(title) BETWEEN 1 AND 200),
    status     text NOT NULL DEFAULT 'queued' CHECK (status IN ('queued', 'running', 'completed', 'failed')),
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON hybrid.tasks (status);
CREATE INDEX ON hybrid.tasks (agent_id);

CREATE TABLE hybrid.messages (
    id         uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    task_id    uuid NOT NULL REFERENCES hybrid.tasks ON DELETE CASCADE,
    author     text NOT NULL CHECK (author IN ('person', 'agent')),
    body       text NOT NULL CHECK (length(body) BETWEEN 1 AND 10000),
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON hybrid.messages (task_id, created_at);

CREATE TABLE hybrid.sessions (
    id         uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    agent_id   uuid NOT NULL REFERENCES hybrid.agents ON DELETE CASCADE,
    status     text NOT NULL DEFAULT 'open' CHECK (status IN ('open', 'closed')),
    started_at timestamptz NOT NULL DEFAULT now(),
    ended_at   timestamptz CHECK (ended_at >= started_at),
    CHECK ((status = 'closed') = (ended_at IS NOT NULL))
);
CREATE INDEX ON hybrid.sessions (status);
CREATE INDEX ON hybrid.sessions (agent_id);

CREATE TABLE hybrid.schedules (
    id       uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    agent_id uuid NOT NULL REFERENCES hybrid.agents ON DELETE CASCADE,
    every    interval NOT NULL CHECK (every >= interval '1 minute'),
    status   text NOT NULL DEFAULT 'on' CHECK (status IN ('on', 'off'))
);
CREATE INDEX ON hybrid.schedules (status);
CREATE INDEX ON hybrid.schedules (agent_id);

CREATE TABLE hybrid.activity_log (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    agent_id uuid REFERENCES hybrid.agents ON DELETE SET NULL,
    user_id  uuid,
    action   text NOT NULL,
    at       timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON hybrid.activity_log (at);
CREATE INDEX ON hybrid.activity_log (agent_id);

INSERT INTO hybrid.agents (name, created_at)
SELECT name, now() - interval '1 year' FROM unnest(ARRAY['Archivist', 'Herald', 'Surveyor', 'Gardener']) AS name;
INSERT INTO hybrid.tasks (agent_id, title, status, created_at)
SELECT a.id, 'Task ' || n || ' of the ' || a.name, 'completed', now() - n * interval '1 day' FROM hybrid.agents AS a, generate_series(1, 100) AS n;
INSERT INTO hybrid.messages (task_id, author, body, created_at)
SELECT t.id, author, 'About ' || t.title, t.created_at FROM hybrid.tasks AS t, unnest(ARRAY['person', 'agent']) AS author;
INSERT INTO hybrid.sessions (agent_id, status, started_at, ended_at)
SELECT a.id, 'closed', now() - n * interval '1 day', now() - n * interval '1 day' + interval '5 minutes' FROM hybrid.agents AS a, generate_series(1, 10) AS n;
INSERT INTO hybrid.schedules (agent_id, every) SELECT id, '1 day' FROM hybrid.agents;
INSERT INTO hybrid.activity_log (agent_id, action, at) SELECT agent_id, 'task completed', created_at FROM hybrid.tasks;

\set ECHO queries
SELECT (SELECT count(*) FROM agents) AS agents, (SELECT count(*) FROM tasks) AS tasks, (SELECT count(*) FROM messages) AS messages,
       (SELECT count(*) FROM activity_log) AS activity;
\set ECHO none
