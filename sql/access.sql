-- Tables. None has a foreign key to another: a parallel pg_restore does not load the tables of an extension in the order that it would need.
-- Columns that src/ reads by position come first, and texts that are compared there have the collation "C".

-- id, tenant_id, external_id and tokens_not_before are read by position (src/context/registry.rs, src/access/jwt/verify.rs).
CREATE TABLE tenancy.users (
    id uuid CONSTRAINT users_pkey PRIMARY KEY,
    tenant_id uuid,
    email text COLLATE "C" NOT NULL,
    external_id text COLLATE "C",
    tokens_not_before timestamptz,
    name text,
    last_login_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT users_email_key UNIQUE NULLS NOT DISTINCT (email, tenant_id)
);
CREATE UNIQUE INDEX users_external_id_key ON tenancy.users (external_id, tenant_id) NULLS NOT DISTINCT WHERE external_id IS NOT NULL;
CREATE INDEX users_tenant_id_idx ON tenancy.users (tenant_id) WHERE tenant_id IS NOT NULL;
SELECT pg_catalog.pg_extension_config_dump('tenancy.users', '');
COMMENT ON TABLE tenancy.users IS
    'Users. tenant_id NULL: one user, whose e-mail address is unique, in any number of tenants; otherwise a user of that tenant alone, whose address is unique in it. email is kept in lower case; tokens issued before tokens_not_before are refused. Change it through create_user() and its kin. Level operator.';

-- tenant_id, user_id and role are read by position (src/context/registry.rs).
CREATE TABLE tenancy.memberships (
    tenant_id uuid NOT NULL,
    user_id uuid NOT NULL,
    role text COLLATE "C" NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT memberships_pkey PRIMARY KEY (tenant_id, user_id)
);
CREATE INDEX memberships_user_id_idx ON tenancy.memberships (user_id);
CREATE INDEX memberships_added_role_idx ON tenancy.memberships (role) WHERE role NOT IN ('owner', 'admin', 'member', 'viewer');
SELECT pg_catalog.pg_extension_config_dump('tenancy.memberships', '');
COMMENT ON TABLE tenancy.memberships IS
    'Which user belongs to which tenant, with which role. Change it through add_member() and its kin, which keep an owner for each tenant. Level operator; tenancy.members shows it to everyone else.';

-- role and rank are read by position (src/access/role.rs).
CREATE TABLE tenancy.added_roles (
    role text COLLATE "C" CONSTRAINT added_roles_pkey PRIMARY KEY,
    rank integer NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
SELECT pg_catalog.pg_extension_config_dump('tenancy.added_roles', '');
COMMENT ON TABLE tenancy.added_roles IS 'What add_role() added. tenancy.roles shows it with the roles that are always there.';

CREATE TABLE tenancy.stored_invitations (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    token_hash bytea NOT NULL CONSTRAINT stored_invitations_token_hash_key UNIQUE,
    tenant_id uuid NOT NULL,
    email text COLLATE "C" NOT NULL,
    role text COLLATE "C" NOT NULL,
    invited_by uuid,
    metadata jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    accepted_at timestamptz,
    accepted_by uuid,
    revoked_at timestamptz
);
CREATE UNIQUE INDEX stored_invitations_live_key ON tenancy.stored_invitations (tenant_id, email)
    WHERE accepted_at IS NULL AND revoked_at IS NULL;
CREATE INDEX stored_invitations_tenant_id_idx ON tenancy.stored_invitations (tenant_id, created_at);
CREATE INDEX stored_invitations_email_idx ON tenancy.stored_invitations (email);
SELECT pg_catalog.pg_extension_config_dump('tenancy.stored_invitations', '');
COMMENT ON TABLE tenancy.stored_invitations IS 'Invitations with the hashes of their tokens. Only functions reach it; tenancy.invitations shows it without the hashes.';

-- The columns up to revoked_at are read by position (src/access/verify.rs).
CREATE TABLE tenancy.stored_api_keys (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    key_hash bytea NOT NULL CONSTRAINT stored_api_keys_key_hash_key UNIQUE,
    tenant_id uuid NOT NULL,
    user_id uuid,
    scopes text[] NOT NULL,
    expires_at timestamptz,
    revoked_at timestamptz,
    name text NOT NULL,
    key_prefix text NOT NULL,
    created_by uuid,
    created_at timestamptz NOT NULL DEFAULT now(),
    replaced_by uuid
);
CREATE INDEX stored_api_keys_tenant_id_idx ON tenancy.stored_api_keys (tenant_id, user_id);
SELECT pg_catalog.pg_extension_config_dump('tenancy.stored_api_keys', '');
COMMENT ON TABLE tenancy.stored_api_keys IS 'API keys by their hashes. Only functions reach it; tenancy.api_keys shows it without the hashes.';

CREATE TABLE tenancy.api_key_usage (
    key_id uuid PRIMARY KEY,
    last_used_at timestamptz
) WITH (fillfactor = 50);
SELECT pg_catalog.pg_extension_config_dump('tenancy.api_key_usage', '');
COMMENT ON TABLE tenancy.api_key_usage IS 'When each API key was used last, to the minute: apart, so that marking a key never waits for its revocation, nor the other way round. tenancy.api_keys shows it.';

-- The columns up to created_at are read by position (src/access/jwt/key.rs).
CREATE TABLE tenancy.stored_jwt_keys (
    kid text COLLATE "C" CONSTRAINT stored_jwt_keys_pkey PRIMARY KEY,
    algorithm text NOT NULL,
    verifying_key text NOT NULL,
    signing_key text,
    issuer text,
    audience text,
    expires_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
SELECT pg_catalog.pg_extension_config_dump('tenancy.stored_jwt_keys', '');
COMMENT ON TABLE tenancy.stored_jwt_keys IS 'The keys of signed tokens, secret ones among them: a dump holds them too. Only functions reach it; tenancy.jwt_keys shows it without the keys.';

-- Should someone grant these tables by mistake, they show nothing.
ALTER TABLE tenancy.stored_invitations ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenancy.stored_api_keys ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenancy.stored_jwt_keys ENABLE ROW LEVEL SECURITY;

-- What credentials are asked for: composite types, which PostgreSQL need not put together anew for each call.
CREATE TYPE tenancy.verified_api_key AS (tenant_id uuid, key_id uuid, user_id uuid, scopes text[]);
COMMENT ON TYPE tenancy.verified_api_key IS 'What verify_api_key() returns.';
CREATE TYPE tenancy.principal AS (tenant_id uuid, user_id uuid, role text, api_key_id uuid, scopes text[]);
COMMENT ON TYPE tenancy.principal IS 'What authenticate_api_key() and authenticate_jwt() return.';

CREATE FUNCTION verify_api_key(api_key text) RETURNS SETOF tenancy.verified_api_key
    LANGUAGE c VOLATILE ROWS 1 AS 'MODULE_PATHNAME', 'pg_tenancy_verify_api_key';
CREATE FUNCTION authenticate_api_key(api_key text) RETURNS SETOF tenancy.principal
    LANGUAGE c VOLATILE ROWS 1 AS 'MODULE_PATHNAME', 'pg_tenancy_authenticate_api_key';
CREATE FUNCTION authenticate_jwt(token text) RETURNS SETOF tenancy.principal
    LANGUAGE c VOLATILE ROWS 1 AS 'MODULE_PATHNAME', 'pg_tenancy_authenticate_jwt';

-- Views. Each has one branch, because the branches of a UNION ALL lose the security barrier; the range of tenants is found by index, and what
-- belongs to a row is looked up row by row, because the planner cannot know how narrow the range is.

CREATE VIEW tenancy.roles AS
    SELECT role, rank, true AS built_in FROM (VALUES ('owner', 100), ('admin', 80), ('member', 60), ('viewer', 40)) AS built_in (role, rank)
    UNION ALL
    SELECT role, rank, false FROM tenancy.added_roles;
COMMENT ON VIEW tenancy.roles IS
    'Roles that a member can have. A role includes all of lower rank. Levels client and monitor.';

CREATE VIEW tenancy.members WITH (security_barrier) AS
    SELECT m.tenant_id, m.user_id, u.email, u.name, u.external_id, m.role, u.last_login_at, m.created_at, m.updated_at
    FROM tenancy.memberships m
    CROSS JOIN LATERAL (SELECT * FROM tenancy.users WHERE id = m.user_id OFFSET 0) u
    WHERE m.tenant_id BETWEEN (SELECT tenancy.first_visible_tenant()) AND (SELECT tenancy.last_visible_tenant());
COMMENT ON VIEW tenancy.members IS
    'Members with their roles. Levels client and app see those of their bound tenant, operator and admin all.';

CREATE VIEW tenancy.invitations WITH (security_barrier) AS
    SELECT i.id, i.tenant_id, i.email, i.role,
           CASE WHEN i.accepted_at IS NOT NULL THEN 'accepted' WHEN i.revoked_at IS NOT NULL THEN 'revoked'
                WHEN i.expires_at <= now() THEN 'expired' ELSE 'open' END AS status,
           i.invited_by, i.metadata, i.created_at, i.expires_at, i.accepted_at, i.accepted_by, i.revoked_at
    FROM tenancy.stored_invitations i
    WHERE i.tenant_id BETWEEN (SELECT tenancy.first_visible_tenant()) AND (SELECT tenancy.last_visible_tenant());
COMMENT ON VIEW tenancy.invitations IS
    'Invitations; status open, accepted, revoked (or replaced) or expired. Levels client and app see those of their bound tenant, operator and admin all.';

CREATE VIEW tenancy.api_keys WITH (security_barrier) AS
    SELECT k.id, k.tenant_id, k.user_id, k.name, k.key_prefix, k.scopes, k.created_by, k.created_at, k.expires_at, k.revoked_at,
           k.replaced_by, u.last_used_at
    FROM tenancy.stored_api_keys k
    LEFT JOIN LATERAL (SELECT last_used_at FROM tenancy.api_key_usage WHERE key_id = k.id OFFSET 0) u ON true
    WHERE k.tenant_id BETWEEN (SELECT tenancy.first_visible_tenant()) AND (SELECT tenancy.last_visible_tenant());
COMMENT ON VIEW tenancy.api_keys IS
    'API keys without the keys: key_prefix is what may be shown, last_used_at is to the minute. Levels client and app see those of their bound tenant, operator and admin all.';

CREATE VIEW tenancy.jwt_keys AS
    SELECT kid, algorithm, algorithm = 'HS256' OR signing_key IS NOT NULL AS can_sign, issuer, audience, expires_at, created_at
    FROM tenancy.stored_jwt_keys;
COMMENT ON VIEW tenancy.jwt_keys IS 'The keys of signed tokens, without the keys. Level admin.';

COMMENT ON FUNCTION create_user(text, text, text, uuid, uuid) IS
    'Creates a user and returns the id. The e-mail address is kept in lower case and unique among the users of no tenant, or, with tenant, among those of that tenant, to which such a user then belongs for good. Makes nobody a member: see add_member(). Errors: 22023 malformed address; 23505 address, external id or id taken; P0002 unknown tenant; 42501 another tenant than the bound one. Level app. Example: SELECT create_user(''ada@example.com'', ''Ada'');';
COMMENT ON FUNCTION find_user(text, text, uuid) IS
    'The id of the user with this e-mail address or external id, NULL when there is none: the given or bound tenant''s own user, or else one of no tenant. Errors: 22023 unless exactly one is given; 42501 another tenant than the bound one. Level app. Example: SELECT find_user(''ada@example.com'');';
COMMENT ON FUNCTION update_user(uuid, text, text, text) IS
    'Changes what is given of a user; NULL leaves. With a tenant bound only the acting user, or users at home in it who rank below. Returns the id. Errors: P0002; 22023; 23505; 42501 someone else. Level app. Example: SELECT update_user(find_user(''ada@example.com''), name => ''Ada L.'');';
COMMENT ON FUNCTION delete_user(uuid) IS
    'Removes a user with memberships, the invitations that they accepted or that wait for them and what the audit log tells of them, and revokes their API keys; false when there is none. Errors: 55000 the last owner of a tenant, or not READ COMMITTED. Level operator. Example: SELECT delete_user(''8e3f5a60-0000-4000-8000-00000000000a'');';
COMMENT ON FUNCTION user_tenants(uuid) IS
    'The tenants that a user is a member of, with role and state, to choose one from before it is bound; cancelled and deleted ones are left out. With a tenant bound, no row for a user at home in another. Level app. Example: SELECT * FROM user_tenants(find_user(''ada@example.com''));';
COMMENT ON FUNCTION record_login(uuid) IS
    'Notes in last_login_at that a user has logged in now, and returns when. issue_jwt() does so too. Errors: P0002 unknown, or with a tenant bound at home in another. Level app. Example: SELECT record_login(find_user(''ada@example.com''));';
COMMENT ON FUNCTION add_member(uuid, text) IS
    'Makes a user a member of the bound tenant. Returns the user''s id. Errors: P0002 unknown user, or one of another tenant; 23505 a member already; 22023 unknown role; 42501 a role above the acting user''s, or a credential without scope tenancy:manage. Level app. Example: SELECT add_member(find_user(''ada@example.com''), ''admin'');';
COMMENT ON FUNCTION change_role(uuid, text) IS
    'Gives a member of the bound tenant another role; false when they have it. Errors: P0002 no member; 22023 unknown role; 42501 a role or member above the acting user, or a credential without scope tenancy:manage; 55000 the last owner. Level app. Example: SELECT change_role(find_user(''ada@example.com''), ''viewer'');';
COMMENT ON FUNCTION remove_member(uuid) IS
    'Ends a membership of the bound tenant and revokes the member''s API keys there; false when there was none. Errors: 42501 a member above the acting user, or a credential without scope tenancy:manage; 55000 the last owner. Level app. Example: SELECT remove_member(find_user(''ada@example.com''));';
COMMENT ON FUNCTION add_role(text, integer) IS
    'Adds a role with a rank from 1 to 99 between viewer (40), member (60), admin (80) and owner (100). Returns its name. Errors: 22023 malformed; 23505 exists. Level admin. Example: SELECT add_role(''manager'', 70);';
COMMENT ON FUNCTION remove_role(text) IS
    'Removes a role that was added. Errors: P0002 no such role; 55000 a member or an open invitation has it, or not READ COMMITTED. Level admin. Example: SELECT remove_role(''manager'');';
COMMENT ON FUNCTION current_member_role() IS
    'The role in the bound tenant of the user who acts, NULL for none. Level public. Example: SELECT current_member_role();';
COMMENT ON FUNCTION has_role(text) IS
    'Whether the user who acts has this role or one above it; false when no user is bound. Errors: 22023 unknown role. Level client. Example: SELECT has_role(''admin'');';
COMMENT ON FUNCTION require_role(text) IS
    'True when has_role(), otherwise raises 42501. Level client. Example: SELECT require_role(''admin'');';
COMMENT ON FUNCTION has_scope(text) IS
    'Whether the credential that bound the tenant has this scope, or a wildcard that includes it: workflows:* includes workflows:read, * all. False for a tenant that no credential with scopes bound. Errors: 22023 malformed. Level client. Example: SELECT has_scope(''workflows:read'');';
COMMENT ON FUNCTION require_scope(text) IS
    'True when has_scope(), otherwise raises 42501. Level client. Example: SELECT require_scope(''workflows:read'');';
COMMENT ON FUNCTION create_invitation(text, text, interval, jsonb) IS
    'Invites an e-mail address to the bound tenant: one row (invitation_id, token), and the token is never seen again. An expired invitation of the address is replaced. Errors: 23505 a live one exists, or a member has the address; 22023; 42501 a role above the acting user''s, or a credential without scope tenancy:manage. Level app. Example: SELECT token FROM create_invitation(''bob@example.com'', ''viewer'');';
COMMENT ON FUNCTION accept_invitation(text, uuid) IS
    'Makes a user a member by the token of an invitation, once, and returns the tenant; it binds nothing. Ends with the tenant, and with the inviter''s own membership or role. Errors: 28000 invalid, expired, revoked or used token; P0002 unknown user; 23505 a member already; 42501 for another than the acting user. Level client. Example: SELECT accept_invitation($1, $2);';
COMMENT ON FUNCTION revoke_invitation(uuid) IS
    'Ends an invitation of the bound tenant; false when it has ended before. Errors: P0002; 42501 its role is above the acting user''s. Level app. Example: SELECT revoke_invitation(id) FROM tenancy.invitations WHERE email = ''bob@example.com'';';
COMMENT ON FUNCTION trim_invitations(interval) IS
    'Removes the invitations that were accepted, revoked or expired longer ago than keep, and returns how many; background workers do it every hour with 30 days. Errors: 22023 negative age. Level admin. Example: SELECT trim_invitations();';
COMMENT ON FUNCTION create_api_key(text, text[], timestamp with time zone, uuid) IS
    'Makes an API key of the bound tenant: one row (key_id, api_key, key_prefix), and the key is never seen again. With user_id it acts as that member, otherwise for the tenant without a role. Errors: 22023; P0002 no member; 42501 a credential of someone not below the acting user, one of no user where they are no admin, or from a credential without scope tenancy:manage or the scopes that it asks for. Level app. Example: SELECT api_key FROM create_api_key(''ci'', ''{workflows:read}'');';
COMMENT ON FUNCTION rotate_api_key(uuid, interval, timestamp with time zone) IS
    'Replaces an API key with a new one of the same name, user, scopes and expiry (or expires_at): one row as create_api_key(). The old one ends now, or when the grace has passed, never later than it would have. Errors: P0002; 55000 revoked, rotated or expired; 42501 as create_api_key(). Level app. Example: SELECT api_key FROM rotate_api_key((SELECT id FROM tenancy.api_keys WHERE name = ''ci''), grace => ''1 day'');';
COMMENT ON FUNCTION revoke_api_key(uuid) IS
    'Ends an API key of the bound tenant, for every session at commit; false when it was revoked before. Errors: P0002; 42501 its user is above the acting user, or it has none and they are no admin. Level app. Example: SELECT revoke_api_key(id) FROM tenancy.api_keys WHERE name = ''ci'';';
COMMENT ON FUNCTION verify_api_key(text) IS
    'Who an API key is: one row (tenant_id, key_id, user_id, scopes), none when it is malformed, unknown, expired, revoked, or its tenant or member is. Binds nothing. Errors: 55000 provisioning or moving tenant. Pass the key as a parameter. Level client. Example: SELECT * FROM verify_api_key($1);';
COMMENT ON FUNCTION authenticate_api_key(text) IS
    'Binds this transaction to the tenant of an API key: one row (tenant_id, user_id, role, api_key_id, scopes). Errors: 28000 where verify_api_key() finds none; 55000 provisioning or moving tenant, or another tenant bound before; 42501 a role that bypasses row security. Pass the key as a parameter. Level client. Example: SELECT * FROM authenticate_api_key($1);';
COMMENT ON FUNCTION add_jwt_key(text, text, text, text, text, text, timestamp with time zone) IS
    'Adds a key for signed tokens of one algorithm, HS256, RS256, ES256 or EdDSA. key verifies: a secret, a public key in PEM, or a JWK; for HS256 one is made when it is NULL. private_key (PEM) signs. Tokens must name the issuer and audience if given. Returns the kid. Errors: 22023 malformed or weak key; 23505 kid taken. Pass keys as parameters. Level admin. Example: SELECT add_jwt_key(''2026-11'', ''HS256'');';
COMMENT ON FUNCTION remove_jwt_key(text) IS
    'Removes a key, and with it every token that it signed; false when there is none. Level admin. Example: SELECT remove_jwt_key(''2026-11'');';
COMMENT ON FUNCTION authenticate_jwt(text) IS
    'Binds this transaction to the tenant of a signed token: one row (tenant_id, user_id, role, api_key_id, scopes). Needs exp; checks nbf, and iss and aud as the key of its kid says. Errors: 28000 invalid, expired or revoked token, unknown tenant or user, no member; 55000 and 42501 as authenticate_api_key(). Pass the token as a parameter. Level client. Example: SELECT * FROM authenticate_jwt($1);';
COMMENT ON FUNCTION issue_jwt(uuid, interval, text[], text) IS
    'Signs a token for a member of the bound tenant with the newest key that can sign, or the one of kid, and notes the login. Scopes default to those of the principal''s own credential. Errors: P0002 no member, unknown kid; 55000 no key can sign; 22023; 42501 for someone not below the acting user, or from a credential without scope tenancy:manage or the scopes that it asks for. Level app. Example: SELECT issue_jwt(find_user(''ada@example.com''), ''15 minutes'');';
COMMENT ON FUNCTION revoke_tokens(uuid) IS
    'Ends every signed token that was issued to a user until now, in all tenants. With a tenant bound as update_user(). Errors: P0002; 42501 someone else. Level app. Example: SELECT revoke_tokens(find_user(''ada@example.com''));';
