-- The application's dashboard: no tenant in it.
SELECT w.name AS workflow, w.status, count(*) AS runs,
       count(*) FILTER (WHERE e.status = 'failed') AS failed,
       sum(e.agent_minutes_consumed) AS agent_minutes
FROM workflows AS w
JOIN workflow_executions AS e ON e.workflow_id = w.id
GROUP BY w.name, w.status
ORDER BY runs DESC
LIMIT 3;
