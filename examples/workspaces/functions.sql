-- The application's functions. Those of the log-in service run with its own rights. Those of the API server run with the log-in
-- service's rights, because roles of level client may not act on members and keys. Each asks for a role first; that nobody acts on
-- who is above them, and no token or key without scope tenancy:manage on anyone, is pg_tenancy's doing.

\connect - :dba
SET client_min_messages = warning;

\echo
\echo '== 3. Its functions, and the key that signs its tokens'
\echo

CREATE FUNCTION workspaces.sign_up(email text, name text, password text) RETURNS uuid LANGUAGE sql AS $$
    INSERT INTO passwords (user_id, password_hash) VALUES (create_user(email, name), crypt(password::password, gen_salt('bf', 10)))
    RETURNING user_id
$$;

-- NULL unless the password is right. An unknown address takes as long as a wrong password, so that nobody learns who has an account.
CREATE FUNCTION workspaces.log_in(email text, password text) RETURNS uuid LANGUAGE sql AS $$
    SELECT stored.user_id
    FROM (VALUES (find_user(email))) AS found (user_id)
    LEFT JOIN passwords AS stored ON stored.user_id = found.user_id
    WHERE crypt(password, coalesce(stored.password_hash, gen_salt('bf', 10))) = stored.password_hash
$$;

CREATE FUNCTION workspaces.invite(email text, role text DEFAULT 'member') RETURNS text
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT require_role('admin');
    SELECT token FROM create_invitation(email, role)
$$;

CREATE FUNCTION workspaces.set_role(member uuid, role text) RETURNS boolean
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT require_role('admin');
    SELECT change_role(member, role)
$$;

CREATE FUNCTION workspaces.expel(member uuid) RETURNS boolean
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT require_role('admin');
    SELECT remove_member(member)
$$;

-- A key of the caller's own, in the caller's workspace, for no more than the caller's own scopes.
CREATE FUNCTION workspaces.create_key(name text, scopes text[], valid_for interval DEFAULT '90 days') RETURNS text
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT require_role('member');
    SELECT api_key FROM create_api_key(name, scopes, now() + valid_for, current_user_id())
$$;

-- Members end their own keys, admins anyone's below them.
CREATE FUNCTION workspaces.end_key(key_id uuid) RETURNS boolean
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT require_role('member');
    SELECT require_role('admin') FROM tenancy.api_keys WHERE id = key_id AND user_id IS DISTINCT FROM current_user_id();
    SELECT revoke_api_key(key_id)
$$;

-- Called at the beginning of each request: within the plan's calls per hour, and counted.
CREATE FUNCTION workspaces.admit() RETURNS boolean LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT enforce_rate_limit('api_calls') AND record_usage('api_calls')
$$;

-- When a task runs is the database's to say. It begins while a minute of the month's quota is left.
CREATE FUNCTION workspaces.time_task() RETURNS trigger LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF NEW.status = 'running' AND (TG_OP = 'INSERT' OR OLD.status <> 'running') THEN
        PERFORM enforce_limit('agent_minutes');
        NEW.started_at := now();
        NEW.ended_at := NULL;
    ELSIF TG_OP = 'UPDATE' AND OLD.status = 'running' AND NEW.status <> 'running' THEN
        NEW.ended_at := now();
    END IF;
    RETURN NEW;
END
$$;

-- And when it ends, its minutes are recorded, once for each run, whoever ends it.
CREATE FUNCTION workspaces.charge_task() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM record_duration('agent_minutes', NEW.started_at, NEW.ended_at, format('task %s of %s', NEW.id, extract(epoch FROM NEW.started_at)), NEW.agent_id);
    RETURN NULL;
END
$$;

CREATE TRIGGER time_task BEFORE INSERT OR UPDATE OF status ON workspaces.tasks FOR EACH ROW EXECUTE FUNCTION workspaces.time_task();
CREATE TRIGGER charge_task AFTER UPDATE OF status ON workspaces.tasks FOR EACH ROW
    WHEN (OLD.status = 'running' AND NEW.status <> 'running') EXECUTE FUNCTION workspaces.charge_task();

-- For work whose length is known before: all of its minutes or an error, however many ask at once.
CREATE FUNCTION workspaces.take_minutes(minutes integer) RETURNS numeric LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT require_role('member');
    SELECT consume_quota('agent_minutes', minutes)
$$;

-- What the caller's workspace has used this month.
CREATE FUNCTION workspaces.usage() RETURNS TABLE (metric text, quantity numeric, events bigint, max_value numeric, remaining numeric)
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT * FROM monthly_usage() WHERE require_role('viewer')
$$;

REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA workspaces FROM PUBLIC;
SELECT format('ALTER FUNCTION %s OWNER TO %I', oid::regprocedure, :'app'),
       CASE WHEN prosecdef AND prorettype <> 'trigger'::regtype THEN format('GRANT EXECUTE ON FUNCTION %s TO %I', oid::regprocedure, :'client') END
FROM pg_proc WHERE pronamespace = 'workspaces'::regnamespace \gexec

\connect - :admin
\set ECHO queries
SELECT add_jwt_key('workspaces-1', 'HS256', issuer => 'workspaces', audience => 'workspaces-api') AS kid;
\set ECHO none
\echo 'Its secret was made by the server and is shown to nobody.'
