-- As the API server: a request with a credential that must be refused. Variables: credential and by as in request.sql; whose.
\if :{?by} \else \set by authenticate_jwt \endif
\set call 'SELECT role FROM ' :by '($1);  -- ' :whose
\echo :call
\set ON_ERROR_STOP off
SELECT role FROM :by(:'credential');
\set ON_ERROR_STOP on
\unset by
\set must_be 28000 \ir ../shared/refused.sql
