CREATE TABLE tenancy.moves (
    move_id uuid CONSTRAINT moves_pkey PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant_id uuid NOT NULL,
    from_isolation text NOT NULL,
    to_isolation text NOT NULL,
    from_schema name,
    to_schema name,
    from_database name,
    to_database name,
    from_template name,
    to_template name,
    former_status text NOT NULL,
    phase text NOT NULL CHECK (phase IN ('prepare', 'copy', 'verify', 'switch', 'clean', 'done', 'failed')),
    clean boolean NOT NULL,
    row_counts jsonb,
    started_by text,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    copied_at timestamptz,
    verified_at timestamptz,
    switched_at timestamptz,
    finished_at timestamptz,
    sqlstate text,
    error text
);
CREATE UNIQUE INDEX moves_unfinished_idx ON tenancy.moves (tenant_id) WHERE finished_at IS NULL;
CREATE INDEX moves_tenant_id_idx ON tenancy.moves (tenant_id, started_at);
SELECT pg_catalog.pg_extension_config_dump('tenancy.moves', '');
COMMENT ON TABLE tenancy.moves IS
    'Every move of a tenant between isolations: where from and where to, its phase (prepare, copy, verify and switch while the tenant is moving; clean while something is left at the old place; then done, or failed and back where it was, with sqlstate and error), the rows of each table, and when what was done. Kept by move_tenant(), clean_move() and background workers. Level operator.';

CREATE FUNCTION tenancy.forget_moves() RETURNS trigger LANGUAGE c SECURITY DEFINER SET search_path TO pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'pg_tenancy_forget_moves';
CREATE TRIGGER forget_moves AFTER DELETE ON tenancy.tenants FOR EACH STATEMENT EXECUTE FUNCTION tenancy.forget_moves();

COMMENT ON PROCEDURE move_tenant(uuid, text, name, boolean) IS
    'Moves a tenant with all its rows to another isolation (row, schema, database) on this server: waits for its writers, refuses new ones (55000) while readers go on, copies table by table to those of the same names and columns, compares both sides by count and by a checksum that does not depend on order, and only then leads every later transaction to the new place. Positions of sequences, foreign keys and constraints hold, usage and keys come along; triggers of users do not fire. Into a database of its own, which is made for it, and out of one, which is dropped, it works as into and out of a schema; who still reads there reads on to the end. template is what the new schema is made of, or what the old one is compared with, and names the schema of the shared tables (derive_template(), register_template()). clean => false leaves the rows at the old place until clean_move(). Whatever fails or is killed before that leaves the tenant where it was; call again. Errors: 25001 inside a transaction block; P0002 unknown tenant or template; 22023 unknown isolation; 55000 a state that is not active or read_only, another session that moves, migrates or copies it, or rows that the new place has no table or column for, by name; 23505, 23503, 23514 rows that violate a constraint there; 0A000 something in the template cannot be copied. Level admin. Example: CALL move_tenant(find_tenant(''acme''), ''schema'');';
COMMENT ON PROCEDURE clean_move(uuid) IS
    'Removes what move_tenant() has left at a tenant''s old place, after the transactions that read there have ended: it says for whom it waits. Can be called again. Errors: 25001 inside a transaction block; 55000 nothing is left, another session is at it, or the shared tables have rows of the tenant that were not moved. Level admin. Example: CALL clean_move(find_tenant(''acme''));';
COMMENT ON PROCEDURE resume_moves() IS
    'Takes back moves whose session has ended before their end, and removes what others have left at the old place: what background workers do. Errors: 25001 inside a transaction block. Level admin. Example: CALL resume_moves();';
COMMENT ON FUNCTION tenancy.forget_moves() IS 'Internal: the trigger that removes the moves of a purged tenant.';
