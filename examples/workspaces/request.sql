-- As the API server: how each request begins. Variables: credential, what the caller sent; whose it is, to say so instead of showing
-- it; by, authenticate_jwt unless it is authenticate_api_key.
\if :{?by} \else \set by authenticate_jwt \endif
\set call 'SELECT role, scopes FROM ' :by '($1);  -- ' :whose
\echo 'BEGIN;'
\echo :call
\echo 'SELECT admit();'
BEGIN;
SELECT role, scopes FROM :by(:'credential');
SELECT admit() \g /dev/null
\unset by
\set ECHO queries
