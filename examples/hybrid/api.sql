-- The application's functions, in each database that it works in. What the API server may not do by itself it does with the log-in service's
-- rights, after the caller's role was asked for.

CREATE SCHEMA hybrid_api;
GRANT USAGE ON SCHEMA hybrid_api TO :"app", :"client";

-- A request's header: a session token, or an API key.
CREATE FUNCTION hybrid_api.authenticate("authorization" text) RETURNS SETOF tenancy.principal LANGUAGE plpgsql AS $$
BEGIN
    IF "authorization" LIKE 'Key %' THEN
        RETURN QUERY SELECT * FROM authenticate_api_key(substr("authorization", 5));
    ELSE
        RETURN QUERY SELECT * FROM authenticate_jwt(substr("authorization", 8));  -- Bearer
    END IF;
END
$$;

CREATE FUNCTION hybrid_api.invite(email text, role text DEFAULT 'member') RETURNS text
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT require_role('admin');
    SELECT token FROM create_invitation(email, role)
$$;

-- A key of the caller's own, in the caller's organization, for no more than the caller's own scopes.
CREATE FUNCTION hybrid_api.create_key(name text, scopes text[]) RETURNS text
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT require_role('member');
    SELECT api_key FROM create_api_key(name, scopes, now() + interval '90 days', current_user_id())
$$;

CREATE FUNCTION hybrid_api.end_key(key_id uuid) RETURNS boolean
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT require_role('member');
    SELECT require_role('admin') FROM tenancy.api_keys WHERE id = key_id AND user_id IS DISTINCT FROM current_user_id();
    SELECT revoke_api_key(key_id)
$$;

-- What the organization pays for, and what it has used of that in the running period.
CREATE FUNCTION hybrid_api.subscription() RETURNS TABLE (plan text, status text, period_start timestamptz, period_end timestamptz)
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT t.plan, s.status, p.period_start, p.period_end
    FROM usage_period('month') AS p, tenancy.tenants AS t LEFT JOIN tenancy.subscriptions AS s ON s.tenant_id = t.id
    WHERE t.id = current_tenant()
$$;

CREATE FUNCTION hybrid_api.usage() RETURNS TABLE (metric text, quantity numeric, events bigint, max_value numeric, remaining numeric)
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT * FROM monthly_usage()
$$;

-- What a trigger of sessions records: nobody calls it by themselves.
CREATE FUNCTION hybrid_api.charge(session_id uuid, agent_id uuid, started timestamptz, ended timestamptz) RETURNS numeric
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    IF pg_trigger_depth() = 0 THEN
        RAISE insufficient_privilege USING MESSAGE = 'sessions are charged as they close';
    END IF;
    RETURN record_duration('agent_minutes', started, ended, 'session ' || session_id, agent_id);
END
$$;

REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA hybrid_api FROM PUBLIC;
SELECT format('ALTER FUNCTION %s OWNER TO %I', oid::regprocedure, :'app'), format('GRANT EXECUTE ON FUNCTION %s TO %I', oid::regprocedure, :'client')
FROM pg_proc WHERE pronamespace = 'hybrid_api'::regnamespace \gexec
