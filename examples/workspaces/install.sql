-- The application without its story: roles, tables, functions, the key that signs tokens, plans.

\set ON_ERROR_STOP on
SET client_min_messages = warning;

-- The login roles; name your own with -v owner=... -v app=...
\if :{?owner}    \else \set owner    workspaces_owner    \endif
\if :{?app}      \else \set app      workspaces_app      \endif
\if :{?client}   \else \set client   workspaces_client   \endif
\if :{?operator} \else \set operator workspaces_operator \endif
\if :{?admin}    \else \set admin    workspaces_admin    \endif
\set dba :USER

\ir setup.sql
\ir schema.sql
\ir functions.sql
\ir plans.sql
