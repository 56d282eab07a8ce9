UPDATE workflows SET updated_at = now() WHERE name = :'tenant' || ': Triage';
SELECT :'tenant' || ' sees ' || string_agg(DISTINCT split_part(name, ':', 1), ', ') FROM workflows;
