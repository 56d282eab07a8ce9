-- The application without its story: roles, the template, its registration.

\set ON_ERROR_STOP on
SET client_min_messages = warning;

-- The login roles; name your own with -v owner=... -v app=...
\if :{?owner}    \else \set owner    crm_owner    \endif
\if :{?app}      \else \set app      crm_app      \endif
\if :{?readonly} \else \set readonly crm_readonly \endif
\if :{?operator} \else \set operator crm_operator \endif
\if :{?admin}    \else \set admin    crm_admin    \endif
\if :{?backup}   \else \set backup   crm_backup   \endif
\set dba :USER

\ir setup.sql
\ir schema.sql
