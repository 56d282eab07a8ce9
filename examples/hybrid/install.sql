-- The application without its story: roles, tables, functions, the key that signs tokens, plans.

\set ON_ERROR_STOP on
SET client_min_messages = warning;

-- The login roles; name your own with -v owner=... -v app=...
\if :{?owner}    \else \set owner    hybrid_owner    \endif
\if :{?app}      \else \set app      hybrid_app      \endif
\if :{?client}   \else \set client   hybrid_client   \endif
\if :{?operator} \else \set operator hybrid_operator \endif
\if :{?admin}    \else \set admin    hybrid_admin    \endif
\set dba :USER
\set control :DBNAME

\ir setup.sql
\ir before.sql
\ir plans.sql
\ir adopt.sql
\ir rights.sql
\connect - :dba
\ir api.sql
\ir functions.sql
\ir enterprise.sql
