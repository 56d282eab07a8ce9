-- As a superuser: explained(), by which a script can look at a plan; psql cannot keep what EXPLAIN prints.
CREATE FUNCTION public.explained(statement text, options text DEFAULT 'COSTS off') RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY EXECUTE format('EXPLAIN (%s) %s', options, statement);
END
$$;
