\connect - :operator

\echo
\echo '== 16. API calls per hour'
\echo
\set ECHO queries
SELECT change_plan(:'bobcat', 'free');   -- 100 calls in an hour
\set ECHO none
\connect - :client
\set credential :bobcat_token \set whose 'Bob, in Bobcat' \ir ../request.sql
SELECT max_value, remaining > 0 AS some_remain FROM check_rate_limit('api_calls', cost => 0);
SELECT count(*) FILTER (WHERE allowed) AS allowed, count(*) FILTER (WHERE NOT allowed) AS refused
FROM generate_series(1, 150) AS call, check_rate_limit('api_calls', 1 + 0 * call) \gset
\set ECHO none
\echo :allowed 'of 150 calls were allowed.'
ROLLBACK;
SELECT :allowed < 100 AND :refused > 50 AS holds \gset
\set claim 'no more than a hundred in all, with the requests before' \ir ../../shared/claim.sql
\echo
\echo 'The next request, though that one was rolled back:'
\echo
\set ECHO queries
BEGIN;
\set ECHO none
SELECT role FROM authenticate_jwt(:'bobcat_token') \g /dev/null
\set ECHO queries
\set ON_ERROR_STOP off
SELECT admit();
\set ON_ERROR_STOP on
\set must_be 53400 \ir ../../shared/refused.sql
\set ECHO none
ROLLBACK;
\set credential :mallory_token \set whose 'Mallory, in Globex' \ir ../request.sql
\set ECHO none
COMMIT;
\set holds true
\set claim 'another workspace has calls of its own' \ir ../../shared/claim.sql
