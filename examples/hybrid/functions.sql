-- The application's functions. What the API server may not do by itself it does with the log-in service's rights, after the caller's role
-- was asked for.

\connect - :dba
SET client_min_messages = warning;

\echo
\echo '== 5. Its functions, and the key that signs its tokens'
\echo

-- A request's header: a session token, or an API key.
CREATE FUNCTION hybrid.authenticate("authorization" text) RETURNS SETOF tenancy.principal LANGUAGE plpgsql AS $$
BEGIN
    IF "authorization" LIKE 'Key %' THEN
        RETURN QUERY SELECT * FROM authenticate_api_key(substr("authorization", 5));
    ELSE
        RETURN QUERY SELECT * FROM authenticate_jwt(substr("authorization", 8));  -- Bearer
    END IF;
END
$$;

CREATE FUNCTION hybrid.invite(email text, role text DEFAULT 'member') RETURNS text
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT require_role('admin');
    SELECT token FROM create_invitation(email, role)
$$;

-- A key of the caller's own, in the caller's organization, for no more than the caller's own scopes.
CREATE FUNCTION hybrid.create_key(name text, scopes text[]) RETURNS text
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT require_role('member');
    SELECT api_key FROM create_api_key(name, scopes, now() + interval '90 days', current_user_id())
$$;

CREATE FUNCTION hybrid.end_key(key_id uuid) RETURNS boolean
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT require_role('member');
    SELECT require_role('admin') FROM tenancy.api_keys WHERE id = key_id AND user_id IS DISTINCT FROM current_user_id();
    SELECT revoke_api_key(key_id)
$$;

-- What the organization pays for, and what it has used of that in the running period.
CREATE FUNCTION hybrid.subscription() RETURNS TABLE (plan text, status text, period_start timestamptz, period_end timestamptz)
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT t.plan, s.status, p.period_start, p.period_end
    FROM usage_period('month') AS p, tenancy.tenants AS t LEFT JOIN tenancy.subscriptions AS s ON s.tenant_id = t.id
    WHERE t.id = current_tenant()
$$;

CREATE FUNCTION hybrid.usage() RETURNS TABLE (metric text, quantity numeric, events bigint, max_value numeric, remaining numeric)
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT * FROM monthly_usage()
$$;

-- When an agent runs is the database's to say. A session opens while a minute of the period is left.
CREATE FUNCTION hybrid.time_session() RETURNS trigger LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        PERFORM enforce_limit('agent_minutes');
    ELSIF NEW.status = 'closed' THEN
        NEW.ended_at := coalesce(OLD.ended_at, now());
    END IF;
    RETURN NEW;
END
$$;

-- And when it closes, its minutes are recorded as an event: no column runs along, and the history stays.
CREATE FUNCTION hybrid.charge_session() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM record_duration('agent_minutes', NEW.started_at, NEW.ended_at, 'session ' || NEW.id, NEW.agent_id);
    RETURN NULL;
END
$$;

CREATE TRIGGER time_session BEFORE INSERT OR UPDATE OF status ON hybrid.sessions FOR EACH ROW EXECUTE FUNCTION hybrid.time_session();
CREATE TRIGGER charge_session AFTER UPDATE OF status ON hybrid.sessions FOR EACH ROW
    WHEN (OLD.status = 'open' AND NEW.status = 'closed') EXECUTE FUNCTION hybrid.charge_session();

REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA hybrid FROM PUBLIC;
SELECT format('ALTER FUNCTION %s OWNER TO %I', oid::regprocedure, :'app'),
       CASE WHEN prorettype <> 'trigger'::regtype THEN format('GRANT EXECUTE ON FUNCTION %s TO %I', oid::regprocedure, :'client') END
FROM pg_proc WHERE pronamespace = 'hybrid'::regnamespace \gexec

\connect - :admin
\set ECHO queries
SELECT add_jwt_key('hybrid-1', 'HS256', issuer => 'hybrid', audience => 'hybrid-api') AS kid;
\set ECHO none
