-- As the role of migrations, in one transaction: the template for tenants that have a schema of their own.

CREATE SCHEMA crm_template AUTHORIZATION owner;
SET LOCAL ROLE owner;   -- whose all that is in a template has to be

CREATE TABLE crm_template.contacts (id serial PRIMARY KEY, name text NOT NULL, stage text NOT NULL DEFAULT 'lead');

GRANT USAGE ON SCHEMA crm_template TO app;
GRANT SELECT, INSERT, UPDATE, DELETE ON crm_template.contacts TO app;
GRANT USAGE ON SEQUENCE crm_template.contacts_id_seq TO app;
