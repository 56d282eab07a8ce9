COMMENT ON FUNCTION grant_access(regrole, text) IS
    'Gives a role a level: client (binds by a credential), app (a trusted backend that chooses the tenant), monitor (statistics), operator (lifecycle), admin (everything). A role may hold several. For client and app it is refused (42501), with each reason and the statement that removes it, when the role could step around row security. Level admin. Example: SELECT grant_access(''backend'', ''app'');';
COMMENT ON FUNCTION revoke_access(regrole) IS
    'Takes every level from a role; false when it held none. Level admin. Example: SELECT revoke_access(''backend'');';
COMMENT ON FUNCTION tenancy.sees_all_tenants() IS
    'Whether the current role holds level operator or admin; the policies of the product''s own tables ask it. Level public.';
COMMENT ON FUNCTION tenancy.seal() IS
    'Internal: ends every install and upgrade script by revoking from PUBLIC.';
COMMENT ON FUNCTION tenancy.first_visible_tenant() IS
    'The lowest id of the tenants whose rows in schema tenancy the session''s role sees: of all for operator and admin, else the bound one; NULL for none. Policies and views compare with it. Level public. Example: SELECT tenancy.first_visible_tenant();';
COMMENT ON FUNCTION tenancy.last_visible_tenant() IS
    'The highest id of the tenants whose rows in schema tenancy the session''s role sees. Level public. Example: SELECT tenancy.last_visible_tenant();';
