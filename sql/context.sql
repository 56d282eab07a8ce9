CREATE FUNCTION current_tenant() RETURNS uuid
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'pg_tenancy_current_tenant';
COMMENT ON FUNCTION current_tenant() IS
    'The tenant that this transaction is bound to. Never NULL: raises 42501 when none is bound. Level public. Example: SELECT current_tenant();';

CREATE FUNCTION current_tenant_text() RETURNS text
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'pg_tenancy_current_tenant_text';
COMMENT ON FUNCTION current_tenant_text() IS
    'current_tenant() as lower-case text, for tenant columns of type text. Raises 42501 when none is bound. Level public. Example: SELECT current_tenant_text();';

CREATE FUNCTION current_tenant_key_text() RETURNS text
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'pg_tenancy_current_tenant_key_text';
COMMENT ON FUNCTION current_tenant_key_text() IS
    'The external id of the bound tenant, for tables whose tenant column holds the application''s own keys as text (adopt_tenants()). Never NULL: raises 42501 when no tenant is bound, 55000 when it has none, or one of more than 63 bytes. Level public. Example: SELECT current_tenant_key_text();';

CREATE FUNCTION current_tenant_key_bigint() RETURNS bigint
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'pg_tenancy_current_tenant_key_bigint';
COMMENT ON FUNCTION current_tenant_key_bigint() IS
    'current_tenant_key_text() as a number, for tenant columns of type bigint, integer or smallint. Raises 42501 when no tenant is bound, 55000 when its external id is no number. Level public. Example: SELECT current_tenant_key_bigint();';

CREATE FUNCTION current_tenant_or_null() RETURNS uuid
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'pg_tenancy_current_tenant_or_null';
COMMENT ON FUNCTION current_tenant_or_null() IS
    'The bound tenant, or NULL when none is bound. Level public. Example: SELECT current_tenant_or_null();';

CREATE FUNCTION current_user_id() RETURNS uuid
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'pg_tenancy_current_user_id';
COMMENT ON FUNCTION current_user_id() IS
    'The user named when the tenant was bound, or NULL. Level public. Example: SELECT current_user_id();';

CREATE FUNCTION tenancy_guard() RETURNS boolean
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'pg_tenancy_guard';
COMMENT ON FUNCTION tenancy_guard() IS
    'True. The permissive policy of every protected table calls it, so that dropping the extension closes those tables. Level public.';

COMMENT ON FUNCTION set_tenant(uuid, uuid) IS
    'Binds this transaction to a tenant, and names the user who acts: one whom tenancy.users knows must be a member, one whom it does not know is taken as given. Returns the tenant. Errors: P0002 unknown tenant; 42501 suspended, cancelled or deleted tenant, a user who is no member, or a role that bypasses row security; 55000 provisioning or moving tenant, or another tenant bound before in this transaction. Level app. Example: BEGIN; SELECT set_tenant(''8e3f5a60-0000-4000-8000-000000000001''); ... COMMIT;';
COMMENT ON FUNCTION set_tenant_by_slug(text, uuid) IS
    'set_tenant() for the tenant with this slug. Same errors. Level app. Example: BEGIN; SELECT set_tenant_by_slug(''acme''); ... COMMIT;';
COMMENT ON FUNCTION rebind_tenant(uuid) IS
    'Changes the tenant in mid-transaction, for administrators'' jobs. Errors as set_tenant(); 55000 also while a cursor is open. Level admin. Example: SELECT rebind_tenant(id) FROM tenancy.tenants WHERE slug = ''acme'';';
COMMENT ON FUNCTION clear_tenant() IS
    'Unbinds the tenant; true when one was bound. The transaction still serves no other tenant. Level client. Example: SELECT clear_tenant();';
COMMENT ON FUNCTION current_principal() IS
    'Who acts in this transaction: one row (tenant_id, user_id, role, api_key_id, scopes, source), none when no tenant is bound. role is that of the user in the tenant; api_key_id and scopes are NULL unless a credential bound it. Level public. Example: SELECT * FROM current_principal();';
COMMENT ON FUNCTION assert_tenant(uuid) IS
    'True when the given tenant is the bound one; raises 42501 "tenant mismatch" otherwise, or when none is bound. Level public. Example: SELECT assert_tenant(''8e3f5a60-0000-4000-8000-000000000001'');';
COMMENT ON FUNCTION tenancy.refuse_row(text) IS
    'Internal: the WITH CHECK of protected tables calls it for a row of another tenant. Counts the attempt and raises 42501.';
