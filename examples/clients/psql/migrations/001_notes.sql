-- Connect as the migrator. The admin protects the new tables; nobody else is granted anything before.
\getenv app_url APP_URL
\getenv admin_url ADMIN_URL
\getenv migrator_url MIGRATOR_URL
SELECT pg_get_userbyid(nspowner) AS owner FROM pg_namespace WHERE nspname = 'agent_platform' \gset

BEGIN;
CREATE TABLE notes (
    tenant_id   uuid NOT NULL,
    id          uuid NOT NULL DEFAULT gen_random_uuid(),
    workflow_id uuid NOT NULL,
    body        text NOT NULL,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, workflow_id) REFERENCES workflows (tenant_id, id) ON DELETE CASCADE
);
ALTER TABLE notes OWNER TO :"owner";
-- A column more, and its value for all tenants at once.
ALTER TABLE workflows ADD COLUMN priority integer;
UPDATE workflows SET priority = 3;
ALTER TABLE workflows ALTER COLUMN priority SET DEFAULT 3, ALTER COLUMN priority SET NOT NULL;
-- Where a bulk load arrives: not protected, and emptied in the transaction that fills it.
CREATE UNLOGGED TABLE agents_import (name text NOT NULL);
ALTER TABLE agents_import OWNER TO :"owner";
COMMIT;

\connect :app_url
SELECT current_user AS app \gset
\connect :admin_url
SELECT protect_table('notes') \g /dev/null

\connect :migrator_url
GRANT SELECT, INSERT, UPDATE, DELETE ON notes, agents_import TO :"app";
