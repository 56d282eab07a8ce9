INSERT INTO workflows (created_by, name) SELECT id, :'tenant' || ': Triage' FROM users WHERE email = 'ada@' || :'tenant' || '.example';
INSERT INTO workflow_executions (workflow_id, task_count) SELECT id, n FROM workflows, generate_series(1, 3) AS n;
SELECT string_agg(name, ', ') = :'tenant' || ': Triage' AS holds FROM workflows \gset
\set claim 'a request of ' :tenant ' finds its own rows, and nobody else''s'
\ir ../../shared/claim.sql
