-- As an operator: a tenant with its schema and its first user, all or nothing. Variables: name, subdomain, metadata; email,
-- password, first, last of its administrator. Sets tenant.
BEGIN;
SELECT create_tenant(:'name', slug => :'subdomain', isolation => 'schema', template => 'crm', metadata => :'metadata') AS tenant \gset
SELECT set_tenant(:'tenant') \g /dev/null
INSERT INTO users (email, password_hash, first_name, last_name, role, email_verified)
VALUES (:'email', crypt(:'password', gen_salt('bf', 6)), :'first', :'last', 'admin', true);
COMMIT;
