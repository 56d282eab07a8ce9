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

REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA workspaces FROM PUBLIC;
SELECT format('ALTER FUNCTION %s OWNER TO %I', oid::regprocedure, :'app'),
       CASE WHEN prosecdef THEN format('GRANT EXECUTE ON FUNCTION %s TO %I', oid::regprocedure, :'client') END
FROM pg_proc WHERE pronamespace = 'workspaces'::regnamespace \gexec

\connect - :admin
\set ECHO queries
SELECT add_jwt_key('workspaces-1', 'HS256', issuer => 'workspaces', audience => 'workspaces-api') AS kid;
\set ECHO none
\echo 'Its secret was made by the server and is shown to nobody.'
