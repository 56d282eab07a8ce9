-- As the backend: sample data of one tenant.
-- Variables: slug; users (at most 900), agents, workflows (at most 128) and executions, how many of each.

BEGIN;
SELECT set_tenant_by_slug(:'slug') \g /dev/null
SELECT setseed(0.5) \g /dev/null

WITH names AS (
    SELECT string_to_array('Ada Bruno Chiara Dmitri Elif Farid Grace Hiro Ines Jonas Kavya Liam Maja Noor Omar Petra Quentin Rosa Sven'
                           || ' Tomoko Uma Viktor Wanjiru Ximena Yusuf Zofia Anders Bea Chen Dara', ' ') AS first,
           string_to_array('Almeida Berg Castillo Dubois Eriksen Fischer Garcia Haddad Ivanova Jensen Kowalski Larsen Mbeki Nakamura'
                           || ' Okafor Patel Quist Rossi Svensson Tanaka Ueda Varga Weber Xu Yilmaz Zhang Abbott Bianchi Cole Dahl', ' ') AS last
), people AS (
    SELECT n, first[1 + n % 30] AS first, last[1 + (n + n / 30) % 30] AS last
    FROM names, generate_series(1, :users) AS n
)
INSERT INTO users (external_auth_id, email, name, role, last_login_at, created_at)
SELECT 'user_' || substr(md5(:'slug' || n), 1, 16),
       lower(format('%s.%s@%s.example', first, last, :'slug')),
       first || ' ' || last,
       CASE WHEN n = 1 THEN 'owner' WHEN n <= 3 THEN 'admin' ELSE 'member' END,
       CASE WHEN random() < 0.9 THEN now() - random() * interval '30 days' END,
       now() - interval '90 days' - random() * interval '300 days'
FROM people;

INSERT INTO agents (name, config)
SELECT format('%s %s', (ARRAY['Reader', 'Writer', 'Caller', 'Checker'])[1 + n % 4], n), jsonb_build_object('tools', jsonb_build_array('search', 'email'))
FROM generate_series(1, :agents) AS n;

WITH words AS (
    SELECT string_to_array('Invoice triage,Ticket routing,Lead enrichment,Contract review,Churn warning,Release notes,Incident summary,'
                           || 'Expense audit,Candidate screening,Meeting follow-up,Competitor watch,Data quality sweep,Refund approval,'
                           || 'Knowledge base refresh,Security alert triage,Weekly report', ',') AS purposes,
           string_to_array('EMEA,Americas,APAC,Nordics,Retail,Enterprise,Partners,Internal', ',') AS teams,
           (SELECT array_agg(id ORDER BY email) FROM users) AS people
), made AS MATERIALIZED (
    SELECT n, random() AS state, random() AS creator, random() AS age FROM generate_series(0, :workflows - 1) AS n
)
INSERT INTO workflows (created_by, name, description, status, config, temporal_workflow_id, temporal_run_id, created_at, updated_at)
SELECT people[1 + floor(creator * cardinality(people))::int],
       format('%s, %s', purposes[1 + n % 16], teams[1 + n / 16]),
       format('%s for the %s team', purposes[1 + n % 16], teams[1 + n / 16]),
       CASE WHEN n = 0 OR state < 0.6 THEN 'active' WHEN state < 0.75 THEN 'paused' WHEN state < 0.9 THEN 'archived' ELSE 'draft' END,
       jsonb_build_object('agents', 1 + n % 4, 'schedule', CASE n % 3 WHEN 0 THEN 'hourly' WHEN 1 THEN 'daily' ELSE 'webhook' END,
                          'tools', jsonb_build_array('search', 'email')),
       :'slug' || '-workflow-' || n,
       gen_random_uuid()::text,
       now() - interval '90 days' - age * interval '200 days',
       now() - age * interval '80 days'
FROM words, made;

-- A few workflows run most of the time, and runs last from seconds to about ten minutes.
WITH started AS (
    SELECT array_agg(id ORDER BY created_at) AS ids FROM workflows WHERE status <> 'draft'
), made AS MATERIALIZED (
    SELECT n, random() ^ 2 AS pick, random() AS state, random() AS age, 1 + floor(random() * 12)::int AS tasks,
           exp(2.5 + 4 * (random() + random() + random()) / 3) AS seconds
    FROM generate_series(1, :executions) AS n
), runs AS (
    SELECT *,
           CASE WHEN state < 0.002 THEN 'running' WHEN state < 0.90 THEN 'completed' WHEN state < 0.97 THEN 'failed' ELSE 'cancelled' END AS status
    FROM made
), timed AS (
    SELECT *, now() - CASE status WHEN 'running' THEN age * interval '10 minutes' ELSE interval '1 hour' + age * interval '90 days' END AS started_at
    FROM runs
)
INSERT INTO workflow_executions (workflow_id, status, started_at, completed_at, input, output, error, agent_minutes_consumed, task_count)
SELECT ids[1 + floor(pick * cardinality(ids))::int],
       status,
       started_at,
       CASE WHEN status <> 'running' THEN started_at + seconds * interval '1 second' END,
       jsonb_build_object('trigger', CASE n % 3 WHEN 0 THEN 'schedule' WHEN 1 THEN 'webhook' ELSE 'manual' END, 'batch', n),
       CASE WHEN status = 'completed' THEN jsonb_build_object('items', tasks * 3, 'summary', tasks || ' tasks done') END,
       CASE WHEN status = 'failed' THEN
           (ARRAY['model timed out', 'tool returned 429', 'output did not match its schema', 'approval was refused'])[1 + n % 4] END,
       round((CASE status WHEN 'running' THEN 0 ELSE seconds END / 60)::numeric, 2),
       tasks
FROM timed, started;

COMMIT;
