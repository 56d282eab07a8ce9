-- capital_planning from an empty database to a deleted schema, in one go; README.md beside it says what it needs.
-- Every claim is checked: psql ends with a status other than 0 at the first one that does not hold.

\set ON_ERROR_STOP on
\set QUIET on
\pset footer off
\pset null '-'

\ir install.sql
\ir story/1_tenants.sql
\ir story/2_planning.sql
\ir story/3_across.sql
\ir story/4_secrets.sql
\ir story/5_tiers.sql
\ir story/6_clones.sql
\ir story/7_fleet.sql
\ir story/8_removal.sql
\ir story/9_records.sql
