-- As the tables' owner: what happens to sessions as they open and close. As an admin: the key that signs tokens.

\connect - :owner
SET client_min_messages = warning;

\echo
\echo '== 5. What sessions do, and the key that signs tokens'
\echo

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
CREATE FUNCTION hybrid.charge_session() RETURNS trigger LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM hybrid_api.charge(NEW.id, NEW.agent_id, NEW.started_at, NEW.ended_at);
    RETURN NULL;
END
$$;

CREATE TRIGGER time_session BEFORE INSERT OR UPDATE OF status ON hybrid.sessions FOR EACH ROW EXECUTE FUNCTION hybrid.time_session();
CREATE TRIGGER charge_session AFTER UPDATE OF status ON hybrid.sessions FOR EACH ROW
    WHEN (OLD.status = 'open' AND NEW.status = 'closed') EXECUTE FUNCTION hybrid.charge_session();

\connect - :admin
\set ECHO queries
SELECT add_jwt_key('hybrid-1', 'HS256', issuer => 'hybrid', audience => 'hybrid-api') AS kid;
\set ECHO none
