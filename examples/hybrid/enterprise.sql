-- As an admin: what an organization's own database is made of, when its plan is enterprise. The shared tables are the model: nothing is written twice.

\connect - :admin
SET client_min_messages = warning;

\echo
\echo '== 6. A template for organizations with a database of their own'
\echo
\set ECHO queries
SELECT derive_template('hybrid', 'hybrid') AS template_schema;
SELECT limit_table(c.oid, 'agents') AS agents   -- a template is closed, so that its name opens nothing
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE n.nspname = 'hybrid_template' AND c.relname = 'agents';
\set ECHO none
