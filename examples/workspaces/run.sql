-- workspaces from an empty database to a member who has left, in one go; README.md beside it says what it needs.
-- Every claim is checked: psql ends with a status other than 0 at the first one that does not hold.

\set ON_ERROR_STOP on
\set QUIET on
\pset footer off
\pset null '-'

\ir install.sql
\ir story/1_sign_up.sql
\ir story/2_log_in.sql
\ir story/3_forging.sql
\ir story/4_switching.sql
\ir story/5_invitations.sql
\ir story/6_roles.sql
\ir story/7_api_keys.sql
\ir story/8_secrets.sql
\ir story/9_leaving.sql
\ir story/10_limits.sql
\ir story/11_usage.sql
\ir story/12_rates.sql
\ir story/13_records.sql
