-- As the tables' owner: what the roles may do. As an admin: which rows a plan limits.

\connect - :owner
SET client_min_messages = warning;
-- Who did it, the database knows from here on.
ALTER TABLE hybrid.activity_log ALTER COLUMN user_id SET DEFAULT current_user_id();


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
SELECT limit_table('agents', 'agents') AS agents;
\set ECHO none
