\connect - :client

\echo
\echo '== 10. Roles: owner > admin > member > viewer'
\echo
\set ON_ERROR_ROLLBACK on
\set credential :vera_token \set whose 'Vera, a viewer' \ir ../request.sql
SELECT name FROM agents ORDER BY name;
\set ON_ERROR_STOP off
INSERT INTO agents (name) VALUES ('Vera''s own');
\set ON_ERROR_STOP on
\set must_be 42501 \ir ../../shared/refused.sql
\set ON_ERROR_STOP off
DELETE FROM tasks;
\set ON_ERROR_STOP on
\set must_be 42501 \ir ../../shared/refused.sql
COMMIT;
\set ECHO none

\set credential :bob_token \set whose 'Bob, a member' \ir ../request.sql
UPDATE tasks SET status = 'completed' WHERE status = 'running' RETURNING title, status;
\set ON_ERROR_STOP off
SELECT invite('mallory@example.com', 'admin');
\set ON_ERROR_STOP on
\set must_be 42501 \ir ../../shared/refused.sql
\set ON_ERROR_STOP off
SELECT create_invitation('mallory@example.com', 'admin');  -- past the application's function
\set ON_ERROR_STOP on
\set must_be 42501 \ir ../../shared/refused.sql
COMMIT;
\set ECHO none

\echo 'Ada makes Bob an admin, whose token says member. The role is looked up at each bind:'
\set credential :ada_token \set whose 'Ada, the owner' \ir ../request.sql
SELECT set_role(:'bob', 'admin');
COMMIT;
\set ECHO none
\set credential :bob_token \set whose 'Bob, an admin from now on' \ir ../request.sql
SELECT set_role(:'vera', 'member');
\set ON_ERROR_STOP off
SELECT set_role(:'bob', 'owner');  -- nobody raises above themselves
\set ON_ERROR_STOP on
\set must_be 42501 \ir ../../shared/refused.sql
\set ON_ERROR_STOP off
SELECT expel(:'ada');
\set ON_ERROR_STOP on
\set must_be 42501 \ir ../../shared/refused.sql
COMMIT;
\set ECHO none

\echo 'And a workspace keeps an owner:'
\set credential :ada_token \set whose 'Ada, the only owner' \ir ../request.sql
\set ON_ERROR_STOP off
SELECT set_role(:'ada', 'viewer');
\set ON_ERROR_STOP on
\set must_be 55000 \ir ../../shared/refused.sql
COMMIT;
\set ECHO none
\set ON_ERROR_ROLLBACK off
