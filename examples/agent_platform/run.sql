-- agent_platform from an empty database to a purged tenant, in one go; README.md beside it says what it needs.
-- Every claim is checked: psql ends with a status other than 0 at the first one that does not hold.

\set ON_ERROR_STOP on
\set QUIET on
\pset footer off
\pset null '-'
SET client_min_messages = warning;

-- The login roles; name your own with -v owner=... -v app=...
\if :{?owner}    \else \set owner    platform_owner    \endif
\if :{?app}      \else \set app      platform_app      \endif
\if :{?client}   \else \set client   platform_client   \endif
\if :{?operator} \else \set operator platform_operator \endif
\if :{?admin}    \else \set admin    platform_admin    \endif
\set dba :USER

\ir setup.sql
\ir schema.sql
\ir plans.sql
\ir tenants.sql
\ir story/1_views.sql
\ir story/2_across.sql
\ir story/3_forging.sql
\ir story/4_limits.sql
\ir story/5_usage.sql
\ir story/6_billing.sql
\ir story/7_rates.sql
\ir story/8_suspension.sql
\ir story/9_removal.sql
\ir story/10_records.sql
