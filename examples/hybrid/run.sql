-- hybrid from an empty database to a closed billing period, in one go; README.md beside it says what it needs.
-- Every claim is checked: psql ends with a status other than 0 at the first one that does not hold.

\set ON_ERROR_STOP on
\set QUIET on
\pset footer off
\pset null '-'

\ir install.sql
\ir story/1_organizations.sql
\ir story/2_access.sql
\ir story/3_roles.sql
\ir story/4_agents.sql
\ir story/5_minutes.sql
\ir story/6_enterprise.sql
\ir story/7_billing.sql
\ir story/8_subscription.sql
\ir story/9_records.sql
