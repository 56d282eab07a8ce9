//! An application whose tenants share tables, and what must hold of its tenants wherever they are.

use harness::*;

/// Reference rows, an enum of its own, generated and identity columns, keys of both kinds, a circle, a partitioned table, a tenant column of type
/// text, and triggers that would be seen if they fired again.
const TABLES: &str = "
CREATE TYPE mood AS ENUM ('glad', 'sad');
CREATE DOMAIN percent AS integer CHECK (VALUE BETWEEN 0 AND 100);
CREATE TABLE stages (id integer PRIMARY KEY, name text NOT NULL UNIQUE);
INSERT INTO stages VALUES (1, 'new'), (2, 'won'), (3, 'lost');
CREATE TABLE accounts (
    tenant_id uuid NOT NULL,
    id bigint GENERATED ALWAYS AS IDENTITY,
    name text NOT NULL,
    name_length integer GENERATED ALWAYS AS (length(name)) STORED,
    stage integer NOT NULL DEFAULT 1 REFERENCES stages,
    mood mood DEFAULT 'glad',
    share percent DEFAULT 10,
    parent bigint,
    balance numeric NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, name),
    FOREIGN KEY (tenant_id, parent) REFERENCES accounts ON DELETE SET NULL (parent)
);
CREATE TABLE entries (
    id bigserial,
    tenant_id uuid NOT NULL,
    account bigint NOT NULL,
    amount numeric NOT NULL,
    made_at timestamptz NOT NULL DEFAULT now(),
    data jsonb,
    tags text[],
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, account) REFERENCES accounts ON DELETE CASCADE
);
CREATE INDEX entries_account ON entries (tenant_id, account);
CREATE TABLE events (tenant_id uuid NOT NULL, at date NOT NULL, what text, raw bytea) PARTITION BY RANGE (at);
CREATE TABLE events_2025 PARTITION OF events FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE TABLE events_later PARTITION OF events DEFAULT;
CREATE TABLE log (tenant text NOT NULL, line text NOT NULL);
CREATE FUNCTION add_up() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE accounts SET balance = balance + NEW.amount WHERE id = NEW.account;
    RETURN NEW;
END $$;
CREATE TRIGGER add_up AFTER INSERT ON entries FOR EACH ROW EXECUTE FUNCTION add_up();
CREATE FUNCTION write_down() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO log (line) VALUES (TG_OP || ' ' || coalesce(OLD.name, NEW.name));
    RETURN coalesce(NEW, OLD);
END $$;
CREATE TRIGGER write_down AFTER INSERT OR DELETE ON accounts FOR EACH ROW EXECUTE FUNCTION write_down();
CREATE VIEW rich WITH (security_invoker = true) AS SELECT name FROM accounts WHERE balance > 100;
CREATE FUNCTION how_many() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT count(*) FROM accounts';
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO app, client;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO app, client;
";

/// The tables, as (name, tenant column).
pub const SHARED: [(&str, &str); 4] =
    [("accounts", "tenant_id"), ("entries", "tenant_id"), ("events", "tenant_id"), ("log", "tenant")];

/// What a tenant sees of its tables: every row as text, in order.
const CONTENT: &str = "
SELECT 'accounts', to_jsonb(t)::text FROM accounts t UNION ALL SELECT 'entries', to_jsonb(t)::text FROM entries t
UNION ALL SELECT 'events', to_jsonb(t)::text FROM events t UNION ALL SELECT 'log', to_jsonb(t)::text FROM log t
UNION ALL SELECT 'rich', to_jsonb(t)::text FROM rich t UNION ALL SELECT 'how_many', how_many()::text
ORDER BY 1, 2";

/// The application in a database of its own.
pub struct House {
    pub database: Database,
}

impl House {
    /// With the template `grown` of its tables.
    pub fn new(label: &str) -> House {
        let house = House::without_template(Database::new(label));
        house.derive();
        house
    }

    #[track_caller]
    pub fn derive(&self) {
        one::<String>(&mut self.connect("admin"), "SELECT derive_template('grown', 'public')", &[]);
    }

    pub fn without_template(database: Database) -> House {
        database.connect("owner").batch_execute(TABLES).expect("make the tables");
        let mut admin = database.connect("admin");
        for (table, column) in SHARED {
            let protect = "SELECT protect_table($1::text::regclass, $2::text::name)";
            one::<bool>(&mut admin, protect, &[&table, &column]);
        }
        House { database }
    }

    #[track_caller]
    pub fn connect(&self, role: &str) -> Client {
        self.database.connect(role)
    }

    #[track_caller]
    pub fn superuser(&self) -> Client {
        self.database.superuser()
    }

    /// A tenant of the shared tables with so many accounts, each with two entries and an event.
    #[track_caller]
    pub fn tenant(&self, slug: &str, accounts: i32) -> Uuid {
        let create = "SELECT create_tenant($1, slug => $1, isolation => 'row')";
        let tenant = one(&mut self.connect("operator"), create, &[&slug]);
        self.fill(tenant, accounts);
        tenant
    }

    #[track_caller]
    pub fn fill(&self, tenant: Uuid, accounts: i32) {
        as_tenant(&mut self.connect("app"), tenant, |app| {
            let fill = format!(
                "INSERT INTO accounts (name, mood, stage, share)
                    SELECT 'account ' || n || ' ''\\\t\n', CASE WHEN n % 2 = 0 THEN 'sad'::mood END, 1 + n % 3, n % 100 FROM generate_series(1, {accounts}) n;
                 UPDATE accounts a SET parent = (SELECT min(id) FROM accounts) WHERE id % 3 = 0;
                 INSERT INTO entries (account, amount, data, tags)
                    SELECT a.id, 0.1 + n * 60, jsonb_build_object('n', n, 'x', 1e400::numeric), ARRAY['a', NULL, 'b \"c\"'] FROM accounts a, generate_series(1, 2) n;
                 INSERT INTO events (at, what, raw) SELECT date '2025-12-31' + (id % 2)::integer, name, decode('00ff', 'hex') FROM accounts;"
            );
            app.batch_execute(&fill).expect("fill");
        });
    }

    /// A session where the tenant's tables are.
    #[track_caller]
    pub fn connect_to(&self, tenant: Uuid, role: &str) -> Client {
        let name = "SELECT coalesce(database_name, current_database())::text FROM tenancy.tenants WHERE id = $1";
        let name: String = one(&mut self.superuser(), name, &[&tenant]);
        self.database.server().config(&name, role).connect(postgres::NoTls).expect("connect to the tenant's database")
    }

    /// What the tenant sees.
    #[track_caller]
    pub fn content(&self, tenant: Uuid) -> Vec<Vec<Option<String>>> {
        as_tenant(&mut self.connect_to(tenant, "app"), tenant, |app| simple(app, CONTENT))
    }

    #[track_caller]
    pub fn move_to(&self, tenant: Uuid, isolation: &str) {
        self.try_move(tenant, isolation).expect("move");
    }

    pub fn try_move(&self, tenant: Uuid, isolation: &str) -> Result<(), postgres::Error> {
        self.connect("admin").batch_execute(&format!("CALL move_tenant('{tenant}', '{isolation}')"))
    }

    /// The tenant's rows in the shared tables, whoever may see them.
    #[track_caller]
    pub fn shared_rows(&self, tenant: Uuid) -> i64 {
        let counts = SHARED
            .map(|(table, column)| format!("(SELECT count(*) FROM {table} WHERE {column}::text = '{tenant}')"))
            .join(" + ");
        one(&mut self.superuser(), &format!("SELECT {counts}"), &[])
    }

    /// Isolation, state, schema and what is left of the tenant.
    #[track_caller]
    pub fn place(&self, tenant: Uuid) -> String {
        let place = "SELECT concat_ws(' ', isolation, status, schema_name, 'left ' || moved_from) FROM tenancy.tenants WHERE id = $1";
        one(&mut self.superuser(), place, &[&tenant])
    }

    /// The phases of the tenant's moves, the first one first.
    #[track_caller]
    pub fn phases(&self, tenant: Uuid) -> String {
        let phases =
            "SELECT coalesce(string_agg(phase, ' ' ORDER BY started_at), '') FROM tenancy.moves WHERE tenant_id = $1";
        one(&mut self.superuser(), phases, &[&tenant])
    }

    /// Fails unless there is nothing half done: no tenant is moving, nothing is left anywhere, and no schema is nobody's.
    #[track_caller]
    pub fn assert_settled(&self) {
        let mut superuser = self.superuser();
        for (what, query) in [
            ("moving", "SELECT slug FROM tenancy.tenants WHERE status = 'moving' OR moved_from IS NOT NULL"),
            ("unfinished", "SELECT tenant_id::text FROM tenancy.moves WHERE finished_at IS NULL"),
            (
                "a schema of nobody",
                "SELECT nspname FROM pg_namespace n WHERE nspname LIKE 'tenant\\_%' AND NOT EXISTS (SELECT FROM tenancy.tenants t WHERE t.schema_name = n.nspname AND t.isolation = 'schema')",
            ),
            ("moved", "SELECT label FROM pg_seclabel WHERE label LIKE 'moved: %'"),
            (
                "a database of nobody",
                "SELECT datname FROM pg_database b JOIN pg_shseclabel l ON l.objoid = b.oid AND l.classoid = 'pg_database'::regclass
                    WHERE l.label LIKE '% of ' || current_database() AND NOT EXISTS (SELECT FROM tenancy.tenants t WHERE t.database_name = b.datname)",
            ),
            (
                "a database that is to be",
                "SELECT database_name::text FROM tenancy.tenant_databases d WHERE phase <> 'ready' OR NOT EXISTS (SELECT FROM tenancy.tenants t
                    WHERE t.id = d.tenant_id AND t.database_name = d.database_name)",
            ),
            (
                "versions of no schema",
                "SELECT version FROM tenancy.applied_migrations a JOIN tenancy.tenants t ON t.id = a.tenant_id WHERE t.isolation = 'row'",
            ),
            (
                "rows in two places",
                "SELECT t.slug FROM tenancy.tenants t WHERE isolation <> 'row' AND EXISTS (SELECT FROM accounts a WHERE a.tenant_id = t.id)",
            ),
        ] {
            let found: Vec<Vec<Option<String>>> = simple(&mut superuser, query);
            assert!(found.is_empty(), "{what}: {found:?}");
        }
    }
}
