-- As the API server: a request with a credential that must be refused. Variables: header; whose.
\set call 'SELECT role FROM authenticate($1);  -- ' :whose
\echo :call
\set ON_ERROR_STOP off
SELECT role FROM authenticate(:'header');
\set ON_ERROR_STOP on
\set must_be 28000 \ir ../shared/refused.sql
