-- 13 requests, one after another.
\set script touch.sql
\ir request.sql
\ir request.sql
\ir request.sql
\ir request.sql
\ir request.sql
\ir request.sql
\ir request.sql
\ir request.sql
\ir request.sql
\ir request.sql
\ir request.sql
\ir request.sql
\ir request.sql
