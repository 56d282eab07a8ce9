-- As an admin, after it.
SELECT protect_table('agent_platform.notes');
