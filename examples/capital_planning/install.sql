-- The application without its story: roles, the template, its registration, the tiers.

\set ON_ERROR_STOP on
SET client_min_messages = warning;

-- The login roles; name your own with -v owner=... -v app=...
\if :{?owner}    \else \set owner    planning_owner    \endif
\if :{?app}      \else \set app      planning_app      \endif
\if :{?operator} \else \set operator planning_operator \endif
\if :{?admin}    \else \set admin    planning_admin    \endif
\set dba :USER

\ir setup.sql
\ir schema.sql
\ir tiers.sql
