-- crm from an empty database to a purged tenant, in one go; README.md beside it says what it needs.
-- Every claim is checked: psql ends with a status other than 0 at the first one that does not hold.

\set ON_ERROR_STOP on
\set QUIET on
\pset footer off
\pset null '-'

\ir install.sql
\ir story/1_provisioning.sql
\ir story/2_requests.sql
\ir story/3_across.sql
\ir story/4_search.sql
\ir story/5_fleet.sql
\ir story/6_drift.sql
\ir story/7_operators.sql
\ir story/8_roles.sql
\ir story/9_invitations.sql
\ir story/10_lifecycle.sql
