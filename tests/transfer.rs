//! A tenant's way out of the database and into another: `export_tenant` and `import_tenant`.

mod beside;
mod database;
mod hostile;
mod import;
mod purged;
mod round_trip;
mod tools;

use harness::*;

/// What `export_tenant` gives: number, kind, name and data.
pub type Record = (i64, String, String, String);

/// Tables that tenants share, with what a transfer can lose: keys that are unique over all tenants and keys that are not, references in all
/// directions, triggers, values that are hard to write.
pub const SHOP: &str = r#"
CREATE SCHEMA shop AUTHORIZATION owner;
GRANT USAGE ON SCHEMA shop TO app, admin;
SET ROLE owner;
SET search_path = shop, public;
CREATE TYPE state AS ENUM ('new', 'paid');
CREATE TABLE countries (code text PRIMARY KEY);
INSERT INTO countries VALUES ('CH'), ('DE');
CREATE TABLE fired (what text);
CREATE TABLE customers (tenant_id uuid NOT NULL, id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL,
    parent bigint REFERENCES customers, country text REFERENCES countries, UNIQUE (tenant_id, name));
CREATE TABLE orders (tenant_id uuid NOT NULL, id uuid DEFAULT gen_random_uuid() PRIMARY KEY, customer bigint NOT NULL REFERENCES customers ON DELETE CASCADE,
    state state NOT NULL DEFAULT 'new', amount numeric CHECK (amount > 0), twice numeric GENERATED ALWAYS AS (amount * 2) STORED, at timestamptz,
    note text, extra jsonb, raw bytea, tags text[], ratio float8, span interval);
CREATE TABLE lines (tenant_id uuid NOT NULL, of_order uuid NOT NULL REFERENCES orders, n int NOT NULL, what text, PRIMARY KEY (tenant_id, of_order, n));
CREATE TABLE bills (tenant_id uuid NOT NULL, id uuid PRIMARY KEY REFERENCES orders, no serial UNIQUE, first_line int,
    FOREIGN KEY (tenant_id, id, first_line) REFERENCES lines (tenant_id, of_order, n) DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE teams (tenant_id uuid NOT NULL, id int NOT NULL, lead int, PRIMARY KEY (tenant_id, id));
CREATE TABLE people (tenant_id uuid NOT NULL, id int NOT NULL, team int, PRIMARY KEY (tenant_id, id), FOREIGN KEY (tenant_id, team) REFERENCES teams);
ALTER TABLE teams ADD FOREIGN KEY (tenant_id, lead) REFERENCES people;
CREATE TABLE events (tenant_id uuid NOT NULL, day date NOT NULL, n int NOT NULL, PRIMARY KEY (tenant_id, day, n)) PARTITION BY RANGE (day);
CREATE TABLE events_old PARTITION OF events FOR VALUES FROM ('2020-01-01') TO ('2026-01-01');
CREATE TABLE events_new PARTITION OF events DEFAULT;
CREATE TABLE "Odd "" Names" ("Te'nant" varchar(40) NOT NULL, "va\lue" text);
CREATE FUNCTION fire() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO shop.fired VALUES (TG_OP); NEW.name := NEW.name || ''!''; RETURN NEW; END';
GRANT ALL ON ALL TABLES IN SCHEMA shop TO app;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA shop TO app;
RESET ROLE;
SELECT protect_table(t::regclass) FROM unnest('{customers,orders,lines,bills,teams,people,events}'::text[]) AS t;
SELECT protect_table('"Odd "" Names"', 'Te''nant');
RESET search_path;
"#;

/// A trigger that changes rows, once those that are to be loaded are there.
pub const TRIGGER: &str = "SET ROLE owner; CREATE TRIGGER fire BEFORE INSERT OR UPDATE ON shop.customers FOR EACH ROW EXECUTE FUNCTION shop.fire(); RESET ROLE";

/// Rows of the bound tenant.
pub const FILL: &str = r#"
SET LOCAL search_path = shop, public;
INSERT INTO customers (name, country) SELECT 'customer ' || i, CASE WHEN i % 2 = 0 THEN 'CH' END FROM generate_series(1, 50) AS i;
UPDATE customers c SET parent = (SELECT min(id) FROM customers) WHERE name LIKE '%7';
INSERT INTO customers (name) VALUES (E'tab\there, line\nthere, \\N, \\., \\\\, "quotes'' ünïcödé \u202e 🙂'), (''), (E'\\.'), (E'\\N');
INSERT INTO orders (customer, amount, state, at, note, extra, raw, tags, ratio, span)
    SELECT id, 1 + id % 7 + 0.10, CASE WHEN id % 3 = 0 THEN 'paid'::state ELSE 'new' END, timestamptz '2026-03-29 01:30:00+00' + id * interval '1 minute',
           repeat('x', (id % 5 * 700)::int), '{"ring": [0, "ü''\\", 12345678901234567890.123456789]}', '\x00ff5c0a', ARRAY['a', NULL, E'b\t"c\\'],
           id / 3.0::float8, interval '1 mon 2 days 03:04:05.6' FROM customers;
INSERT INTO lines (of_order, n, what) SELECT id, n, 'line ' || n FROM orders, generate_series(1, 3) AS n;
INSERT INTO bills (id, first_line) SELECT id, 1 FROM orders WHERE state = 'paid';
INSERT INTO teams (id) VALUES (1), (2);
INSERT INTO people (id, team) VALUES (1, 1), (2, 1), (3, 2);
UPDATE teams SET lead = id;
INSERT INTO events (day, n) SELECT date '2025-12-20' + n, n FROM generate_series(1, 30) AS n;
INSERT INTO "Odd "" Names" ("va\lue") VALUES ('one'), (NULL), ('one');
"#;

/// A database of a cluster, with the shop.
pub fn shop(cluster: &Cluster, label: &str) -> Database {
    let database = cluster.database(label);
    database.superuser().batch_execute(SHOP).unwrap_or_else(|error| panic!("{error:?}"));
    database
}

/// A tenant in the shared tables, with rows.
pub fn filled(database: &Database, slug: &str) -> Uuid {
    let tenant = one(&mut database.connect("operator"), "SELECT create_tenant($1, slug => $1)", &[&slug]);
    as_tenant(&mut database.connect("app"), tenant, |tx| {
        tx.batch_execute(FILL).unwrap_or_else(|error| panic!("{error:?}"));
    });
    tenant
}

#[track_caller]
pub fn export(database: &Database, tenant: Uuid) -> Vec<Record> {
    const EXPORT: &str = "SELECT seq, kind, name, data FROM export_tenant($1) ORDER BY seq";
    let rows = rows(&mut database.connect("admin"), EXPORT, &[&tenant]);
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3))).collect()
}

/// Puts records into the table `export` of a database, which a role of level admin owns.
#[track_caller]
pub fn store(database: &Database, records: &[Record]) {
    let mut superuser = database.superuser();
    superuser
        .batch_execute("DROP TABLE IF EXISTS export; CREATE TABLE export (seq bigint, kind text, name text, data text); ALTER TABLE export OWNER TO admin")
        .expect("make the table");
    let numbers: Vec<i64> = records.iter().map(|record| record.0).collect();
    let texts = |text: fn(&Record) -> &str| records.iter().map(text).collect::<Vec<&str>>();
    let (kinds, names, data) = (texts(|record| &record.1), texts(|record| &record.2), texts(|record| &record.3));
    superuser
        .execute(
            "INSERT INTO export SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[])",
            &[&numbers, &kinds, &names, &data],
        )
        .expect("store an export");
}

/// Loads records by a call of import_tenant() with further arguments.
pub fn import(database: &Database, records: &[Record], arguments: &str) -> Result<(), postgres::Error> {
    store(database, records);
    let call = format!("CALL import_tenant('export'{}{arguments})", if arguments.is_empty() { "" } else { ", " });
    database.connect("admin").batch_execute(&call)
}

/// What every table of the shop has of a tenant, or with None of all, as one text.
pub fn picture(database: &Database, tenant: Option<Uuid>) -> String {
    const TABLES: &str =
        "SELECT p.table_name::regclass::text, quote_ident(p.tenant_column) FROM tenancy.protected_tables p
        JOIN pg_class c ON c.oid = p.table_name WHERE NOT c.relispartition ORDER BY 1";
    let mut superuser = database.superuser();
    superuser.batch_execute("SET timezone = 'UTC'; SET bytea_output = hex").expect("set");
    let tables = rows(&mut superuser, TABLES, &[]);
    let parts = tables.iter().map(|table| {
        let (table, column): (String, String) = (table.get(0), table.get(1));
        let condition = tenant.map(|tenant| format!("WHERE {column} = '{tenant}'")).unwrap_or_default();
        let name = table.replace('\'', "''");
        format!("'{name}', (SELECT string_agg(t::text, E'\\n' ORDER BY t::text COLLATE \"C\") FROM {table} AS t {condition})")
    });
    let sql = format!("SELECT concat_ws(E'\\n', {})", parts.collect::<Vec<_>>().join(", "));
    one(&mut superuser, &sql, &[])
}

/// How many rows are somewhere that an import that failed must not leave: all tables of the product and of the shop.
pub fn traces(database: &Database) -> String {
    const TABLES: &str = "SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname IN ('tenancy', 'tenancy_archive', 'shop') AND c.relkind = 'r' ORDER BY 1";
    let mut superuser = database.superuser();
    let tables: Vec<String> = rows(&mut superuser, TABLES, &[]).iter().map(|row| row.get(0)).collect();
    let counts = tables.iter().map(|table| format!("'{table} ' || (SELECT count(*) FROM {table})"));
    one(&mut superuser, &format!("SELECT concat_ws(E'\\n', {})", counts.collect::<Vec<_>>().join(", ")), &[])
}
