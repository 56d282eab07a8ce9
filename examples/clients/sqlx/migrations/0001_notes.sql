-- By the migrator. Row security without a policy keeps the new table closed until protect_table() adds one.
CREATE TABLE notes (
    tenant_id   uuid NOT NULL,
    id          uuid NOT NULL DEFAULT gen_random_uuid(),
    workflow_id uuid NOT NULL,
    body        text NOT NULL,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, workflow_id) REFERENCES workflows (tenant_id, id) ON DELETE CASCADE
);
ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
ALTER TABLE notes OWNER TO owner;
GRANT SELECT, INSERT, UPDATE, DELETE ON notes TO app;

-- A column more in a protected table, and its value for every tenant at once.
ALTER TABLE workflows ADD COLUMN priority integer;
UPDATE workflows SET priority = 3;
ALTER TABLE workflows ALTER COLUMN priority SET DEFAULT 3, ALTER COLUMN priority SET NOT NULL;

-- Where a bulk load arrives.
CREATE UNLOGGED TABLE agents_import (name text NOT NULL);
ALTER TABLE agents_import OWNER TO owner;
GRANT SELECT, INSERT, DELETE ON agents_import TO app;
