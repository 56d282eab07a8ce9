\connect - :operator

\echo
\echo '== 13. Rate limits, in memory: 3 API calls at once, 6 in an hour'
\echo
\set ECHO queries
SELECT set_plan_rate_limit(plan, 'api_calls', per_hour, 'hour', burst)
FROM (VALUES ('free', 2, 1), ('starter', 6, 3), ('pro', 6000, 100), ('enterprise', NULL, NULL)) AS allowed (plan, per_hour, burst) \g /dev/null
\set ECHO none
\connect - :app
\set ECHO queries
BEGIN READ ONLY;
SELECT set_tenant_by_slug('hooli') AS hooli;
SELECT allowed, max_value, remaining, retry_after_s > 0 AS wait FROM generate_series(1, 4) AS call, check_rate_limit('api_calls', 1 + 0 * call);
ROLLBACK;
BEGIN;
SELECT set_tenant_by_slug('hooli') AS hooli;
\set ON_ERROR_STOP off
SELECT enforce_rate_limit('api_calls');   -- what was rolled back counts too
\set ON_ERROR_STOP on
\set must_be 53400 \ir ../../shared/refused.sql
\set ECHO none
ROLLBACK;
BEGIN;
SELECT set_tenant_by_slug('globex') \g /dev/null
SELECT bool_and(allowed) AS holds FROM generate_series(1, 50) AS call, check_rate_limit('api_calls', 1 + 0 * call) \gset
\set claim 'Globex, on another plan and with a bucket of its own, goes on' \ir ../../shared/claim.sql
COMMIT;
BEGIN;
SELECT set_tenant_by_slug('acme') \g /dev/null
SELECT bool_and(allowed AND max_value IS NULL) AS holds FROM generate_series(1, 50) AS call, check_rate_limit('api_calls', 1 + 0 * call) \gset
\set claim 'Acme''s plan has no limit' \ir ../../shared/claim.sql
COMMIT;
\connect - :operator
\set ECHO queries
SELECT change_plan(:'hooli', 'pro');
\set ECHO none
\connect - :app
BEGIN;
SELECT set_tenant_by_slug('hooli') \g /dev/null
SELECT allowed AND max_value = 6000 AS holds FROM check_rate_limit('api_calls') \gset
COMMIT;
\set claim 'and Hooli has its upgrade at once' \ir ../../shared/claim.sql
