-- As the API server: how each request begins. Variables: header, what the caller sent; whose it is, to say so instead of showing it.
\set call 'SELECT role, scopes FROM authenticate($1);  -- ' :whose
\echo 'BEGIN;'
\echo :call
BEGIN;
SELECT role, scopes FROM authenticate(:'header');
\set ECHO queries
