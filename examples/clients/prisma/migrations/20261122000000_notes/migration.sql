-- As the role of migrations, in one transaction.

CREATE TABLE agent_platform.notes (
    tenant_id   uuid NOT NULL,
    id          uuid NOT NULL DEFAULT gen_random_uuid(),
    workflow_id uuid NOT NULL,
    body        text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, workflow_id) REFERENCES agent_platform.workflows (tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX ON agent_platform.notes (tenant_id, workflow_id);
ALTER TABLE agent_platform.notes ENABLE ROW LEVEL SECURITY;     -- closed until admin.sql protects it

-- Every tenant's users at once, which this role may do.
ALTER TABLE agent_platform.users ADD COLUMN display_name text;
UPDATE agent_platform.users SET display_name = initcap(split_part(email, '@', 1));
ALTER TABLE agent_platform.users ALTER COLUMN display_name SET NOT NULL;

-- Where COPY goes, which PostgreSQL refuses under row security: no tenant column, no protection, and no rows outside of a transaction.
CREATE UNLOGGED TABLE agent_platform.agents_import (name text NOT NULL, config jsonb NOT NULL);

ALTER TABLE agent_platform.notes OWNER TO owner;
ALTER TABLE agent_platform.agents_import OWNER TO owner;
GRANT SELECT, INSERT, UPDATE, DELETE ON agent_platform.notes TO app;
GRANT SELECT, INSERT, UPDATE ON agent_platform.notes TO client;
GRANT SELECT, INSERT, DELETE ON agent_platform.agents_import TO app;
